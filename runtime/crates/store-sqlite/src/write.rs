//! The writes: each write is a type with its data, and with the method that applies it. All writes of a group commit
//! run in one transaction.

pub(super) mod accept;
pub(super) mod cancel;
pub(super) mod complete;
pub(super) mod dead;
mod deliveries;
pub(super) mod exits;
pub(super) mod register;
pub(super) mod replays;
pub(super) mod retain;
pub(super) mod retry;
pub(super) mod schedule;
pub(super) mod state;
pub(super) mod take_over;
pub(super) mod transfer;

use std::sync::Arc;

use rusqlite::Connection;

use super::dedup::Dedup;
use super::state::Batch;
use super::totals::Counters;
use evoke_model::clock::UnixMs;
use evoke_model::{DeliveryId, DescendantsLimits, FunctionId, ReadyDelivery};
use evoke_store::descendants::Chains;

/// Changes the store as part of a group commit.
pub(super) trait Write: Send + 'static {
    /// The result, which the caller receives after the commit.
    type Output: Send + 'static;

    /// Returns the approximate size of the payload in bytes, which limits a group commit.
    fn size(&self) -> usize {
        0
    }

    /// Applies the write; called once. An error rolls back the whole group commit.
    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<Self::Output>;
}

/// The group commit that is being built.
pub(super) struct GroupCommit<'a> {
    pub(super) tx: &'a Connection,
    pub(super) dedup: &'a mut Dedup,
    pub(super) counters: &'a mut Counters,
    pub(super) chains: &'a mut Chains,
    pub(super) descendants_limits: Arc<DescendantsLimits>,
    pub(super) state: Batch<'a>,
    /// The store time.
    pub(super) now_ms: UnixMs,
    /// The wall clock, for the schedule.
    pub(super) wall_ms: UnixMs,
    /// The earliest time at which an event that the commit schedules is due.
    pub(super) scheduled_ms: Option<UnixMs>,
    /// Deliveries that become ready with the commit.
    pub(super) ready: Vec<ReadyDelivery>,
    /// Deliveries that are cancelled with the commit.
    pub(super) cancelled: Vec<(FunctionId, DeliveryId)>,
    /// Whether the log is copied into the database after the commit.
    pub(super) checkpoint: bool,
}

/// Deliveries per write. Their events stay in memory until the commit is announced.
pub(super) const PORTION_MAX: usize = 256;

/// The result of one write over a portion of the matching deliveries.
pub(super) struct Portion {
    pub(super) count: u64,
    /// Start of the next portion; `None` after the last one.
    pub(super) next_after: Option<DeliveryId>,
}

impl Portion {
    /// Returns a portion that found these deliveries and changed none of them yet.
    fn found(ids: impl ExactSizeIterator<Item = DeliveryId>) -> Self {
        let next_after = if ids.len() < PORTION_MAX { None } else { ids.last() };
        Self { count: 0, next_after }
    }
}
