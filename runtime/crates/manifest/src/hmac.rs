//! The form of an HMAC in a header. Sources use it to verify the sender of a request; functions with `deliver` use it
//! to sign their requests.

use super::diagnostics::{ValueError, excerpt};
use super::names::{header_name, header_text};
use super::parser::{Reader, Table, one_of};
use http::HeaderName;
use schemars::JsonSchema;
use serde::Serialize;

/// The maximum length of the prefix in bytes.
const PREFIX_BYTES_MAX: usize = 256;

/// The form of an HMAC in a header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct HmacFormat {
    /// Header with the signature, such as `x-hub-signature-256`.
    #[serde(serialize_with = "header_text")]
    #[schemars(with = "String", length(min = 1))]
    pub header: HeaderName,
    /// Hash function.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Text form of the signature.
    #[serde(default)]
    pub encoding: Encoding,
    /// Text before the signature, such as `sha256=`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
}

/// Hash function of an HMAC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "HmacAlgorithm")]
pub enum Algorithm {
    /// SHA-256
    #[default]
    Sha256,
    /// SHA-512
    Sha512,
    /// SHA-1, for services that support no other hash function
    Sha1,
}

/// Text form of a signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "HmacEncoding")]
pub enum Encoding {
    /// Hexadecimal digits: written in lower case. Read in lower case or in upper case, but not in a mix of both.
    #[default]
    Hex,
    /// Base64 (RFC 4648, section 4): written with padding, and read with or without it.
    Base64,
    /// Base64 for URLs (RFC 4648, section 5): written without padding, and read with or without it.
    Base64url,
}

impl HmacFormat {
    /// Reads the keys of this type from a table that can also have other keys. `check` rejects headers that cannot
    /// carry the signature. Returns `None` if the key `header` is missing or invalid.
    pub fn read(
        reader: &mut Reader<'_>,
        table: &mut Table<'_>,
        check: fn(&HeaderName) -> Result<(), ValueError>,
    ) -> Option<Self> {
        let header =
            table.required(reader, "header", &["name"], "`header: X-Signature`, the header with the signature");
        let header = header.and_then(|node| {
            reader.parse_text(node, "`header`", |text| {
                let header = header_name(text)?;
                check(&header)?;
                Ok(header)
            })
        });
        let algorithm = table.optional(reader, "algorithm");
        let algorithm = algorithm.and_then(|node| reader.parse_text(node, "`algorithm`", Algorithm::parse));
        let encoding = table.optional(reader, "encoding");
        let encoding = encoding.and_then(|node| reader.parse_text(node, "`encoding`", Encoding::parse));
        let prefix = table.optional(reader, "prefix").and_then(|node| reader.parse_text(node, "`prefix`", prefix));
        Some(Self {
            header: header?,
            algorithm: algorithm.unwrap_or_default(),
            encoding: encoding.unwrap_or_default(),
            prefix: prefix.unwrap_or_default(),
        })
    }

    /// Returns the help text for a wrong key if the user probably means a key of this type.
    pub fn hint(key: &str) -> Option<&'static str> {
        match key {
            "name" => Some("did you mean `header`?"),
            "hash" | "digest" => Some("did you mean `algorithm`?"),
            "format" => Some("did you mean `encoding`?"),
            _ => None,
        }
    }
}

impl Algorithm {
    fn parse(text: &str) -> Result<Self, ValueError> {
        one_of(text, "an algorithm", [("sha256", Self::Sha256), ("sha512", Self::Sha512), ("sha1", Self::Sha1)])
    }
}

impl Encoding {
    fn parse(text: &str) -> Result<Self, ValueError> {
        one_of(text, "an encoding", [("hex", Self::Hex), ("base64", Self::Base64), ("base64url", Self::Base64url)])
    }
}

fn prefix(text: &str) -> Result<String, ValueError> {
    if text.len() <= PREFIX_BYTES_MAX && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    let message = format!("the prefix `{}` cannot be in a header", excerpt(text));
    Err(ValueError::new(message, format!("use at most {PREFIX_BYTES_MAX} printable ASCII characters")))
}
