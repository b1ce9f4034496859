//! Reads a batch (CloudEvents JSON format 1.0.2, section 4).

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{BATCH_EXTENSIONS_MAX, BATCH_MAX, ReadError, structured};
use evoke_model::event::{Event, skip_byte_order_mark};

/// The first `MAX` elements of a JSON array. Further elements are only counted, because a list of short elements takes
/// eight times their size in memory.
pub struct FirstItems<'a, const MAX: usize> {
    /// The first elements, at most `MAX`.
    pub first: Vec<&'a RawValue>,
    /// The number of all elements.
    pub count: usize,
}

impl<'de, const MAX: usize> Deserialize<'de> for FirstItems<'de, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<const MAX: usize>;
        impl<'de, const MAX: usize> Visitor<'de> for Collect<MAX> {
            type Value = FirstItems<'de, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON array of events")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut first = Vec::new();
                while first.len() < MAX
                    && let Some(item) = items.next_element()?
                {
                    first.push(item);
                }
                let mut count = first.len();
                while let Some(IgnoredAny) = items.next_element()? {
                    count += 1;
                }
                Ok(FirstItems { first, count })
            }
        }
        deserializer.deserialize_seq(Collect::<MAX>)
    }
}

/// Reads the events of a batch.
pub(super) fn batch(json: &[u8]) -> Result<Vec<Event>, ReadError> {
    let items = items(json)?;
    if items.count > BATCH_MAX {
        let detail = format!("the batch has {} events; send at most {BATCH_MAX}", items.count);
        return Err(ReadError::TooLarge(detail));
    }
    let mut extensions = 0;
    let read = |(index, item): (usize, &&RawValue)| {
        let event = structured(item.get().as_bytes());
        let event = event.map_err(|e| ReadError::Malformed(format!("event {index}: {e}")))?;
        extensions += event.extensions.len();
        if extensions > BATCH_EXTENSIONS_MAX {
            return Err(ReadError::TooLarge(format!(
                "the events of the batch have more than {BATCH_EXTENSIONS_MAX} extension attributes in total; send the \
                 events in several batches"
            )));
        }
        Ok(event)
    };
    items.first.iter().enumerate().map(read).collect()
}

fn items(json: &[u8]) -> Result<FirstItems<'_, BATCH_MAX>, ReadError> {
    let malformed = |detail: &str| ReadError::Malformed(format!("the body is not a JSON array of events: {detail}"));
    let json = skip_byte_order_mark(json);
    // If the body is a JSON string, the error of the parser would repeat all of it. An error in an array repeats no
    // part of the body.
    if json.trim_ascii_start().first() != Some(&b'[') {
        return Err(malformed("a batch begins with `[`"));
    }
    serde_json::from_slice::<FirstItems<'_, BATCH_MAX>>(json).map_err(|e| malformed(&e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_beyond_the_limit_are_counted_and_not_kept() {
        let json = format!("[{}1]", "1,".repeat(100_000));
        let FirstItems { first, count } = items(json.as_bytes()).unwrap();
        assert_eq!((first.len(), count), (BATCH_MAX, 100_001));
        let detail = batch(json.as_bytes()).unwrap_err().to_string();
        assert_eq!(detail, "the batch has 100001 events; send at most 1000");
        let incomplete = json.replace(']', "");
        assert!(items(incomplete.as_bytes()).is_err());
    }

    #[test]
    fn a_long_string_in_place_of_a_batch_or_an_event_is_not_repeated() {
        let string = format!("\"{}\"", "\u{7f}".repeat(1_000_000));
        for json in [string.clone(), format!("[{string}]"), format!("[{string}")] {
            let detail = batch(json.as_bytes()).unwrap_err().to_string();
            assert!(detail.len() < 200, "{detail}");
        }
    }
}
