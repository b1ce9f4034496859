//! Templates: texts with placeholders, such as `github.{header.x-github-event}`.
//!
//! | written | result |
//! |---|---|
//! | `{NAME}` | the value with this name; without a value, the template has no result |
//! | `{NAME\|DEFAULT}` | the value, or `DEFAULT` if the value does not exist; the default may be empty and cannot contain braces |
//! | `{{`, `}}` | the characters `{` and `}` |
//!
//! The caller decides which names exist. `N` is the parsed form of a name. [`Template::parse`] gets a function that
//! parses names, and [`Template::render`] gets a function that looks up values.

use super::diagnostics::{ValueError, excerpt};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// The maximum number of placeholders in one template, to bound the time of one rendering.
pub const PLACEHOLDERS_MAX: usize = 32;

/// A text with placeholders whose names have the parsed form `N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template<N> {
    text: String,
    parts: Vec<Part<N>>,
    glob: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part<N> {
    Text(String),
    Placeholder(Placeholder<N>),
}

/// A placeholder of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder<N> {
    /// The parsed name.
    pub name: N,
    /// The text to insert if the value does not exist; `None` if the value is required.
    pub default: Option<String>,
    /// The name as written, such as `header.x-github-event`.
    pub written: String,
}

/// Why a template has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenderError<E> {
    /// This placeholder has neither a value nor a default.
    Missing(String),
    /// The result would be longer than the maximum.
    TooLong,
    /// The value of this placeholder cannot be used.
    Value(String, E),
}

impl<N> Template<N> {
    /// Parses a template. `name` parses the name of a placeholder, which is not empty and has no white space at its
    /// ends.
    ///
    /// # Errors
    /// A brace without its counterpart, a placeholder without a name, more than [`PLACEHOLDERS_MAX`] placeholders, or
    /// an error of `name`.
    pub fn parse(text: &str, name: impl Fn(&str) -> Result<N, ValueError>) -> Result<Self, ValueError> {
        let mut parts = Vec::new();
        let (mut literal, mut rest) = (String::new(), text);
        while let Some((before, brace, after)) = split_at_brace(rest) {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix(brace) {
                literal.push(brace);
                rest = after;
                continue;
            }
            if brace == '}' {
                let message = format!("`}}` in `{}` has no `{{` before it", excerpt(text));
                return Err(ValueError::new(message, "remove it, or write `}}` for the character `}`"));
            }
            let Some((inner, '}', after)) = split_at_brace(after) else {
                let message = format!("`{{` in `{}` is never closed", excerpt(text));
                return Err(ValueError::new(message, "close it with `}`, or write `{{` for the character `{`"));
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Placeholder(Placeholder::parse(inner, &name)?));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        let template = Self::new(text.to_owned(), parts);
        let count = template.placeholders().count();
        if count > PLACEHOLDERS_MAX {
            let message = format!("`{}` has {count} placeholders", excerpt(text));
            return Err(ValueError::new(message, format!("use at most {PLACEHOLDERS_MAX}")));
        }
        Ok(template)
    }

    fn new(text: String, parts: Vec<Part<N>>) -> Self {
        let glob = parts.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Placeholder(_) => "*",
        });
        let glob = glob.collect();
        Self { text, parts, glob }
    }

    /// Returns the template as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the result of a template without placeholders; `None` if the template has placeholders.
    pub fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns a glob that matches every result: each placeholder becomes a `*`.
    pub fn glob(&self) -> &str {
        &self.glob
    }

    /// Iterates over the placeholders in their order.
    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder<N>> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Placeholder(placeholder) => Some(placeholder),
        })
    }

    /// Returns the number of placeholders before the first text that contains `stop`. Without such a text, returns the
    /// number of all placeholders.
    pub fn placeholders_before(&self, stop: char) -> usize {
        let before = self.parts.iter().take_while(|part| !matches!(part, Part::Text(text) if text.contains(stop)));
        before.filter(|part| matches!(part, Part::Placeholder(_))).count()
    }

    /// Iterates over the texts that can be a part of a result: the texts between the placeholders, and the defaults.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Placeholder(placeholder) => placeholder.default.as_deref(),
        })
    }

    /// Replaces the placeholders by their values. `value` returns `None` for a name without a value.
    ///
    /// # Errors
    /// A value is missing, `value` returned an error, or the result would have more than `max` bytes.
    pub fn render<'v, E>(
        &self,
        max: usize,
        mut value: impl FnMut(&N) -> Result<Option<Cow<'v, str>>, E>,
    ) -> Result<String, RenderError<E>> {
        let mut result = String::new();
        for part in &self.parts {
            let value = match part {
                Part::Text(text) => Cow::Borrowed(text.as_str()),
                Part::Placeholder(placeholder) => {
                    let found = value(&placeholder.name);
                    let found = found.map_err(|error| RenderError::Value(placeholder.written.clone(), error))?;
                    match (found, &placeholder.default) {
                        (Some(found), _) => found,
                        (None, Some(default)) => Cow::Borrowed(default.as_str()),
                        (None, None) => return Err(RenderError::Missing(placeholder.written.clone())),
                    }
                }
            };
            if value.len() > max - result.len() {
                return Err(RenderError::TooLong);
            }
            result.push_str(&value);
        }
        Ok(result)
    }
}

