//! The texts in which the value of a secret appears: as it is, line by line, and in common encodings.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::{REDACTED_BYTES_MIN, SecretsTooLarge};
use evoke_model::{Json, hex};

/// Length of the shortest line of a value that is redacted on its own, in bytes.
const LINE_BYTES_MIN: usize = 8;
/// Length of the shortest string inside a JSON value that is redacted on its own, in bytes.
const STRING_BYTES_MIN: usize = 16;
/// Length of the longest value whose encodings are redacted, in bytes. A longer value is redacted only as it is and
/// line by line, because its encodings have about 25 times its length in total.
const ENCODED_BYTES_MAX: usize = 8 * 1024;
/// Limit on the total length of the texts that are searched for in the output of a function, in bytes. The search
/// automaton takes about 12 bytes of memory for each of these bytes.
pub(super) const TOTAL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The texts to search for in order to find one value.
#[derive(Default)]
pub(super) struct Forms {
    texts: BTreeSet<Vec<u8>>,
    bytes: usize,
}

impl Forms {
    /// Returns the texts of a value. There are none if the value is too short to be redacted.
    pub(super) fn of(value: &str) -> Result<Self, SecretsTooLarge> {
        let mut forms = Self::default();
        let value = value.trim();
        if value.len() < REDACTED_BYTES_MIN {
            return Ok(forms);
        }
        forms.add(value)?;
        forms.add_lines(value)?;
        if let Ok(Json(json @ (Value::Object(_) | Value::Array(_)))) = serde_json::from_str(value) {
            forms.add_strings(&json)?;
        }
        if value.len() <= ENCODED_BYTES_MAX {
            forms.add_encodings(value)?;
        }
        Ok(forms)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn into_texts(self) -> BTreeSet<Vec<u8>> {
        self.texts
    }

    fn add(&mut self, text: impl Into<Vec<u8>>) -> Result<(), SecretsTooLarge> {
        let text = text.into();
        let length = text.len();
        if length >= REDACTED_BYTES_MIN && self.texts.insert(text) {
            self.bytes += length;
        }
        if self.bytes > TOTAL_BYTES_MAX { Err(SecretsTooLarge) } else { Ok(()) }
    }

    /// Adds the lines of a value. A line ends at a line break, or at the two characters `\n`. The first and last line
    /// of a PEM file are not secret.
    fn add_lines(&mut self, value: &str) -> Result<(), SecretsTooLarge> {
        let lines = value.split(['\n', '\r']).flat_map(|line| line.split("\\n")).map(str::trim);
        let mut secret = lines.filter(|line| line.len() >= LINE_BYTES_MIN && !line.starts_with("-----"));
        secret.try_for_each(|line| self.add(line))
    }

    /// Adds the strings inside a JSON value, because a function parses the value and uses its parts.
    fn add_strings(&mut self, json: &Value) -> Result<(), SecretsTooLarge> {
        match json {
            Value::String(text) if text.trim().len() >= STRING_BYTES_MIN => {
                self.add(text.trim())?;
                self.add_lines(text)
            }
            Value::Array(items) => items.iter().try_for_each(|item| self.add_strings(item)),
            Value::Object(fields) => fields.values().try_for_each(|field| self.add_strings(field)),
            _ => Ok(()),
        }
    }

    fn add_encodings(&mut self, value: &str) -> Result<(), SecretsTooLarge> {
        let bytes = value.as_bytes();
        // If the value is a part of a host name, the host name can contain it in lower case.
        if value.len() >= LINE_BYTES_MIN {
            self.add(value.to_ascii_lowercase())?;
        }
        for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            for offset in 0..3 {
                self.add(base64_at(&alphabet, offset, bytes))?;
            }
        }
        let digits = hex(bytes);
        self.add(digits.to_ascii_uppercase())?;
        self.add(digits)?;
        for (unreserved, upper_case) in UNRESERVED.into_iter().flat_map(|set| [(set, true), (set, false)]) {
            let encoded = percent_encoded(bytes, unreserved, upper_case);
            self.add(encoded.replace("%20", "+"))?;
            self.add(encoded)?;
        }
        for bits in 0..32 {
            self.add(JsonStyle::from_bits(bits).escaped(value))?;
        }
        // The output of Rust's `{:?}` for texts and bytes.
        let debug = format!("{value:?}");
        self.add(debug.get(1..debug.len().saturating_sub(1)).unwrap_or_default())?;
        self.add(value.escape_debug().to_string())?;
        self.add(value.escape_default().to_string())?;
        self.add(bytes.escape_ascii().to_string())?;
        for separator in [", ", ","] {
            let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
            self.add(numbers.join(separator))?;
        }
        for apostrophe in ["'", "&#39;", "&#x27;", "&apos;"] {
            self.add(html_escaped(value, apostrophe))?;
        }
        Ok(())
    }
}

