//! Decides which triggers receive the runtime's own events, and which changes of a condition are reported as runtime
//! events.

pub mod conditions;
pub mod storage;

use evoke_pattern::Pattern;

pub use evoke_model::runtime_events::*;

/// Returns true if a pattern can select runtime events: it lists the exact values of `source` or of `type`. A pattern
/// that matches everything or a prefix does not select them, because its author most likely did not expect runtime
/// events.
pub fn selects_runtime_events(pattern: &Pattern) -> bool {
    pattern.exact_values("source").is_some() || pattern.exact_values("type").is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pattern_selects_runtime_events_if_it_names_their_source_or_type_exactly() {
        for (pattern, selects) in [
            (json!({ "source": ["/evoke"] }), true),
            (json!({ "type": ["order.placed", "evoke.delivery.dead"] }), true),
            (json!({ "type": [{ "prefix": "evoke." }], "source": ["/evoke"] }), true),
            (json!({ "type": [{ "prefix": "evoke." }] }), false),
            (json!({ "source": [{ "exists": true }] }), false),
            (json!({ "source": ["/evoke", { "prefix": "/" }] }), false),
            (json!({ "type": [{ "anything-but": "order.placed" }] }), false),
            (json!({ "$or": [{ "source": ["/evoke"] }, { "type": [{ "prefix": "" }] }] }), false),
        ] {
            assert_eq!(selects_runtime_events(&Pattern::parse(&pattern).unwrap()), selects, "{pattern}");
        }
    }
}
