//! The store of the schedule: events that wait for the time in their attribute `notbefore`.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Notify;

use crate::StoreFuture;
use evoke_model::clock::UnixMs;
use evoke_model::{Actor, NewDelivery, ReadEvent, Seq};

/// An event that waits for its time.
#[derive(Debug, Clone)]
pub struct Scheduled {
    /// When the event is due, by the wall clock.
    pub due_ms: UnixMs,
    /// The position of the event.
    pub seq: Seq,
    /// The event, or its damage.
    pub event: ReadEvent,
}

/// Stores events now that are delivered later.
///
/// [`crate::EventStore::accept`] and [`crate::DeliveryStore::complete`] schedule an event whose `notbefore` is later than
/// the wall clock: the event is stored without deliveries, and its deliveries in the call are ignored. The schedule
/// follows the wall clock, not store time. A scheduled event stays a duplicate for others of its id, is not removed by
/// retention, and is left out of replays.
///
/// When the event is due, the caller routes it and releases it with its deliveries. Their ids are assigned then, so they
/// take the last place in their order keys, and `max_age`, the retention age and the dedup window count from then.
pub trait ScheduleStore: Send + Sync + 'static {
    /// Returns the first `limit` events that are due after the position `after`, in the order of their times and
    /// positions. `(UnixMs::MIN, Seq(0))` is before the first.
    fn scheduled(&self, after: (UnixMs, Seq), limit: usize) -> StoreFuture<Vec<Scheduled>>;

    /// Returns the first `limit` events that are due at `now_ms`, in order, and the time at which the next one after
    /// these is due.
    fn due_events(&self, now_ms: UnixMs, limit: usize) -> StoreFuture<(Vec<Scheduled>, Option<UnixMs>)>;

    /// Removes events from the schedule and adds their deliveries, all in one commit. Events that are no longer scheduled
    /// are left out, and so are damaged ones, which stay as they are. Returns the number of released events.
    fn release_events(&self, events: Vec<(Seq, Vec<NewDelivery>)>) -> StoreFuture<u64>;

    /// Like [`ScheduleStore::release_events`], but the deliveries are purged with this cause: they never run and block no
    /// order key. Returns the number of cancelled events.
    fn cancel_events(&self, actor: &Actor, events: Vec<(Seq, Vec<NewDelivery>)>, cause: &str) -> StoreFuture<u64>;

    /// Returns true if an event waits for its time.
    fn is_scheduled(&self, seq: Seq) -> StoreFuture<bool>;

    /// Returns the alarm that is set when an event is scheduled.
    fn alarm(&self) -> &Alarm;
}

/// Tells the owner of the schedule about events that were scheduled since the last call of [`Alarm::reset`].
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
    /// Records that an event that is due at this time was committed. Wakes the waiter if it is the earliest one.
    pub fn set(&self, due_ms: UnixMs) {
        if self.earliest_ms.fetch_min(due_ms, Ordering::SeqCst) > due_ms {
            self.changed.notify_one();
        }
    }

    /// Forgets the recorded times. A read of the schedule that starts afterwards finds all events of earlier commits.
    pub fn reset(&self) {
        self.earliest_ms.store(UnixMs::MAX, Ordering::SeqCst);
    }

    /// Returns the earliest recorded time; [`UnixMs::MAX`] if there is none.
    pub fn earliest_ms(&self) -> UnixMs {
        self.earliest_ms.load(Ordering::SeqCst)
    }

    /// Waits until an earlier time is recorded. May resolve without one.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}
