//! Manifests that are written to do harm: each is refused at a place, soon, and without a panic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{Diagnostics, load, load_str};
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// The promise is 100 ms in a release build on an idle machine; tests run unoptimised beside others.
const TIME_MAX: Duration = Duration::from_secs(5);

fn refused(text: &str) -> Diagnostics {
    let started = Instant::now();
    let diagnostics = load_str(text, Path::new("hostile.yaml")).expect_err("it is refused");
    let shown = diagnostics.plain() + &diagnostics.styled();
    let json = serde_json::to_string(&diagnostics).unwrap();
    assert!(started.elapsed() < TIME_MAX, "took {:?}", started.elapsed());
    assert!(shown.len() + json.len() < 4 << 20, "said {} bytes", shown.len());
    assert!(diagnostics.has_errors());
    diagnostics
}

/// Message, line and column of the first error.
fn first(diagnostics: &Diagnostics) -> (String, usize, usize) {
    let first = diagnostics.iter().next().unwrap();
    let position = first.position().expect("it has a place");
    (first.message.clone(), position.line, position.column)
}

fn refused_at(text: &str, message: &str, line: usize, column: usize) {
    let (actual, at_line, at_column) = first(&refused(text));
    assert!(actual.contains(message), "{actual:?} does not say {message:?}");
    assert_eq!((at_line, at_column), (line, column), "{actual}");
}

const HEAD: &str = "evoke: 1\napp: shop\n";

#[test]
fn an_alias_bomb_ends_at_the_alias_that_is_too_much() {
    let mut text = format!("{HEAD}x0: &x0 [a, a, a, a, a, a, a, a, a]\n");
    for level in 1..20 {
        let aliases = vec![format!("*x{}", level - 1); 9].join(", ");
        writeln!(text, "x{level}: &x{level} [{aliases}]").unwrap();
    }
    refused_at(&text, "more than 100000 values", 8, 10);
}

#[test]
fn a_chain_of_aliases_cannot_nest_without_end() {
    let mut text = format!("{HEAD}x0: &x0 [a]\n");
    for level in 1..30_000 {
        writeln!(text, "x{level}: &x{level} [*x{}]", level - 1).unwrap();
    }
    let (message, line, _) = first(&refused(&text));
    assert!(message.contains("that aliases stand for"), "{message}");
    assert!(line < 1000, "{line}");
}

#[test]
fn a_merge_key_bomb_merges_nothing() {
    let mut text = format!("{HEAD}x0: &x0 {{ a: 1 }}\n");
    for level in 1..20 {
        let aliases = vec![format!("*x{}", level - 1); 9].join(", ");
        writeln!(text, "x{level}: &x{level} {{ <<: [{aliases}] }}").unwrap();
    }
    refused_at(&text, "`<<` does not merge", 4, 11);
    let diagnostics = refused(&text);
    assert!(diagnostics.plain().contains("more than 100000 values"), "{}", diagnostics.plain());
    refused_at("evoke: &a 1\napp: shop\n<<: *a\n", "`<<` does not merge", 3, 1);
}

#[test]
fn an_alias_inside_its_own_node_is_refused() {
    refused_at("a: &a [*a]\n", "inside the node it names", 1, 8);
}

#[test]
fn ten_thousand_levels_are_refused_at_the_first_too_deep() {
    refused_at(&format!("{HEAD}x: {}", "[".repeat(10_000)), "more than 64 levels", 3, 68);
    refused_at(&format!("{HEAD}x: {}", "{a: ".repeat(10_000)), "more than 64 levels", 3, 256);
    refused_at(&format!("{HEAD}x: {}", "- ".repeat(10_000)), "an entry of a list cannot start here", 3, 4);
    let nested: String = (0..10_000).map(|level| format!("{}a:\n", " ".repeat(level.min(90)))).collect();
    let (message, line, _) = first(&refused(&nested));
    assert!(message.contains("more than 64 levels"), "{message}");
    assert_eq!(line, 65);
    refused_at(&format!("{HEAD}x:\n  {}a", "- ".repeat(10_000)), "more than 64 levels", 4, 129);
    refused(&format!("{HEAD}x: {}", "? ".repeat(10_000)));
}

#[test]
fn a_storm_of_documents_ends_at_the_second() {
    refused_at(&format!("{HEAD}{}", "---\na: 1\n".repeat(100_000)), "one YAML document", 3, 1);
    refused(&"---\n".repeat(200_000));
    refused(&"...\n".repeat(200_000));
    refused(&"%YAML 1.2\n---\n".repeat(50_000));
}

