//! Components that take long to compile at a start: the start accepts events meanwhile, and each function runs as soon
//! as its component is compiled.

use serde_json::json;

use super::{bombs, compilers, write};
use crate::assert_eventually;
use crate::support::{Evoke, components, request};

const MANIFEST: &str = "\
evoke: 1
app: lab
sources:
  in:
    http: { path: /in, type: lab.in }
functions:
  quick:
    component: $FUNCTIONS/echo.wasm
    allow: { publish: [echo] }
    on:
      - events: { type: [lab.in] }
  late:
    component: late.wasm
    allow: { publish: [echo] }
    on:
      - events: { type: [lab.in] }
  page:
    component: page.wasm
    on:
      - http: { path: /page, methods: [GET] }
  away:
    deliver: { url: 'http://127.0.0.1:1/away', addresses: [127.0.0.1] }
    on:
      - events: { type: [lab.away] }
";

/// A component of the tests, with a part that is not used and that is compiled too.
fn with_unused(component: &str, unused: &[u8]) -> Vec<u8> {
    let component = std::fs::read(components().join(component)).unwrap();
    // Both start with 8 bytes that only say that they are components.
    [component, unused[8..].to_vec()].concat()
}

/// Takes seconds to compile.
fn seconds() -> Vec<u8> {
    bombs::locals_and_loops(150, 200)
}

/// A start whose functions `late` and `page` are still being compiled.
fn starting(late: &[u8], page: &[u8], arguments: &[&str]) -> Evoke {
    let mut evoke = Evoke::with(MANIFEST);
    write(&evoke, "late.wasm", &with_unused("echo.wasm", late));
    write(&evoke, "page.wasm", &with_unused("http-hello.wasm", page));
    evoke.start(arguments);
    evoke.await_listening();
    evoke
}

#[test]
fn events_and_requests_are_accepted_and_wait_for_the_component() {
    let mut evoke = starting(&seconds(), &seconds(), &[]);
    evoke.post_accepted("/in", "{}");
    // The two components were still being compiled when the event was accepted.
    let log = evoke.log();
    assert!(!log.contains("compiled lab/late") && !log.contains(" ready "), "{log}");
    assert_eventually!(evoke.log().contains("compiling lab/late, lab/page"), "{}", evoke.log());

    // Events can be sent here, but requests of functions would wait.
    let ready = evoke.get_admin("/readyz", &[]);
    let is_starting = ready.status == 503 && ready.body.contains("lab/page, which handles requests, is being compiled");
    assert!(ready.status == 200 || is_starting, "{ready:?}");

    let page = request("GET", evoke.http(), "/page", &[], "").unwrap();
    let is_late = page.status == 503 && page.body.contains("is still being compiled");
    assert!(page.status == 200 || is_late, "{page:?}");
    assert_eventually!(evoke.log().contains(" ready "), "{}", evoke.log());
    assert!(evoke.log().contains("compiled lab/late in ") && evoke.log().contains("compiled lab/page in "));
    let page = request("GET", evoke.http(), "/page", &[], "").unwrap();
    assert_eq!((page.status, page.body.as_str()), (200, "hello"));
    assert_eq!(evoke.get_admin("/readyz", &[]).status, 200);
    assert_eventually!(evoke.done_count("lab/late") == 1 && evoke.done_count("lab/quick") == 1, "{}", evoke.log());
    assert!(evoke.function_status("lab/late")["compiling"].is_null());

    // The next start finds both in the cache.
    assert!(evoke.stop().success(), "{}", evoke.log());
    let before = evoke.log().len();
    evoke.up();
    assert!(!evoke.log()[before..].contains("compil"), "{}", evoke.log());
}

#[test]
fn a_function_that_is_being_compiled_is_shown_and_can_be_paused_and_a_stop_ends_its_compiler() {
    let slow = super::slow();
    let arguments = ["--compile-memory", "8GiB", "--compile-time", "10m"];
    let mut evoke = starting(&slow, &slow, &arguments);
    evoke.post_accepted("/in", "{}");
    assert_eventually!(evoke.done_count("lab/quick") == 1, "{}", evoke.log());
    let late = evoke.function_status("lab/late");
    assert_eq!((&late["compiling"], &late["ready"], &late["done"]), (&json!(true), &json!(1), &json!(0)));
    assert!(evoke.stdout(&["status"]).contains("lab/late is being compiled; its events and requests wait"));
    assert_eq!(evoke.json_lines(&["pending", "list"])[0]["held"], "compiling");
    assert!(evoke.stdout(&["pause", "lab/late"]).contains("lab/late paused"));
    assert_eq!(evoke.json_lines(&["pending", "list"])[0]["held"], "paused");
    assert!(evoke.stdout(&["resume", "lab/late"]).contains("lab/late"));

    assert_eq!(evoke.get_admin("/readyz", &[]).status, 503);

    // A request that waits for the component ends with the process.
    let (compiler, address) = (compilers(evoke.pid())[0], evoke.http().to_owned());
    let page = std::thread::spawn(move || request("GET", &address, "/page", &[], ""));
    assert!(evoke.stop().success(), "{}", evoke.log());
    if let Ok(page) = page.join().unwrap() {
        assert!(page.status == 503 && page.body.contains("is still being compiled"), "{page:?}");
    }
    let state = || std::fs::read_to_string(format!("/proc/{compiler}/stat")).unwrap_or_default();
    assert_eventually!(state().is_empty() || state().contains(") Z "), "the compiler outlives its parent");
    // The event is still there.
    std::fs::copy(components().join("echo.wasm"), evoke.path("late.wasm")).unwrap();
    std::fs::copy(components().join("http-hello.wasm"), evoke.path("page.wasm")).unwrap();
    evoke.up();
    assert_eventually!(evoke.done_count("lab/late") == 1, "{}", evoke.log());
}

