//! An event as a row of a list: short, with the states of its deliveries.

use serde::Serialize;

use evoke_model::clock::rfc3339;
use evoke_model::event::Data;
use evoke_model::text::count;
use evoke_model::{DamagedEvent, DeliveryId, DeliveryState, ReadEvent, Seq};
use evoke_store::{InspectionStore, StoreError};

/// Maximum number of characters of the data in a row.
const PREVIEW_CHARS_MAX: usize = 160;

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
            r#type: event.type_.clone(),
            source: event.source.clone(),
            id: event.id.clone(),
            subject: event.subject.clone(),
            cause: stored.lineage.cause,
            root: stored.lineage.root,
            bytes: event.size(),
            preview: preview(&event.data),
            damaged: None,
            deliveries,
        }
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
