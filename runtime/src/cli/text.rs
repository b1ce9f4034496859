//! Printing: escapes untrusted text, formats times, durations and sizes.

use std::borrow::Cow;
use std::io::{ErrorKind, Write};

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Failure;
pub(super) use evoke_model::text::count;
use evoke_model::text::{escape_json, is_deceptive};

/// Style of secondary information.
pub(super) const DIM: Style = Style::new().dimmed();
/// Style of headings.
pub(super) const BOLD: Style = Style::new().bold();

/// Returns the colour of a delivery's state, an attempt's outcome or a log level.
pub(super) fn colour(state: &str) -> Style {
    let colour = match state {
        "done" | "ok" => AnsiColor::Green,
        "running" | "paused" | "cancelling" | "ready" | "retrying" | "blocked" | "retry" | "warn" => AnsiColor::Yellow,
        "purged" | "cancelled" | "trace" | "debug" | "info" => return DIM,
        _ => AnsiColor::Red,
    };
    Style::new().fg_color(Some(colour.into()))
}

/// Prints text and a line break to standard output; keeps colours only on a terminal.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    check_write(writeln!(out, "{text}").and_then(|()| out.flush()))
}

/// Prints text to standard error. Ignores errors, because the process must not end if the terminal is closed or the
/// disk is full.
pub(super) fn print_error(text: &str) {
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

/// Prints JSON text on a line of standard output. Escapes characters that could deceive the reader of a terminal.
pub(super) fn print_json_text(json: &str) -> Result<(), Failure> {
    print_verbatim(&escape_json(json))
}

/// Prints a line to standard output unchanged.
pub(super) fn print_verbatim(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    check_write(writeln!(out, "{line}").and_then(|()| out.flush()))
}

/// Prints a value as JSON, on one line.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    // Serialising strings, numbers and raw JSON cannot fail.
    print_json_text(&serde_json::to_string(value).unwrap_or_default())
}

fn check_write(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::OutputClosed),
        Err(error) => Err(Failure::Failed(format!("cannot write to standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Returns the width of the output in characters, at least 40: the width of the terminal, or the value of the variable
/// `COLUMNS` if standard output is not a terminal. Returns `None` if neither is known; then the width has no limit.
pub(super) fn columns() -> Option<usize> {
    let of_terminal = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
    let width = of_terminal.or_else(|| std::env::var("COLUMNS").ok()?.parse().ok().filter(|width| *width > 0))?;
    Some(width.max(40))
}

/// The fields of an event that are printed in lists.
#[derive(Debug, Default, Deserialize)]
pub(super) struct EventSummary {
    #[serde(default)]
    pub(super) id: String,
    #[serde(default)]
    pub(super) source: String,
    #[serde(default, rename = "type")]
    pub(super) type_: String,
    #[serde(default)]
    pub(super) subject: Option<String>,
    #[serde(default)]
    pub(super) data: Option<Box<RawValue>>,
}

impl EventSummary {
    /// Parses an event's JSON form; missing attributes are empty. All strings are untrusted, so they are escaped.
    pub(super) fn parse(event: &RawValue) -> Self {
        let Self { id, source, type_, subject, data } = serde_json::from_str(event.get()).unwrap_or_default();
        let escape = |text: String| escape(&text).into_owned();
        Self { id: escape(id), source: escape(source), type_: escape(type_), subject: subject.map(escape), data }
    }
}

/// Escapes control characters and characters that change the text direction, so that untrusted text cannot move the
/// cursor, change colours or reverse the text after it. The result is one line.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_deceptive) {
        return text.into();
    }
    let push_escaped = |out: &mut String, c: char| match c {
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("  "),
        c if is_deceptive(c) => out.extend(c.escape_unicode()),
        c => out.push(c),
    };
    let mut out = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| push_escaped(&mut out, c));
    out.into()
}

/// Like [`escape`], but keeps line breaks.
pub(super) fn escape_lines(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}

/// Truncates a text that is longer than `chars_max` characters. The last character is then `…`.
pub(super) fn truncate(text: &str, chars_max: Option<usize>) -> Cow<'_, str> {
    match chars_max {
        Some(max) if text.chars().count() > max => text.chars().take(max.saturating_sub(1)).chain(['…']).collect(),
        _ => text.into(),
    }
}

