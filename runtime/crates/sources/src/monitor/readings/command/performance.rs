//! Parses the output of monitoring plugins: a text, and performance data such as
//! `'label'=value[UOM];[warn];[crit];[min];[max]` (UOM: unit of measurement).

use super::super::super::quantity::Unit;

/// Maximum length of the text for the user, in bytes; the rest is cut off.
const TEXT_BYTES_MAX: usize = 512;
/// A plugin prints this instead of a value that it could not find.
const UNDEFINED: &str = "U";
/// Maximum number of values that are read from the performance data.
const DATA_MAX: usize = 100;

/// A value of the performance data, in the base unit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Datum {
    pub(super) label: String,
    /// `None` if the plugin could not find the value.
    pub(super) value: Option<f64>,
    pub(super) unit: Unit,
}

/// Splits the output into the first line of its text and the performance data. The performance data follows a `|` on
/// the first line, and may continue after a `|` on a later line.
pub(super) fn split(output: &str) -> (String, Vec<Datum>) {
    let mut lines = output.lines();
    let first = lines.next().unwrap_or_default();
    let (text, data) = first.split_once('|').unwrap_or((first, ""));
    let mut found = parse(data);
    let mut is_data = false;
    for line in lines {
        let data = match line.split_once('|') {
            Some((_, data)) => {
                is_data = true;
                data
            }
            None if is_data => line,
            None => continue,
        };
        found.append(&mut parse(data));
    }
    found.truncate(DATA_MAX);
    let text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let cut = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    (text.get(..cut).unwrap_or_default().to_owned(), found)
}

/// Returns the value with the label `label`, or the first value if `label` is `None`. Returns an error if there is no
/// value with this label, or if the value has another unit than the thresholds.
pub(super) fn find(data: &[Datum], label: Option<&str>, unit: Unit) -> Result<Option<f64>, String> {
    let found = match label {
        Some(label) => {
            let found = data.iter().find(|datum| datum.label == label);
            Some(found.ok_or_else(|| format!("the performance data has no label `{label}`"))?)
        }
        None => data.first(),
    };
    let Some(datum) = found else { return Ok(None) };
    // A value without a unit fits all thresholds. If the monitor has no threshold, `unit` is `Count` and fits all
    // values.
    if datum.unit != unit && datum.unit != Unit::Count && unit != Unit::Count {
        let (is, wanted) = (datum.unit.symbol(), unit.symbol());
        return Err(format!("the value `{}` has the unit `{is}`, but the thresholds have `{wanted}`", datum.label));
    }
    Ok(datum.value)
}

fn parse(mut text: &str) -> Vec<Datum> {
    let mut found = Vec::new();
    while found.len() < DATA_MAX {
        text = text.trim_start();
        let Some((label, rest)) = label(text) else { break };
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (entry, rest) = rest.split_at(end);
        text = rest;
        let value = entry.split(';').next().unwrap_or_default();
        if value == UNDEFINED {
            found.push(Datum { label, value: None, unit: Unit::Count });
        } else if let Some((value, unit)) = value_of(value) {
            found.push(Datum { label, value: Some(value), unit });
        }
    }
    found
}

/// Returns the label at the start of a text, and the text after its `=`. The label may be in quotes; within them, two
/// quotes stand for one quote.
fn label(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('\'') else {
        let (label, rest) = text.split_once('=')?;
        return Some((label.trim().to_owned(), rest));
    };
    let mut label = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '\'' {
            label.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == '\'') {
            chars.next();
            label.push('\'');
        } else {
            return Some((label, quoted.get(at + 1..)?.strip_prefix('=')?));
        }
    }
    None
}

/// The units of the Monitoring Plugins Development Guidelines, and further ones such as `ns` and `KiB`. A kilobyte is
/// 1,024 bytes, as in most plugins.
const UNITS: [(&str, Unit, f64); 15] = [
    ("", Unit::Count, 1.0),
    ("%", Unit::Percent, 1.0),
    ("s", Unit::Seconds, 1.0),
    ("ms", Unit::Seconds, 1e-3),
    ("us", Unit::Seconds, 1e-6),
    ("ns", Unit::Seconds, 1e-9),
    ("B", Unit::Bytes, 1.0),
    ("KB", Unit::Bytes, 1024.0),
    ("MB", Unit::Bytes, 1_048_576.0),
    ("GB", Unit::Bytes, 1_073_741_824.0),
    ("TB", Unit::Bytes, 1_099_511_627_776.0),
    ("KiB", Unit::Bytes, 1024.0),
    ("MiB", Unit::Bytes, 1_048_576.0),
    ("GiB", Unit::Bytes, 1_073_741_824.0),
    ("c", Unit::Count, 1.0),
];

