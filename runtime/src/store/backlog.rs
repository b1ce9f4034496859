//! What is owed, in numbers: as a whole, and by the source where it came in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use foldhash::HashMap;

/// The source where a chain of events came in, as a hash of its URI: nothing has to be registered, and should two
/// sources ever have the same, they only share a share. The default is nobody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Origin(pub u32);

impl Origin {
    /// The origin of what the source with this URI offers.
    pub fn of(uri: &str) -> Self {
        // FNV-1a: the same in every version, as stores keep it.
        Self(uri.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)))
    }
}

/// A number of deliveries, and the events they are owed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub deliveries: u64,
    /// Their events, attributes and data, in bytes; an event counts for each of its deliveries.
    pub bytes: u64,
}

/// Deliveries that are pending as of the last commit: ready, retrying or blocked.
#[derive(Default)]
pub struct Backlog {
    deliveries: AtomicU64,
    bytes: AtomicU64,
    ended: AtomicU64,
    by_origin: Mutex<HashMap<Origin, Amount>>,
}

impl Backlog {
    /// All of them.
    pub fn total(&self) -> Amount {
        Amount { deliveries: self.deliveries.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    /// Those that go back to one source, through however many functions.
    pub fn of(&self, origin: Origin) -> Amount {
        self.by_origin.lock().unwrap_or_else(PoisonError::into_inner).get(&origin).copied().unwrap_or_default()
    }

    /// How many ended since the store was opened.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Has it say that so many deliveries are pending.
    #[cfg(test)]
    pub(super) fn set(&self, deliveries: u64) {
        self.deliveries.store(deliveries, Ordering::Relaxed);
    }

    /// Takes a change that was committed.
    pub(super) fn apply(&self, change: &mut Change) {
        if change.by_origin.is_empty() {
            return;
        }
        let mut by_origin = self.by_origin.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut deliveries, mut bytes) = (0, 0);
        for (origin, by) in change.by_origin.drain() {
            let amount = by_origin.entry(origin).or_default();
            amount.deliveries = amount.deliveries.saturating_add_signed(by.0);
            amount.bytes = amount.bytes.saturating_add_signed(by.1);
            if *amount == Amount::default() {
                by_origin.remove(&origin);
            }
            (deliveries, bytes) = (deliveries + by.0, bytes + by.1);
        }
        // Only the store's writer changes them.
        let total = self.total();
        self.deliveries.store(total.deliveries.saturating_add_signed(deliveries), Ordering::Relaxed);
        self.bytes.store(total.bytes.saturating_add_signed(bytes), Ordering::Relaxed);
        self.ended.fetch_add(std::mem::take(&mut change.ended), Ordering::Relaxed);
    }
}

/// What one delivery is of the backlog.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) origin: Origin,
    pub(super) bytes: i64,
}

/// What a transaction changes of a backlog.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    by_origin: HashMap<Origin, (i64, i64)>,
    ended: u64,
}

impl Change {
    /// A delivery is pending from now on.
    pub(super) fn came(&mut self, share: Share) {
        self.add(share, 1);
    }

    /// A delivery is not pending any more.
    pub(super) fn went(&mut self, share: Share) {
        self.add(share, -1);
        self.ended += 1;
    }

    fn add(&mut self, share: Share, sign: i64) {
        let by = self.by_origin.entry(share.origin).or_default();
        by.0 += sign;
        by.1 += sign * share.bytes;
    }

    /// So many deliveries of an origin with so many bytes together are pending.
    pub(super) fn found(&mut self, origin: Origin, deliveries: i64, bytes: i64) {
        self.by_origin.insert(origin, (deliveries, bytes));
    }
}