/// Formats an RFC 3339 time in the local time zone: only the time of day for today, else date and time.
pub(super) fn local_time(instant: &str) -> String {
    local_time_at(instant, &Timestamp::now().to_zoned(TimeZone::system()))
}

/// Formats the end of a period, given as its start and its duration in microseconds, as [`local_time`] does.
pub(super) fn local_end(started: &str, duration_us: u64) -> String {
    let duration = SignedDuration::from_micros(duration_us.try_into().unwrap_or(i64::MAX));
    let end = started.parse::<Timestamp>().ok().and_then(|at| at.checked_add(duration).ok());
    end.map_or_else(|| local_time(started), |end| local_time(&end.to_string()))
}

fn local_time_at(instant: &str, now: &Zoned) -> String {
    let Ok(at) = instant.parse::<Timestamp>() else { return escape(instant).into_owned() };
    let at = at.to_zoned(now.time_zone().clone());
    let form = if at.date() == now.date() { "%H:%M:%S%.3f" } else { "%Y-%m-%d %H:%M:%S" };
    at.strftime(form).to_string()
}

/// Formats a duration given in microseconds.
pub(super) fn format_micros(duration_us: u64) -> String {
    match duration_us {
        0..1_000 => format!("{duration_us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", duration_us as f64 / 1e3),
        _ => format_millis(duration_us / 1_000),
    }
}

/// Formats a duration given in milliseconds. The result has no unit smaller than a second.
pub(super) fn format_millis(duration_ms: u64) -> String {
    let seconds = duration_ms / 1_000;
    match seconds {
        0..60 => format!("{:.1} s", duration_ms as f64 / 1e3),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Formats a size given in bytes.
pub(super) fn format_bytes(size: u64) -> String {
    match size {
        0..1_024 => format!("{size} B"),
        1_024..1_048_576 => format!("{:.1} KiB", size as f64 / 1_024.0),
        _ => format!("{:.1} MiB", size as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_events_are_escaped() {
        assert_eq!(escape("a\u{1b}[2Jb\nc\u{202e}\u{9b}d"), "a\\u{1b}[2Jb\\nc\\u{202e}\\u{9b}d");
        assert_eq!(escape("\u{61c}\u{200e}\u{200f}\u{7f}"), "\\u{61c}\\u{200e}\\u{200f}\\u{7f}");
        let event = RawValue::from_string(r#"{"type":"a\u001b[31m","data":1}"#.to_owned()).unwrap();
        assert_eq!(EventSummary::parse(&event).type_, "a\\u{1b}[31m");
    }

    #[test]
    fn times_of_today_are_shown_without_a_date() {
        let now: Zoned = "2026-01-31T15:00:00+01:00[Europe/Berlin]".parse().unwrap();
        assert_eq!(local_time_at("2026-01-31T12:00:00.123Z", &now), "13:00:00.123");
        assert_eq!(local_time_at("2026-01-30T23:30:00Z", &now), "00:30:00.000");
        assert_eq!(local_time_at("2026-01-29T12:00:00Z", &now), "2026-01-29 13:00:00");
        assert_eq!(local_time_at("soon\u{1b}", &now), "soon\\u{1b}");
        assert_eq!(local_end("2026-01-29T12:00:00Z", 2_000_000), local_time("2026-01-29T12:00:02Z"));
        assert_eq!(local_end("soon", 1), "soon");
    }

    #[test]
    fn durations_and_sizes_have_readable_units() {
        assert_eq!([850, 1_240, 2_500_000].map(format_micros), ["850 µs", "1.2 ms", "2.5 s"]);
        assert_eq!([1_023, 1_536, 5_452_595].map(format_bytes), ["1023 B", "1.5 KiB", "5.2 MiB"]);
        assert_eq!([61_000, 3_720_000, 180_000_000].map(format_millis), ["1 min 1 s", "1 h 2 min", "2 d 2 h"]);
    }

    #[test]
    fn truncate_limits_the_number_of_characters() {
        assert_eq!(truncate("abcdef", Some(4)), "abc…");
        assert_eq!(truncate("abcd", Some(4)), "abcd");
        assert_eq!(truncate("abcdef", None), "abcdef");
    }
}
