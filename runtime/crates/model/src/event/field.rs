//! Fields of JSON data.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Data;

impl Data {
    /// Returns the JSON text of the value at a path of member names, the outermost first. If an object has two members
    /// with the same name, the last one counts; patterns follow the same rule. `None` if the data is not JSON, a member
    /// is missing, or a value along the path is not an object.
    pub fn field(&self, path: &[String]) -> Option<&str> {
        let Self::Json(bytes) = self else { return None };
        let mut value: &RawValue = serde_json::from_slice(bytes).ok()?;
        for name in path {
            value = Member(name).deserialize(&mut serde_json::Deserializer::from_str(value.get())).ok()??;
        }
        Some(value.get())
    }
}

/// Like [`Data::field`], for any JSON text. In an array, a name is the index of an item.
pub fn find_value<'j>(json: &'j [u8], path: &[&str]) -> Option<&'j str> {
    let mut value: &RawValue = serde_json::from_slice(json).ok()?;
    for name in path {
        let mut reader = serde_json::Deserializer::from_str(value.get());
        let found = match value.get().starts_with('[') {
            true => reader.deserialize_seq(Member(name)),
            false => reader.deserialize_map(Member(name)),
        };
        value = found.ok()??;
    }
    Some(value.get())
}

/// Reads the value of the last member with this name in an object, or the item with this index in an array; `None` if
/// there is no such value.
struct Member<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let index = self.0.parse().ok();
        for at in 0_usize.. {
            let Some(item) = items.next_element()? else { break };
            if index == Some(at) {
                found = Some(item);
            }
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Name(name)) = members.next_key()? {
            if *name == *self.0.as_bytes() {
                found = Some(members.next_value()?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// The name of a member as bytes. A name with half of a surrogate pair (such as `\ud800`) is not valid text, and an
/// error for it would end the search. As bytes, it is only a name that differs from the wanted one.
struct Name<'de>(Cow<'de, [u8]>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a member")
            }

            fn visit_borrowed_bytes<E: Error>(self, name: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(name.to_vec())))
            }
        }
        deserializer.deserialize_bytes(Read)
    }
}
