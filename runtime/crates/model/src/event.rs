//! Events: CloudEvents 1.0.2 as plain data, and their JSON form. No I/O here.
//!
//! # Differences from the specification
//!
//! Evoke follows every rule that the specification states with MUST, except those in this table. The modules of the
//! http source list the differences from the HTTP protocol binding.
//!
//! | rule | here |
//! |---|---|
//! | Extension attributes have types. | The model stores the canonical string of a value. A Boolean or an Integer in JSON is printed as a string: `5` becomes `"5"`. A number that is not an Integer (32 bits, no fraction, no exponent) is rejected, because its canonical string is not defined. |
//! | Names of attributes should not be longer than 20 characters. | Longer names are accepted. |
//! | An event has any number of extension attributes. | At most [`EXTENSIONS_MAX`]. |
//! | Attributes have any length. | `id` has at most [`ID_BYTES_MAX`] bytes, `source` [`SOURCE_BYTES_MAX`], and `type` [`TYPE_BYTES_MAX`]. Other attributes are limited only by the size of the event. |
//! | `dataschema` is an absolute URI, which has no fragment. | A fragment is accepted: the JSON schema of the specification and clients accept it. |
//! | If the media type is not JSON, `data` is a string in the JSON form; other values may be rejected (JSON format, section 3.1.2). | Other values are stored as JSON text. |
//! | `data_base64` may be interpreted by `datacontenttype` (JSON format, section 3.1.2). | Bytes that are valid JSON are stored as JSON if the media type is JSON or absent, so that patterns match them and the JSON form prints `data`. All other bytes are stored as bytes. |
//! | A string in `data` is encoded by the charset of `datacontenttype`. | Functions receive UTF-8. A text that would have other bytes in the declared charset gets `charset=utf-8` in its `datacontenttype`. |
//! | A JSON member occurs once: RFC 8259, section 4 leaves the meaning of repeated members open. | An event with a repeated attribute, `data` or `data_base64` is rejected. The members within `data` are not checked. |
//! | Implementations may limit the nesting of JSON (RFC 8259, section 9). | Data of more than 128 levels is rejected. |
//! | JSON text has no byte order mark; parsers may skip it (RFC 8259, section 8.1). | A byte order mark before an event or before JSON data is skipped, and is not part of the data. |
//!
//! # Bytes of the data
//!
//! Data is stored and passed to functions byte for byte. The syntax of JSON text is checked, but the text is never
//! rewritten, so numbers keep their digits. Only [`Event::to_json`] changes white space around and between JSON tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::{UnixMs, rfc3339 as rfc3339_of};
use crate::media_type::is_media_type;
use crate::rfc3339::{self, is_date_time};
use crate::uri::{is_uri, is_uri_reference};

mod data;
mod field;
mod json;
#[cfg(test)]
mod tests;

pub use self::data::{Data, skip_byte_order_mark};
pub use self::field::find_value;

/// The maximum size of an event in bytes, attributes and data together. This is the default limit of the bus, and the
/// limit of the events that functions publish.
pub const EVENT_SIZE_MAX: usize = 1024 * 1024;

/// The maximum number of extension attributes of an event. It equals the maximum number of headers of an HTTP request,
/// because each attribute is a header in binary mode. Without a limit, an event of the maximum size could take tens of
/// megabytes in memory, because a short attribute takes about 25 times its size.
pub const EXTENSIONS_MAX: usize = 100;

/// The maximum length of `id` in bytes. The store has an index of ids and sources, and each long key slows all later
/// writes. Events that an earlier version stored can have longer values: nothing checks a stored event again.
pub const ID_BYTES_MAX: usize = 1024;
/// The maximum length of `source` in bytes. The index of ids also contains the sources.
pub const SOURCE_BYTES_MAX: usize = 2048;
/// The maximum length of `type` in bytes. A type is the name by which the console groups events; a longer text belongs
/// in the data.
pub const TYPE_BYTES_MAX: usize = 1024;

/// The maximum number of characters of an invalid value that an error message shows.
const SHOWN_CHARS_MAX: usize = 64;

