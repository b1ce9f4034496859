//! Counts of deliveries and events in a store. The admin API and `evoke check --json` return them in the JSON form of
//! these types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{DeliveryState, Seq};

/// Number of deliveries in each state, for one function or replay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Deliveries that can run now.
    pub ready: u64,
    /// Deliveries that wait for their next attempt.
    pub retrying: u64,
    /// Deliveries that wait for an earlier one with the same order key.
    pub blocked: u64,
    /// Deliveries that succeeded.
    pub done: u64,
    /// Dead letters.
    pub dead: u64,
    /// Dead letters that were purged.
    pub purged: u64,
    /// Deliveries that retention removed. Each of them is also counted in `done` or `purged`.
    #[serde(default)]
    pub removed: u64,
}

impl Counts {
    /// Returns the count for a state.
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

    /// Returns the count for a state, for modification.
    pub fn get_mut(&mut self, state: DeliveryState) -> &mut u64 {
        match state {
            DeliveryState::Ready => &mut self.ready,
            DeliveryState::Retrying => &mut self.retrying,
            DeliveryState::Blocked => &mut self.blocked,
            DeliveryState::Done => &mut self.done,
            DeliveryState::Dead => &mut self.dead,
            DeliveryState::Purged => &mut self.purged,
        }
    }

    /// Returns the number of pending deliveries: ready, retrying or blocked.
    pub fn pending(&self) -> u64 {
        self.ready + self.retrying + self.blocked
    }

    /// Returns the sum of the deliveries in all states.
    pub fn total(&self) -> u64 {
        self.pending() + self.done + self.dead + self.purged
    }
}

/// The numbers of events and deliveries of a store since the store was created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Events accepted.
    pub events: u64,
    /// Deliveries that were created for these events when the events were accepted, or, for scheduled events, when they
    /// became due.
    pub owed: u64,
    /// Deliveries added by replays.
    pub replayed: u64,
    /// Events that wait for the time in their attribute `notbefore`. They have no deliveries yet.
    pub scheduled: u64,
    /// The events and deliveries that retention removed. They are also counted in the fields above.
    pub removed: Removed,
    /// The counts of each function's deliveries, by the full name of the function.
    pub functions: BTreeMap<String, Counts>,
}

/// The numbers of events and deliveries that retention has removed since the store was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Events removed.
    pub events: u64,
    /// Removed deliveries that are counted in [`Totals::owed`].
    pub owed: u64,
    /// Removed deliveries that replays had added.
    #[serde(default)]
    pub replayed: u64,
    /// The highest position of a removed event. Any event up to this position can be missing.
    pub to: Seq,
}

/// The result of `evoke check`. If `problems` is empty, the store is intact and no event or delivery is lost: the rows
/// have the same counts as the totals that each commit updates.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CheckReport {
    /// The totals, counted from the rows. In JSON, the fields of the totals are fields of the report itself.
    #[serde(flatten)]
    pub totals: Totals,
    /// Descriptions of the problems, at most 100 lines.
    pub problems: Vec<String>,
}
