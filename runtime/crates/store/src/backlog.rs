//! Counts deliveries and their bytes, in total and by source. A delivery counts for the source through which its chain
//! entered; a chain is an event from outside with all events that it causes. A store counts its pending deliveries, its
//! scheduled events and its dead letters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use evoke_model::event::Event;
use evoke_model::{Amount, Lineage, Origin};
use foldhash::HashMap;

/// The deliveries of one kind as of the last commit. The comments below are about the pending ones (ready, retrying or
/// blocked).
#[derive(Default)]
pub struct Backlog {
    deliveries: AtomicU64,
    bytes: AtomicU64,
    ended: AtomicU64,
    published_deliveries: AtomicU64,
    published_bytes: AtomicU64,
    by_origin: Mutex<HashMap<Origin, Amount>>,
}

impl Backlog {
    /// Returns the number and bytes of all pending deliveries.
    pub fn total(&self) -> Amount {
        Amount { deliveries: self.deliveries.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    /// Returns the number and bytes of the pending deliveries whose chain entered through this source, no matter how
    /// many functions the chain has passed through.
    pub fn of(&self, origin: Origin) -> Amount {
        self.by_origin.lock().unwrap_or_else(PoisonError::into_inner).get(&origin).copied().unwrap_or_default()
    }

    /// Returns the part of [`Backlog::total`] that the bus had to accept even beyond its limits: the deliveries of
    /// events that functions published, and of scheduled events that became due.
    pub fn published(&self) -> Amount {
        let (deliveries, bytes) = (&self.published_deliveries, &self.published_bytes);
        Amount { deliveries: deliveries.load(Ordering::Relaxed), bytes: bytes.load(Ordering::Relaxed) }
    }

    /// Returns how many pending deliveries ended (done, dead or purged) since the store was opened.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Sets the number of pending deliveries, for tests.
    #[cfg(any(test, feature = "test-util"))]
    pub fn set(&self, deliveries: u64) {
        self.deliveries.store(deliveries, Ordering::Relaxed);
    }

    /// Adds a committed change to these amounts, and resets the change.
    pub fn apply(&self, change: &mut Change) {
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
        // Separate loads and stores are enough: only the store's writer changes these numbers.
        let total = self.total();
        self.deliveries.store(total.deliveries.saturating_add_signed(deliveries), Ordering::Relaxed);
        self.bytes.store(total.bytes.saturating_add_signed(bytes), Ordering::Relaxed);
        let (published, by) = (self.published(), std::mem::take(&mut change.published));
        self.published_deliveries.store(published.deliveries.saturating_add_signed(by.0), Ordering::Relaxed);
        self.published_bytes.store(published.bytes.saturating_add_signed(by.1), Ordering::Relaxed);
        self.ended.fetch_add(std::mem::take(&mut change.ended), Ordering::Relaxed);
    }
}

/// The contribution of one delivery to the backlog.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// The source through which the event's chain entered.
    pub origin: Origin,
    /// Size of the event in bytes: its attributes and its data.
    pub bytes: i64,
    /// True if the bus had to accept the delivery even beyond its limits: a function published the event, or the event
    /// was scheduled and became due.
    pub published: bool,
}

impl Share {
    /// Returns how much each live delivery of an event adds to the backlog (a live delivery is one that no replay
    /// added). A scheduled event adds the same amount to the backlog of the schedule.
    pub fn of(event: &Event, lineage: &Lineage) -> Self {
        let bytes = i64::try_from(event.size()).unwrap_or(i64::MAX);
        Self { origin: lineage.origin, bytes, published: lineage.cause.is_some() }
    }

    /// Like [`Share::of`], for a scheduled event that became due.
    pub fn of_released(event: &Event, lineage: &Lineage) -> Self {
        Self { published: true, ..Self::of(event, lineage) }
    }
}

/// The changes of one transaction to the backlog.
#[derive(Debug, Clone, Default)]
pub struct Change {
    by_origin: HashMap<Origin, (i64, i64)>,
    /// The change of the numbers that [`Backlog::published`] returns: deliveries and bytes.
    published: (i64, i64),
    ended: u64,
}

impl Change {
    /// Adds a delivery that became pending.
    pub fn add(&mut self, share: Share) {
        self.adjust(share, 1);
    }

    /// Removes a delivery that is no longer pending.
    pub fn remove(&mut self, share: Share) {
        self.adjust(share, -1);
        self.ended += 1;
    }

    fn adjust(&mut self, share: Share, sign: i64) {
        let by = self.by_origin.entry(share.origin).or_default();
        by.0 += sign;
        by.1 += sign * share.bytes;
        if share.published {
            self.published.0 += sign;
            self.published.1 += sign * share.bytes;
        }
    }

    /// Adds deliveries of an origin that are pending when the store is opened: their number and their bytes.
    /// `published` has the meaning of [`Share::published`].
    pub fn load(&mut self, origin: Origin, published: bool, (deliveries, bytes): (i64, i64)) {
        let by = self.by_origin.entry(origin).or_default();
        *by = (by.0 + deliveries, by.1 + bytes);
        if published {
            self.published = (self.published.0 + deliveries, self.published.1 + bytes);
        }
    }
}
