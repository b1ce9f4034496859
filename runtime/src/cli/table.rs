//! Aligned columns and the few colours that the output has.

use anstyle::{AnsiColor, Style};

/// What is said beside the thing itself.
pub(super) const DIM: Style = Style::new().dimmed();
/// Headings.
pub(super) const BOLD: Style = Style::new().bold();

/// The colour of a delivery's state or an attempt's outcome.
pub(super) fn colour(state: &str) -> Style {
    let colour = match state {
        "done" | "ok" => AnsiColor::Green,
        "ready" | "retrying" | "blocked" | "retry" => AnsiColor::Yellow,
        _ => AnsiColor::Red,
    };
    Style::new().fg_color(Some(colour.into()))
}

/// Rows under headings, columns as wide as their widest cell; numbers (a heading that ends in `#`) to the right.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(headings.get(column).map(|h| h.trim_end_matches('#').chars().count())).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &[String]| {
        let mut line = String::new();
        for ((cell, width), heading) in cells.iter().zip(&widths).zip(headings) {
            let padding = " ".repeat(width - cell.chars().count().min(*width));
            if heading.ends_with('#') {
                line.push_str(&padding);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&padding);
            }
            line.push_str("  ");
        }
        line.trim_end().to_owned()
    };
    let headings: Vec<String> = headings.iter().map(|heading| heading.trim_end_matches('#').to_owned()).collect();
    let mut text = format!("{DIM}{}{DIM:#}\n", line(&headings));
    for row in rows {
        text.push_str(&line(row));
        text.push('\n');
    }
    text
}

/// The day's time of an RFC 3339 instant on this machine's clock, `12:34:56.789`.
pub(super) fn local_time(instant: &str) -> String {
    match instant.parse::<jiff::Timestamp>() {
        Ok(at) => at.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S%.3f").to_string(),
        Err(_) => instant.to_owned(),
    }
}

/// Microseconds for people.
pub(super) fn micros(duration_us: u64) -> String {
    match duration_us {
        0..1_000 => format!("{duration_us}µs"),
        1_000..1_000_000 => format!("{:.1}ms", duration_us as f64 / 1e3),
        _ => format!("{:.1}s", duration_us as f64 / 1e6),
    }
}

/// The beginning of a text on one line.
pub(super) fn short(text: &str, chars_max: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= chars_max {
        return line;
    }
    line.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_stand_to_the_right() {
        let rows =
            vec![vec!["shop/charge".into(), "7".into(), "ok".into()], vec!["b".into(), "12345".into(), "ü".into()]];
        let plain = anstream::adapter::strip_str(&table(&["function", "done#", "state"], &rows)).to_string();
        assert_eq!(plain, "function      done  state\nshop/charge      7  ok\nb            12345  ü\n");
    }

    #[test]
    fn long_texts_are_cut_on_one_line() {
        assert_eq!(short("a\nb\u{1b}c", 9), "a b c");
        assert_eq!(short("abcdef", 4), "abc…");
    }
}
