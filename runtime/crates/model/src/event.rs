//! Events: CloudEvents 1.0 as plain data, and their JSON form. No I/O here.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::ser::SerializeMap;
use serde_json::value::RawValue;

/// The default maximum size of an event in bytes, attributes and data together. A source can set another limit.
pub const EVENT_SIZE_MAX: usize = 1024 * 1024;

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
    /// The payload.
    pub data: Data,
}

/// The payload of an event.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Data {
    /// No payload.
    #[default]
    None,
    /// Valid JSON text, kept byte for byte.
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
    ///
    /// # Errors
    /// The parser's message when the media type is JSON and the bytes are not valid JSON.
    pub fn from_bytes(bytes: Bytes, media_type: Option<&str>) -> Result<Self, String> {
        if media_type.is_none_or(is_json) {
            if bytes.is_empty() {
                return Ok(Self::None);
            }
            let text: &RawValue = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
            return Ok(Self::Json(Bytes::copy_from_slice(text.get().as_bytes())));
        }
        Ok(match std::str::from_utf8(&bytes) {
            Ok(text) if media_type.is_some_and(is_text) => Self::Text(text.to_owned()),
            _ => Self::Binary(bytes),
        })
    }
}

/// Returns true if a media type means JSON: `*/json` or `*/*+json`. Parameters are ignored.
pub fn is_json(media_type: &str) -> bool {
    let subtype = essence(media_type).rsplit('/').next().unwrap_or_default();
    subtype.eq_ignore_ascii_case("json") || subtype.to_ascii_lowercase().ends_with("+json")
}

fn is_text(media_type: &str) -> bool {
    let essence = essence(media_type).to_ascii_lowercase();
    essence.starts_with("text/") || essence.ends_with("/xml") || essence.ends_with("+xml")
}

fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Why an event is not valid: the mistake and the correct form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidEvent(pub String);

impl Event {
    /// Parses an event in CloudEvents JSON form, calls `fill`, then checks the event. `fill` can set attributes that
    /// the JSON does not have: a command's output line, for example, needs only `type`.
    pub fn from_json(json: &[u8], fill: impl FnOnce(&mut Self)) -> Result<Self, InvalidEvent> {
        let members: BTreeMap<String, &RawValue> =
            serde_json::from_slice(json).map_err(|e| InvalidEvent(format!("not a JSON object: {e}")))?;
        let mut event = Self::default();
        let (mut data, mut base64) = (None, None);
        for (name, value) in &members {
            match name.as_str() {
                "data" => data = Some(*value),
                "data_base64" => base64 = Some(*value),
                _ => {
                    if let Some(text) = attribute_text(name, value)? {
                        event.set(name, text)?;
                    }
                }
            }
        }
        event.data = read_data(data, base64, event.datacontenttype.as_deref())?;
        fill(&mut event);
        event.check()?;
        Ok(event)
    }

    /// Sets the attribute or extension `name`, spelled as in the JSON form and in `ce-` headers.
    pub fn set(&mut self, name: &str, value: String) -> Result<(), InvalidEvent> {
        match name {
            "specversion" if value == "1.0" => {}
            "specversion" => {
                return Err(InvalidEvent(format!("specversion is \"{value}\"; only \"1.0\" is supported")));
            }
            "id" => self.id = value,
            "source" => self.source = value,
            "type" => self.type_ = value,
            "subject" => self.subject = Some(value),
            "time" => self.time = Some(value),
            "datacontenttype" => self.datacontenttype = Some(value),
            "dataschema" => self.dataschema = Some(value),
            "data" | "data_base64" => {
                return Err(InvalidEvent(format!("`{name}` cannot be an attribute")));
            }
            _ if is_extension_name(name) => {
                self.extensions.insert(name.to_owned(), value);
            }
            _ => {
                return Err(InvalidEvent(format!(
                    "`{name}` is not an attribute name: use lower-case letters and digits (CloudEvents 1.0, section 3.1)"
                )));
            }
        }
        Ok(())
    }