/// One CloudEvents 1.0 event. The attribute names are those of the specification, section 3. The default value is not a
/// valid event, because it has no attributes: [`Event::check`] returns an error for it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Event {
    /// Unique within `source`. The bus finds duplicates by origin, `source` and `id`.
    pub id: String,
    /// A URI reference, such as `/shop/checkout`.
    pub source: String,
    /// The event type, such as `order.placed`.
    pub type_: String,
    /// The subject of the event within the source, such as a file name.
    pub subject: Option<String>,
    /// The time of the occurrence, RFC 3339.
    pub time: Option<String>,
    /// The media type of `data`; `None` means JSON.
    pub datacontenttype: Option<String>,
    /// The URI of the schema of `data`.
    pub dataschema: Option<String>,
    /// Extension attributes: lower-case alphanumeric names, values in their string form.
    pub extensions: BTreeMap<String, String>,
    /// The payload, in the bytes that functions receive.
    pub data: Data,
    /// The verified sender, such as `github:new`. Only an http source with `auth` sets it. The principal is not an
    /// attribute, so producers and functions cannot set it. Patterns match it as [`PRINCIPAL`]. Events that functions
    /// publish have no principal.
    pub principal: Option<Arc<str>>,
}

/// The name under which patterns match the principal of an event. [`Event::check`] rejects an attribute with this name.
pub const PRINCIPAL: &str = "principal";

/// The attribute with the earliest time of delivery, RFC 3339. See [`Event::not_before_ms`].
pub const NOT_BEFORE: &str = "notbefore";

/// How far ahead the `notbefore` of an event may be: 366 days in milliseconds. A later time is probably a mistake in
/// the year or in the unit of time, and the event would stay in the store until then.
pub const NOT_BEFORE_AHEAD_MAX_MS: UnixMs = 366 * 24 * 60 * 60 * 1000;

/// Why an event is not valid. The message names the mistake and the correct form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidEvent(pub String);

impl Event {
    /// Sets the attribute or extension `name`, spelled as in the JSON form and in `ce-` headers.
    pub fn set(&mut self, name: &str, value: String) -> Result<(), InvalidEvent> {
        match name {
            "specversion" if value == "1.0" => {}
            "specversion" => {
                let value = shown(&value);
                return Err(InvalidEvent(format!("`specversion` is \"{value}\"; only \"1.0\" is supported")));
            }
            "id" => self.id = value,
            "source" => self.source = value,
            "type" => self.type_ = value,
            "subject" => self.subject = Some(value),
            "time" => self.time = Some(value),
            "datacontenttype" => self.datacontenttype = Some(value),
            "dataschema" => self.dataschema = Some(value),
            "data" | "data_base64" => {
                return Err(InvalidEvent(format!("`{name}` cannot be an attribute; it is the content of the event")));
            }
            _ if is_extension_name(name) => {
                self.extensions.insert(name.to_owned(), value);
            }
            _ => {
                return Err(InvalidEvent(format!(
                    "`{}` is not an attribute name: use lower-case letters and digits (CloudEvents 1.0, section 3.1)",
                    shown(name)
                )));
            }
        }
        Ok(())
    }

    /// Checks the attributes against CloudEvents 1.0, section 3: the required attributes exist, no attribute of the
    /// specification is empty, each value has the required form, and no value has a character that the type String
    /// excludes. Also checks the limits of this module.
    pub fn check(&self) -> Result<(), InvalidEvent> {
        let required = [
            ("id", &self.id, ID_BYTES_MAX),
            ("source", &self.source, SOURCE_BYTES_MAX),
            ("type", &self.type_, TYPE_BYTES_MAX),
        ];
        for (name, value, bytes_max) in required {
            if value.is_empty() {
                return Err(InvalidEvent(format!(
                    "`{name}` is missing or empty; an event needs `specversion`, `id`, `source` and `type`"
                )));
            }
            if value.len() > bytes_max {
                return Err(InvalidEvent(format!(
                    "`{name}` has {} bytes; the limit is {bytes_max} bytes; use a shorter value, and put long ones into \
                     `data`",
                    value.len()
                )));
            }
        }
        if self.extensions.contains_key(PRINCIPAL) {
            return Err(InvalidEvent(format!(
                "`{PRINCIPAL}` cannot be an attribute: it is the verified sender, which only an http source with `auth` sets; \
                 use another name"
            )));
        }
        if self.extensions.len() > EXTENSIONS_MAX {
            return Err(too_many_extensions());
        }
        for (name, value) in self.optional_attributes() {
            if value.is_empty() {
                return Err(InvalidEvent(format!("`{name}` is empty; leave it out if it has no value")));
            }
        }
        if let Some(time) = self.time.as_deref().filter(|time| !is_date_time(time)) {
            let time = shown(time);
            return Err(InvalidEvent(format!("`time` is \"{time}\"; expected RFC 3339, such as 2026-01-31T12:00:00Z")));
        }
        if let Some(time) = self.extensions.get(NOT_BEFORE).filter(|time| !is_date_time(time)) {
            let time = shown(time);
            return Err(InvalidEvent(format!(
                "`{NOT_BEFORE}` is \"{time}\"; expected the earliest time of delivery in RFC 3339, such as \
                 2026-01-31T12:00:00Z"
            )));
        }
        for (name, value) in self.attributes() {
            if let Some(char) = find_excluded_char(value) {
                return Err(InvalidEvent(format!(
                    "`{name}` contains U+{:04X}; attributes cannot contain control characters or noncharacters \
                     (CloudEvents 1.0, section 3.1)",
                    u32::from(char)
                )));
            }
        }
        if !is_uri_reference(&self.source) {
            return Err(InvalidEvent(format!(
                "`source` is not a URI reference (RFC 3986): `{}`; percent-encode characters that a URI cannot have",
                shown(&self.source)
            )));
        }
        if let Some(schema) = self.dataschema.as_deref().filter(|schema| !is_uri(schema)) {
            return Err(InvalidEvent(format!(
                "`dataschema` is not an absolute URI (RFC 3986): `{}`; write one such as https://shop.example/order.json",
                shown(schema)
            )));
        }
        if let Some(kind) = self.datacontenttype.as_deref().filter(|kind| !is_media_type(kind)) {
            return Err(InvalidEvent(format!(
                "`datacontenttype` is not a media type: `{}`; write one such as application/json",
                shown(kind)
            )));
        }
        Ok(())
    }

