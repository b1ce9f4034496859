//! The payload of an event.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::media_type::{Charset, is_json, is_text};

/// The payload of an event.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Data {
    /// No payload.
    #[default]
    None,
    /// Valid JSON text, stored byte for byte.
    Json(Bytes),
    /// Text of a media type that is not JSON.
    Text(String),
    /// Bytes that are neither JSON nor UTF-8 text of a text media type.
    Binary(Bytes),
}

impl Data {
    /// Returns the payload as bytes, in the form that a function receives.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Json(bytes) | Self::Binary(bytes) => bytes,
            Self::Text(text) => text.as_bytes(),
        }
    }

    /// Makes the data from `bytes` according to `media_type`; `None` means JSON (CloudEvents JSON format, section 3.1).
    /// The bytes are not changed, except that a byte order mark before JSON is removed. If the charset of a text or of
    /// JSON could give the bytes another meaning than UTF-8 does, the result is [`Data::Binary`].
    ///
    /// # Errors
    /// The media type is JSON, and the bytes are not valid JSON. The error is the message of the JSON parser.
    pub fn from_bytes(bytes: Bytes, media_type: Option<&str>) -> Result<Self, String> {
        let charset = media_type.map_or(Charset::Utf8, Charset::of);
        if media_type.is_none_or(is_json) {
            if charset != Charset::Utf8 && charset.read(&bytes).is_none() {
                return Ok(Self::Binary(bytes));
            }
            let json = bytes.slice(bytes.len() - skip_byte_order_mark(&bytes).len()..);
            if json.is_empty() {
                return Ok(Self::None);
            }
            let _: &RawValue = serde_json::from_slice(&json).map_err(|e| e.to_string())?;
            return Ok(Self::Json(json));
        }
        Ok(match charset.read(&bytes) {
            Some(text) if media_type.is_some_and(is_text) => Self::Text(text.to_owned()),
            _ => Self::Binary(bytes),
        })
    }
}

/// Returns JSON text without the byte order mark at its start, if it has one.
#[must_use]
pub fn skip_byte_order_mark(json: &[u8]) -> &[u8] {
    json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json)
}
