//! The program's own log as JSON: one object per line with `at`, `level` and `text`, and the fields of the entry.

use std::fmt::{self, Debug};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use evoke_model::clock::{Clock, rfc3339};
use evoke_model::text::escape_json;

/// Returns true if the variable `EVOKE_LOG_FORMAT` is `json`.
pub(super) fn is_json() -> bool {
    std::env::var("EVOKE_LOG_FORMAT").is_ok_and(|format| format == "json")
}

/// Returns a line of the log. Escapes characters that could deceive the reader of a terminal.
pub(super) fn line(level: &str, text: &str, fields: Map<String, Value>) -> String {
    let mut line = Map::new();
    line.insert("at".to_owned(), rfc3339(Clock::system().now_ms()).into());
    line.insert("level".to_owned(), level.into());
    line.insert("text".to_owned(), text.into());
    line.extend(fields);
    escape_json(&Value::Object(line).to_string()).into_owned()
}

pub(super) struct JsonFormat;

impl<S, N> FormatEvent<S, N> for JsonFormat
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut found = Fields::default();
        event.record(&mut found);
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        writeln!(writer, "{}", line(&level, &found.text, found.others))
    }
}

#[derive(Default)]
struct Fields {
    text: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.text = text,
            (name, value) => drop(self.others.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evoke_model::text::is_deceptive;

    #[test]
    fn a_line_has_no_deceptive_characters_and_the_same_values() {
        let text = "a\u{1b}[2J\u{9b}\u{202e}\u{2066}";
        let line = line("warn", text, Map::from_iter([(text.to_owned(), text.into())]));
        assert!(!line.contains(is_deceptive), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&read["text"], &read[text]), (&text.into(), &text.into()));
    }
}
