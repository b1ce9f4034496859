//! The record of running work, which outlives the process. It shows which deliveries, requests and loads of components
//! were running when the process ended without a clean stop: by a crash, a kill, or a lack of memory.
//!
//! A delivery that crashes the process would crash it again after each restart. So the next start reads the record of
//! the earlier process, and increments the exit count of every delivery that was running: see
//! [`crate::DeliveryStore::record_exit`]. A delivery with an exit count runs alone, while no other delivery runs. At
//! [`EXITS_MAX`] exits, it becomes a dead letter.

use std::sync::Arc;

use evoke_model::DeliveryId;

/// The exit count at which a delivery becomes a dead letter. After the first unclean exit, all deliveries that were
/// running are suspects, and each of them runs while no other delivery runs. So at the second exit, only the delivery
/// that caused the exit was running.
pub const EXITS_MAX: u32 = 2;

/// Running work, as it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work<'a> {
    /// An attempt at a delivery.
    Delivery {
        /// The id of the delivery.
        id: DeliveryId,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// The full name of the function: `app/function`.
        function: &'a str,
        /// True if the delivery was running when an earlier process ended without a clean stop. Such a delivery runs
        /// alone.
        suspect: bool,
    },
    /// A function that handles an HTTP request, by full name.
    Request(&'a str),
    /// The component of a function that is being compiled or loaded, by full name.
    Load(&'a str),
}

/// The place of a record in a [`RunningLog`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(pub u32);

/// Records running work. Both methods are called for every attempt, so neither may wait for a disk.
pub trait RunningLog: Send + Sync + 'static {
    /// Records work that starts. The record outlives the process. A power cut may lose the record; this does no harm,
    /// because no work causes a power cut. Returns `None` if the work is not recorded, because there is no free slot or
    /// an earlier write failed.
    fn start(&self, work: &Work<'_>) -> Option<Slot>;

    /// Frees the slot of work that ended.
    ///
    /// The record is removed if `remove` is true; otherwise it stays until the slot is used again. An old record of a
    /// delivery does no harm: after the outcome of the attempt is committed, this attempt is no longer the next one of
    /// a pending delivery, so its record is ignored.
    fn end(&self, slot: Slot, remove: bool);
}

/// Records nothing, for tests, benches and stores without a folder.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRunningLog;

impl RunningLog for NoRunningLog {
    fn start(&self, _: &Work<'_>) -> Option<Slot> {
        None
    }

    fn end(&self, _: Slot, _: bool) {}
}

/// Recorded work; its slot is freed when this is dropped.
#[must_use = "dropping it ends the record"]
pub struct Recorded {
    log: Arc<dyn RunningLog>,
    slot: Option<Slot>,
    remove: bool,
}

impl Recorded {
    /// Records work until the returned value is dropped.
    pub fn start(log: &Arc<dyn RunningLog>, work: &Work<'_>) -> Self {
        let remove = !matches!(work, Work::Delivery { suspect: false, .. });
        Self { log: log.clone(), slot: log.start(work), remove }
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.log.end(slot, self.remove);
        }
    }
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorded").field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// An exit of the process without a clean stop, such as a crash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UncleanExit {
    /// The random number that identifies the process that ended.
    pub run: u64,
    /// The attempts that were running: each with its delivery and its number.
    pub attempts: Vec<(DeliveryId, u32)>,
}
