//! Matches arbitrary events against arbitrary patterns. No input panics or hangs, and the indexed matcher agrees with
//! the oracle.
//!
//! The first line of the input is the event, each further line a pattern.
#![no_main]

mod oracle;

use evoke_pattern::{DataView, EventView, Matcher, Pattern, explain};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|byte| *byte == b'\n');
    let event = lines.next().unwrap_or_default();
    let mut matcher = Matcher::default();
    let mut patterns = Vec::new();
    for source in lines.take(16).filter_map(|line| serde_json::from_slice::<Value>(line).ok()) {
        match Pattern::parse(&source) {
            Ok(pattern) => {
                matcher.insert(patterns.len(), &pattern);
                patterns.push((source, pattern));
            }
            Err(mistakes) => {
                assert!(!mistakes.is_empty());
                mistakes.iter().for_each(|mistake| assert!(!mistake.to_string().is_empty()));
            }
        }
    }

    let data = EventView::new([("type", "a"), ("source", "/b")], DataView::Json(event));
    for (_, pattern) in &patterns {
        let explained = explain(pattern, &data).map(|explained| explained.matched);
        assert_eq!(explained.ok(), pattern.matches(&data).ok(), "explain and match differ on {:?}", pattern.source());
    }

    let found = matcher.matches_json(event);
    let read = serde_json::from_slice::<Value>(event).ok().filter(Value::is_object);
    let (Ok(found), Some(read)) = (&found, &read) else {
        // serde_json also rejects numbers beyond the range of a double, and lone surrogates.
        assert!(
            found.is_err() || read.is_some() || only_serde_rejects(event),
            "accepted, but not an object: {event:?}"
        );
        assert!(found.is_ok() || read.is_none(), "rejected, but an object: {:?}", String::from_utf8_lossy(event));
        return;
    };
    if !oracle::exact_as_doubles(&String::from_utf8_lossy(event)) {
        return;
    }
    for (key, (source, pattern)) in patterns.iter().enumerate() {
        let Some(expected) =
            oracle::exact_as_doubles(&source.to_string()).then(|| oracle::matches(source, read)).flatten()
        else {
            continue;
        };
        assert_eq!(found.contains(&key), expected, "with others: {source} on {read}");
        let mut alone = Matcher::default();
        alone.insert((), pattern);
        assert_eq!(alone.matches_json(event).is_ok_and(|keys| !keys.is_empty()), expected, "alone: {source} on {read}");
    }
    // A removed pattern never matches.
    let half = patterns.len() / 2;
    (0..half).for_each(|key| _ = matcher.remove(key));
    let remaining: Vec<usize> = found.iter().copied().filter(|key| *key >= half).collect();
    assert_eq!(matcher.matches_json(event).ok(), Some(remaining));
});

/// Returns true if serde_json rejects the event for a reason that the matcher does not have.
fn only_serde_rejects(event: &[u8]) -> bool {
    serde_json::from_slice::<Value>(event).is_err_and(|error| {
        let message = error.to_string();
        ["out of range", "surrogate", "hex escape", "recursion limit"].iter().any(|reason| message.contains(reason))
    })
}
