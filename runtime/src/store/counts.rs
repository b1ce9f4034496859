//! What is in a store, in numbers.

use std::collections::BTreeMap;

use super::{DeliveryState, Seq};

/// How many deliveries a function has in each state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ready to run.
    pub ready: u64,
    /// Waiting for another attempt.
    pub retrying: u64,
    /// Waiting for an earlier one of their order key.
    pub blocked: u64,
    /// Done.
    pub done: u64,
    /// Given up.
    pub dead: u64,
    /// Given up and let go.
    pub purged: u64,
    /// Of those that are done or purged, how many retention removed.
    pub removed: u64,
}

impl Counts {
    /// How many are in a state.
    pub fn get(&self, state: DeliveryState) -> u64 {
        match state {
            DeliveryState::Ready => self.ready,
            DeliveryState::Retrying => self.retrying,
            DeliveryState::Blocked => self.blocked,
            DeliveryState::Done => self.done,
            DeliveryState::Dead => self.dead,
            DeliveryState::Purged => self.purged,
        }
    }

    /// The same, to be changed.
    pub fn of(&mut self, state: DeliveryState) -> &mut u64 {
        match state {
            DeliveryState::Ready => &mut self.ready,
            DeliveryState::Retrying => &mut self.retrying,
            DeliveryState::Blocked => &mut self.blocked,
            DeliveryState::Done => &mut self.done,
            DeliveryState::Dead => &mut self.dead,
            DeliveryState::Purged => &mut self.purged,
        }
    }

    /// Deliveries that are owed still.
    pub fn pending(&self) -> u64 {
        self.ready + self.retrying + self.blocked
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.pending() + self.done + self.dead + self.purged
    }
}

/// What a store ever had, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events accepted.
    pub events: u64,
    /// Deliveries that these events were owed when they were accepted.
    pub owed: u64,
    /// Deliveries that replays added.
    pub replayed: u64,
    /// What of this retention removed.
    pub removed: Removed,
    /// Deliveries by function, by full name.
    pub functions: BTreeMap<String, Counts>,
}

/// What retention removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Events.
    pub events: u64,
    /// Deliveries that they were owed when they were accepted.
    pub owed: u64,
    /// Deliveries that replays had added.
    pub replayed: u64,
    /// The newest of them: events up to here may be gone.
    pub to: Seq,
}

/// What `check` found: conservation holds and the store is sound when `problems` is empty.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// The numbers.
    pub totals: Totals,
    /// What is wrong, for people; at most 100 lines.
    pub problems: Vec<String>,
}