impl<N> Placeholder<N> {
    /// Parses the text between the braces.
    fn parse(inner: &str, name: impl Fn(&str) -> Result<N, ValueError>) -> Result<Self, ValueError> {
        let (written, default) = match inner.split_once('|') {
            Some((written, default)) => (written, Some(default.to_owned())),
            None => (inner, None),
        };
        if written.trim().is_empty() {
            let message = format!("the placeholder `{{{}}}` has no name", excerpt(inner));
            return Err(ValueError::new(message, "write the name in the braces, or `{{` for the character `{`"));
        }
        if written.trim() != written {
            let message = format!("the placeholder `{{{}}}` has spaces around its name", excerpt(inner));
            return Err(ValueError::new(message, format!("write `{{{}}}`", excerpt(written.trim()))));
        }
        Ok(Self { name: name(written)?, default, written: written.to_owned() })
    }
}

/// Splits a text at its first brace.
fn split_at_brace(text: &str) -> Option<(&str, char, &str)> {
    let (before, from) = text.split_at_checked(text.find(['{', '}'])?)?;
    let mut after = from.chars();
    let brace = after.next()?;
    Some((before, brace, after.as_str()))
}

/// Makes a template without placeholders: braces in the text are ordinary characters.
impl<N> From<&str> for Template<N> {
    fn from(text: &str) -> Self {
        let written = text.replace('{', "{{").replace('}', "}}");
        let parts = if text.is_empty() { Vec::new() } else { vec![Part::Text(text.to_owned())] };
        Self::new(written, parts)
    }
}

impl<N> fmt::Display for Template<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Serializes as written.
impl<N> Serialize for Template<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Template<String>, ValueError> {
        Template::parse(text, |name| match name {
            "bad" => Err(ValueError::new("unknown name", "write another")),
            name => Ok(name.to_owned()),
        })
    }

    fn render(text: &str, max: usize) -> Result<String, RenderError<&'static str>> {
        parse(text).unwrap().render(max, |name| match name.as_str() {
            "a" => Ok(Some("1".into())),
            "b" => Ok(Some("{a}".into())),
            "broken" => Err("broken"),
            _ => Ok(None),
        })
    }

    #[test]
    fn placeholders_are_replaced_once_and_double_braces_are_braces() {
        for (text, result) in [
            ("", ""),
            ("plain", "plain"),
            ("{a}", "1"),
            ("x.{a}.y{a}", "x.1.y1"),
            ("{b}", "{a}"),
            ("{{a}}", "{a}"),
            ("{{{a}}}", "{1}"),
            ("a}}b{{c", "a}b{c"),
            ("{c|none}", "none"),
            ("{c|}-{a|none}", "-1"),
            ("{c|a|b}", "a|b"),
        ] {
            assert_eq!(render(text, 100).as_deref(), Ok(result), "{text}");
        }
    }

    #[test]
    fn a_missing_broken_or_too_long_value_has_no_result() {
        assert_eq!(render("x{c}", 100), Err(RenderError::Missing("c".into())));
        assert_eq!(render("{broken|x}", 100), Err(RenderError::Value("broken".into(), "broken")));
        assert_eq!(render("ab{a}", 2), Err(RenderError::TooLong));
        assert_eq!(render("abc", 2), Err(RenderError::TooLong));
        assert_eq!(render("ab{a}", 3).as_deref(), Ok("ab1"));
    }

    #[test]
    fn each_mistake_has_an_error_that_names_it() {
        for (text, message) in [
            ("a{b", "is never closed"),
            ("a{b{c}", "is never closed"),
            ("{", "is never closed"),
            ("a}b", "has no `{` before it"),
            ("{a}}", "has no `{` before it"),
            ("{}", "`{}` has no name"),
            ("{|x}", "`{|x}` has no name"),
            ("{ a}", "spaces around"),
            ("{bad}", "unknown name"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains(message), "{text}: {error:?}");
        }
        assert!(parse(&"{a}".repeat(PLACEHOLDERS_MAX)).is_ok());
        assert!(parse(&"{a}".repeat(PLACEHOLDERS_MAX + 1)).unwrap_err().message.contains("33 placeholders"));
    }

    #[test]
    fn the_fixed_text_and_the_glob_cover_every_result() {
        let fixed = |text: &str| parse(text).unwrap().fixed().map(str::to_owned);
        assert_eq!(fixed("a{{b").as_deref(), Some("a{b"));
        assert_eq!(fixed("").as_deref(), Some(""));
        assert_eq!(fixed("{a|x}"), None);
        assert_eq!(parse("x.{a}.{b|y}").unwrap().glob(), "x.*.*");
        let literal = Template::<String>::from("a{b}");
        assert_eq!((literal.fixed(), literal.as_str()), (Some("a{b}"), "a{{b}}"));
        assert_eq!(literal, parse(literal.as_str()).unwrap());
    }
}
