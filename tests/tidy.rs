//! Checks that the code agrees with `runtime/ARCHITECTURE.md`, and that every guest fixture has a test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::root;

fn architecture() -> String {
    std::fs::read_to_string(root().join("runtime/ARCHITECTURE.md")).unwrap()
}

/// The texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// All files below a folder with this extension. Panics if there are none.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no .{extension} below {}", folder.display());
    found
}

#[test]
fn every_path_in_the_architecture_exists() {
    let text = architecture();
    let looks_like_a_path = |word: &&str| {
        (word.ends_with(".rs") || word.ends_with('/') || word.ends_with(".sql") || word.contains("tests/"))
            && !word.contains([' ', '<', '(', ':'])
    };
    let named: Vec<&str> = quoted(&text).filter(looks_like_a_path).collect();
    assert!(named.len() > 30, "{named:?}");
    let missing: Vec<_> = named
        .iter()
        .filter(|name| ![root().join("runtime/src"), root().into()].iter().any(|at| at.join(name).exists()))
        .collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names paths that do not exist: {missing:?}");
}

#[test]
fn every_runtime_module_is_in_the_architecture_map() {
    let text = architecture();
    for entry in std::fs::read_dir(root().join("runtime/src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // The folder `x/` belongs to the module `x.rs`.
        let module = format!("{}.rs", name.trim_end_matches(".rs"));
        let listed = name == "lib.rs" || quoted(&text).any(|word| word == module);
        assert!(listed, "runtime/src/{name} is not in the map of ARCHITECTURE.md");
    }
}

#[test]
fn only_the_listed_modules_use_a_restricted_library() {
    let text = architecture();
    let table = text.split("## Who may name what").nth(1).unwrap().split("\n\n").nth(1).unwrap();
    let mut allowed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in table.lines().skip(2) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        allowed.insert(cells[2], quoted(cells[1]).collect());
    }
    assert_eq!(allowed.len(), 9, "{allowed:?}");
    let source = root().join("runtime/src");
    let mut violations = Vec::new();
    for file in files(&source, "rs") {
        let name = file.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        for (library, modules) in &allowed {
            let is_allowed =
                modules.iter().any(|module| name == *module || (module.ends_with('/') && name.starts_with(module)));
            let named = text.lines().any(|line| {
                !line.trim_start().starts_with("//")
                    && [format!("{library}::"), format!("use {library};"), format!("{library}_wasi::")].iter().any(
                        |word| {
                            line.match_indices(word.as_str()).any(|(at, _)| {
                                !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                            })
                        },
                    )
            });
            if named && !is_allowed {
                violations.push(format!("{name} uses {library}"));
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn every_guest_fixture_has_a_test() {
    let tests: String =
        files(&root().join("tests"), "rs").iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for entry in std::fs::read_dir(root().join("functions/fixtures")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let named = tests.contains(&format!("\"{name}\"")) || tests.contains(&format!("$FUNCTIONS/{name}.wasm"));
        assert!(named, "no test runs the fixture {name}");
    }
}
