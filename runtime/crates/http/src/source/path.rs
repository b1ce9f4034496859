//! Paths of http sources: fixed ones, and patterns with parameters.
//!
//! | segment | matches |
//! |---|---|
//! | `orders` | the same segment, after both are percent-decoded |
//! | `{id}` | any segment that is not empty; its decoded value is the parameter `id` |
//! | `{rest...}`, at the end | all remaining segments, even a single empty one; the parameter `rest` has their decoded values, joined with `/` |
//! | `*`, at the end | all remaining segments, without a parameter |

use std::borrow::Cow;
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use evoke_manifest::parser::{ValueError, excerpt};

/// The most parameters of one path.
const PARAMETERS_MAX: usize = 16;
/// The longest name of a parameter, in bytes.
const NAME_LENGTH_MAX: usize = 32;

/// The path of an http source, split into segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern(Vec<Segment>);

/// A segment of a [`PathPattern`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// A fixed text, percent-decoded.
    Literal(String),
    Parameter(Arc<str>),
    /// The rest of the path. Only the last segment can have this form. Without a name, the rest is not captured.
    Rest(Option<Arc<str>>),
}

/// The values of the parameters in the path of a request, in the order of the path. A request whose path has parameters
/// has them as an extension.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathParameters(Vec<(Arc<str>, String)>);

/// The message for a client whose request has a path parameter with an invalid value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadPath(pub(super) String);

impl PathParameters {
    /// Returns the percent-decoded value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// Iterates over the names and the percent-decoded values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, value.as_str()))
    }
}

impl PathPattern {
    /// Splits a path that [`check`] accepts.
    pub fn new(path: &str) -> Self {
        let segments: Vec<&str> = segments(path).collect();
        let count = segments.len();
        let segment = |(index, text): (usize, &str)| {
            let is_last = index + 1 == count;
            match parameter(text) {
                Some(Ok(name)) => Segment::Parameter(name.into()),
                Some(Err(name)) if is_last => Segment::Rest(name.map(Arc::from)),
                _ => Segment::Literal(decode(text).unwrap_or(Cow::Borrowed(text)).into_owned()),
            }
        };
        Self(segments.into_iter().enumerate().map(segment).collect())
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Returns true if the pattern matches only one path, apart from percent-encoding.
    pub fn is_fixed(&self) -> bool {
        self.0.iter().all(|segment| matches!(segment, Segment::Literal(_)))
    }

    /// Iterates over the names of the parameters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Parameter(name) | Segment::Rest(Some(name)) => Some(&**name),
            Segment::Literal(_) | Segment::Rest(None) => None,
        })
    }

    /// Returns a text that is the same for two patterns only if they match the same paths.
    pub(super) fn shape(&self) -> String {
        let shape = |segment: &Segment| match segment {
            Segment::Literal(text) => format!("/{}", utf8_percent_encode(text, NON_ALPHANUMERIC)),
            Segment::Parameter(_) => "/{}".to_owned(),
            Segment::Rest(_) => "/*".to_owned(),
        };
        self.0.iter().map(shape).collect()
    }

    /// Returns the values of the parameters in a path that matches the pattern.
    ///
    /// # Errors
    /// A value is not UTF-8 after percent-decoding, or a server behind this one could resolve it to a different path:
    /// `.` or `..`, or an encoded `/` in the rest of a path.
    pub(super) fn capture(&self, path: &str) -> Result<PathParameters, BadPath> {
        let mut found = Vec::new();
        let mut parts = segments(path);
        for segment in &self.0 {
            match segment {
                Segment::Literal(_) => drop(parts.next()),
                Segment::Parameter(name) => found.push((name.clone(), value(name, parts.next().unwrap_or_default())?)),
                Segment::Rest(None) => {}
                Segment::Rest(Some(name)) => {
                    let mut rest = String::new();
                    for (index, part) in parts.by_ref().enumerate() {
                        let part = value(name, part)?;
                        if part.contains('/') {
                            let detail =
                                format!("the path parameter `{name}` contains an encoded `/`; send the `/` unencoded");
                            return Err(BadPath(detail));
                        }
                        if index > 0 {
                            rest.push('/');
                        }
                        rest.push_str(&part);
                    }
                    found.push((name.clone(), rest));
                }
            }
        }
        Ok(PathParameters(found))
    }
}

/// Percent-decodes the value of a parameter. Refuses `.` and `..`.
fn value(name: &str, text: &str) -> Result<String, BadPath> {
    let value = decode(text).ok_or_else(|| {
        BadPath(format!("the path parameter `{name}` is not UTF-8 after percent-decoding: `{}`", excerpt(text)))
    })?;
    if matches!(&*value, "." | "..") {
        return Err(BadPath(format!("the path parameter `{name}` cannot be `{value}`; send another value")));
    }
    Ok(value.into_owned())
}

/// Returns the segments of a path, still encoded: the texts after each slash.
pub(super) fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').skip(1)
}