/// Returns the part of a base64 text that depends on `bytes` alone. `offset` (0 to 2) is the number of bytes before
/// `bytes` in the encoded data, modulo three. For example, the user name before a password determines the offset of the
/// password.
fn base64_at(alphabet: &GeneralPurpose, offset: usize, bytes: &[u8]) -> Vec<u8> {
    let text = alphabet.encode([vec![0; offset].as_slice(), bytes].concat());
    let (first, end) = ((8 * offset).div_ceil(6), 8 * (offset + bytes.len()) / 6);
    text.as_bytes().get(first..end).unwrap_or_default().to_vec()
}

/// The sets of characters, besides letters and digits, that encoders of URLs do not encode. In this order: the empty
/// set; the sets of RFC 3986, of JavaScript's `encodeURIComponent` and of HTML forms; the four sets of the URL
/// standard: for user info, for paths, for queries, and for queries of special URLs such as `https`.
const UNRESERVED: [&[u8]; 8] = [
    b"",
    b"-._~",
    b"-_.!~*'()",
    b"*-._",
    b"!$%&'()*+,-._~",
    b"!$%&'()*+,-./:;=@[\\]_|~",
    b"!$%&'()*+,-./:;=?@[\\]^_`{|}~",
    b"!$%&()*+,-./:;=?@[\\]^_`{|}~",
];

fn percent_encoded(bytes: &[u8], unreserved: &[u8], upper_case: bool) -> String {
    let mut out = String::with_capacity(bytes.len() * 3);
    for byte in bytes {
        // Writing to a string cannot fail.
        if byte.is_ascii_alphanumeric() || unreserved.contains(byte) {
            out.push(char::from(*byte));
        } else if upper_case {
            let _ = write!(out, "%{byte:02X}");
        } else {
            let _ = write!(out, "%{byte:02x}");
        }
    }
    out
}

/// How a JSON encoder escapes characters that encoders treat differently. If a field is true, the encoder writes:
#[derive(Clone, Copy)]
struct JsonStyle {
    /// `/` as `\/`.
    slash: bool,
    /// Characters outside of ASCII with `\u`, for example `é` as `\u00e9`.
    ascii: bool,
    /// `<`, `>`, `&` and `'` with `\u`, for example `<` as `\u003c`.
    html: bool,
    /// Control characters as numbers, for example a line break as `\u000a` and not as `\n`.
    numbers_only: bool,
    /// `\u00E9` in place of `\u00e9`.
    upper_case: bool,
}

impl JsonStyle {
    fn from_bits(bits: u8) -> Self {
        let has = |bit: u8| bits & (1 << bit) != 0;
        Self { slash: has(0), ascii: has(1), html: has(2), numbers_only: has(3), upper_case: has(4) }
    }

    /// Returns the text inside of the quotes of a JSON string.
    fn escaped(self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + 16);
        for char in text.chars() {
            let short = match char {
                '"' => Some("\\\""),
                '\\' => Some("\\\\"),
                '/' if self.slash => Some("\\/"),
                _ if self.numbers_only => None,
                '\n' => Some("\\n"),
                '\r' => Some("\\r"),
                '\t' => Some("\\t"),
                '\u{8}' => Some("\\b"),
                '\u{c}' => Some("\\f"),
                _ => None,
            };
            let in_html = self.html && matches!(char, '<' | '>' | '&' | '\'' | '\u{2028}' | '\u{2029}');
            if let Some(short) = short {
                out.push_str(short);
            } else if char < ' ' || in_html || (self.ascii && !char.is_ascii()) {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    let _ = if self.upper_case { write!(out, "\\u{unit:04X}") } else { write!(out, "\\u{unit:04x}") };
                }
            } else {
                out.push(char);
            }
        }
        out
    }
}

fn html_escaped(text: &str, apostrophe: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    text.replace('\'', apostrophe)
}
