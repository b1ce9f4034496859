//! An event as a row of a list: short, with the states of its deliveries.

use serde::Serialize;

use evoke_model::clock::rfc3339;
use evoke_model::event::Data;
use evoke_model::text::{self, count};
use evoke_model::{DamagedEvent, DeliveryId, DeliveryState, ReadEvent, Seq};
use evoke_store::{InspectionStore, StoreError};

/// Maximum number of characters of the data in a row.
const PREVIEW_CHARS_MAX: usize = 160;

/// Maximum number of characters of an attribute in a row. An event may have 1 MiB of attributes. The console finds
/// the event of a row by its `seq`, so no row needs the whole attributes.
const ATTRIBUTE_CHARS_MAX: usize = 256;

/// A row of a list of events.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct Row {
    /// Number of the event.
    seq: Seq,
    /// When the event was accepted.
    accepted: String,
    /// The type; empty for a damaged event.
    r#type: String,
    source: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// The delivery that caused the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<DeliveryId>,
    /// The first event of the chain that led to this event; absent if this event is the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<Seq>,
    /// Size of the event in bytes, attributes and data.
    bytes: usize,
    /// The start of the data.
    preview: String,
    /// Description of the damage on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    damaged: Option<String>,
    /// The states of the deliveries; absent if they were not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<Outcomes>,
}

/// Number of deliveries of one event by state.
#[derive(Debug, Default, Serialize)]
pub(super) struct Outcomes {
    done: u32,
    /// Ready, or waiting for an earlier delivery with the same order key.
    pending: u32,
    /// Waiting for their next attempt.
    retrying: u32,
    dead: u32,
    purged: u32,
    /// Deliveries that cannot be read.
    damaged: u32,
}

impl Outcomes {
    /// Reads the deliveries of an event.
    pub(super) async fn of(store: &dyn InspectionStore, event: Seq) -> Result<Self, StoreError> {
        let mut outcomes = Self::default();
        for read in store.deliveries(event).await? {
            let Ok(record) = read else {
                outcomes.damaged += 1;
                continue;
            };
            let count = match record.state {
                DeliveryState::Done => &mut outcomes.done,
                DeliveryState::Ready | DeliveryState::Blocked => &mut outcomes.pending,
                DeliveryState::Retrying => &mut outcomes.retrying,
                DeliveryState::Dead => &mut outcomes.dead,
                DeliveryState::Purged => &mut outcomes.purged,
            };
            *count += 1;
        }
        Ok(outcomes)
    }
}

impl Row {
    /// Returns the row of an event.
    pub(super) fn new(read: &ReadEvent, deliveries: Option<Outcomes>) -> Self {
        let stored = match read {
            Ok(stored) => stored,
            Err(DamagedEvent { seq, what }) => return Self::damaged(*seq, what.to_string()),
        };
        let event = &*stored.event;
        Self {
            seq: stored.seq,
            accepted: rfc3339(stored.accepted_ms),
            r#type: cut(&event.type_),
            source: cut(&event.source),
            id: cut(&event.id),
            subject: event.subject.as_deref().map(cut),
            cause: stored.lineage.cause,
            root: stored.lineage.root,
            bytes: event.size(),
            preview: preview(&event.data),
            damaged: None,
            deliveries,
        }
    }

    /// Returns the number of bytes of the texts.
    pub(super) fn size(&self) -> usize {
        let Self { r#type, source, id, subject, preview, damaged, .. } = self;
        let optional = [subject, damaged].into_iter().flatten();
        [r#type, source, id, preview].into_iter().chain(optional).map(String::len).sum()
    }

    fn damaged(seq: Seq, what: String) -> Self {
        Self {
            seq,
            accepted: rfc3339(0),
            r#type: String::new(),
            source: String::new(),
            id: String::new(),
            subject: None,
            cause: None,
            root: None,
            bytes: 0,
            preview: String::new(),
            damaged: Some(what),
            deliveries: None,
        }
    }
}

/// Returns an attribute of an event; if it is too long, its start and `…`.
pub(super) fn cut(attribute: &str) -> String {
    text::cut(attribute, ATTRIBUTE_CHARS_MAX).into_owned()
}

/// Returns the start of the data as one line; for binary data, only the number of bytes.
fn preview(data: &Data) -> String {
    if let Data::Binary(bytes) = data {
        return count(bytes.len(), "byte");
    }
    // A character has at most four bytes, so more bytes are not needed.
    let start = data.as_bytes().get(..PREVIEW_CHARS_MAX * 4).unwrap_or(data.as_bytes());
    String::from_utf8_lossy(start)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(PREVIEW_CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use evoke_model::event::Event;
    use evoke_model::{Lineage, StoredEvent};

    #[test]
    fn a_row_of_an_event_with_a_megabyte_of_attributes_is_short() {
        let long = |part: &str| part.repeat(250_000);
        let subject = Some(long("\u{1}"));
        let event = Event { id: long("i"), source: long("/"), type_: long("ü"), subject, ..Event::default() };
        let stored = StoredEvent { seq: Seq(7), accepted_ms: 0, event: Arc::new(event), lineage: Lineage::default() };
        let json = serde_json::to_value(Row::new(&Ok(stored), None)).unwrap();
        assert_eq!(json["seq"], 7);
        for (name, part) in [("id", "i"), ("source", "/"), ("type", "ü"), ("subject", "\u{1}")] {
            assert_eq!(json[name], part.repeat(ATTRIBUTE_CHARS_MAX) + "…", "{name}");
        }
        assert_eq!(cut(&"ü".repeat(ATTRIBUTE_CHARS_MAX)), "ü".repeat(ATTRIBUTE_CHARS_MAX));
    }
}
