//! An in-memory store for tests and benches, with all guarantees of the traits except durability.

mod operator;
mod recordings;
mod replays;
mod retain;
mod schedule;
mod state;
mod store;
mod tables;
mod take_over;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use tokio::sync::watch;

use self::state::Buckets;
use crate::backlog::Change;
use crate::descendants::Descendants;
use crate::origins::Origins;
use crate::{Alarm, Backlog, CommitSink, Committed, DEDUP_WINDOW, Result, Scopes, StoreFuture};
use evoke_model::clock::{Clock, UnixMs};
use evoke_model::{
    AttemptRecord, Completed, Completion, DeliveryId, DeliveryState, DescendantsLimits, FunctionId, Removed, Replay,
    ReplayId, Seq, StoredEvent, Stream,
};

/// A handle to the store: maps behind one lock. Cheap to clone; all clones are handles to the same store.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
    newest: watch::Sender<Seq>,
    backlog: Backlog,
    schedule_backlog: Backlog,
    dead_letters: Backlog,
    alarm: Alarm,
    scopes: Scopes,
}

struct Inner {
    clock: Clock,
    functions: Vec<String>,
    origins: Origins,
    /// The index of an event is its position - 1, and the index of a delivery is its id - 1. `None` replaces events and
    /// deliveries that retention removed.
    events: Vec<Option<Row>>,
    dedup_window_ms: UnixMs,
    /// The newest event of each origin, source and id.
    by_id: HashSet<ById>,
    deliveries: Vec<Option<Delivery>>,
    published: HashMap<DeliveryId, Vec<Seq>>,
    ready: HashMap<(FunctionId, Stream), BTreeSet<DeliveryId>>,
    due: HashMap<(FunctionId, Stream), BTreeSet<(UnixMs, DeliveryId)>>,
    /// The deliveries of each order key that are neither done nor purged. Live deliveries and each replay have separate
    /// order keys.
    unfinished: HashMap<(FunctionId, Option<ReplayId>, String), BTreeSet<DeliveryId>>,
    /// The scheduled events, in the order in which they become due.
    scheduled: BTreeSet<(UnixMs, Seq)>,
    /// How the current write changes the backlog of the schedule.
    schedule_change: Change,
    /// How the current write changes the numbers of dead letters.
    dead_change: Change,
    replays: Vec<Replay>,
    /// The recordings, in the order of their commits.
    recordings: Vec<recordings::Kept>,
    marks: BTreeMap<(String, String), Vec<u8>>,
    /// The exit count of each delivery that has one, see [`crate::DeliveryStore::record_exit`].
    exits: BTreeMap<DeliveryId, u32>,
    /// The number of the process whose exit was recorded last.
    exit_run: Option<u64>,
    /// The number and size of the events that each event from outside caused.
    descendants: HashMap<Seq, Descendants>,
    descendants_limits: DescendantsLimits,
    buckets: Buckets,
    backlog: Change,
    owed: u64,
    replayed: u64,
    removed: Removed,
    /// For each function, the numbers of done and of purged deliveries that retention removed.
    removed_deliveries: HashMap<FunctionId, (u64, u64)>,
    /// Deliveries that the current write cancels.
    cancelled: Vec<(FunctionId, DeliveryId)>,
    sink: Option<CommitSink>,
}

struct Row {
    stored: Arc<StoredEvent>,
    first_delivery: DeliveryId,
    owed: usize,
    /// The due time of a scheduled event; `None` after its release.
    scheduled_ms: Option<UnixMs>,
    /// The store time at which a scheduled event was released.
    released_ms: Option<UnixMs>,
}

impl Row {
    /// Returns the ids of the event's live deliveries. They are consecutive.
    fn deliveries(&self) -> impl Iterator<Item = DeliveryId> {
        let first = self.first_delivery.0;
        (first..first + self.owed as i64).map(DeliveryId)
    }

    /// Returns the store time from which the retention age and the dedup window count.
    fn since_ms(&self) -> UnixMs {
        self.released_ms.unwrap_or(self.stored.accepted_ms)
    }
}

/// An event as a key for the search for duplicates. Two keys are equal if the events have the same source and id, and
/// entered through the same origin.
struct ById {
    stored: Arc<StoredEvent>,
    /// The store time at which a scheduled event was released; `UnixMs::MAX` before its release. `None` for an event
    /// that was never scheduled.
    released_ms: Option<UnixMs>,
}

impl ById {
    /// Returns the store time from which the dedup window counts.
    fn since_ms(&self) -> UnixMs {
        self.released_ms.unwrap_or(self.stored.accepted_ms)
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.stored.event.source, &self.stored.event.id).hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.stored.event, &other.stored.event);
        a.id == b.id && a.source == b.source && self.stored.lineage.entered() == other.stored.lineage.entered()
    }
}