    /// Checks the attributes against CloudEvents 1.0: `id`, `source` and `type` are not empty, `time` is RFC 3339, and no
    /// value has a character that the type String excludes (section 3.1).
    pub fn check(&self) -> Result<(), InvalidEvent> {
        for (name, value) in [("id", &self.id), ("source", &self.source), ("type", &self.type_)] {
            if value.is_empty() {
                return Err(InvalidEvent(format!(
                    "`{name}` is missing or empty; an event needs specversion, id, source and type"
                )));
            }
        }
        if let Some(time) = &self.time
            && time.parse::<jiff::Timestamp>().is_err()
        {
            let time = time.escape_debug();
            return Err(InvalidEvent(format!("time is \"{time}\"; expected RFC 3339, such as 2026-01-31T12:00:00Z")));
        }
        for (name, value) in self.attributes() {
            if let Some(char) = find_excluded_char(value) {
                return Err(InvalidEvent(format!(
                    "`{name}` contains U+{:04X}; attributes cannot contain control characters and noncharacters \
                     (CloudEvents 1.0, section 3.1)",
                    u32::from(char)
                )));
            }
        }
        Ok(())
    }

    /// Iterates over the attributes and extensions as name and value, without the data.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        [("specversion", "1.0"), ("id", &self.id), ("source", &self.source), ("type", &self.type_)]
            .into_iter()
            .chain(
                [
                    ("subject", &self.subject),
                    ("time", &self.time),
                    ("datacontenttype", &self.datacontenttype),
                    ("dataschema", &self.dataschema),
                ]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.as_deref()?))),
            )
            .chain(self.extensions.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// Returns the size in bytes: names and values of all attributes, and the data. Limits on the size of an event
    /// apply to this number.
    pub fn size(&self) -> usize {
        self.attributes().map(|(name, value)| name.len() + value.len()).sum::<usize>() + self.data.as_bytes().len()
    }

    /// Returns the CloudEvents JSON form on one line. Line breaks are replaced with spaces. This changes no value: a
    /// JSON string cannot contain a line break, so line breaks occur only between JSON tokens.
    pub fn to_json(&self) -> String {
        // Serialization cannot fail: the map has only strings and valid raw JSON.
        serde_json::to_string(self).unwrap_or_default().replace(['\n', '\r'], " ")
    }
}

impl serde::Serialize for Event {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.attributes() {
            map.serialize_entry(name, value)?;
        }
        match &self.data {
            Data::None => {}
            Data::Json(bytes) => {
                let raw: &RawValue = serde_json::from_slice(bytes).map_err(serde::ser::Error::custom)?;
                map.serialize_entry("data", raw)?;
            }
            Data::Text(text) => map.serialize_entry("data", text)?,
            Data::Binary(bytes) => map.serialize_entry("data_base64", &BASE64.encode(bytes))?,
        }
        map.end()
    }
}

/// Converts an attribute's value to its string form (CloudEvents 1.0, section 3.1); `null` means absent.
fn attribute_text(name: &str, value: &RawValue) -> Result<Option<String>, InvalidEvent> {
    match serde_json::from_str(value.get()) {
        Ok(serde_json::Value::String(text)) => Ok(Some(text)),
        Ok(serde_json::Value::Bool(flag)) => Ok(Some(flag.to_string())),
        Ok(serde_json::Value::Number(number)) => Ok(Some(number.to_string())),
        Ok(serde_json::Value::Null) => Ok(None),
        // The value is one JSON value, but its text may have half of a surrogate pair.
        Err(error) => Err(InvalidEvent(format!("attribute `{name}` is not valid text: {error}"))),
        Ok(_) => Err(InvalidEvent(format!(
            "attribute `{name}` must be a string, a number or a boolean; put structured values into `data`"
        ))),
    }
}

fn read_data(
    data: Option<&RawValue>,
    base64: Option<&RawValue>,
    media_type: Option<&str>,
) -> Result<Data, InvalidEvent> {
    let json = media_type.is_none_or(is_json);
    match (data, base64) {
        (Some(_), Some(_)) => Err(InvalidEvent("an event can have `data` or `data_base64`, not both".into())),
        (None, None) => Ok(Data::None),
        (Some(value), None) if json => Ok(Data::Json(Bytes::copy_from_slice(value.get().as_bytes()))),
        (Some(value), None) => match serde_json::from_str(value.get()) {
            Ok(serde_json::Value::String(text)) => Ok(Data::Text(text)),
            // Structured data with a media type that is not JSON stays JSON (JSON format, section 3.1.1).
            _ => Ok(Data::Json(Bytes::copy_from_slice(value.get().as_bytes()))),
        },
        (None, Some(value)) => {
            let bytes = serde_json::from_str::<String>(value.get())
                .ok()
                .and_then(|text| BASE64.decode(text).ok())
                .ok_or_else(|| InvalidEvent("`data_base64` is not base64 text (RFC 4648, section 4)".into()))?;
            if json {
                return Data::from_bytes(bytes.into(), media_type).map_err(|e| {
                    InvalidEvent(format!("the media type of `data_base64` is JSON, but its content is not: {e}"))
                });
            }
            Ok(Data::Binary(bytes.into()))
        }
    }
}

