//! Golden tests. For each `tests/manifests/NAME.yaml`, `NAME.stderr` contains the exact text of its diagnostics. If
//! there are no errors, `NAME.json` contains the checked manifest. To update these files, run the tests with
//! `EVOKE_BLESS=1` and review the changes.

use super::registry;
use evoke_manifest::{load, requested_keys, schema};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn folder() -> PathBuf {
    root().join("tests/manifests")
}

fn updating() -> bool {
    std::env::var_os("EVOKE_BLESS").is_some()
}

fn manifests() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("tests/manifests can be read");
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    paths
}

/// Compares `actual` with a file, or updates the file. `None` means that the file must not exist.
fn compare(path: &Path, actual: Option<&str>, failures: &mut Vec<String>) {
    let expected = std::fs::read_to_string(path).ok();
    if expected.as_deref() == actual {
        return;
    }
    match (updating(), actual) {
        (true, Some(text)) => std::fs::write(path, text).unwrap(),
        (true, None) => std::fs::remove_file(path).unwrap(),
        (false, _) => failures.push(format!(
            "{}\n--- expected\n{}\n--- actual\n{}",
            path.display(),
            expected.as_deref().unwrap_or("(no file)"),
            actual.unwrap_or("(no file)")
        )),
    }
}

#[test]
fn every_golden_manifest_gives_exactly_the_expected_output() {
    let here = format!("{}/", folder().display());
    let mut failures = Vec::new();
    let (mut bad, mut good) = (0, 0);
    for path in manifests() {
        let (diagnostics, json) = match load(&path, &registry()) {
            Ok(checked) => {
                good += 1;
                let json = serde_json::to_string_pretty(&checked.manifest).unwrap().replace(&here, "") + "\n";
                (checked.warnings.plain(), Some(json))
            }
            Err(diagnostics) => {
                bad += 1;
                assert!(diagnostics.has_errors(), "{} failed without an error", path.display());
                (diagnostics.plain(), None)
            }
        };
        let stderr = diagnostics.replace(&here, "");
        let stderr = (!stderr.is_empty()).then_some(stderr.as_str());
        compare(&path.with_extension("stderr"), stderr, &mut failures);
        compare(&path.with_extension("json"), json.as_deref(), &mut failures);
    }
    assert!(failures.is_empty(), "{}\nrun with EVOKE_BLESS=1 to accept the new output", failures.join("\n\n"));
    assert!(bad >= 50 && good >= 5, "golden manifests are missing: found {bad} with errors, {good} without");
}

#[test]
fn every_golden_file_belongs_to_a_manifest() {
    let names: BTreeSet<_> = manifests().iter().map(|path| path.with_extension("")).collect();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "stderr" || extension == "json") {
            assert!(names.contains(&path.with_extension("")), "{} has no manifest", path.display());
        }
    }
}

#[test]
fn every_diagnostic_of_an_invalid_manifest_has_a_position_and_a_help_text() {
    for path in manifests() {
        let Err(diagnostics) = load(&path, &registry()) else {
            continue;
        };
        for diagnostic in diagnostics.iter() {
            let json = serde_json::to_value(diagnostic).unwrap();
            assert!(json["help"].is_string(), "{}: {json}", path.display());
            let empty = std::fs::read(&path).unwrap().iter().all(u8::is_ascii_whitespace);
            assert!(empty || json["line"].as_u64().is_some_and(|line| line > 0), "{}: {json}", path.display());
        }
    }
}

#[test]
fn the_committed_schema_matches_the_model() {
    let mut failures = Vec::new();
    compare(&root().join("manifests/evoke.schema.json"), Some(&schema::render(&registry())), &mut failures);
    assert!(failures.is_empty(), "run with EVOKE_BLESS=1 to update the schema:\n{}", failures.join("\n"));
}

/// Returns the keys of each object type of the schema, by the name of the type.
fn keys_of_schema() -> BTreeMap<String, BTreeSet<String>> {
    fn properties(schema: &serde_json::Value, into: &mut BTreeSet<String>) {
        into.extend(schema["properties"].as_object().into_iter().flat_map(|keys| keys.keys().cloned()));
        for form in ["oneOf", "anyOf"] {
            schema[form].as_array().into_iter().flatten().for_each(|schema| properties(schema, into));
        }
    }
    let schema: serde_json::Value = serde_json::from_str(&schema::render(&registry())).unwrap();
    let types = schema["$defs"].as_object().unwrap().iter().map(|(name, schema)| (name.as_str(), schema));
    let mut keys = BTreeMap::new();
    for (name, schema) in types.chain([("Manifest", &schema)]) {
        let mut of_type = BTreeSet::new();
        properties(schema, &mut of_type);
        if !of_type.is_empty() {
            keys.insert(name.to_owned(), of_type);
        }
    }
    keys
}

#[test]
fn the_loader_accepts_exactly_the_keys_of_the_schema() {
    let mut accepted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in manifests() {
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        for (schema_name, keys) in requested_keys(&text, &path, &registry()) {
            accepted.entry(schema_name.to_owned()).or_default().extend(keys.into_iter().map(str::to_owned));
        }
    }
    assert_eq!(accepted, keys_of_schema());
}