#[test]
fn duplicate_keys_are_all_counted_and_not_all_shown() {
    let diagnostics = refused(&format!("{HEAD}{}", "a: 1\n".repeat(40_000)));
    assert_eq!(diagnostics.iter().count(), 100);
    assert!(diagnostics.plain().ends_with("more errors\n"), "{}", diagnostics.plain());
}

#[test]
fn a_flood_of_unknown_keys_stays_cheap() {
    let keys: String = (0..50_000).map(|key| format!("k{key}: 1\n")).collect();
    assert!(refused(&format!("{HEAD}{keys}")).iter().count() <= 100);
    let keys: Vec<String> = (0..50_000).map(|key| format!("k{key}: 1")).collect();
    refused(&format!("{{ {} }}", keys.join(", "))); // all in one long line
}

#[test]
fn floods_of_everything_that_is_checked_stay_cheap() {
    let entries = |make: &dyn Fn(usize) -> String| (0..15_000).map(make).collect::<String>();
    let mut texts = Vec::new();
    texts.push(format!(
        "{HEAD}sources:\n{}",
        entries(&|at| format!("  s{at}: {{ timer: {{ cron: \"{} 0 30 2 *\" }} }}\n", at % 60))
    ));
    texts.push(format!(
        "{HEAD}sources:\n{}",
        entries(&|at| format!("  s{at}: {{ timer: {{ cron: \"0 0 1 1 *\", timezone: Zone/{at} }} }}\n"))
    ));
    texts.push(format!(
        "{HEAD}functions:\n  f:\n    component: a\n    on:\n{}",
        entries(&|at| format!("      - source: s{at}\n"))
    ));
    texts.push(format!(
        "{HEAD}functions:\n{}",
        entries(&|at| format!("  f{at}: {{ component: f.wasm, build: b, on: [{{ source: f }}] }}\n"))
    ));
    for text in &texts {
        assert!(text.len() < 1 << 20, "{}", text.len());
        refused(text);
    }
}

#[test]
fn an_app_has_no_more_sources_than_can_run() {
    let timers: String = (0..5_000).map(|at| format!("  s{at}: {{ timer: {{ cron: \"0 0 29 2 *\" }} }}\n")).collect();
    refused_at(&format!("{HEAD}sources:\n{timers}"), "more than 1000 sources", 1004, 12);
}

#[test]
fn many_functions_that_may_set_each_other_off_are_taken_in_good_time() {
    let functions: String = (0..4_000)
        .map(|at| format!("  f{at}:\n    component: f.wasm\n    build: make\n    on: [{{ events: {{ type: [t{at}, u{at}] }} }}]\n    allow: {{ publish: [\"t*\", \"*\"] }}\n"))
        .collect();
    let started = Instant::now();
    let checked = load_str(&format!("{HEAD}functions:\n{functions}"), Path::new("large.yaml")).unwrap();
    assert_eq!(checked.manifest.functions.len(), 4_000);
    assert!(started.elapsed() < TIME_MAX, "took {:?}", started.elapsed());
}

#[test]
fn tags_are_refused_wherever_they_stand() {
    refused_at("evoke: !!int 1\napp: shop\n", "no YAML tags", 1, 8);
    refused_at("--- !!map\nevoke: 1\napp: shop\n", "no YAML tags", 1, 5);
    refused_at("evoke: 1\napp: !<tag:yaml.org,2002:python/object> shop\n", "no YAML tags", 2, 6);
    refused_at("evoke: 1\napp: !x! shop\n", "", 2, 6);
    refused(&format!("{HEAD}x: {}", "!a ".repeat(100_000)));
}

#[test]
fn keys_that_are_not_texts_are_refused() {
    refused_at("{[a]: b}\n", "a key is a text", 1, 2);
    refused_at("? {a: b}\n: c\n", "a key is a text", 1, 3);
    refused_at("a: &a b\n*a : c\n", "a key is a text", 2, 1);
}

#[test]
fn characters_that_yaml_does_not_have_are_refused_where_they_stand() {
    refused_at("evoke: 1\napp: sh\0op\n", "U+0000", 2, 8);
    refused_at("evoke: 1\napp: sh\u{1b}[31mop\n", "U+001B", 2, 8);
    refused_at("evoke: 1\n\u{ffff}\n", "U+FFFF", 2, 1);
    let escape = refused("evoke: 1\napp: \"\\e[31mshop\\u202e\"\n");
    assert!(!escape.plain().contains('\u{1b}'), "an escape gets to the terminal");
    assert!(!escape.plain().contains('\u{202e}'), "text is turned round on the terminal");
}

