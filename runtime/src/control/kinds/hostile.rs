//! Hostile manifests: the loader rejects each one with a position, quickly and without a panic.

use super::registry;
use evoke_manifest::{Checked, Diagnostics};
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// The target for one load is 100 ms in a release build on an idle machine. This limit is higher, because tests run
/// unoptimised and in parallel.
const TIME_MAX: Duration = Duration::from_secs(5);

fn load(path: &Path) -> Result<Checked, Diagnostics> {
    evoke_manifest::load(path, &registry())
}

fn load_str(text: &str, path: &Path) -> Result<Checked, Diagnostics> {
    evoke_manifest::load_str(text, path, &registry())
}

fn rejected(text: &str) -> Diagnostics {
    let started = Instant::now();
    let diagnostics = load_str(text, Path::new("hostile.yaml")).expect_err("the manifest is rejected");
    let shown = diagnostics.plain() + &diagnostics.styled();
    let json = serde_json::to_string(&diagnostics).unwrap();
    assert!(started.elapsed() < TIME_MAX, "took {:?}", started.elapsed());
    assert!(shown.len() + json.len() < 4 << 20, "the output has {} bytes", shown.len());
    assert!(diagnostics.has_errors());
    diagnostics
}

/// Returns message, line and column of the first error.
fn first(diagnostics: &Diagnostics) -> (String, usize, usize) {
    let first = diagnostics.iter().next().unwrap();
    let position = first.position().expect("the error has a position");
    (first.message.clone(), position.line, position.column)
}

fn rejected_at(text: &str, message: &str, line: usize, column: usize) {
    let (actual, at_line, at_column) = first(&rejected(text));
    assert!(actual.contains(message), "{actual:?} does not contain {message:?}");
    assert_eq!((at_line, at_column), (line, column), "{actual}");
}

const HEAD: &str = "evoke: 1\napp: shop\n";

#[test]
fn an_alias_bomb_is_rejected_at_the_first_alias_over_the_limit() {
    let mut text = format!("{HEAD}x0: &x0 [a, a, a, a, a, a, a, a, a]\n");
    for level in 1..20 {
        let aliases = vec![format!("*x{}", level - 1); 9].join(", ");
        writeln!(text, "x{level}: &x{level} [{aliases}]").unwrap();
    }
    rejected_at(&text, "more than 100000 values", 8, 10);
}

#[test]
fn a_chain_of_aliases_cannot_nest_without_limit() {
    let mut text = format!("{HEAD}x0: &x0 [a]\n");
    for level in 1..30_000 {
        writeln!(text, "x{level}: &x{level} [*x{}]", level - 1).unwrap();
    }
    let (message, line, _) = first(&rejected(&text));
    assert_eq!(message, "lists and maps are nested more than 64 levels deep");
    // The map of the manifest is the first level, and the first value is in line 3.
    assert_eq!(line, 3 + 63);
}

#[test]
fn aliases_of_a_long_text_are_rejected_at_the_first_one_over_the_limit() {
    let long = "A".repeat(32 * 1024);
    for (head, value) in [
        (HEAD.to_owned(), long.clone()),
        // The text of the key counts, too, also in a value within another one.
        (format!("{HEAD}m: &m\n  ? {long}\n  : 1\n"), "[*m]".to_owned()),
    ] {
        let text = format!("{head}x: &x {value}\ny: [{}]\n", "*x,".repeat(10_000));
        let diagnostics = rejected(&text);
        let (message, line, column) = first(&diagnostics);
        assert_eq!(message, "the manifest has more than 4 MiB, counting every use of an alias");
        let y = text.lines().position(|line| line.starts_with("y: ")).unwrap();
        // 4 MiB are 128 of these texts. The first one is at its anchor.
        assert!(line == y + 1 && (3 * 125..=3 * 128 + 5).contains(&column), "{line}:{column}");
    }
}

#[test]
fn an_alias_counts_the_levels_of_the_value_that_it_stands_for() {
    let nested = |inner: &str, levels: usize| format!("{}{inner}{}", "[".repeat(levels), "]".repeat(levels));
    // The map of the manifest is the first of the 64 levels.
    let chain = |second: usize| {
        format!("{HEAD}a: &a {}\nb: &b {}\nc: {}\n", nested("1", 20), nested("*a", 20), nested("*b", second))
    };
    assert!(!rejected(&chain(23)).plain().contains("levels deep"));
    rejected_at(&chain(24), "lists and maps are nested more than 64 levels deep", 5, 3 + 1 + 24);
}

#[test]
fn a_merge_key_bomb_is_rejected() {
    let mut text = format!("{HEAD}x0: &x0 {{ a: 1 }}\n");
    for level in 1..20 {
        let aliases = vec![format!("*x{}", level - 1); 9].join(", ");
        writeln!(text, "x{level}: &x{level} {{ <<: [{aliases}] }}").unwrap();
    }
    rejected_at(&text, "the merge key `<<` is not supported", 4, 11);
    let diagnostics = rejected(&text);
    assert!(diagnostics.plain().contains("more than 100000 values"), "{}", diagnostics.plain());
    rejected_at("evoke: &a 1\napp: shop\n<<: *a\n", "the merge key `<<` is not supported", 3, 1);
}

