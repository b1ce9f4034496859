//! The store of the schedule: events that wait for the time in their attribute `notbefore`.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Notify;

use crate::StoreFuture;
use evoke_model::clock::UnixMs;
use evoke_model::{Actor, NewDelivery, ReadEvent, Seq};

/// A scheduled event that is not yet released.
#[derive(Debug, Clone)]
pub struct Scheduled {
    /// When the event is due, by the wall clock.
    pub due_ms: UnixMs,
    /// The position of the event.
    pub seq: Seq,
    /// The event, or an error if its row is damaged.
    pub event: ReadEvent,
}

/// Stores events that are accepted now and delivered later.
///
/// [`crate::EventStore::accept`] and [`crate::DeliveryStore::complete`] schedule an event whose `notbefore` is later
/// than the wall clock: they store the event and ignore the deliveries that the caller passes for it. The schedule
/// follows the wall clock, not store time. As long as an event is scheduled, other events with its id are duplicates,
/// retention does not remove it, and replays leave it out.
///
/// When the event is due, the caller routes it and releases it with its deliveries. The deliveries get their ids at
/// that time, so in their order keys they come after all earlier deliveries. `max_age`, the retention age and the dedup
/// window start at that time, too.
pub trait ScheduleStore: Send + Sync + 'static {
    /// Returns the first `limit` scheduled events after the due time and position in `after`, ordered by due time and
    /// then by position. `(UnixMs::MIN, Seq(0))` is before the first event.
    fn scheduled(&self, after: (UnixMs, Seq), limit: usize) -> StoreFuture<Vec<Scheduled>>;

    /// Returns the first `limit` events that are due at `now_ms`, in order, and the time at which the next event after
    /// these is due.
    fn due_events(&self, now_ms: UnixMs, limit: usize) -> StoreFuture<(Vec<Scheduled>, Option<UnixMs>)>;

    /// Removes events from the schedule and adds their deliveries, all in one commit. Events that are no longer
    /// scheduled are ignored. Damaged events are ignored too, and stay scheduled. Returns the number of released
    /// events.
    fn release_events(&self, events: Vec<(Seq, Vec<NewDelivery>)>) -> StoreFuture<u64>;

    /// Like [`ScheduleStore::release_events`], but the deliveries are purged with this cause: they never run, and they
    /// block no order key. Returns the number of cancelled events.
    fn cancel_events(&self, actor: &Actor, events: Vec<(Seq, Vec<NewDelivery>)>, cause: &str) -> StoreFuture<u64>;

    /// Returns true if an event is scheduled and not yet released.
    fn is_scheduled(&self, seq: Seq) -> StoreFuture<bool>;

    /// Returns the alarm that is set when an event is scheduled.
    fn alarm(&self) -> &Alarm;
}

/// Informs the owner of the schedule about events that were scheduled since the last call of [`Alarm::reset`].
#[derive(Debug)]
pub struct Alarm {
    earliest_ms: AtomicI64,
    changed: Notify,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { earliest_ms: AtomicI64::new(UnixMs::MAX), changed: Notify::new() }
    }
}

impl Alarm {
    /// Records the due time of a scheduled event that was committed. Wakes the task that waits in [`Alarm::changed`] if
    /// this time is earlier than all recorded ones.
    pub fn set(&self, due_ms: UnixMs) {
        if self.earliest_ms.fetch_min(due_ms, Ordering::SeqCst) > due_ms {
            self.changed.notify_one();
        }
    }

    /// Discards the recorded times. A read of the schedule that starts after this call finds all events of earlier
    /// commits.
    pub fn reset(&self) {
        self.earliest_ms.store(UnixMs::MAX, Ordering::SeqCst);
    }

    /// Returns the earliest recorded time; [`UnixMs::MAX`] if there is none.
    pub fn earliest_ms(&self) -> UnixMs {
        self.earliest_ms.load(Ordering::SeqCst)
    }

    /// Waits until an earlier time is recorded. May also resolve although none was recorded.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}
