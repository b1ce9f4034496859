//! The writes: each write is a type that contains its data and has a method that applies the write. All writes of a
//! group commit run in one transaction.

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
use super::statements::Statements;
use super::totals::Counters;
use evoke_model::clock::UnixMs;
use evoke_model::{DeliveryId, DescendantsLimits, FunctionId, ReadyDelivery};
use evoke_store::descendants::Chains;

/// Changes the store as part of a group commit.
pub(super) trait Write: Send + 'static {
    /// The result, which the caller receives after the commit.
    type Output: Send + 'static;

    /// Returns the approximate size of the payload in bytes. The sum of these sizes limits a group commit.
    fn size(&self) -> usize {
        0
    }

    /// Applies the write; called once. An error rolls back the whole group commit.
    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<Self::Output>;
}

/// The group commit that is being built.
pub(super) struct GroupCommit<'a> {
    pub(super) tx: &'a Connection,
    /// The statements that nearly every write needs.
    pub(super) statements: Statements<'a>,
    pub(super) dedup: &'a mut Dedup,
    pub(super) counters: &'a mut Counters,
    pub(super) chains: &'a mut Chains,
    pub(super) descendants_limits: Arc<DescendantsLimits>,
    pub(super) state: Batch<'a>,
    /// The store time.
    pub(super) now_ms: UnixMs,
    /// The time of the wall clock, for the schedule.
    pub(super) wall_ms: UnixMs,
    /// The earliest due time of the events that this commit schedules.
    pub(super) scheduled_ms: Option<UnixMs>,
    pub(super) ready: Vec<ReadyDelivery>,
    pub(super) cancelled: Vec<(FunctionId, DeliveryId)>,
    /// True if a write requested a checkpoint after this commit: the log is then copied into the database.
    pub(super) checkpoint: bool,
}

/// Maximum number of deliveries that one write changes. The limit keeps the transaction short, so that other writes do
/// not wait long. It also saves memory: the events of deliveries that become ready stay in memory until the sink has
/// received them.
pub(super) const PORTION_MAX: usize = 256;

/// A portion ends when the events of all deliveries that it made ready have at least this many bytes in total.
pub(super) const PORTION_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The result of a write that changes one portion of many deliveries.
pub(super) struct Portion {
    pub(super) count: u64,
    /// The id after which the next portion starts; `None` after the last portion.
    pub(super) next_after: Option<DeliveryId>,
}

impl Portion {
    /// Returns the result of a write that found these deliveries. The count is 0: the caller adds the deliveries that
    /// it changes.
    fn found(ids: impl ExactSizeIterator<Item = DeliveryId>) -> Self {
        let next_after = if ids.len() < PORTION_MAX { None } else { ids.last() };
        Self { count: 0, next_after }
    }

    /// Adds to `bytes` the size of the events of `ready`, the deliveries that the change of `id` made ready. Returns
    /// true if the portion must end with `id`; the next portion then starts after `id`.
    fn ends(&mut self, id: DeliveryId, ready: &[ReadyDelivery], bytes: &mut usize) -> bool {
        *bytes += ready.iter().map(ReadyDelivery::event_size).sum::<usize>();
        let is_full = *bytes >= PORTION_BYTES_MAX;
        if is_full {
            self.next_after = Some(id);
        }
        is_full
    }
}
