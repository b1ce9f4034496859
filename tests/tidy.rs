//! ARCHITECTURE.md says what is true: its paths exist, its dependency rules hold, and no file or import breaks the rules
//! of the house.

mod json;
mod security;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::support::root;

/// Past this many lines a file is about two things.
const FILE_LINES_MAX: usize = 500;

fn architecture() -> String {
    std::fs::read_to_string(root().join("runtime/ARCHITECTURE.md")).unwrap()
}

/// The words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows of the table below a heading of ARCHITECTURE.md, each with its cells.
fn table<'a>(text: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let section = text.split(heading).nth(1).unwrap_or_else(|| panic!("ARCHITECTURE.md has no section {heading:?}"));
    let rows = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2).map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// Every file below a folder with this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            // A folder with this tag is the output of cargo.
            if path.is_dir() && !path.ends_with("functions/target") && !path.join("CACHEDIR.TAG").exists() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no .{ending} below {}", folder.display());
    found.sort();
    found
}

/// The crates of the runtime by name without `evoke-`, each with its folder; the package `evoke` among them.
fn crates() -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::from([("evoke".to_owned(), root().join("runtime"))]);
    for entry in std::fs::read_dir(root().join("runtime/crates")).unwrap() {
        let path = entry.unwrap().path();
        found.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), path);
    }
    found
}

