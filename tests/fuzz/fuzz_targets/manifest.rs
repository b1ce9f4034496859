//! Loads manifests from arbitrary text. No input panics, every error has a position within the text and can be rendered,
//! and an accepted manifest uses only keys that the JSON schema has.
#![no_main]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use evoke_http::source::HttpKind;
use evoke_manifest::{Diagnostics, Registry, SourceKind, load_str, requested_keys, schema};
use evoke_sources::files::FilesKind;
use evoke_sources::timer::TimerKind;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// Components in the manifests are searched here: the folder has the components that the golden manifests name.
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/fuzzed.yaml");
/// Limit on all diagnostics of one manifest in one form, in bytes.
const RENDERED_MAX: usize = 4 << 20;

/// The kinds of sources that `runtime/src/control/kinds.rs` lists.
fn kinds() -> Registry {
    Registry::new([&HttpKind as &'static dyn SourceKind, &FilesKind, &TimerKind])
}

/// The keys of the JSON schema, of all its types.
static KEYS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let schema: Value = serde_json::from_str(&schema::render(&kinds())).expect("the schema is JSON");
    let mut keys = BTreeSet::new();
    add_keys(&schema, &mut keys);
    keys
});

fn add_keys(schema: &Value, keys: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        keys.extend(properties.keys().cloned());
    }
    match schema {
        Value::Object(members) => members.values().for_each(|inner| add_keys(inner, keys)),
        Value::Array(list) => list.iter().for_each(|inner| add_keys(inner, keys)),
        _ => {}
    }
}

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match load_str(text, Path::new(PATH), &kinds()) {
        Ok(checked) => {
            assert!(!checked.warnings.has_errors());
            check_diagnostics(text, &checked.warnings);
            serde_json::to_string(&checked.manifest).expect("the checked form is data");
            let used = requested_keys(text, Path::new(PATH), &kinds());
            for key in used.values().flatten() {
                assert!(KEYS.contains(*key), "the loader accepts the key {key:?}, which the schema does not have");
            }
        }
        Err(diagnostics) => {
            assert!(diagnostics.has_errors());
            check_diagnostics(text, &diagnostics);
        }
    }
});

fn check_diagnostics(text: &str, diagnostics: &Diagnostics) {
    let lines = text.lines().count().max(1) + 1;
    for diagnostic in diagnostics.iter() {
        assert!(!diagnostic.message.is_empty());
        if let Some(position) = diagnostic.position() {
            assert!((1..=lines).contains(&position.line) && position.column >= 1, "{position:?} of {lines} lines");
        }
    }
    let json = serde_json::to_string(diagnostics).expect("diagnostics are data");
    for rendered in [diagnostics.plain(), diagnostics.styled(), json] {
        assert!(rendered.len() < RENDERED_MAX, "{} bytes", rendered.len());
    }
}
