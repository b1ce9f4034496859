//! What ARCHITECTURE.md says is so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::root;

fn architecture() -> String {
    std::fs::read_to_string(root().join("runtime/ARCHITECTURE.md")).unwrap()
}

/// The words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Every file below a folder with this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no .{ending} below {}", folder.display());
    found
}

#[test]
fn every_path_that_the_architecture_names_is_there() {
    let text = architecture();
    let looks_like_a_path = |word: &&str| {
        (word.ends_with(".rs") || word.ends_with('/') || word.ends_with(".sql") || word.contains("tests/"))
            && !word.contains([' ', '<', '(', ':'])
    };
    let named: Vec<&str> = quoted(&text).filter(looks_like_a_path).collect();
    assert!(named.len() > 30, "{named:?}");
    let gone: Vec<_> = named
        .iter()
        .filter(|name| ![root().join("runtime/src"), root().into()].iter().any(|at| at.join(name).exists()))
        .collect();
    assert!(gone.is_empty(), "ARCHITECTURE.md names what is gone: {gone:?}");
}

#[test]
fn every_room_of_the_runtime_is_on_the_map() {
    let text = architecture();
    for entry in std::fs::read_dir(root().join("runtime/src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // A folder is its file's.
        let room = format!("{}.rs", name.trim_end_matches(".rs"));
        let listed = name == "lib.rs" || quoted(&text).any(|word| word == room);
        assert!(listed, "runtime/src/{name} is not on the map");
    }
}

#[test]
fn only_its_own_room_names_a_library_behind_a_boundary() {
    let text = architecture();
    let table = text.split("## Who may name what").nth(1).unwrap().split("\n\n").nth(1).unwrap();
    let mut allowed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in table.lines().skip(2) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        allowed.insert(cells[2], quoted(cells[1]).collect());
    }
    assert_eq!(allowed.len(), 9, "{allowed:?}");
    let source = root().join("runtime/src");
    let mut crossed = Vec::new();
    for file in files(&source, "rs") {
        let name = file.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        for (library, rooms) in &allowed {
            let in_room = rooms.iter().any(|room| name == *room || (room.ends_with('/') && name.starts_with(room)));
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
            if named && !in_room {
                crossed.push(format!("{name} names {library}"));
            }
        }
    }
    assert!(crossed.is_empty(), "{crossed:#?}");
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