#[test]
fn a_byte_order_mark_at_the_start_is_passed_over() {
    refused_at("\u{feff}evoke: 1\napp: Shop\n", "`Shop` is not a name", 2, 6);
    refused_at("\u{feff}evoke: 2\n", "version 1 of the language, not version 2", 1, 8);
    assert!(load_str("\u{feff}evoke: 1\napp: shop\n", Path::new("bom.yaml")).is_ok());
    refused_at("evoke: 1\n\u{feff}app: shop\n", "", 2, 1);
}

#[test]
fn windows_line_ends_are_line_ends() {
    refused_at("evoke: 1\r\napp: Shop\r\n", "`Shop` is not a name", 2, 6);
    let shown = refused("evoke: 1\r\napp: Shop\r\n").plain();
    assert!(!shown.contains('\r'), "{shown:?}");
}

#[test]
fn columns_count_characters() {
    refused_at("{ evoke: 1, app: shop, \"köä\": 1, x: 1 }", "has no key `köä`", 1, 24);
    let columns: Vec<_> =
        refused("{ evoke: 1, app: shop, \"köä\": 1, x: 1 }").iter().map(|one| one.position().unwrap().column).collect();
    assert_eq!(columns, [24, 34]);
}

#[test]
fn huge_scalars_are_refused_and_not_repeated() {
    let huge = "x".repeat(900_000);
    for text in [
        format!("{HEAD}{huge}: 1\n"),
        format!("evoke: 1\napp: {huge}\n"),
        format!("evoke: {huge}\napp: a\n"),
        format!("evoke: 1\napp: \"{huge}\n"),
        format!("evoke: 1\napp: |\n  {huge}\n"),
        format!("{HEAD}sources: {{ s: {{ timer: {{ every: {} }} }} }}\n", "1".repeat(900_000)),
        format!("{HEAD}functions: {{ f: {{ component: f.wasm, on: [{{ source: {huge} }}] }} }}\n"),
    ] {
        assert!(refused(&text).plain().len() < 16 << 10);
    }
}

#[test]
fn more_than_a_mebibyte_is_not_read() {
    let comment = format!("# {}\n", "x".repeat(60));
    let text = format!("{HEAD}{}", comment.repeat((1 << 20) / comment.len() + 1));
    assert!(refused(&text).plain().contains("larger than 1 MiB"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &text).unwrap();
    assert!(load(file.path()).unwrap_err().plain().contains("larger than 1 MiB"));
    assert!(load(Path::new("/dev/zero")).is_err());
}

#[test]
fn bytes_that_are_not_utf_8_are_refused_where_they_stand() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (bytes, line, column) in [
        (&b"evoke: 1\napp: sh\xffop\n"[..], 2, 8),
        (&b"\xff\xfee\0v\0"[..], 1, 1),                // UTF-16
        (&b"evoke: 1\napp: \xed\xa0\x80\n"[..], 2, 6), // a lone surrogate
    ] {
        std::fs::write(file.path(), bytes).unwrap();
        let diagnostics = load(file.path()).unwrap_err();
        let (message, at_line, at_column) = first(&diagnostics);
        assert!(message.contains("is not UTF-8"), "{message}");
        assert_eq!((at_line, at_column), (line, column));
        assert!(diagnostics.plain().contains("save the file as UTF-8"));
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("none.yaml"), folder.path().to_owned()] {
        let diagnostics = load(&path).unwrap_err();
        let error = diagnostics.iter().next().unwrap();
        assert!(error.message.starts_with("cannot read the manifest"), "{}", error.message);
        let json = serde_json::to_value(error).unwrap();
        assert!(json["line"].is_null() && json["file"].is_string());
    }
}

#[test]
fn every_cut_of_a_manifest_and_every_flipped_byte_is_read_without_a_panic() {
    let text = include_str!("../../../tests/manifests/valid-every-key.yaml");
    for (at, _) in text.char_indices() {
        let _ = load_str(text.get(..at).unwrap(), Path::new("cut.yaml"));
    }
    for at in (0..text.len()).step_by(3) {
        for with in [b"[*\"-", b"}&:\n"][at % 2] {
            let mut bytes = text.as_bytes().to_vec();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = *with;
            }
            let Ok(text) = String::from_utf8(bytes) else {
                continue;
            };
            if let Err(diagnostics) = load_str(&text, Path::new("flipped.yaml")) {
                assert!(!diagnostics.plain().is_empty());
            }
        }
    }
}
