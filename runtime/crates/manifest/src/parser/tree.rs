//! The tree of a manifest: every key and value has its span in the text.

use crate::source_text::Span;
use std::rc::Rc;

/// A value and its span. Nodes are shared, because each alias refers to the node of its anchor.
#[derive(Debug)]
pub struct Node {
    /// Byte range in the text of the manifest.
    pub span: Span,
    pub value: Value,
    /// Size of this subtree, including this node, with all aliases expanded.
    pub(crate) expanded: Expanded,
}

/// The size and depth of a part of the tree, in which each use of an alias counts like the value it stands for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expanded {
    pub(crate) nodes: usize,
    /// The length of all texts of scalars and keys.
    pub(crate) bytes: usize,
    /// The nesting depth of lists and maps: 0 for a scalar, 1 for a list of scalars.
    pub(crate) levels: usize,
}

impl Expanded {
    pub(crate) fn add(&mut self, inner: Self) {
        self.nodes = self.nodes.saturating_add(inner.nodes);
        self.bytes = self.bytes.saturating_add(inner.bytes);
        self.levels = self.levels.max(inner.levels + 1);
    }
}

/// The merge key of YAML 1.1, which inserts the keys of another map. `load` reports the merge key as an error, but
/// leaves it in the tree. In a map with a merge key, later checks report no missing keys, because these keys can be in
/// the other map.
pub(crate) const MERGE_KEY: &str = "<<";

/// A value of YAML.
#[derive(Debug)]
pub enum Value {
    /// A single value.
    Scalar(Scalar),
    /// A list.
    List(Vec<Rc<Node>>),
    /// A map, in the order of the text. Keys are unique.
    Map(Vec<Entry>),
}

/// A single value as text; [`Scalar::resolve`] returns its type.
#[derive(Debug)]
pub struct Scalar {
    /// The text without quotes, with escapes replaced.
    pub text: String,
    /// True if the scalar is written without quotes (YAML: plain style). Only such a scalar can be a number, a boolean
    /// or null.
    pub plain: bool,
}

/// A key of a map with its value.
#[derive(Debug)]
pub struct Entry {
    pub key: String,
    /// Byte range of the key.
    pub key_span: Span,
    pub node: Rc<Node>,
}

/// The value of a scalar in the core schema of YAML 1.2 (section 10.3), where `yes` and `on` are strings.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolved<'a> {
    /// Null, or no value at all.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as JSON represents it.
    Number(serde_json::Number),
    /// Infinity or NaN, which JSON cannot represent.
    NotFinite,
    /// Any other text.
    Text(&'a str),
}

impl Scalar {
    /// Returns the value with its type. A quoted scalar is always text.
    pub fn resolve(&self) -> Resolved<'_> {
        if !self.plain {
            return Resolved::Text(&self.text);
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Resolved::Null,
            "true" | "True" | "TRUE" => Resolved::Bool(true),
            "false" | "False" | "FALSE" => Resolved::Bool(false),
            text => number(text).unwrap_or(Resolved::Text(text)),
        }
    }
}

fn number(text: &str) -> Option<Resolved<'_>> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(Resolved::NotFinite);
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix).filter(|digits| !digits.starts_with(['+', '-'])) {
            return u128::from_str_radix(digits, radix).ok()?.to_string().parse().ok().map(Resolved::Number);
        }
    }
    // The JSON parser gets the digits as written, so a number of any size stays exact. The code below changes forms
    // that YAML allows and JSON does not: a plus sign, leading zeros, and a decimal point at the start or the end.
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => unsigned.split_at(at),
        None => (unsigned, ""),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if (whole.is_empty() && fraction.is_empty()) || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let sign = if negative { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    // The JSON parser rejects texts that are not numbers, such as `1_000` or `1.2.3`.
    format!("{sign}{whole}{point}{fraction}{exponent}").parse().ok().map(Resolved::Number)
}

impl Node {
    /// Returns true if the value is null or absent.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.resolve() == Resolved::Null)
    }

    /// Describes the value in messages of the form `… must be …, found …`.
    pub fn describe(&self) -> String {
        use crate::diagnostics::excerpt;
        match &self.value {
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Scalar(scalar) => match scalar.resolve() {
                Resolved::Null => "no value".to_owned(),
                Resolved::Bool(_) => format!("`{}`", scalar.text),
                Resolved::Number(_) | Resolved::NotFinite => {
                    format!("the number `{}`", excerpt(&scalar.text))
                }
                Resolved::Text("") => "an empty string".to_owned(),
                Resolved::Text(text) => format!("the string `{}`", excerpt(text)),
            },
        }
    }

    /// Converts the node to JSON.
    ///
    /// # Errors
    /// The span of an infinity or NaN, which JSON cannot represent.
    pub fn to_json(&self) -> Result<serde_json::Value, Span> {
        Ok(match &self.value {
            Value::Scalar(scalar) => match scalar.resolve() {
                Resolved::Null => serde_json::Value::Null,
                Resolved::Bool(value) => value.into(),
                Resolved::Number(number) => number.into(),
                Resolved::NotFinite => return Err(self.span),
                Resolved::Text(text) => text.into(),
            },
            Value::List(items) => items.iter().map(|item| item.to_json()).collect::<Result<Vec<_>, _>>()?.into(),
            Value::Map(entries) => {
                let fields = entries.iter().map(|entry| Ok((entry.key.clone(), entry.node.to_json()?)));
                serde_json::Value::Object(fields.collect::<Result<_, _>>()?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_resolve_as_in_the_core_schema() {
        let resolved = |text: &str| {
            let node = Node {
                span: Span::default(),
                value: Value::Scalar(Scalar { text: text.to_owned(), plain: true }),
                expanded: Expanded::default(),
            };
            node.to_json().map(|value| value.to_string())
        };
        for (text, json) in [
            ("~", "null"),
            ("", "null"),
            ("null", "null"),
            ("True", "true"),
            ("FALSE", "false"),
            ("yes", "\"yes\""),
            ("on", "\"on\""),
            ("nUll", "\"nUll\""),
            ("0", "0"),
            ("-7", "-7"),
            ("+12", "12"),
            ("007", "7"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("1.10", "1.10"),
            (".5", "0.5"),
            ("1e3", "1e+3"),
            ("-0.5E-3", "-0.5e-3"),
            ("1e999999999", "1e+999999999"),
            ("99999999999999999999", "99999999999999999999"),
            ("-0012345678901234567890.10", "-12345678901234567890.10"),
            ("0xFFFFFFFFFFFFFFFFFF", "4722366482869645213695"),
            ("1e", "\"1e\""),
            ("1e+", "\"1e+\""),
            ("0x1F.5", "\"0x1F.5\""),
            ("١", "\"١\""),
            ("1.", "1"),
            ("1_000", "\"1_000\""),
            ("1.2.3", "\"1.2.3\""),
            ("inf", "\"inf\""),
            ("nan", "\"nan\""),
            ("e5", "\"e5\""),
            ("0x", "\"0x\""),
            ("0x+1", "\"0x+1\""),
            ("-", "\"-\""),
            (".", "\".\""),
            ("2026-01-01", "\"2026-01-01\""),
            ("0-1", "\"0-1\""),
            ("+-1", "\"+-1\""),
        ] {
            assert_eq!(resolved(text).unwrap(), json, "{text:?}");
        }
        for text in [".inf", "-.INF", ".nan"] {
            assert!(resolved(text).is_err(), "{text:?}");
        }
    }
}
