//! Grants of a function: the event types it may publish, and the limits of its state.

use super::diagnostics::{ValueError, excerpt};
use super::units::ByteSize;
use evoke_model::claim::is_runtime_type;
use schemars::JsonSchema;
use serde::Serialize;

/// Glob of event types: `*` matches any number of characters, including none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TypeGlob(String);

/// Limits of a function's state. The state is a bucket of values, stored by key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "State", deny_unknown_fields)]
pub struct StateLimits {
    /// `true` allows the function to also use the bucket that all functions of the app share.
    pub shared: bool,
    /// Largest number of keys in a bucket.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_keys: u32,
    /// Largest size of a value, at most 4MiB.
    pub max_value: ByteSize,
    /// Largest total size of a bucket: keys and values together.
    pub max_total: ByteSize,
}

impl TypeGlob {
    /// Parses a glob.
    ///
    /// # Errors
    /// The text is empty, contains white space or control characters, or matches only types of the runtime (`evoke.*`).
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Err(ValueError::new(
                "the event type is empty",
                "write a type such as `payment.done`, or `payment.*`",
            ));
        }
        if text.chars().any(|char| char.is_whitespace() || char.is_control()) {
            return Err(ValueError::new(
                format!("the event type `{}` contains white space", excerpt(text)),
                "write each type as a separate entry: `[payment.done, payment.failed]`",
            ));
        }
        let literal = text.split('*').next().unwrap_or_default();
        if is_runtime_type(literal) && (literal.contains('.') || literal == text) {
            return Err(ValueError::new(
                format!("the event type `{}` belongs to the runtime", excerpt(text)),
                "write a type that does not begin with `evoke.`, such as `payment.done`",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the message and the help text of a warning if the glob is valid but looks like a mistake.
    pub(crate) fn advice(&self) -> Option<(String, String)> {
        let text = self.0.as_str();
        if let Some(part) = text.split('.').find(|part| matches!(*part, "#" | ">" | "+" | "?" | "%")) {
            let message = format!("`{part}` in the event type `{}` only matches the character `{part}`", excerpt(text));
            let corrected: Vec<_> = text.split('.').map(|other| if other == part { "*" } else { other }).collect();
            return Some((message, format!("`*` matches any characters: write `{}`", excerpt(&corrected.join(".")))));
        }
        if text.contains([',', ';', '|']) {
            let message = format!("`{}` is one event type, not several", excerpt(text));
            return Some((message, "write each type as a separate entry: `[payment.done, payment.failed]`".to_owned()));
        }
        if text.split('.').any(str::is_empty) {
            let message = format!("the event type `{}` has an empty part between its dots", excerpt(text));
            let corrected: Vec<_> = text.split('.').filter(|part| !part.is_empty()).collect();
            return Some((
                message,
                format!("write `{0}`, or `{0}.*` for all types that start with `{0}.`", excerpt(&corrected.join("."))),
            ));
        }
        None
    }

    /// Returns the glob as written in the manifest.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true if the glob matches `type_`. The time is at most proportional to the product of the lengths of the
    /// glob and the type. The function does not use recursion, so a long glob cannot overflow the stack.
    pub fn matches(&self, type_: &str) -> bool {
        let (glob, text) = (self.0.as_bytes(), type_.as_bytes());
        let (mut at_glob, mut at_text) = (0, 0);
        // The glob offset after the last star, and the end of the text that this star matches so far.
        let mut last_star: Option<(usize, usize)> = None;
        while at_text < text.len() {
            match glob.get(at_glob) {
                Some(b'*') => {
                    at_glob += 1;
                    last_star = Some((at_glob, at_text));
                }
                Some(byte) if Some(byte) == text.get(at_text) => {
                    at_glob += 1;
                    at_text += 1;
                }
                _ => {
                    let Some((after_star, run_end)) = last_star else {
                        return false;
                    };
                    at_glob = after_star;
                    at_text = run_end + 1;
                    last_star = Some((after_star, at_text));
                }
            }
        }
        glob.get(at_glob..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
    }
}

impl Default for StateLimits {
    fn default() -> Self {
        Self { shared: false, max_keys: 100_000, max_value: ByteSize(1 << 20), max_total: ByteSize(64 << 20) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_a_type_glob_matches_any_number_of_characters() {
        for (glob, matching, other) in [
            ("payment.*", &["payment.done", "payment."][..], &["payment", "xpayment.done"][..]),
            ("*", &["", "a", "a.b"], &[]),
            ("a*b*c", &["abc", "a1b2c", "abbcc"], &["ab", "acb", "abcd"]),
            ("*.done", &["x.done", ".done"], &["done", "x.done."]),
            ("exact", &["exact"], &["exac", "exactly"]),
            ("**", &["", "anything"], &[]),
        ] {
            let glob = TypeGlob::parse(glob).unwrap();
            matching.iter().for_each(|type_| assert!(glob.matches(type_), "{} {type_}", glob.as_str()));
            other.iter().for_each(|type_| assert!(!glob.matches(type_), "{} {type_}", glob.as_str()));
        }
        let long = TypeGlob::parse(&"a*".repeat(1000)).unwrap();
        assert!(!long.matches(&"b".repeat(100_000)), "matching a long glob must stay fast");
    }
}