#[test]
fn a_component_that_is_refused_after_the_start_ends_the_process_and_keeps_the_events() {
    let mut evoke = Evoke::with(MANIFEST);
    write(&evoke, "late.wasm", &with_unused("echo.wasm", &super::slow()));
    std::fs::copy(components().join("http-hello.wasm"), evoke.path("page.wasm")).unwrap();
    evoke.start(&["--compile-memory", "8GiB", "--compile-time", "3s"]);
    evoke.await_listening();
    evoke.post_accepted("/in", "{}");
    assert_eq!(evoke.wait().code(), Some(1), "{}", evoke.log());
    let log = evoke.log();
    assert!(log.contains("late.wasm takes more than 3 s of processor time to compile"), "{log}");
    assert!(log.contains("evoke.yaml:13:16") && log.contains("--compile-time"), "{log}");

    std::fs::copy(components().join("echo.wasm"), evoke.path("late.wasm")).unwrap();
    evoke.up();
    assert_eventually!(evoke.done_count("lab/late") == 1 && evoke.done_count("lab/quick") == 1, "{}", evoke.log());
}

#[test]
fn a_rename_waits_for_all_components_so_that_a_refused_one_changes_nothing() {
    let before =
        MANIFEST.replace("  late:\n    component: late.wasm", "  before:\n    component: $FUNCTIONS/echo.wasm");
    let mut evoke = Evoke::with(&before);
    std::fs::copy(components().join("http-hello.wasm"), evoke.path("page.wasm")).unwrap();
    evoke.up();
    evoke.post_accepted("/in", "{}");
    assert_eventually!(evoke.done_count("lab/before") == 1, "{}", evoke.log());
    assert!(evoke.stop().success());

    write(&evoke, "late.wasm", &with_unused("echo.wasm", &super::slow()));
    evoke.write_manifest(&MANIFEST.replace("  late:\n", "  late:\n    was: [before]\n"));
    let first = evoke.log().len();
    evoke.try_up(&["--compile-memory", "8GiB", "--compile-time", "3s"], &[]).unwrap_err();
    assert!(!evoke.log()[first..].contains("listening"), "{}", evoke.log());
    evoke.write_manifest(&before);
    evoke.up();
    assert_eq!(evoke.done_count("lab/before"), 1);
}

#[test]
fn a_start_with_a_suspect_compiles_first() {
    let slow = super::slow();
    let mut evoke = Evoke::with(&MANIFEST.replace("echo.wasm", "fate-sleep.wasm"));
    write(&evoke, "late.wasm", &with_unused("echo.wasm", &slow));
    std::fs::copy(components().join("http-hello.wasm"), evoke.path("page.wasm")).unwrap();
    evoke.start(&["--compile-memory", "8GiB", "--compile-time", "10m"]);
    evoke.await_listening();
    evoke.post_accepted("/in", "{}");
    assert_eventually!(evoke.function_status("lab/quick")["running"] == 1, "{}", evoke.log());
    evoke.kill();

    write(&evoke, "late.wasm", &with_unused("echo.wasm", &seconds()));
    let before = evoke.log().len();
    evoke.up();
    let log = evoke.log();
    assert!(log[before..].contains("lab/late") && !log[before..].contains("compiling lab/late"), "{log}");
    assert_eventually!(evoke.done_count("lab/late") == 1, "{}", evoke.log());
}

#[test]
fn a_request_handler_with_triggers_for_events_is_refused_before_events_are_accepted() {
    let mut evoke =
        Evoke::with(&MANIFEST.replace("http: { path: /page, methods: [GET] }", "events: { type: [lab.in] }"));
    std::fs::copy(components().join("echo.wasm"), evoke.path("late.wasm")).unwrap();
    write(&evoke, "page.wasm", &with_unused("http-hello.wasm", &seconds()));
    evoke.try_up(&[], &[]).unwrap_err();
    let log = evoke.log();
    assert!(log.contains("handles HTTP requests") && !log.contains("listening"), "{log}");
}
