//! What is asked for: which events, which dead letters, what is kept.

use std::time::Duration;

use super::{DeliveryId, Seq};
use crate::clock::UnixMs;

/// Which events to list.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only events of this type; a trailing `*` matches any ending.
    pub type_: Option<String>,
    /// Only events of this source.
    pub source: Option<String>,
    /// Only events after this position, in ascending order; `None` lists the newest.
    pub after: Option<Seq>,
    /// Only events before this position.
    pub before: Option<Seq>,
    /// Only events that were accepted at this time or later.
    pub since_ms: Option<UnixMs>,
    /// Only events that were accepted before this time.
    pub until_ms: Option<UnixMs>,
    /// At most this many.
    pub limit: usize,
}

/// Which dead letters are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadFilter {
    /// All of them.
    All,
    /// Those of a function, by full name.
    Function(String),
    /// One.
    Delivery(DeliveryId),
}

/// What is kept of what is over. Events with a delivery that is pending or dead are always kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long after they were accepted.
    pub age: Duration,
    /// How large the store may be in bytes, without space that is free in it.
    pub bytes: u64,
}
