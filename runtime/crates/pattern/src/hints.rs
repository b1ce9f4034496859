//! Finds probable mistakes in correct patterns.
//!
//! | suspicious place | reason |
//! |---|---|
//! | a top-level field with almost the name of an attribute, such as `tpye` | it matches only an extension of that name, which hardly any producer sets |
//! | a value with `*` in a place that compares characters as they are, such as `"order.*"` | only `wildcard` gives `*` a meaning |
//! | a value with `${NAME}` | variables are not replaced in patterns |
//! | a `prefix`, `wildcard` or `equals-ignore-case` on reserved values ([`ReservedValues`]) | events with these values are matched only against patterns with exact values |

use serde_json::Value as Json;

use super::text::edit_distance;
use super::{FieldTest, Pattern, PatternError, Segment};

/// Reserved values of a top-level field. The caller matches an event with such a value only against patterns that
/// restrict this field, or another field with reserved values, to exact values.
#[derive(Clone, Copy, Debug)]
pub struct ReservedValues<'a> {
    /// The name of the field.
    pub field: &'a str,
    /// The prefix that all reserved values have.
    pub prefix: &'a str,
}

/// The top-level fields of a CloudEvent without its extensions (CloudEvents 1.0.2 section 3).
pub(super) const FIELDS: [&str; 9] =
    ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data"];

/// The largest number of hints returned for a pattern.
const HINTS_MAX: usize = 20;

/// A string in an entry of a field's list: its place, the operators around it, and its text.
struct Text<'a> {
    path: Vec<Segment>,
    operators: Vec<&'a str>,
    text: &'a str,
}

impl Pattern {
    /// Returns at most 20 probable mistakes in a correct pattern: a misspelled attribute, a `*` or `${NAME}` in a value
    /// that is compared as it is written, or an operator on [`ReservedValues`]. These are warnings, because events can
    /// still match the pattern.
    #[must_use]
    pub fn hints(&self, reserved: &[ReservedValues<'_>]) -> Vec<PatternError> {
        let has_exact = reserved.iter().any(|values| self.exact_values(values.field).is_some());
        let reserved = if has_exact { &[] } else { reserved };
        let mut hints: Vec<PatternError> = Vec::new();
        for test in &self.0.fields {
            let mut texts = Vec::new();
            let list = test.entries(self.source());
            for (index, entry) in list.iter().enumerate() {
                let mut path = test.pattern_path.clone();
                path.push(Segment::Index(index));
                collect_texts(entry, path, Vec::new(), &mut texts);
            }
            let of_texts = texts.iter().filter_map(|text| text.hint(test, reserved));
            for hint in misspelled_field(test).into_iter().chain(of_texts) {
                if hints.len() < HINTS_MAX && !hints.iter().any(|other| other.path == hint.path) {
                    hints.push(hint);
                }
            }
        }
        hints
    }
}

/// Appends all strings in an entry to `out`.
fn collect_texts<'a>(entry: &'a Json, path: Vec<Segment>, operators: Vec<&'a str>, out: &mut Vec<Text<'a>>) {
    match entry {
        Json::String(text) => out.push(Text { path, operators, text }),
        Json::Array(list) => {
            for (index, inner) in list.iter().enumerate() {
                let mut path = path.clone();
                path.push(Segment::Index(index));
                collect_texts(inner, path, operators.clone(), out);
            }
        }
        // A valid entry has two levels of operators at most, so the recursion is bounded.
        Json::Object(map) => {
            for (operator, inner) in map {
                let (mut path, mut operators) = (path.clone(), operators.clone());
                path.push(Segment::Key(operator.clone()));
                operators.push(operator);
                collect_texts(inner, path, operators, out);
            }
        }
        _ => {}
    }
}

/// Returns a hint if the top-level field of a test has almost the name of an attribute.
fn misspelled_field(test: &FieldTest) -> Option<PatternError> {
    let name = test.event_path.first()?;
    if FIELDS.contains(&&**name) || name.len() > 32 {
        return None;
    }
    let similar = FIELDS.into_iter().find(|field| is_similar(name, field))?;
    let end = test.pattern_path.iter().position(|segment| matches!(segment, Segment::Key(key) if **key == **name))?;
    Some(PatternError {
        path: test.pattern_path.get(..=end).unwrap_or_default().to_vec(),
        message: format!("`{name}` is not an attribute of CloudEvents, so it matches only an extension of that name"),
        help: Some(format!("did you mean `{similar}`?")),
    })
}

