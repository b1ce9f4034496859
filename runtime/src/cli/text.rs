//! What commands print: made harmless, in people's units, and quietly ended when nobody reads on.

use std::borrow::Cow;
use std::io::{ErrorKind, Write};

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Failure;

/// What is said beside the thing itself.
pub(super) const DIM: Style = Style::new().dimmed();
/// Headings.
pub(super) const BOLD: Style = Style::new().bold();

/// The colour of a delivery's state, an attempt's outcome or a line's level.
pub(super) fn colour(state: &str) -> Style {
    let colour = match state {
        "done" | "ok" => AnsiColor::Green,
        "ready" | "retrying" | "blocked" | "retry" | "warn" => AnsiColor::Yellow,
        "purged" | "trace" | "debug" | "info" => return DIM,
        _ => AnsiColor::Red,
    };
    Style::new().fg_color(Some(colour.into()))
}

/// Prints a text for people, and a line break; colours only where there is a terminal.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    printed(writeln!(out, "{text}").and_then(|()| out.flush()))
}

/// Prints a line for machines as it is.
pub(super) fn print_raw(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    printed(writeln!(out, "{line}").and_then(|()| out.flush()))
}

/// Prints a value for machines, on one line.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    // What is printed are strings, numbers and JSON.
    print_raw(&serde_json::to_string(value).unwrap_or_default())
}

/// Standard output went away: whoever read it has enough, and nothing failed.
fn printed(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::Failed(format!("cannot print: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// The columns of the terminal; `None` where the output is no terminal and nothing needs to be cut.
pub(super) fn columns() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(std::io::stdout())?;
    Some(usize::from(width.0).max(40))
}

/// An event at a glance.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Glance {
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

impl Glance {
    /// Reads an event's JSON form; what is not in it is empty. Its texts come from outside: they are made harmless.
    pub(super) fn at(event: &RawValue) -> Self {
        let Self { id, source, type_, subject, data } = serde_json::from_str(event.get()).unwrap_or_default();
        let plain = |text: String| plain(&text).into_owned();
        Self { id: plain(id), source: plain(source), type_: plain(type_), subject: subject.map(plain), data }
    }
}

/// JSON without white space; as it is where it is nested too deeply to be read.
pub(super) fn compact(json: &RawValue) -> String {
    let value: Result<serde_json::Value, _> = serde_json::from_str(json.get());
    value.map_or_else(|_| json.get().to_owned(), |value| value.to_string())
}

/// Text that cannot move the cursor, change colours or reverse what is read after it: control characters and the
/// bidirectional overrides are written out, on one line.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    let is_harmful = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(is_harmful) {
        return text.into();
    }
    let write_out = |out: &mut String, c: char| match c {
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("  "),
        c if is_harmful(c) => out.extend(c.escape_unicode()),
        c => out.push(c),
    };
    let mut out = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| write_out(&mut out, c));
    out.into()
}

/// The beginning of a text, at most so many characters.
pub(super) fn cut(text: &str, chars_max: Option<usize>) -> Cow<'_, str> {
    match chars_max {
        Some(max) if text.chars().count() > max => text.chars().take(max.saturating_sub(1)).chain(['…']).collect(),
        _ => text.into(),
    }
}

/// An RFC 3339 instant on this machine's clock: the time of day, with the date when it is not today's.
pub(super) fn local_time(instant: &str) -> String {
    local_time_at(instant, &Timestamp::now().to_zoned(TimeZone::system()))
}

fn local_time_at(instant: &str, now: &Zoned) -> String {
    let Ok(at) = instant.parse::<Timestamp>() else { return plain(instant).into_owned() };
    let at = at.to_zoned(now.time_zone().clone());
    let form = if at.date() == now.date() { "%H:%M:%S%.3f" } else { "%Y-%m-%d %H:%M:%S" };
    at.strftime(form).to_string()
}

/// Microseconds for people.
pub(super) fn micros(duration_us: u64) -> String {
    match duration_us {
        0..1_000 => format!("{duration_us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", duration_us as f64 / 1e3),
        _ => span(duration_us / 1_000),
    }
}

/// Milliseconds for people, from a second on.
pub(super) fn span(duration_ms: u64) -> String {
    let seconds = duration_ms / 1_000;
    match seconds {
        0..60 => format!("{:.1} s", duration_ms as f64 / 1e3),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A size for people.
pub(super) fn bytes(size: u64) -> String {
    match size {
        0..1_024 => format!("{size} B"),
        1_024..1_048_576 => format!("{:.1} KiB", size as f64 / 1_024.0),
        _ => format!("{:.1} MiB", size as f64 / 1_048_576.0),
    }
}

/// A number of things.
pub(super) fn count(n: impl TryInto<u64>, what: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    let (stem, several) = match what.strip_suffix('y') {
        Some(stem) if n != 1 => (stem, "ies"),
        _ if n != 1 => (what, "s"),
        _ => (what, ""),
    };
    format!("{n} {stem}{several}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn texts_from_outside_cannot_steer_a_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}\u{9b}d"), "a\\u{1b}[2Jb\\nc\\u{202e}\\u{9b}d");
        let event = RawValue::from_string(r#"{"type":"a\u001b[31m","data":1}"#.to_owned()).unwrap();
        assert_eq!(Glance::at(&event).type_, "a\\u{1b}[31m");
    }

    #[test]
    fn times_of_today_have_no_date() {
        let now: Zoned = "2026-01-31T15:00:00+01:00[Europe/Berlin]".parse().unwrap();
        assert_eq!(local_time_at("2026-01-31T12:00:00.123Z", &now), "13:00:00.123");
        assert_eq!(local_time_at("2026-01-30T23:30:00Z", &now), "00:30:00.000");
        assert_eq!(local_time_at("2026-01-29T12:00:00Z", &now), "2026-01-29 13:00:00");
        assert_eq!(local_time_at("soon\u{1b}", &now), "soon\\u{1b}");
    }

    #[test]
    fn spans_and_numbers_are_in_units_of_people() {
        assert_eq!([850, 1_240, 2_500_000].map(micros), ["850 µs", "1.2 ms", "2.5 s"]);
        assert_eq!([1_023, 1_536, 5_452_595].map(bytes), ["1023 B", "1.5 KiB", "5.2 MiB"]);
        assert_eq!([61_000, 3_720_000, 180_000_000].map(span), ["1 min 1 s", "1 h 2 min", "2 d 2 h"]);
        assert_eq!(
            [count(1u64, "delivery"), count(2u64, "delivery"), count(0u64, "event")],
            ["1 delivery", "2 deliveries", "0 events"]
        );
    }

    #[test]
    fn a_long_text_is_cut_to_the_room_there_is() {
        assert_eq!(cut("abcdef", Some(4)), "abc…");
        assert_eq!(cut("abcd", Some(4)), "abcd");
        assert_eq!(cut("abcdef", None), "abcdef");
    }
}