    /// Returns the time of the wall clock before which the event must not be delivered, from the attribute
    /// [`NOT_BEFORE`]. `None` if the event does not have this attribute, or if its value is not a time.
    /// [`Event::check`] rejects such a value.
    pub fn not_before_ms(&self) -> Option<UnixMs> {
        self.extensions.get(NOT_BEFORE).and_then(|time| rfc3339::unix_ms(time))
    }

    /// Checks that the event is due within [`NOT_BEFORE_AHEAD_MAX_MS`] from `now_ms`, a time of the wall clock.
    pub fn check_not_before(&self, now_ms: UnixMs) -> Result<(), InvalidEvent> {
        let latest_ms = now_ms.saturating_add(NOT_BEFORE_AHEAD_MAX_MS);
        match self.extensions.get(NOT_BEFORE) {
            Some(time) if self.not_before_ms().is_some_and(|due_ms| due_ms > latest_ms) => Err(InvalidEvent(format!(
                "`{NOT_BEFORE}` is \"{}\", which is more than 366 days ahead; the latest time is {}",
                shown(time),
                rfc3339_of(latest_ms)
            ))),
            _ => Ok(()),
        }
    }

    /// Iterates over the attributes and extensions as name and value, without the data.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        [("specversion", "1.0"), ("id", &self.id), ("source", &self.source), ("type", &self.type_)]
            .into_iter()
            .chain(self.optional_attributes())
            .chain(self.extensions.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    fn optional_attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        [
            ("subject", &self.subject),
            ("time", &self.time),
            ("datacontenttype", &self.datacontenttype),
            ("dataschema", &self.dataschema),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    /// Returns the size in bytes: names and values of all attributes, and the data. Limits on the size of an event
    /// apply to this number.
    pub fn size(&self) -> usize {
        self.attributes().map(|(name, value)| name.len() + value.len()).sum::<usize>() + self.data.as_bytes().len()
    }
}

fn too_many_extensions() -> InvalidEvent {
    InvalidEvent(format!("the event has more than {EXTENSIONS_MAX} extension attributes; put other values into `data`"))
}

/// Returns the start of an invalid value, with control characters escaped. Error messages show this text.
fn shown(value: &str) -> String {
    value.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// Returns the first character that the CloudEvents type String excludes: a control character or a noncharacter.
fn find_excluded_char(value: &str) -> Option<char> {
    // The fast path: almost every value is printable ASCII.
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return None;
    }
    value.chars().find(|char| is_excluded_char(*char))
}

/// Returns true for a character that the value of an attribute cannot contain (CloudEvents 1.0, section 3.1).
pub fn is_excluded_char(char: char) -> bool {
    let code = u32::from(char);
    char.is_control() || matches!(code, 0xFDD0..=0xFDEF) || code & 0xFFFE == 0xFFFE
}

fn is_extension_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}