#[test]
fn an_alias_inside_its_own_value_is_rejected() {
    rejected_at("a: &a [*a]\n", "refer to a value that contains this alias", 1, 8);
}

#[test]
fn ten_thousand_levels_are_rejected_at_the_first_one_over_the_limit() {
    rejected_at(&format!("{HEAD}x: {}", "[".repeat(10_000)), "more than 64 levels", 3, 68);
    rejected_at(&format!("{HEAD}x: {}", "{a: ".repeat(10_000)), "more than 64 levels", 3, 256);
    rejected_at(&format!("{HEAD}x: {}", "- ".repeat(10_000)), "a list entry cannot start here", 3, 4);
    let nested: String = (0..10_000).map(|level| format!("{}a:\n", " ".repeat(level.min(90)))).collect();
    let (message, line, _) = first(&rejected(&nested));
    assert!(message.contains("more than 64 levels"), "{message}");
    assert_eq!(line, 65);
    rejected_at(&format!("{HEAD}x:\n  {}a", "- ".repeat(10_000)), "more than 64 levels", 4, 129);
    rejected(&format!("{HEAD}x: {}", "? ".repeat(10_000)));
}

#[test]
fn many_documents_are_rejected_at_the_second_one() {
    rejected_at(&format!("{HEAD}{}", "---\na: 1\n".repeat(100_000)), "one YAML document", 3, 1);
    rejected(&"---\n".repeat(200_000));
    rejected(&"...\n".repeat(200_000));
    rejected(&"%YAML 1.2\n---\n".repeat(50_000));
}

#[test]
fn all_duplicate_keys_are_counted_but_only_some_are_shown() {
    let diagnostics = rejected(&format!("{HEAD}{}", "a: 1\n".repeat(40_000)));
    assert_eq!(diagnostics.iter().count(), 100);
    assert!(diagnostics.plain().ends_with("more errors\n"), "{}", diagnostics.plain());
}

#[test]
fn many_unknown_keys_are_checked_quickly() {
    let keys: String = (0..50_000).map(|key| format!("k{key}: 1\n")).collect();
    assert!(rejected(&format!("{HEAD}{keys}")).iter().count() <= 100);
    let keys: Vec<String> = (0..50_000).map(|key| format!("k{key}: 1")).collect();
    rejected(&format!("{{ {} }}", keys.join(", "))); // all in one long line
}

#[test]
fn many_checked_values_of_each_kind_are_checked_quickly() {
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
        rejected(text);
    }
}

#[test]
fn an_app_with_too_many_sources_is_rejected() {
    let timers: String = (0..5_000).map(|at| format!("  s{at}: {{ timer: {{ cron: \"0 0 29 2 *\" }} }}\n")).collect();
    rejected_at(&format!("{HEAD}sources:\n{timers}"), "more than 1000 sources", 1004, 12);
}

#[test]
fn many_functions_that_can_trigger_each_other_are_accepted_quickly() {
    let functions: String = (0..4_000)
        .map(|at| format!("  f{at}:\n    component: f.wasm\n    build: make\n    on: [{{ events: {{ type: [t{at}, u{at}] }} }}]\n    allow: {{ publish: [\"t*\", \"*\"] }}\n"))
        .collect();
    let started = Instant::now();
    let checked = load_str(&format!("{HEAD}functions:\n{functions}"), Path::new("large.yaml")).unwrap();
    assert_eq!(checked.manifest.functions.len(), 4_000);
    assert!(started.elapsed() < TIME_MAX, "took {:?}", started.elapsed());
}

#[test]
fn tags_are_rejected_anywhere() {
    rejected_at("evoke: !!int 1\napp: shop\n", "YAML tags are not supported", 1, 8);
    rejected_at("--- !!map\nevoke: 1\napp: shop\n", "YAML tags are not supported", 1, 5);
    rejected_at("evoke: 1\napp: !<tag:yaml.org,2002:python/object> shop\n", "YAML tags are not supported", 2, 6);
    rejected_at("evoke: 1\napp: !x! shop\n", "", 2, 6);
    rejected(&format!("{HEAD}x: {}", "!a ".repeat(100_000)));
}

/// The parser would copy the prefix for each tag.
#[test]
fn a_directive_for_tags_is_rejected_before_the_first_tag() {
    let (bom, prefix) = ('\u{feff}', "p".repeat(900));
    let tags = "!e!t 1,".repeat(100_000);
    let message = "directives are not supported in a file with `%TAG`";
    rejected_at(&format!("%TAG !e! {prefix}\n---\n{HEAD}x: [{tags}]\n"), message, 1, 1);
    rejected_at(&format!("{bom}# a comment\n%TAG !e! {prefix}\n---\n{HEAD}"), message, 2, 1);
    rejected_at("%YAML 1.2\n%TAG ! tag:a.example,2026:\n---\nevoke: 1\napp: shop\n", message, 1, 1);
    rejected_at("evoke: 1\n...\n%TAG ! tag:a.example,2026:\n---\napp: shop\n", message, 3, 1);
    let pattern = evoke_manifest::pattern_str("%TAG !e! p\n---\ntype: [!e!t a]\n", Path::new("pattern.yaml"));
    assert_eq!(first(&pattern.err().unwrap()), (message.to_owned(), 1, 1));
    // Another directive alone is no mistake, and neither is a text.
    for text in ["%YAML 1.2\n---\nevoke: 1\napp: shop\n", "# %TAG\nevoke: 1\napp: shop\n"] {
        assert!(load_str(text, Path::new("valid.yaml")).is_ok(), "{text}");
    }
}

