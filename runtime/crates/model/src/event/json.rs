//! The JSON form of an event (CloudEvents JSON format 1.0.2).

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde_json::value::RawValue;

use super::{Data, EXTENSIONS_MAX, Event, InvalidEvent, shown, skip_byte_order_mark, too_many_extensions};
use crate::media_type::{Charset, is_json, with_utf8};

impl Event {
    /// Parses an event in CloudEvents JSON form, calls `fill`, then checks the event. `fill` can set attributes that
    /// the JSON does not have. For example, an event in the output of a command needs only `type`.
    pub fn from_json(json: &[u8], fill: impl FnOnce(&mut Self)) -> Result<Self, InvalidEvent> {
        let (mut event, _) = parse(json)?;
        fill(&mut event);
        event.check()?;
        Ok(event)
    }

    /// Parses a complete event in CloudEvents JSON form. Unlike [`Event::from_json`], this function requires
    /// `specversion`, which shows that the producer means CloudEvents 1.0.
    pub fn from_complete_json(json: &[u8]) -> Result<Self, InvalidEvent> {
        let (event, has_version) = parse(json)?;
        if !has_version {
            return Err(InvalidEvent("`specversion` is missing; write \"specversion\": \"1.0\"".into()));
        }
        event.check()?;
        Ok(event)
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

/// The first [`MEMBERS_MAX`] members of a JSON object, in order. A name that occurs twice is in the list twice.
struct Members<'a> {
    members: Vec<(String, &'a RawValue)>,
    /// True if the object has more members.
    has_more: bool,
}

/// The number of members that are not extensions: the attributes of the specification, `data` and `data_base64`.
const OWN_MEMBERS: usize = 10;
const MEMBERS_MAX: usize = OWN_MEMBERS + EXTENSIONS_MAX;

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object with the attributes of an event")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while members.len() < MEMBERS_MAX
                    && let Some(member) = map.next_entry()?
                {
                    members.push(member);
                }
                let mut has_more = false;
                while let Some((IgnoredAny, IgnoredAny)) = map.next_entry()? {
                    has_more = true;
                }
                Ok(Members { members, has_more })
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// Parses an event without checking it. Also returns true if the event has `specversion`.
fn parse(json: &[u8]) -> Result<(Event, bool), InvalidEvent> {
    let json = skip_byte_order_mark(json);
    // If the text is a JSON string, the error of the parser would repeat the whole string. If the text is an object,
    // the error repeats no part of the text. So a text that is not an object is rejected before the parser reads it.
    let first = json.trim_ascii_start().first();
    if first.is_none() {
        return Err(InvalidEvent("the text is empty; expected a JSON object".into()));
    }
    if first != Some(&b'{') {
        return Err(InvalidEvent("not a JSON object: the text of an event begins with `{`".into()));
    }
    let Members { members, has_more } =
        serde_json::from_slice(json).map_err(|e| InvalidEvent(format!("not a JSON object: {e}")))?;
    if has_more {
        return Err(too_many_extensions());
    }
    let mut values = BTreeMap::new();
    for (name, value) in members {
        if values.contains_key(&name) {
            return Err(InvalidEvent(format!(
                "`{}` occurs more than once; an event can have it only once",
                shown(&name)
            )));
        }
        values.insert(name, value);
    }
    let mut event = Event::default();
    let (data, base64) = (values.remove("data"), values.remove("data_base64"));
    // An absent value may be written as null (JSON format, section 2.2). In `data`, null is a value (section 3.1.1).
    let base64 = base64.filter(|value| value.get() != "null");
    let mut has_version = false;
    for (name, value) in values {
        if let Some(text) = attribute_text(&name, value)? {
            has_version |= name == "specversion";
            event.set(&name, text)?;
        }
    }
    event.data = read_data(data, base64, &mut event.datacontenttype)?;
    Ok((event, has_version))
}

/// Converts an attribute's value to its string form (CloudEvents 1.0, section 3.1); returns `None` for `null`, which
/// means that the attribute is absent. Attributes of the specification must be strings; extensions can also be booleans
/// and integers.
fn attribute_text(name: &str, value: &RawValue) -> Result<Option<String>, InvalidEvent> {
    const STRINGS: [&str; 8] =
        ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"];
    let json = value.get();
    let shown = || shown(name);
    match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(json)
            .map(Some)
            // The syntax of the JSON was checked before. The only mistake that can remain is half of a surrogate pair.
            .map_err(|error| {
                InvalidEvent(format!(
                    "attribute `{}` has an incomplete Unicode escape at column {} of its value: half of a surrogate \
                     pair; write both halves, as in `\\ud83d\\ude00`, or the character itself",
                    shown(),
                    error.column()
                ))
            }),
        Some(b'n') => Ok(None),
        _ if STRINGS.contains(&name) => {
            Err(InvalidEvent(format!("`{name}` must be a string; write it in double quotes")))
        }
        Some(b'{' | b'[') => Err(InvalidEvent(format!(
            "attribute `{}` must be a string, an integer or a boolean; put structured values into `data`",
            shown()
        ))),
        Some(b't' | b'f') => Ok(Some(json.to_owned())),
        _ if json.parse::<i32>().is_ok() => Ok(Some(json.to_owned())),
        _ => Err(InvalidEvent(format!(
            "attribute `{}` is a number but not an Integer (CloudEvents 1.0, section 3.1), which is a whole number \
             from -2147483648 to 2147483647; write the number as a string",
            shown()
        ))),
    }
}

/// Returns the data. If the bytes of the data could mean other characters in the charset that `media_type` declares,
/// replaces this charset by UTF-8.
fn read_data(
    data: Option<&RawValue>,
    base64: Option<&RawValue>,
    media_type: &mut Option<String>,
) -> Result<Data, InvalidEvent> {
    let is_json_type = media_type.as_deref().is_none_or(is_json);
    let value = match (data, base64) {
        (Some(_), Some(_)) => return Err(InvalidEvent("an event can have `data` or `data_base64`, not both".into())),
        (None, None) => return Ok(Data::None),
        (None, Some(value)) => {
            let bytes: Bytes = serde_json::from_str::<String>(value.get())
                .ok()
                .and_then(|text| BASE64.decode(text).ok())
                .ok_or_else(|| InvalidEvent("`data_base64` is not base64 with padding (RFC 4648, section 4)".into()))?
                .into();
            if is_json_type && let Ok(data @ Data::Json(_)) = Data::from_bytes(bytes.clone(), media_type.as_deref()) {
                return Ok(data);
            }
            return Ok(Data::Binary(bytes));
        }
        (Some(value), None) => value,
    };
    let data = match value.get().starts_with('"') && !is_json_type {
        true => Data::Text(serde_json::from_str::<String>(value.get()).map_err(|error| {
            // The syntax was checked before, so the only possible mistake is half of a surrogate pair.
            InvalidEvent(format!(
                "`data` has an incomplete Unicode escape at column {} of its text: half of a surrogate pair; write \
                 both halves, as in `\\ud83d\\ude00`, or send the bytes as `data_base64`",
                error.column()
            ))
        })?),
        // Structured data with a media type that is not JSON stays JSON (JSON format, section 3.1.2).
        false => Data::Json(Bytes::copy_from_slice(value.get().as_bytes())),
    };
    if let Some(declared) = media_type
        && !is_json_type
        && Charset::of(declared).read(data.as_bytes()).is_none()
    {
        *declared = with_utf8(declared);
    }
    Ok(data)
}