/// Returns the length of the exponent at the start of a text, such as `e-05`: some plugins print small and large
/// numbers with an exponent.
fn exponent(text: &str) -> usize {
    let Some(rest) = text.strip_prefix(['e', 'E']) else { return 0 };
    let digits = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    let sign = rest.len() - digits.len();
    let count = digits.bytes().take_while(u8::is_ascii_digit).count();
    if count == 0 { 0 } else { 1 + sign + count }
}

fn value_of(text: &str) -> Option<(f64, Unit)> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+')).count();
    let (number, unit) = text.split_at_checked(digits + exponent(text.get(digits..)?))?;
    // A value with an unknown unit counts as a plain number.
    let number: f64 = number.parse().ok()?;
    let known = UNITS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(unit));
    let (unit, factor) = known.map_or((Unit::Count, 1.0), |(_, unit, factor)| (*unit, *factor));
    Some((number * factor, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(output: &str) -> Vec<(String, f64)> {
        split(output).1.into_iter().filter_map(|datum| Some((datum.label, datum.value?))).collect()
    }

    #[test]
    fn the_text_is_the_first_line_before_the_data() {
        let (text, found) = split(
            "DISK OK - free space: / 3326 MB (56%); | /=2643MB;5948;5958;0;5968\n/boot 68 MB | /boot=68MB;88\n/home=69357MB;253404",
        );
        assert_eq!(text, "DISK OK - free space: / 3326 MB (56%);");
        let mb = 1_048_576.0;
        let expected = [("/", 2643.0 * mb), ("/boot", 68.0 * mb), ("/home", 69_357.0 * mb)];
        assert_eq!(found.iter().map(|d| (d.label.as_str(), d.value.unwrap())).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn labels_may_have_quotes_and_values_units() {
        let expected = [("a b", 1.0), ("it's", 50.0), ("rta", 0.000_25), ("in", 4_096.0), ("n", -3.5)];
        let found = data("x|'a b'=1;2;3 'it''s'=50%;; rta=0.25ms;;;0 missing=U in=4KB n=-3.5c");
        assert_eq!(found.iter().map(|(label, value)| (label.as_str(), *value)).collect::<Vec<_>>(), expected);
        assert_eq!(
            data("x|a=1e3 b=1.5E-02s c=-2e+1;3 d=1e e=2e9e"),
            [("a", 1e3), ("b", 0.015), ("c", -20.0), ("d", 1.0), ("e", 2e9)]
                .map(|(label, value)| (label.to_owned(), value))
        );
        assert_eq!(data("no data"), []);
        assert_eq!(data("x|'open=1"), []);
    }

    #[test]
    fn the_watched_value_is_the_labelled_one_in_the_unit_of_the_thresholds() {
        let data = split("x|load1=0.5;1;2 used=80%;90").1;
        assert_eq!(find(&data, None, Unit::Count), Ok(Some(0.5)));
        assert_eq!(find(&data, Some("used"), Unit::Percent), Ok(Some(80.0)));
        assert!(find(&data, Some("used"), Unit::Bytes).is_err());
        assert!(find(&data, Some("none"), Unit::Count).is_err());
        // If the plugin could not find the first value, the value of the next label is not used instead.
        assert_eq!(find(&split("x|rta=U;1;2 loss=100%").1, None, Unit::Count), Ok(None));
        assert_eq!(find(&[], None, Unit::Count), Ok(None));
    }

    #[test]
    fn long_texts_and_control_characters_are_cut() {
        let (text, _) = split(&format!("\u{1b}[31m{}", "ü".repeat(10_000)));
        assert!(text.len() <= TEXT_BYTES_MAX && !text.contains('\u{1b}'));
        assert_eq!(split(&format!("x|{}", "a=1 ".repeat(10_000))).1.len(), DATA_MAX);
    }
}
