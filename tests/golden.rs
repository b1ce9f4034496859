//! The output of commands at 60 and 120 columns, compared with the files in `tests/golden`. `EVOKE_BLESS=1` writes them.
//! Times, ids and durations are replaced by words, and runs of spaces by one, because the widths of these differ.

use std::path::PathBuf;

use crate::orders::ORDERS;
use crate::support::{Evoke, root};

/// The commands by the names of their files. `ORDER` and `LETTER` stand for the numbers of an event and of a dead letter.
const COMMANDS: &[(&str, &[&str])] = &[
    // First, because its rates are those of about the last minute.
    ("status", &["status"]),
    ("check", &["check"]),
    ("dead-list", &["dead", "list"]),
    ("dead-list-group", &["dead", "list", "--group"]),
    ("dead-list-more", &["dead", "list", "-n", "1"]),
    ("dead-redrive-dry-run", &["dead", "redrive", "--all", "--dry-run"]),
    ("dead-show", &["dead", "show", "LETTER"]),
    ("event", &["event", "ORDER"]),
    ("events", &["events", "--type", "order.*"]),
    ("explain", &["explain", "ORDER"]),
    ("logs", &["logs", "--function", "charge"]),
    ("pending-cancel-dry-run", &["pending", "cancel", "--all", "--dry-run"]),
    ("pending-list", &["pending", "list"]),
    ("replay-dry-run", &["replay", "--function", "charge", "--dry-run"]),
    ("replay-list", &["replay", "list"]),
    ("state-get", &["state", "get", "shop/counter", "pens"]),
    ("state-list", &["state", "list"]),
    ("state-list-keys", &["state", "list", "shop/counter"]),
    ("token-list", &["token", "list"]),
    ("trace", &["trace", "ORDER"]),
    ("validate", &["validate"]),
];

/// The commands whose lines are never longer than the width: tables.
const FITTING: &[&str] = &[
    "dead-list",
    "dead-list-group",
    "events",
    "pending-list",
    "state-list",
    "state-list-keys",
    "token-list",
    "replay-list",
    "check",
];

/// A function with state, beside those of [`ORDERS`].
const COUNTER: &str = r#"  counter:
    component: $FUNCTIONS/counter.wasm
    on:
      - events: { type: [stock.counted] }
    allow: { publish: [counted], state: true }
"#;

/// Replaces what differs between two runs.
fn mask(output: &str) -> String {
    let words = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        let mut masked: Vec<String> = Vec::new();
        for word in line.split_whitespace() {
            let bare = word.trim_matches([',', '(', ')', ':', ';', '"']);
            let is_number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
            let is_time = |text: &str| {
                let is_clock =
                    text.matches(':').count() == 2 && text.chars().all(|c| c.is_ascii_digit() || ":.".contains(c));
                is_clock || text.len() >= 20 && text.ends_with('Z') && text.contains('T')
            };
            let is_unit = ["µs", "ms", "s", "min"].contains(&bare);
            if is_unit && masked.last().is_some_and(|last| is_number(last)) {
                masked.pop();
                // A long duration has two parts, such as `1 min 5 s`.
                if masked.last().is_some_and(|last| last == "DURATION") {
                    masked.pop();
                }
                masked.push(word.replace(bare, "DURATION"));
            } else if is_time(bare) {
                masked.push(word.replace(bare, "TIME"));
            } else if let Some(instance) = instance(bare) {
                masked.push(word.replace(instance, "INSTANCE"));
            } else if bare.len() == 36 && bare.matches('-').count() == 4 {
                masked.push(word.replace(bare, "ID"));
            } else if bare.ends_with("/s") && is_number(bare.trim_end_matches("/s")) {
                masked.push(word.replace(bare, "RATE"));
            } else {
                masked.push(word.to_owned());
            }
        }
        format!("{}{}", " ".repeat(indent.min(8)), masked.join(" "))
    };
    output.lines().map(words).map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Returns the name of the store in the id of an event or a delivery: twelve digits, such as `df1c908f5e4b` in
/// `pay-df1c908f5e4b-1`.
fn instance(word: &str) -> Option<&str> {
    let is_name = |part: &&str| part.len() == 12 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_id = word.matches('-').count() < 4;
    word.split('-').find(is_name).filter(|_| is_id)
}

#[test]
fn the_output_of_commands_is_as_in_the_golden_files_and_fits_the_width() {
    let evoke = Evoke::up_with(&format!("{ORDERS}{COUNTER}"));
    evoke.post_accepted("/checkout", r#"{"customer":"ada","total":42,"items":["book"]}"#);
    evoke.settle();
    for customer in ["bob", "eve"] {
        evoke.post_accepted("/checkout", &format!(r#"{{"customer":"{customer}","total":0,"items":["book"]}}"#));
        evoke.settle();
    }
    evoke.stdout(&["emit", "--type", "stock.counted", "--data", r#"{"key":"pens"}"#]);
    evoke.settle();
    evoke.stdout(&["replay", "--function", "counter", "--type", "stock.gone"]);
    let is_done = || evoke.json_lines(&["replay", "list"])[0]["state"] == "done";
    crate::assert_eventually!(is_done(), "{}", evoke.log());
    let refused = evoke.post("/checkout", "{");
    assert_eq!(refused.status, 400, "{refused:?}");
    evoke.stdout(&["pause", "receipt"]);
    evoke.post_accepted("/checkout", r#"{"customer":"mia","total":7,"items":["pen"]}"#);
    crate::assert_eventually!(evoke.done_count("shop/charge") == 2, "{}", evoke.log());
    let letter = evoke.json_lines(&["dead", "list"])[0]["delivery"]["id"].to_string();
    let order = evoke.events("order.placed")[0]["seq"].to_string();
    let folder = root().join("tests/golden");
    let mut wrong = Vec::new();
    for (name, arguments) in COMMANDS {
        let arguments: Vec<&str> = arguments
            .iter()
            .map(|argument| match *argument {
                "ORDER" => order.as_str(),
                "LETTER" => letter.as_str(),
                other => other,
            })
            .collect();
        for columns in ["60", "120"] {
            let output = evoke.command(&arguments).env("COLUMNS", columns).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(!text.contains('\u{1b}'), "colours in redirected output: {text}");
            let longest = text.lines().map(|line| line.chars().count()).max().unwrap_or_default();
            if FITTING.contains(name) {
                assert!(longest <= columns.parse().unwrap(), "{name} at {columns} columns: {text}");
            }
            let path: PathBuf = folder.join(format!("{name}.{columns}.txt"));
            let masked = mask(&text);
            if std::env::var_os("EVOKE_BLESS").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, masked).unwrap();
            } else if std::fs::read_to_string(&path).unwrap_or_default() != masked {
                wrong.push(format!("{}:\n{masked}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "run with EVOKE_BLESS=1 if these are right:\n{}", wrong.join("\n"));
}