/// Percent-decodes a segment. `None` if a `%` has no two hexadecimal digits, or the bytes are not UTF-8.
pub(super) fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    if !has_valid_escapes(segment) {
        return None;
    }
    percent_decode_str(segment).decode_utf8().ok()
}

fn has_valid_escapes(text: &str) -> bool {
    let is_escape = |rest: &str| rest.get(..2).is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    text.split('%').skip(1).all(is_escape)
}

/// Returns `Ok` with the name of a parameter for `{NAME}`, `Err(Some)` with the name of the rest of a path for
/// `{NAME...}`, `Err(None)` for `*`, and `None` for other segments.
fn parameter(segment: &str) -> Option<Result<&str, Option<&str>>> {
    if segment == "*" {
        return Some(Err(None));
    }
    let inner = segment.strip_prefix('{')?.strip_suffix('}')?;
    Some(match inner.strip_suffix("...") {
        Some(name) => Err(Some(name)),
        None => Ok(inner),
    })
}

/// Checks the path of an http source.
///
/// # Errors
/// The text is not a path that a request can have, or a parameter has a wrong form.
pub(super) fn check(text: &str) -> Result<String, ValueError> {
    let message = || format!("`{}` is not a valid request path", excerpt(text));
    if text.contains("://") {
        return Err(ValueError::new(
            message(),
            "write only the path, as in `/checkout`; set the host with `evoke up --http`",
        ));
    }
    if let Some(at) = text.find(['?', '#']) {
        let path = text.get(..at).unwrap_or("");
        return Err(ValueError::new(message(), format!("remove everything after the path: `{}`", excerpt(path))));
    }
    if !text.starts_with('/') {
        return Err(ValueError::new(message(), format!("start it with a slash: `/{}`", excerpt(text))));
    }
    check_parameters(text).map_err(|(detail, help)| ValueError::new(format!("{}: {detail}", message()), help))?;
    // RFC 3986, section 5.2.4: clients remove the segments `.` and `..` before they send a request.
    if text.split('/').any(|part| matches!(part, "." | "..")) {
        let mut parts: Vec<&str> = Vec::new();
        for part in text.split('/').skip(1) {
            match part {
                "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let message = format!("{}: clients remove `.` and `..` from the path of a request", message());
        return Err(ValueError::new(message, format!("write `/{}`", excerpt(&parts.join("/")))));
    }
    if !has_valid_escapes(text) {
        let message = format!("{}: `%` begins an escape of two hexadecimal digits", message());
        return Err(ValueError::new(message, "write `%25` for the character `%`"));
    }
    if let Some(segment) = segments(text).find(|segment| decode(segment).is_none()) {
        let message = format!("{}: `{}` is not UTF-8 after percent-decoding", message(), excerpt(segment));
        return Err(ValueError::new(message, "percent-encode the bytes of UTF-8, such as `caf%C3%A9`"));
    }
    // RFC 3986, section 3.3: the characters that a path can have unescaped. A request never contains other unescaped
    // characters.
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    let literals = segments(text).filter(|segment| parameter(segment).is_none());
    if let Some(char) = literals.flat_map(str::chars).find(|char| !u8::try_from(*char).is_ok_and(is_allowed)) {
        let message = format!("{}: `{}` must be escaped", message(), excerpt(&char.to_string()));
        let mut bytes = [0; 4];
        let escaped: String = char.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect();
        return Err(ValueError::new(message, format!("write `{escaped}` instead")));
    }
    Ok(text.to_owned())
}

/// Checks the parameters of a path. An error has the mistake and the help text.
fn check_parameters(text: &str) -> Result<(), (String, String)> {
    let mut names: Vec<&str> = Vec::new();
    let count = segments(text).count();
    for (index, segment) in segments(text).enumerate() {
        let is_last = index + 1 == count;
        let shown = excerpt(segment);
        let name = match parameter(segment) {
            Some(Err(_)) if !is_last => {
                return Err((
                    format!("`{shown}` matches the rest of a path and must be its last segment"),
                    "write `{NAME}` for one segment".to_owned(),
                ));
            }
            Some(Err(None)) => continue,
            Some(Ok(name) | Err(Some(name))) => name,
            None => match suggestion(segment, is_last) {
                Some(help) => return Err((format!("`{shown}` is not a path parameter"), help)),
                None => continue,
            },
        };
        if !is_name(name) {
            let help = match suggestion(segment, is_last) {
                Some(help) => help,
                None => "a name has at most 32 letters, digits, `_` and `-`, and starts with a letter".to_owned(),
            };
            return Err((format!("`{shown}` is not a path parameter"), help));
        }
        if names.contains(&name) {
            let detail = format!("it has two parameters with the name `{}`", excerpt(name));
            return Err((detail, "rename one of them".to_owned()));
        }
        names.push(name);
    }
    if names.len() > PARAMETERS_MAX {
        let detail = format!("it has {} parameters", names.len());
        return Err((detail, format!("use at most {PARAMETERS_MAX}; `{{NAME...}}` matches the rest of a path")));
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME_LENGTH_MAX
        && text.starts_with(|char: char| char.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Returns a help text for a segment that looks like a parameter in the syntax of another router, such as `:id`.
fn suggestion(segment: &str, is_last: bool) -> Option<String> {
    if matches!(segment, "**" | "{*}" | "{**}") {
        return Some(if is_last { "write `*`".to_owned() } else { "write `{NAME}` for one segment".to_owned() });
    }
    if segment.contains("${") {
        return Some("write `{NAME}` for a path parameter; a manifest has no variables".to_owned());
    }
    let unbraced = segment.strip_prefix('{').and_then(|inner| inner.strip_suffix('}'));
    let angled = segment.strip_prefix('<').and_then(|inner| inner.strip_suffix('>'));
    let inner = match (unbraced, angled, segment.strip_prefix(':')) {
        (Some(inner), ..) | (_, Some(inner), _) | (.., Some(inner)) => inner,
        _ if segment.contains(['{', '}']) => {
            return Some("a parameter is a whole segment: write `{NAME}` between two slashes or at the end".to_owned());
        }
        _ => return None,
    };
    let is_rest = inner.starts_with('*') || inner.ends_with('*') || inner.starts_with("path:");
    // Some routers write a type before the name: `<int:id>`.
    let name = if angled.is_some() { inner.rsplit(':').next()? } else { inner };
    let name = name.trim_matches(|char: char| !char.is_ascii_alphanumeric());
    let name = name.split(|char: char| !char.is_ascii_alphanumeric() && !matches!(char, '_' | '-')).next()?;
    if !is_name(name) {
        return None;
    }
    Some(if is_rest && is_last { format!("write `{{{name}...}}`") } else { format!("write `{{{name}}}`") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_per_segment() {
        let capture = |pattern: &str, path: &str| {
            let captured = PathPattern::new(pattern).capture(path)?;
            Ok(captured.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
        };
        for (pattern, path, values) in [
            ("/a/{x}", "/a/1", "x=1"),
            ("/a/{x}/b/{y}", "/a/1/b/2", "x=1 y=2"),
            ("/{x}", "/caf%C3%A9%20%2F", "x=café /"),
            ("/{x}", "/a+b", "x=a+b"),
            ("/f/{rest...}", "/f/a/b%20c//d", "rest=a/b c//d"),
            ("/f/{rest...}", "/f/", "rest="),
            ("/f/*", "/f/a", ""),
        ] {
            assert_eq!(capture(pattern, path).as_deref(), Ok(values), "{pattern} {path}");
        }
        for (pattern, path, message) in [
            ("/{x}", "/%FF", "not UTF-8"),
            ("/{x}", "/%ED%A0%80", "not UTF-8"),
            ("/{x}", "/%zz", "not UTF-8"),
            ("/{x}", "/%2e%2E", "cannot be `..`"),
            ("/{x...}", "/a/%2e/b", "cannot be `.`"),
            ("/{x...}", "/a/..%2fb", "encoded `/`"),
        ] {
            let BadPath(detail) = capture(pattern, path).unwrap_err();
            assert!(detail.contains(message), "{pattern} {path}: {detail}");
        }
    }

    #[test]
    fn two_patterns_have_one_shape_if_they_match_the_same_paths() {
        let shape = |path: &str| PathPattern::new(path).shape();
        assert_eq!(shape("/a/{x}"), shape("/%61/{y}"));
        assert_eq!(shape("/a/*"), shape("/a/{rest...}"));
        for (one, other) in [("/a", "/a/"), ("/a/%7B%7D", "/a/{x}"), ("/%2A", "/*"), ("/a%2Fb", "/a/b")] {
            assert_ne!(shape(one), shape(other), "{one} {other}");
        }
    }

    #[test]
    fn mistakes_in_parameters_are_reported_with_the_right_form() {
        for (path, help) in [
            ("/a/:id", "`{id}`"),
            ("/a/<id>", "`{id}`"),
            ("/a/<int:id>", "`{id}`"),
            ("/a/{*rest}", "`{rest...}`"),
            ("/a/<path:rest>", "`{rest...}`"),
            ("/a/**", "`*`"),
            ("/a/**/b", "one segment"),
            ("/a/*/b", "one segment"),
            ("/a/{rest...}/b", "one segment"),
            ("/a/x-{id}", "whole segment"),
            ("/a/{id}.json", "whole segment"),
            ("/a/${ID}", "no variables"),
            ("/a/{}", "at most 32 letters"),
            ("/a/{9}", "at most 32 letters"),
            ("/a/{a b}", "`{a}`"),
            ("/{a}/{a}", "rename"),
            ("/a/%FF", "UTF-8"),
        ] {
            let error = check(path).unwrap_err();
            assert!(error.help.contains(help), "{path}: {error:?}");
        }
        let many: String = (0..=PARAMETERS_MAX).map(|n| format!("/{{p{n}}}")).collect();
        assert!(check(&many).is_err());
        for path in ["/", "/*", "/a/{id}", "/a/{id}/b/{rest...}", "/{a_b-C}", "/a*b", "/{x...}"] {
            assert!(check(path).is_ok(), "{path}");
        }
    }
}
