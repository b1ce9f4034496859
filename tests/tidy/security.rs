//! SECURITY.md says what is true: every test that it names exists, and every hostile guest has one.

use super::{files, quoted, root, table};

fn security() -> String {
    std::fs::read_to_string(root().join("runtime/SECURITY.md")).unwrap()
}

/// All Rust code outside of `functions` and `sdk`.
fn code() -> String {
    let all = files(&root().join("tests"), "rs").into_iter().chain(files(&root().join("runtime"), "rs"));
    all.map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// Returns true for the name of a test. Keys, constants and functions that the page names have fewer words.
fn is_test(word: &&str) -> bool {
    word.matches('_').count() >= 3 && word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
}

/// Returns true if the code has a test with this name.
fn exists(code: &str, test: &str) -> bool {
    let function = format!("fn {test}(");
    code.match_indices(&function).map(|(at, _)| &code[..at]).any(|before| {
        let attributes = before.trim_end_matches("async ").trim_end().lines().rev();
        let mut attributes = attributes.map(str::trim).take_while(|line| line.starts_with("#["));
        attributes.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

#[test]
fn every_test_in_the_security_page_exists() {
    let (text, code) = (security(), code());
    let named: Vec<&str> = quoted(&text).filter(is_test).collect();
    assert!(named.len() > 100, "{named:?}");
    let gone: Vec<_> = named.iter().filter(|name| !exists(&code, name)).collect();
    assert!(gone.is_empty(), "SECURITY.md names tests that do not exist: {gone:#?}");
}

#[test]
fn every_hostile_guest_has_a_test() {
    let text = security();
    let rows = table(&text, "### Hostile guests");
    assert!(rows.len() >= 32, "{rows:#?}");
    let untested: Vec<_> = rows.iter().filter(|row| !quoted(row[1]).any(|word| is_test(&word))).collect();
    assert!(untested.is_empty(), "SECURITY.md lists guests without a test: {untested:#?}");
}
