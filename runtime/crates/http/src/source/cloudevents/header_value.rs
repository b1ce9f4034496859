//! Reads the values of HTTP headers as values of CloudEvents attributes.

use std::borrow::Cow;

use evoke_model::hex_byte;
use http::{HeaderMap, HeaderName};

/// Returns the bytes of a header; `None` if it is missing, and an error if it is repeated.
pub(in crate::source) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, String> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(format!("`{name}` is sent more than once")),
        (value, None) => Ok(value.map(http::HeaderValue::as_bytes)),
    }
}

/// Decodes the value of a `ce-` header to an attribute: removes the quotes of a quoted string, then percent-decodes
/// once (HTTP protocol binding, section 3.1.3.2). A `%` without two hexadecimal digits stays as it is, because some
/// clients do not percent-encode.
///
/// # Errors
/// The decoded bytes are not UTF-8.
pub(super) fn decode(value: &[u8]) -> Result<String, String> {
    let value = unquote(value);
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = &*value;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = if byte == b'%' { after.first_chunk().and_then(|digits| hex_byte(*digits)) } else { None };
        bytes.push(digits.unwrap_or(byte));
        rest = if digits.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8(bytes)
        .map_err(|_| "it is not UTF-8 after percent-decoding; percent-encode UTF-8, such as caf%C3%A9".into())
}

/// Returns the content of a quoted string (RFC 9110, section 5.6.4), with its escapes removed. Returns any other value
/// unchanged, even if it contains quoted strings, such as `"a" or "b"`.
pub(super) fn unquote(value: &[u8]) -> Cow<'_, [u8]> {
    let [b'"', inner @ .., b'"'] = value else { return value.into() };
    let mut content = Vec::with_capacity(inner.len());
    let mut rest = inner.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            b'"' => return value.into(),
            b'\\' => match rest.next() {
                Some(&escaped) => content.push(escaped),
                None => return value.into(),
            },
            byte => content.push(byte),
        }
    }
    content.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_unquoted_and_percent_decoded_once() {
        for (value, decoded) in [
            ("", ""),
            ("plain", "plain"),
            ("a%20b", "a b"),
            ("Euro%20%E2%82%AC%20%f0%9f%98%80", "Euro € 😀"),
            ("%41%2f%2F%22%25", "A//\"%"),
            ("100%25", "100%"),
            ("%2541", "%41"),
            ("a+b", "a+b"),
            ("\u{20ac}", "€"),
            // A bare percent sign.
            ("%", "%"),
            ("50%", "50%"),
            ("50% off", "50% off"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%+1", "%+1"),
            ("%%41", "%A"),
            ("%4%41", "%4A"),
            // Quoted strings.
            ("\"\"", ""),
            ("\"quoted \\\" type\"", "quoted \" type"),
            ("\"a\\\\b%20c\"", "a\\b c"),
            ("\"50%\"", "50%"),
            // Values that are not one quoted string as a whole.
            ("\"", "\""),
            ("say \"hi\"", "say \"hi\""),
            ("\"a\" or \"b\"", "\"a\" or \"b\""),
            ("\"a\\\"", "\"a\\\""),
            ("a\\b", "a\\b"),
        ] {
            assert_eq!(decode(value.as_bytes()).as_deref(), Ok(decoded), "{value}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_rejected() {
        for value in [&b"%FF"[..], b"%C0%A0", b"%ED%A0%80", b"%C3", b"%C3%28", b"caf\xe9", b"\xc3%"] {
            assert!(decode(value).unwrap_err().contains("not UTF-8"), "{value:?}");
        }
    }
}
