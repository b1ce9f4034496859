//! Parses the fields of a cron expression more strictly than the croner crate, which accepts some mistakes. In croner,
//! a day of the week `L` never matches, `L,LW` means only `LW`, and `JAN` as a day of the week means Monday.

/// A field of a cron expression.
#[derive(Debug)]
pub(super) struct Field {
    /// One value of the field, as text for messages, such as `a minute`.
    pub(super) what: &'static str,
    /// The allowed values, as text for help texts, such as `0 to 59`.
    pub(super) range: &'static str,
    pub(super) min: u16,
    pub(super) max: u16,
    /// The number of different values. For the day of the week this is 7, because 0 and 7 are both Sunday.
    pub(super) count: u16,
    /// The names of the values, in order; the first name belongs to the value `first_named`.
    names: &'static [&'static str],
    first_named: u16,
    /// The time after which the values start again, such as `hour` for the minute.
    pub(super) period: &'static str,
    /// The unit in which this field counts, as written in `every:`, such as `m` for the minute.
    pub(super) unit: Option<char>,
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const fn number(what: &'static str, range: &'static str, max: u16, period: &'static str, unit: char) -> Field {
    Field { what, range, min: 0, max, count: max + 1, names: &[], first_named: 0, period, unit: Some(unit) }
}

/// The fields of an expression with six fields. An expression with five fields starts with the minute.
pub(super) const FIELDS: [Field; 6] = [
    number("a second", "0 to 59", 59, "minute", 's'),
    number("a minute", "0 to 59", 59, "hour", 'm'),
    number("an hour", "0 to 23", 23, "day", 'h'),
    Field { min: 1, count: 31, ..number("a day of the month", "1 to 31, or `L` for the last", 31, "month", 'd') },
    Field {
        what: "a month",
        range: "1 to 12, or JAN to DEC",
        min: 1,
        max: 12,
        count: 12,
        names: &MONTHS,
        first_named: 1,
        period: "year",
        unit: None,
    },
    Field {
        what: "a day of the week",
        range: "0 (Sunday) to 6 (Saturday), or SUN to SAT",
        min: 0,
        max: 7,
        count: 7,
        names: &WEEKDAYS,
        first_named: 0,
        period: "week",
        unit: None,
    },
];

// The positions of the fields in [`FIELDS`]. The field for the seconds is at 0.
pub(super) const MINUTE: usize = 1;
pub(super) const HOUR: usize = 2;
pub(super) const DAY: usize = 3;
pub(super) const MONTH: usize = 4;
pub(super) const WEEKDAY: usize = 5;

/// One element of the comma-separated list in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// `*`, or `?` as a day.
    All,
    /// `*/STEP`, or a range of all values with a step.
    Step(u16),
    Value(u16),
    /// `FIRST-LAST/STEP`.
    Range(u16, u16, u16),
    /// The last day of the month, `L`.
    LastDay,
    /// The last workday (Monday to Friday) of the month, `LW`.
    LastWorkday,
    /// The workday (Monday to Friday) that is nearest to a day of the month, such as `15W`.
    NearestWorkday(u16),
    /// A certain weekday of the month: the last one, such as the last Friday `5L`, or the nth one, such as `5#2`.
    OfMonth,
}

/// The fields of an expression.
#[derive(Debug)]
pub(super) struct Fields<'t> {
    /// The text and the parts of each field, in the order of [`FIELDS`]. If the expression has five fields, the field
    /// for the seconds is `0`.
    fields: Vec<(&'t str, Vec<Part>)>,
    /// True if a day must match both the day of the month and the day of the week. In the text, the day of the week
    /// then begins with `+`.
    pub(super) both_days: bool,
}

/// The first invalid field of an expression.
pub(super) struct Invalid<'t> {
    pub(super) field: &'static Field,
    pub(super) text: &'t str,
    /// How to correct the field, if the mistake is a common one.
    pub(super) help: Option<String>,
}

