//! The text form of a signature.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use schemars::JsonSchema;
use serde::Serialize;

/// The text form of a signature in a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Hexadecimal digits, all in lower case or all in upper case.
    #[default]
    Hex,
    /// Base64 (RFC 4648, section 4), with or without padding.
    Base64,
    /// Base64 for URLs (RFC 4648, section 5), with or without padding.
    Base64url,
}

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

impl Encoding {
    /// Every encoding.
    pub(super) const ALL: [(&'static str, Self); 3] =
        [("hex", Self::Hex), ("base64", Self::Base64), ("base64url", Self::Base64url)];

    /// Decodes a text; `None` if it is not in this encoding.
    pub(super) fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex if text.bytes().any(|byte| byte.is_ascii_lowercase()) => lower_hex(text),
            Self::Hex => lower_hex(&text.to_ascii_lowercase()),
            Self::Base64 => BASE64.decode(text).ok(),
            Self::Base64url => BASE64_URL.decode(text).ok(),
        }
    }
}

/// Decodes hexadecimal digits in lower case.
pub(super) fn lower_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(digit(high)? * 16 + digit(low)?);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}
