//! Media types (RFC 2046, with the syntax of RFC 9110, section 8.3.1), and the charset that they declare.

use std::borrow::Cow;

/// Returns true if `text` begins with `type/subtype`. Parameters are not checked: no rule depends on their form.
#[must_use]
pub fn is_media_type(text: &str) -> bool {
    essence(text).split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

/// Returns the `type/subtype` of a media type, without its parameters.
#[must_use]
pub fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Returns true if a media type means JSON: `*/json` or `*/*+json`. Parameters are ignored.
#[must_use]
pub fn is_json(media_type: &str) -> bool {
    let subtype = essence(media_type).rsplit('/').next().unwrap_or_default();
    subtype.eq_ignore_ascii_case("json") || subtype.to_ascii_lowercase().ends_with("+json")
}

/// Returns true if a media type means text that is not JSON: `text/*`, `*/xml` or `*/*+xml`. Parameters are ignored.
#[must_use]
pub fn is_text(media_type: &str) -> bool {
    let essence = essence(media_type).to_ascii_lowercase();
    essence.starts_with("text/") || essence.ends_with("/xml") || essence.ends_with("+xml")
}

/// The charset of a text, classified by whether the text can be read without a conversion table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// UTF-8, or US-ASCII, or not declared.
    Utf8,
    /// Another charset in which the bytes of US-ASCII mean the same, such as ISO-8859-1.
    AsciiBased,
    /// A charset in which the bytes of US-ASCII can mean other characters, such as UTF-16.
    Other,
}

impl Charset {
    /// Returns the charset that a media type declares.
    #[must_use]
    pub fn of(media_type: &str) -> Self {
        const OTHER: [&str; 9] =
            ["utf-16", "utf16", "utf-32", "utf32", "utf-7", "ucs-", "iso-10646-", "iso-2022-", "hz-"];
        let Some(name) = parts(media_type).skip(1).find_map(charset_value) else { return Self::Utf8 };
        match name.as_str() {
            "" | "utf-8" | "utf8" | "us-ascii" | "ascii" => Self::Utf8,
            name if OTHER.iter().any(|other| name.starts_with(other)) || name.contains("ebcdic") => Self::Other,
            _ => Self::AsciiBased,
        }
    }

    /// Returns the bytes as text, if they are UTF-8 and mean the same characters in this charset. Otherwise `None`.
    #[must_use]
    pub fn read(self, bytes: &[u8]) -> Option<&str> {
        match self {
            Self::Utf8 => std::str::from_utf8(bytes).ok(),
            Self::AsciiBased if bytes.is_ascii() => std::str::from_utf8(bytes).ok(),
            Self::AsciiBased | Self::Other => None,
        }
    }
}

/// Replaces the charset of a media type, if one is declared, by `charset=utf-8`.
#[must_use]
pub fn with_utf8(media_type: &str) -> String {
    let replace = |part| if charset_value(part).is_some() { " charset=utf-8" } else { part };
    parts(media_type).map(replace).collect::<Vec<_>>().join(";")
}

/// Splits a media type at the semicolons that are not quoted: the essence, then the parameters.
fn parts(media_type: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    media_type.split(move |char: char| {
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        char == ';' && !is_quoted
    })
}

/// If the parameter is `charset`, returns its value in lower case.
fn charset_value(parameter: &str) -> Option<String> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("charset") {
        return None;
    }
    let value = value.trim();
    let value = match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        Some(quoted) => Cow::Owned(quoted.replace('\\', "")),
        None => Cow::Borrowed(value),
    };
    Some(value.to_ascii_lowercase())
}

/// Returns true if `text` is a token (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_has_a_type_and_a_subtype() {
        for text in ["text/plain", "application/vnd.shop+json;v=1", " a/b ; c", "APPLICATION/JSON", "a/b;"] {
            assert!(is_media_type(text), "{text}");
        }
        for text in ["", "xyz", "/", "a/", "/b", "a/b/c", "a b/c", "text/plain, text/html", "a/é", ";a/b"] {
            assert!(!is_media_type(text), "{text}");
        }
    }

    #[test]
    fn kinds_ignore_case_and_parameters() {
        for text in ["application/json", "text/JSON; charset=x", "application/vnd.a+Json", "a/b+json;c"] {
            assert!(is_json(text), "{text}");
        }
        for text in ["text/plain;a=/json", "application/jsonl", "application/json-seq", "a/b; x=+json", "json/a"] {
            assert!(!is_json(text), "{text}");
        }
        for text in ["text/csv", "Application/XML", "image/svg+xml; charset=utf-8"] {
            assert!(is_text(text), "{text}");
        }
        for text in ["application/octet-stream", "image/png", "a/textual", "application/x-text"] {
            assert!(!is_text(text), "{text}");
        }
    }

    #[test]
    fn the_charset_is_read_from_the_parameters() {
        for (text, charset) in [
            ("text/plain", Charset::Utf8),
            ("text/plain; charset=UTF-8", Charset::Utf8),
            ("text/plain;charset=utf8", Charset::Utf8),
            ("text/plain; Charset=\"us-ascii\"; a=b", Charset::Utf8),
            ("text/plain; charset=\"utf\\-8\"", Charset::Utf8),
            ("text/plain; charset=", Charset::Utf8),
            ("text/plain; a=\"; charset=utf-16\"", Charset::Utf8),
            ("text/plain; a=\"\\\";charset=utf-16\"", Charset::Utf8),
            ("text/plain; notcharset=utf-16", Charset::Utf8),
            ("text/plain; format=flowed; charset=ISO-8859-1", Charset::AsciiBased),
            ("text/plain; charset = windows-1252 ", Charset::AsciiBased),
            ("text/plain; charset=Shift_JIS", Charset::AsciiBased),
            ("text/plain; charset=utf-16", Charset::Other),
            ("text/plain; charset=UTF-16LE", Charset::Other),
            ("text/plain; charset=iso-2022-jp", Charset::Other),
            ("text/plain; charset=utf-7", Charset::Other),
        ] {
            assert_eq!(Charset::of(text), charset, "{text}");
        }
    }

    #[test]
    fn bytes_are_read_only_if_they_cannot_mean_anything_else() {
        assert_eq!(Charset::Utf8.read("é".as_bytes()), Some("é"));
        assert_eq!(Charset::Utf8.read(b"\xe9"), None);
        assert_eq!(Charset::AsciiBased.read(b"e"), Some("e"));
        assert_eq!(Charset::AsciiBased.read("é".as_bytes()), None);
        assert_eq!(Charset::Other.read(b"e"), None);
    }

    #[test]
    fn the_charset_is_replaced_and_nothing_else() {
        assert_eq!(with_utf8("text/plain; a=\";\";charset=\"utf-16\"; b=1"), "text/plain; a=\";\"; charset=utf-8; b=1");
        assert_eq!(with_utf8("text/plain"), "text/plain");
    }
}