impl Eq for ById {}

struct Delivery {
    event: Arc<StoredEvent>,
    function: FunctionId,
    trigger: Arc<str>,
    order_key: Option<String>,
    replay: Option<ReplayId>,
    /// True for a live delivery of an event that was scheduled.
    is_released: bool,
    state: DeliveryState,
    cause: Option<String>,
    due_ms: Option<UnixMs>,
    attempts: Vec<AttemptRecord>,
    forgiven: u32,
    since_ms: UnixMs,
}

impl MemoryStore {
    /// Creates an empty store with the default dedup window.
    pub fn new(clock: Clock) -> Self {
        Self::with(clock, DEDUP_WINDOW)
    }

    /// Creates an empty store with a given dedup window.
    pub fn with(clock: Clock, dedup_window: Duration) -> Self {
        let inner = Inner {
            clock,
            dedup_window_ms: UnixMs::try_from(dedup_window.as_millis()).unwrap_or(UnixMs::MAX),
            functions: Vec::new(),
            origins: Origins::default(),
            events: Vec::new(),
            by_id: HashSet::new(),
            deliveries: Vec::new(),
            published: HashMap::new(),
            ready: HashMap::new(),
            due: HashMap::new(),
            unfinished: HashMap::new(),
            scheduled: BTreeSet::new(),
            schedule_change: Change::default(),
            dead_change: Change::default(),
            replays: Vec::new(),
            recordings: Vec::new(),
            marks: BTreeMap::new(),
            exits: BTreeMap::new(),
            exit_run: None,
            descendants: HashMap::new(),
            descendants_limits: DescendantsLimits::default(),
            buckets: Buckets::default(),
            backlog: Change::default(),
            owed: 0,
            replayed: 0,
            removed: Removed::default(),
            removed_deliveries: HashMap::new(),
            cancelled: Vec::new(),
            sink: None,
        };
        Self {
            shared: Arc::new(Shared {
                inner: Mutex::new(inner),
                newest: watch::channel(Seq(0)).0,
                backlog: Backlog::default(),
                schedule_backlog: Backlog::default(),
                dead_letters: Backlog::default(),
                alarm: Alarm::default(),
                scopes: Scopes::default(),
            }),
        }
    }

    /// Sets the number of pending deliveries without adding deliveries, for tests of limits.
    #[cfg(any(test, feature = "test-util"))]
    pub fn set_pending(&self, pending: u64) {
        self.shared.backlog.set(pending);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(&self, apply: impl FnOnce(&mut Inner, &mut Vec<DeliveryId>) -> T) -> StoreFuture<T> {
        self.write_and_settle(|inner, ready| (apply(inner, ready), Vec::new()))
    }

    /// Applies a write, and passes its effects to the sink. Both happen under the lock, so that the sink receives them
    /// in commit order.
    fn write_and_settle<T>(
        &self,
        apply: impl FnOnce(&mut Inner, &mut Vec<DeliveryId>) -> (T, Vec<(Arc<Completion>, Result<Completed>)>),
    ) -> StoreFuture<T> {
        let mut inner = self.lock();
        let before = inner.newest();
        let mut ready = Vec::new();
        let (result, settled) = apply(&mut inner, &mut ready);
        self.shared.backlog.apply(&mut inner.backlog);
        self.shared.schedule_backlog.apply(&mut inner.schedule_change);
        self.shared.dead_letters.apply(&mut inner.dead_change);
        let cancelled = std::mem::take(&mut inner.cancelled);
        if (!ready.is_empty() || !settled.is_empty() || !cancelled.is_empty())
            && let Some(sink) = &inner.sink
        {
            let ready = ready.into_iter().filter_map(|id| inner.ready_delivery(id)).collect();
            sink(Committed { ready, settled, cancelled });
        }
        let newest = inner.newest();
        let earliest_ms = inner.scheduled.first().map(|(due_ms, _)| *due_ms);
        drop(inner);
        earliest_ms.into_iter().for_each(|due_ms| self.shared.alarm.set(due_ms));
        if newest != before {
            self.shared.newest.send_if_modified(|seq| std::mem::replace(seq, newest.max(*seq)) < newest);
        }
        StoreFuture::ready(Ok(result))
    }
}

fn ready<T>(value: T) -> StoreFuture<T> {
    StoreFuture::ready(Ok(value))
}

/// Converts an id or a position, which counts from 1, to an index.
fn index(number: i64) -> usize {
    usize::try_from(number - 1).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod conformance {
    use super::MemoryStore;

    crate::conformance!(|clock, dedup_window| (MemoryStore::with(clock, dedup_window), ()), |clock, dedup_window| {
        let store = MemoryStore::with(clock, dedup_window);
        (store.clone(), store, ())
    });
}
