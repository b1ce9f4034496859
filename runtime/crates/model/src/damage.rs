//! Damaged rows: rows that are missing, or whose content does not match its checksum. Reads return an error type of
//! this module instead of the content.

use std::fmt;
use std::sync::Arc;

use crate::{AttemptRecord, DeliveryId, DeliveryRecord, DeliveryState, Seq, StoredEvent};

/// An event as read from the store, or the damage of its row.
pub type ReadEvent = Result<StoredEvent, DamagedEvent>;

/// A delivery as read from the store, or the damage of its row.
pub type ReadDelivery = Result<DeliveryRecord, DamagedDelivery>;

/// An event whose row is damaged or missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedEvent {
    /// The position of the event.
    pub seq: Seq,
    /// Describes the damage: which row of which file.
    pub what: Arc<str>,
}

impl DamagedEvent {
    /// Returns the position of an event, damaged or not.
    pub fn seq_of(read: &ReadEvent) -> Seq {
        match read {
            Ok(stored) => stored.seq,
            Err(damaged) => damaged.seq,
        }
    }
}

impl fmt::Display for DamagedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// A delivery whose row is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedDelivery {
    /// The delivery's id.
    pub id: DeliveryId,
    /// The state that the row contains, if it contains one.
    pub state: Option<DeliveryState>,
    /// The recorded attempts, which are stored in rows of their own.
    pub attempts: Vec<AttemptRecord>,
    /// Describes the damage: which row of which file.
    pub what: String,
}
