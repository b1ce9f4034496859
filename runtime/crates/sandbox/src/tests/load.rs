//! Components that are rejected when they are loaded.

use super::*;

#[tokio::test]
async fn imports_without_a_grant_are_reported_at_load() {
    let harness = Harness::new();
    let imports = r#"(import "wasi:keyvalue/store@0.2.0-draft" (instance)) (import "acme:thing/api" (instance))"#;
    let error = harness.refused(Guest { imports, ..guest(OK) }.wat()).await;
    let lines: Vec<_> = error.lines().collect();
    assert!(lines[0].ends_with("guest.wat has imports that are not granted:"), "{error}");
    assert!(lines[1].starts_with("  `wasi:keyvalue/store@0.2.0-draft`: state must be granted"), "{error}");
    assert!(lines[2].starts_with("  `acme:thing/api`: nothing provides it"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_not_a_function_is_rejected_with_the_reason() {
    let harness = Harness::new();
    for (component, reason) in [
        (&b"\0asm\x01\0\0\0"[..], "is a core module without `_start`, so it is not a program"),
        (b" (module)", "is a core module without `_start`, so it is not a program"),
        (b"\0asm\x02\0\0\0", "has an unknown WebAssembly version"),
        (b"\x7fELF\0\0\0\0\0\0", "is not WebAssembly"),
        (b"", "is not WebAssembly"),
        // A component with one module whose header declares 1,000,000 functions.
        (b"\0asm\x0d\0\x01\0\x01\x0d\0asm\x01\0\0\0\x03\x03\xc0\x84\x3d", "has 1000000 functions; the limit is 100000"),
        (b"(component (core module $m) (core", "is not a valid component"),
        (
            b"(component)",
            "exports nothing; a function must export evoke:function/handler@0.1.0, wasi:http/incoming-handler@0.2 or wasi:cli/run@0.2",
        ),
    ] {
        let error = harness.refused(component).await;
        assert!(error.contains(reason), "{error}");
    }
    let other = Spec { digest: Some("00".repeat(32)), ..harness.spec("(component)") };
    assert!(matches!(harness.sandbox.load(&other).await, Err(LoadError::Digest { .. })));
    let missing = Spec { component: "/nowhere/x.wasm".into(), ..harness.spec("") };
    assert!(matches!(harness.sandbox.load(&missing).await, Err(LoadError::Read { .. })));
}

#[test]
fn secrets_are_not_in_debug_output() {
    let secrets = secrets(&[("API_KEY", "hunter2")]);
    let shown =
        format!("{:?} {secrets:?} {:?}", Grants { secrets: secrets.clone(), ..Grants::default() }, secrets.redactor());
    assert!(shown.contains("API_KEY") && !shown.contains("hunter2"), "{shown}");
    assert_eq!(format!("{:?}", Secret::from("hunter2".to_owned())), "[secret]");
}

/// The types and the call of a guest that calls through a declared supertype.
const SUBTYPE_CALL: &str = "(rec (type $a (sub (func))) (type $b (sub $a (func))))
    (func $x (type $b)) (table $t funcref (elem $x))";

#[tokio::test]
async fn a_component_that_needs_an_unsupported_proposal_is_rejected_by_its_name() {
    let harness = Harness::new();
    let call = format!("(call_indirect $t (type $a) (i32.const 0)) {OK}");
    let guest = guest_with(SUBTYPE_CALL, &call).wat();
    let module = format!(r#"(module {SUBTYPE_CALL} (memory (export "memory") 1) (func (export "_start")))"#);
    for component in [guest, module] {
        let error = harness.refused(&component).await;
        assert!(
            error.contains("guest.wat needs the WebAssembly proposal `gc`, which Evoke does not support"),
            "{error}"
        );
        let error = inspect(&harness.spec(&component).component, Compiler::in_process()).unwrap_err().to_string();
        assert!(error.contains("guest.wat needs the WebAssembly proposal `gc`"), "{error}");
    }
}