#[test]
fn keys_that_are_not_strings_are_rejected() {
    rejected_at("{[a]: b}\n", "a key must be a string", 1, 2);
    rejected_at("? {a: b}\n: c\n", "a key must be a string", 1, 3);
    rejected_at("a: &a b\n*a : c\n", "a key must be a string", 2, 1);
}

#[test]
fn characters_that_yaml_does_not_allow_are_rejected_at_their_position() {
    rejected_at("evoke: 1\napp: sh\0op\n", "U+0000", 2, 8);
    rejected_at("evoke: 1\napp: sh\u{1b}[31mop\n", "U+001B", 2, 8);
    rejected_at("evoke: 1\n\u{ffff}\n", "U+FFFF", 2, 1);
    let escape = rejected("evoke: 1\napp: \"\\e[31mshop\\u202e\"\n");
    assert!(!escape.plain().contains('\u{1b}'), "the output has an escape character");
    assert!(!escape.plain().contains('\u{202e}'), "the output has a character that reverses the text direction");
}

#[test]
fn a_byte_order_mark_at_the_start_is_ignored() {
    rejected_at("\u{feff}evoke: 1\napp: Shop\n", "`Shop` is not a valid name", 2, 6);
    rejected_at("\u{feff}evoke: 2\n", "version 1 of the manifest language, not version 2", 1, 8);
    assert!(load_str("\u{feff}evoke: 1\napp: shop\n", Path::new("bom.yaml")).is_ok());
    rejected_at("evoke: 1\n\u{feff}app: shop\n", "", 2, 1);
}

#[test]
fn windows_line_breaks_are_recognized() {
    rejected_at("evoke: 1\r\napp: Shop\r\n", "`Shop` is not a valid name", 2, 6);
    let shown = rejected("evoke: 1\r\napp: Shop\r\n").plain();
    assert!(!shown.contains('\r'), "{shown:?}");
}

#[test]
fn columns_count_characters() {
    rejected_at("{ evoke: 1, app: shop, \"köä\": 1, x: 1 }", "unknown key `köä`", 1, 24);
    let columns: Vec<_> = rejected("{ evoke: 1, app: shop, \"köä\": 1, x: 1 }")
        .iter()
        .map(|one| one.position().unwrap().column)
        .collect();
    assert_eq!(columns, [24, 34]);
}

#[test]
fn huge_scalars_are_rejected_and_not_quoted_in_full() {
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
        assert!(rejected(&text).plain().len() < 16 << 10);
    }
}

#[test]
fn more_than_a_mebibyte_is_not_read() {
    let comment = format!("# {}\n", "x".repeat(60));
    let text = format!("{HEAD}{}", comment.repeat((1 << 20) / comment.len() + 1));
    assert!(rejected(&text).plain().contains("larger than 1 MiB"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &text).unwrap();
    assert!(load(file.path()).unwrap_err().plain().contains("larger than 1 MiB"));
    assert!(load(Path::new("/dev/zero")).is_err());
}

#[test]
fn bytes_that_are_not_utf_8_are_rejected_at_their_position() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (bytes, line, column) in [
        (&b"evoke: 1\napp: sh\xffop\n"[..], 2, 8),
        (&b"\xff\xfee\0v\0"[..], 1, 1),                // UTF-16
        (&b"evoke: 1\napp: \xed\xa0\x80\n"[..], 2, 6), // a lone surrogate
    ] {
        std::fs::write(file.path(), bytes).unwrap();
        let diagnostics = load(file.path()).unwrap_err();
        let (message, at_line, at_column) = first(&diagnostics);
        assert!(message.contains("is not valid UTF-8"), "{message}");
        assert_eq!((at_line, at_column), (line, column));
        assert!(diagnostics.plain().contains("save the file as UTF-8"));
    }
}

#[test]
fn an_unreadable_file_gives_an_error_without_a_position() {
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
fn truncated_and_corrupted_manifests_do_not_cause_a_panic() {
    let text = include_str!("../../../../tests/manifests/valid-every-key.yaml");
    for (at, _) in text.char_indices() {
        let _ = load_str(text.get(..at).unwrap(), Path::new("cut.yaml"));
    }
    for at in (0..text.len()).step_by(3) {
        for replacement in [b"[*\"-", b"}&:\n"][at % 2] {
            let mut bytes = text.as_bytes().to_vec();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = *replacement;
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