/// The names in the section `[dependencies]` of a crate's Cargo.toml.
fn dependencies(folder: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let section = text.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.split_once(['.', ' ', '=']).map(|(name, _)| name));
    names.filter(|name| !name.is_empty() && !name.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn every_path_in_the_architecture_exists() {
    let text = architecture();
    let looks_like_a_path = |word: &&str| {
        (word.ends_with(".rs") || word.ends_with('/') || word.ends_with(".sql") || word.contains("tests/"))
            && !word.contains([' ', '<', '(', ':', '*'])
    };
    let named: Vec<&str> = quoted(&text).filter(looks_like_a_path).collect();
    assert!(named.len() > 30, "{named:?}");
    let roots = ["", "runtime", "runtime/src", "runtime/crates"].map(|folder| root().join(folder));
    let gone: Vec<_> = named.iter().filter(|name| !roots.iter().any(|at| at.join(name).exists())).collect();
    assert!(gone.is_empty(), "ARCHITECTURE.md names paths that do not exist: {gone:?}");
}

#[test]
fn every_test_in_the_architecture_exists() {
    let text = architecture();
    let section = text.split("## What proves what").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut sources: Vec<PathBuf> = files(&root().join("tests"), "rs");
    sources.extend(files(&root().join("runtime"), "rs"));
    let code: String = sources.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let is_name = |word: &&str| {
        word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
    };
    let named: Vec<&str> = quoted(section).filter(is_name).collect();
    assert!(named.len() > 15, "{named:?}");
    let gone: Vec<_> = named.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(gone.is_empty(), "ARCHITECTURE.md names tests that do not exist: {gone:?}");
}

#[test]
fn every_crate_and_every_module_of_the_binary_is_on_the_map() {
    let text = architecture();
    let rows = table(&text, "## Map");
    let named: Vec<&str> = rows.iter().flat_map(|row| quoted(row[0])).collect();
    for name in crates().keys().filter(|name| *name != "evoke") {
        assert!(named.contains(&format!("{name}/").as_str()), "the crate {name} has no row on the map");
    }
    for entry in std::fs::read_dir(root().join("runtime/src")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        // A folder belongs to the file of its name.
        let module = format!("{}.rs", file.trim_end_matches(".rs"));
        assert!(module == "lib.rs" || named.contains(&module.as_str()), "runtime/src/{module} is not on the map");
    }
}

#[test]
fn crates_depend_only_in_the_stated_direction() {
    let text = architecture();
    let mut stated: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in table(&text, "## Direction") {
        let name = quoted(row[0]).next().unwrap().to_owned();
        stated.insert(name, quoted(row[1]).map(str::to_owned).collect());
    }
    let crates = crates();
    assert_eq!(stated.keys().collect::<Vec<_>>(), crates.keys().collect::<Vec<_>>(), "one row for each crate");
    for (name, folder) in &crates {
        let used: BTreeSet<_> =
            dependencies(folder).iter().filter_map(|d| d.strip_prefix("evoke-")).map(str::to_owned).collect();
        assert!(used.is_subset(&stated[name]), "{name} depends on {used:?}; allowed are {:?}", stated[name]);
    }
}

#[test]
fn a_library_behind_a_boundary_is_used_by_its_crates_only() {
    let mut libraries: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in table(&architecture(), "## Libraries behind a boundary") {
        libraries.insert(quoted(row[0]).next().unwrap().to_owned(), quoted(row[1]).map(str::to_owned).collect());
    }
    assert!(libraries.len() >= 8, "{libraries:?}");
    for (name, folder) in crates() {
        for (library, allowed) in &libraries {
            let used = dependencies(&folder).contains(library);
            assert!(!used || allowed.contains(&name), "{name} depends on {library}, which is for {allowed:?}");
        }
    }
}

#[test]
fn pure_crates_have_no_dependency_that_does_io() {
    let text = architecture();
    let row = table(&text, "## Direction").into_iter().filter(|row| row[2] == "no I/O");
    let pure: Vec<String> = row.map(|row| quoted(row[0]).next().unwrap().to_owned()).collect();
    assert!(pure.contains(&"model".to_owned()) && pure.contains(&"pattern".to_owned()), "{pure:?}");
    for name in pure {
        let folder = &crates()[&name];
        let io = ["hyper", "axum", "rusqlite", "notify", "rustix", "ureq", "wasmtime", "mio", "tracing-subscriber"];
        let used = dependencies(folder);
        assert!(io.iter().all(|library| !used.contains(*library)), "{name} does no I/O, and depends on {used:?}");
        for file in files(&folder.join("src"), "rs") {
            let text = std::fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for forbidden in
                ["std::fs::", "TcpStream", "TcpListener", "UdpSocket", "std::process::", "tokio::fs", "tokio::net"]
            {
                let is_test =
                    file.components().any(|part| part.as_os_str().to_str().is_some_and(|p| p.starts_with("tests")));
                assert!(is_test || !code.contains(forbidden), "{} uses {forbidden}", file.display());
            }
        }
    }
}

#[test]
fn no_source_file_has_more_than_500_lines() {
    let mut long = Vec::new();
    for folder in ["runtime", "sdk", "functions", "tests"] {
        for file in files(&root().join(folder), "rs") {
            let lines = std::fs::read_to_string(&file).unwrap().lines().count();
            if lines > FILE_LINES_MAX {
                long.push(format!("{}: {lines}", file.display()));
            }
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

/// Which module at the top of a crate a path in a `use` or an expression names, seen from a module at the top.
fn named_module<'a>(path: &'a str, depth: usize, modules: &BTreeSet<String>) -> Option<&'a str> {
    let mut words = path.split("::");
    let mut first = words.next()?;
    if first == "crate" {
        first = words.next()?;
    } else {
        let mut ups = 0;
        while first == "super" {
            ups += 1;
            first = words.next()?;
        }
        // In `a.rs` one `super` is the root, in `a/b.rs` two are.
        if ups != depth {
            return None;
        }
    }
    modules.contains(first).then_some(first)
}

/// Every path in the code that begins with `crate::` or `super::`; those of a group `super::{a, b::c}` one by one.
fn named_paths(code: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        if code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let rest = &code[at..];
        let (path, behind) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        match behind.strip_prefix('{').and_then(|group| group.split('}').next()) {
            Some(group) => paths.extend(group.split(',').map(|item| format!("{path}{}", item.trim()))),
            None => paths.push(path.trim_end_matches("::").to_owned()),
        }
    }
    paths
}

#[test]
fn no_circle_of_imports_between_the_modules_of_a_crate() {
    for (name, folder) in crates() {
        let source = folder.join("src");
        let module_of = |file: &Path| {
            let path = file.strip_prefix(&source).unwrap();
            let first =
                path.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
            (first, path.components().count())
        };
        let all = files(&source, "rs");
        let modules: BTreeSet<String> =
            all.iter().map(|file| module_of(file).0).filter(|m| !["lib", "main", "tests"].contains(&&**m)).collect();
        let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in &all {
            let (module, depth) = module_of(file);
            let is_test = file.ends_with("tests.rs") || file.iter().any(|part| part == "tests");
            if !modules.contains(&module) || is_test {
                continue;
            }
            let text = std::fs::read_to_string(file).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let code: String =
                code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
            for path in named_paths(&code) {
                if let Some(to) = named_module(&path, depth, &modules).filter(|to| **to != *module) {
                    imports.entry(module.clone()).or_default().insert(to.to_owned());
                }
            }
        }
        // A module that reaches itself is on a circle.
        for module in &modules {
            let mut reached = BTreeSet::new();
            let mut next: Vec<&String> = imports.get(module).into_iter().flatten().collect();
            while let Some(to) = next.pop() {
                if reached.insert(to) {
                    next.extend(imports.get(to).into_iter().flatten());
                }
            }
            assert!(!reached.contains(module), "{name}: {module} imports itself over others: {imports:#?}");
        }
    }
}

#[test]
fn every_guest_fixture_has_a_test() {
    let folders = ["tests", "runtime/benches"];
    let files = folders.iter().flat_map(|folder| files(&root().join(folder), "rs"));
    let tests: String = files.map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for entry in std::fs::read_dir(root().join("functions/fixtures")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let named = tests.contains(&format!("\"{name}\"")) || tests.contains(&format!("$FUNCTIONS/{name}.wasm"));
        assert!(named, "no test and no bench runs the fixture {name}");
    }
}