/// Returns true if `name` is almost the name of `field`: at most one letter in four is wrong, missing or added, or two
/// neighbouring letters are exchanged.
fn is_similar(name: &str, field: &str) -> bool {
    let mistakes_max = field.len() / 4;
    let distance = edit_distance(name, field);
    let is_swapped = || {
        let (mut a, mut b): (Vec<u8>, Vec<u8>) = (name.bytes().collect(), field.bytes().collect());
        a.len() == b.len() && distance == 2 && {
            let differing: Vec<usize> = (0..a.len()).filter(|at| a.get(*at) != b.get(*at)).collect();
            a.sort_unstable();
            b.sort_unstable();
            a == b && matches!(differing[..], [first, second] if first + 1 == second)
        }
    };
    distance <= mistakes_max || is_swapped()
}

impl Text<'_> {
    fn hint(&self, test: &FieldTest, reserved: &[ReservedValues<'_>]) -> Option<PatternError> {
        let (message, help) = self.variable().or_else(|| self.glob(test)).or_else(|| self.reserved(test, reserved))?;
        Some(PatternError { path: self.path.clone(), message, help: Some(help) })
    }

    /// Returns the message and the help if the text has a variable in shell syntax.
    fn variable(&self) -> Option<(String, String)> {
        let (_, rest) = self.text.split_once("${")?;
        let (name, _) = rest.split_once('}')?;
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let message = format!("`${{{name}}}` is not replaced by the value of a variable");
        is_name.then(|| (message, "write the value itself: a pattern is compared as it is written".to_owned()))
    }

    /// Returns the message and the help if the text has a `*` that is compared as a character.
    fn glob(&self, test: &FieldTest) -> Option<(String, String)> {
        let text = self.text;
        let is_data = test.event_path.first().is_some_and(|name| **name == *"data");
        let (&operator, around) = match self.operators.split_last() {
            Some((last, around)) => (last, around),
            None => (&"", &[][..]),
        };
        // In data, a star can be an ordinary character. So the text `*` alone and texts with white space are not
        // reported there.
        if !text.contains('*') || (is_data && (text.len() < 2 || text.contains(char::is_whitespace))) {
            return None;
        }
        let is_compared = match operator {
            "" | "anything-but" => true,
            "equals-ignore-case" => !matches!(around, ["prefix" | "suffix"]),
            "prefix" => text.ends_with('*'),
            "suffix" => text.starts_with('*'),
            _ => false,
        };
        if !is_compared {
            return None;
        }
        if operator == "prefix" || operator == "suffix" {
            let without = if operator == "prefix" { text.trim_end_matches('*') } else { text.trim_start_matches('*') };
            let help = format!("write \"{without}\" without the `*`");
            return Some((format!("`{operator}` compares `*` as a character, not as a wildcard"), help));
        }
        let mut wildcard = text.replace('\\', "\\\\");
        while wildcard.contains("**") {
            wildcard = wildcard.replace("**", "*");
        }
        let wildcard = Json::from(wildcard);
        let help = match (operator, around) {
            ("anything-but", _) | (_, ["anything-but"]) => {
                format!("did you mean {{\"anything-but\": {{\"wildcard\": {wildcard}}}}}?")
            }
            _ => format!("did you mean {{\"wildcard\": {wildcard}}}?"),
        };
        Some((format!("\"{text}\" is compared as it is written: `*` is not a wildcard here"), help))
    }

    /// Returns the message and the help if a `prefix`, `wildcard` or `equals-ignore-case` can match only reserved
    /// values.
    fn reserved(&self, test: &FieldTest, reserved: &[ReservedValues<'_>]) -> Option<(String, String)> {
        let [name] = &*test.event_path else { return None };
        let values = reserved.iter().find(|values| *values.field == **name)?;
        let start = match self.operators[..] {
            ["prefix"] | ["prefix", "equals-ignore-case"] => self.text,
            ["wildcard"] => self.text.split('*').next()?,
            ["equals-ignore-case"] => self.text,
            _ => return None,
        };
        let prefix = values.prefix;
        start.to_lowercase().starts_with(prefix).then(|| {
            let message =
                format!("this never matches: a `{name}` that starts with `{prefix}` is matched only by its full value");
            (message, format!("write the values of `{name}` in full, without an operator"))
        })
    }
}
