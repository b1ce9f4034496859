//! A text from outside becomes a JSON value as `evoke_model::Json` only. `serde_json::Value` would parse texts in its
//! strings, without a limit of depth.

use super::{crates, files};

/// Returns true if a piece of code has the word `Value`.
fn has_value(code: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "Value")
}

/// The statement around a call, as far as it names the type that is parsed.
fn statement(code: &str, at: usize) -> String {
    let start = [";\n", "{\n", "}\n", ",\n"].iter().filter_map(|end| code[..at].rfind(end)).max().unwrap_or_default();
    let end = code[at..].find('\n').map_or(code.len(), |length| at + length);
    code[start..end].split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

/// The lines of code of a file without its tests.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

#[test]
fn no_text_is_parsed_as_a_value_of_serde_json() {
    let is_test = |name: &&str| ["tests", "tests.rs", "golden.rs", "hostile.rs", "end_to_end.rs"].contains(name);
    let (mut wrong, mut calls, mut types) = (Vec::new(), 0, 0);
    for file in crates().values().flat_map(|folder| files(&folder.join("src"), "rs")) {
        if file.iter().filter_map(|part| part.to_str()).any(|part| is_test(&part)) {
            continue;
        }
        let code = code(&std::fs::read_to_string(&file).unwrap());
        if code.contains("Value as Json") && code.contains("serde_json::from_") {
            wrong.push(format!("{}: `Json` is another type here", file.display()));
        }
        for (at, _) in code.match_indices("serde_json::from_") {
            calls += 1;
            let statement = statement(&code, at);
            let (before, call) = statement.split_once("serde_json::from_").unwrap();
            let is_typed = |pattern: &str| pattern.contains([':', '{']) || pattern.contains("Json(");
            let names_type = call.contains("::<") || before.split_once("let ").is_some_and(|(_, p)| is_typed(p));
            if !names_type || (has_value(&statement) && !statement.contains("Json(")) {
                wrong.push(format!("{}: {statement}", file.display()));
            }
        }
        for item in code.split("#[derive(").skip(1) {
            let item = item.split("\n}").next().unwrap();
            if item.split(')').next().unwrap().contains("Deserialize") {
                types += 1;
                let fields = item.lines().filter(|line| has_value(line));
                wrong.extend(fields.map(|field| format!("{}: {}", file.display(), field.trim())));
            }
        }
    }
    assert!(calls > 30 && types > 30, "{calls} calls and {types} types");
    assert!(wrong.is_empty(), "use evoke_model::Json, and name the type that is parsed: {wrong:#?}");
}