/// Returns the first character that the CloudEvents type String excludes: a control character or a noncharacter.
fn find_excluded_char(value: &str) -> Option<char> {
    // Almost every value is printable ASCII.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_data_is_preserved_byte_for_byte() {
        let text = r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","data":{"n":1.10, "b":[ ]}}"#;
        let event = Event::from_json(text.as_bytes(), |_| {}).unwrap();
        assert_eq!(event.data.as_bytes(), br#"{"n":1.10, "b":[ ]}"#);
        assert_eq!(Event::from_json(event.to_json().as_bytes(), |_| {}).unwrap(), event);
    }

    #[test]
    fn binary_and_text_data_round_trip_through_the_json_form() {
        for (media_type, data) in [
            ("application/octet-stream", Data::Binary(Bytes::from_static(b"\xff\x00"))),
            ("text/csv", Data::Text("a,b\n1,2\n".into())),
        ] {
            let event = Event {
                datacontenttype: Some(media_type.into()),
                data,
                ..Event::from_json(br#"{"id":"1","source":"/a","type":"t"}"#, |_| {}).unwrap()
            };
            assert_eq!(Event::from_json(event.to_json().as_bytes(), |_| {}).unwrap(), event);
        }
    }

    #[test]
    fn an_invalid_event_is_rejected_with_the_reason() {
        for (json, reason) in [
            (r#"[]"#, "not a JSON object"),
            (r#"{"id":"1","source":"/a"}"#, "`type` is missing"),
            (r#"{"specversion":"0.3","id":"1","source":"/a","type":"t"}"#, "only \"1.0\" is supported"),
            (r#"{"id":"1","source":"/a","type":"t","Bad-Name":"x"}"#, "not an attribute name"),
            (r#"{"id":"1","source":"/a","type":"t","ext":{}}"#, "must be a string"),
            (r#"{"id":"1","source":"/a","type":"t","data":1,"data_base64":"AA=="}"#, "not both"),
            (r#"{"id":"1","source":"/a","type":"t","data_base64":"*"}"#, "not base64"),
            (r#"{"id":"1","source":"/a","type":"t","time":"yesterday"}"#, "RFC 3339"),
            (r#"{"id":"1","source":"/a","type":"t","time":"2026-01-31\u000a"}"#, r"RFC 3339"),
            (r#"{"id":"a\u0000","source":"/a","type":"t"}"#, "`id` contains U+0000"),
            (r#"{"id":"1","source":"/a\u000d","type":"t"}"#, "`source` contains U+000D"),
            (r#"{"id":"1","source":"/a","type":"t\u001b"}"#, "`type` contains U+001B"),
            (r#"{"id":"1","source":"/a","type":"t","subject":"\u007f"}"#, "`subject` contains U+007F"),
            (r#"{"id":"1","source":"/a","type":"t","myext":"\u009f"}"#, "`myext` contains U+009F"),
            (r#"{"id":"1","source":"/a","type":"t","myext":"\ufdd0"}"#, "`myext` contains U+FDD0"),
            (r#"{"id":"1","source":"/a","type":"t","dataschema":"\ud83f\udfff"}"#, "`dataschema` contains U+1FFFF"),
            (r#"{"id":"1","source":"/a","type":"t","subject":"\ud800"}"#, "attribute `subject` is not valid text"),
        ] {
            let error = Event::from_json(json.as_bytes(), |_| {}).unwrap_err();
            assert!(error.0.contains(reason), "{json}: {error}");
        }
    }

    #[test]
    fn any_other_character_is_valid_in_an_attribute() {
        let json = r#"{"id":"\u00a0 é 😀 \ufffd \ue000","source":"/a","type":"t"}"#;
        assert_eq!(Event::from_json(json.as_bytes(), |_| {}).unwrap().id, "\u{a0} é 😀 \u{fffd} \u{e000}");
    }
}