impl<'t> Fields<'t> {
    /// Parses the texts of five or six fields.
    pub(super) fn parse(texts: &[&'t str]) -> Result<Self, Invalid<'t>> {
        let mut fields: Vec<(&'t str, Vec<Part>)> = Vec::with_capacity(FIELDS.len());
        if texts.len() < FIELDS.len() {
            fields.push(("0", vec![Part::Value(0)]));
        }
        let mut both_days = false;
        for (at, &text) in (fields.len()..).zip(texts) {
            let Some(field) = FIELDS.get(at) else { break };
            let upper = text.to_ascii_uppercase();
            let values = match upper.strip_prefix('+') {
                Some(rest) if at == WEEKDAY => {
                    both_days = true;
                    rest
                }
                _ => upper.as_str(),
            };
            let parts: Result<Vec<Part>, _> = values.split(',').map(|part| field.part(at, part)).collect();
            let parts = parts.and_then(|parts| {
                let has = |part| parts.contains(&part);
                if has(Part::LastDay) && has(Part::LastWorkday) {
                    return Err(Some("write either `L` or `LW`".to_owned()));
                }
                Ok(parts)
            });
            fields.push((text, parts.map_err(|help| Invalid { field, text, help })?));
        }
        Ok(Self { fields, both_days })
    }

    /// Returns the text of the field at a position in [`FIELDS`].
    pub(super) fn text(&self, at: usize) -> &'t str {
        self.fields.get(at).map_or("", |(text, _)| *text)
    }

    /// Returns the parts of the field at a position in [`FIELDS`].
    pub(super) fn parts(&self, at: usize) -> &[Part] {
        self.fields.get(at).map_or(&[], |(_, parts)| parts.as_slice())
    }

    /// Returns true if the field at a position allows every value.
    pub(super) fn is_all(&self, at: usize) -> bool {
        self.parts(at) == [Part::All]
    }

    /// Returns the value of a field that is a single number or name; otherwise `None`.
    pub(super) fn single(&self, at: usize) -> Option<u16> {
        match self.parts(at) {
            [Part::Value(value)] => Some(*value),
            _ => None,
        }
    }
}

impl Field {
    /// Parses one element of the comma-separated list. The error is a help text for a common mistake. It is `None` for
    /// any other mistake: the help text then lists the allowed forms.
    fn part(&self, at: usize, text: &str) -> Result<Part, Option<String>> {
        if text.is_empty() {
            return Err(Some("remove the extra comma".to_owned()));
        }
        let is_day = at == DAY || at == WEEKDAY;
        match text {
            "*" => return Ok(Part::All),
            "?" if is_day => return Ok(Part::All),
            "L" if at == DAY => return Ok(Part::LastDay),
            "LW" if at == DAY => return Ok(Part::LastWorkday),
            "L" if at == WEEKDAY => {
                let help =
                    "for the last Friday, write `5L`; for the last day of the month, write `L` as the day of the month";
                return Err(Some(help.to_owned()));
            }
            _ => {}
        }
        if let Some((range, step)) = text.split_once('/') {
            return self.stepped(range, step);
        }
        if let Some((first, last)) = text.split_once('-') {
            let (first, last) = self.range(first, last)?;
            return Ok(Part::Range(first, last, 1));
        }
        if at == DAY
            && let Some(day) = text.strip_suffix('W')
        {
            return Ok(Part::NearestWorkday(self.value(day)?));
        }
        if at == WEEKDAY
            && let Some(day) = text.strip_suffix('L')
        {
            return self.value(day).map(|_| Part::OfMonth);
        }
        if at == WEEKDAY
            && let Some((day, nth)) = text.split_once('#')
        {
            self.value(day)?;
            return match nth {
                "1" | "2" | "3" | "4" | "5" => Ok(Part::OfMonth),
                _ => Err(Some(format!("write `{day}#1` to `{day}#5`"))),
            };
        }
        self.value(text).map(Part::Value)
    }

    fn stepped(&self, range: &str, step: &str) -> Result<Part, Option<String>> {
        let is_number = !step.is_empty() && step.len() <= 4 && step.bytes().all(|byte| byte.is_ascii_digit());
        let Some(step) = step.parse::<u16>().ok().filter(|_| is_number) else { return Err(None) };
        if step == 0 {
            return Err(Some("write a step of at least 1".to_owned()));
        }
        let max = self.min + self.count - 1;
        if range == "*" {
            return Ok(Part::Step(step));
        }
        if range.is_empty() {
            return Err(Some(format!("write `*/{step}`")));
        }
        let Some((first, last)) = range.split_once('-') else {
            let first = self.value(range)?;
            return Err(Some(format!("write `{first}-{max}/{step}`, or `*/{step}`")));
        };
        let (first, last) = self.range(first, last)?;
        if first == self.min && last >= max { Ok(Part::Step(step)) } else { Ok(Part::Range(first, last, step)) }
    }

    fn range(&self, first: &str, last: &str) -> Result<(u16, u16), Option<String>> {
        let (start, end) = (self.value(first)?, self.value(last)?);
        // At the end of a range, `SUN` means 7, so that `FRI-SUN` is a valid range.
        let end = if self.first_named == 0 && last == "SUN" && !self.names.is_empty() { 7 } else { end };
        if start > end {
            let (min, max) = (self.min, self.min + self.count - 1);
            let from =
                |first: u16, last: u16| if first == last { first.to_string() } else { format!("{first}-{last}") };
            let both = if start > max { from(min, end) } else { format!("{},{}", from(start, max), from(min, end)) };
            return Err(Some(format!("a range cannot go backwards: write `{both}`")));
        }
        Ok((start, end))
    }

    fn value(&self, text: &str) -> Result<u16, Option<String>> {
        if let Some(index) = self.names.iter().position(|name| *name == text) {
            return u16::try_from(index).map(|index| index + self.first_named).map_err(|_| None);
        }
        if let Some(other) = FIELDS.iter().find(|field| field.names.contains(&text)) {
            return Err(Some(format!("`{text}` is {0}: move it to the field for {0}", other.what)));
        }
        let is_number = text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let value = text.parse::<u16>().ok().filter(|value| is_number && (self.min..=self.max).contains(value));
        value.ok_or(None)
    }
}
