//! JSON values of texts from outside.
//!
//! `serde_json` must not build a [`Value`] from such a text. If an object has the member
//! `$serde_json::private::RawValue`, `serde_json` parses the string in this member as JSON, and uses the result in
//! place of the object. Each string is parsed with a new limit of depth, and can contain a further object of this kind.
//! So a text of 50 KB can overflow the stack, which ends the process. An object that begins with the member
//! `$serde_json::private::Number` becomes a number in the same way. These are the only two names of this kind.

use std::fmt;
use std::ops::Deref;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// `serde_json` passes a number that is not a 64-bit integer to a visitor as a map with this key.
const NUMBER: &str = "$serde_json::private::Number";

/// A JSON value. Its `Deserialize` parses no text inside a string, so one limit of depth holds for the whole value, and
/// an object in the text stays an object, whatever its members are called.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Json(pub Value);

impl Deref for Json {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Read).map(Self)
    }
}

struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Json(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key::<Key>()? {
            let Key::Name(name) = key else {
                let number: Number = members.next_value::<String>()?.parse().map_err(A::Error::custom)?;
                return Ok(number.into());
            };
            object.insert(name, members.next_value::<Json>()?.0);
        }
        Ok(object.into())
    }
}

/// A key of a map that `serde_json` passes to a visitor.
enum Key {
    /// The name of a member of an object.
    Name(String),
    /// [`NUMBER`], which `serde_json` has made itself for a number.
    Number,
}

/// Reads a key as an optional value, because `serde_json` then treats the two kinds of keys differently: it passes a
/// name in a text, or in a value, to `visit_some`, and a key that it has made itself to `visit_str`.
impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_option(ReadKey)
    }
}

struct ReadKey;

impl<'de> Visitor<'de> for ReadKey {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_some<D: Deserializer<'de>>(self, name: D) -> Result<Key, D::Error> {
        String::deserialize(name).map(Key::Name)
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(if key == NUMBER { Key::Number } else { Key::Name(key.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> serde_json::Result<Json> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_value_equals_the_one_of_serde_json() {
        for text in [
            r#"{"a": [1, -2.50, 1e400, 12345678901234567890123], "b": {"c": null, "d": [true, false]}, "a\u0062": "\n"}"#,
            r#"{"a": 1, "a": 2}"#,
            "[]",
            "0.10",
            r#""text""#,
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read(text).unwrap().0, expected);
            assert_eq!(read(text).unwrap().to_string(), expected.to_string());
        }
        for wrong in ["", "{", "[1 2]", r#"{"a" 1}"#, "01", "nul", "[1]]"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_text_in_a_string_stays_a_string() {
        for name in ["$serde_json::private::RawValue", r"\u0024serde_json::private::RawValue"] {
            let text = format!(r#"{{"{name}": "[1]"}}"#);
            let value = read(&text).unwrap();
            assert_eq!(value.get("$serde_json::private::RawValue"), Some(&"[1]".into()));
            assert!(read(&format!("[{text}, 1]")).is_ok());
        }
    }

    #[test]
    fn the_depth_is_limited() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(&nested(127)).is_ok());
        assert!(read(&nested(128)).is_err());
    }

    #[test]
    fn an_object_with_a_name_of_serde_json_stays_an_object() {
        for private in ["Number", "RawValue"] {
            for value in [r#""1""#, r#""1.50""#, r#""[1]""#, "1", "1.50", r#"{"$serde_json::private::Number":"1"}"#] {
                let text = format!(r#"{{"$serde_json::private::{private}":{value}}}"#);
                for text in [text.clone(), text.replace('$', r"\u0024"), format!("[{text},1.50,{text}]")] {
                    let read = read(&text).unwrap();
                    assert_eq!(read.to_string(), text.replace(r"\u0024", "$"));
                    // The same holds for a value that is read from a value.
                    assert_eq!(Json::deserialize(read.0.clone()).unwrap(), read);
                }
            }
        }
    }
}
