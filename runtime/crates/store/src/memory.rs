//! An in-memory store for tests and benches, with all guarantees of the trait except durability.

mod replays;
mod retain;
mod state;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use self::state::Buckets;
use crate::backlog::Change;
use crate::validate::{CommittedState as _, Validation};
use crate::{Backlog, CommitSink, Committed, DEDUP_WINDOW, Result, Store, StoreFuture};
use evoke_model::clock::{Clock, UnixMs};
use evoke_model::state::{Entry, Keys, StateItem, Transaction, Usage};
use evoke_model::{
    Accepted, AttemptRecord, CheckReport, Completed, Completion, Counts, DeadFilter, DeliveryId, DeliveryRecord,
    DeliveryState, EventFilter, FunctionId, Mark, NewEvent, NewReplay, ReadyDelivery, Removed, Replay, ReplayId,
    ReplayState, Retention, Seq, Step, StoredEvent, Stream, Totals,
};

/// The store: maps behind one lock.
pub struct MemoryStore {
    inner: Mutex<Inner>,
    newest: watch::Sender<Seq>,
    backlog: Backlog,
}

struct Inner {
    clock: Clock,
    functions: Vec<String>,
    /// Indexed by position - 1; `None` after retention removed the event. The same holds for `deliveries`.
    events: Vec<Option<Row>>,
    dedup_window_ms: UnixMs,
    /// The newest event of each source and id.
    by_id: HashSet<ById>,
    deliveries: Vec<Option<Delivery>>,
    published: HashMap<DeliveryId, Vec<Seq>>,
    ready: HashMap<(FunctionId, Stream), BTreeSet<DeliveryId>>,
    due: HashMap<(FunctionId, Stream), BTreeSet<(UnixMs, DeliveryId)>>,
    /// Deliveries of each order key, live or of a replay, that are neither done nor purged.
    unfinished: HashMap<(FunctionId, Option<ReplayId>, String), BTreeSet<DeliveryId>>,
    replays: Vec<Replay>,
    marks: BTreeMap<(String, String), Vec<u8>>,
    buckets: Buckets,
    backlog: Change,
    owed: u64,
    replayed: u64,
    removed: Removed,
    /// Deliveries that retention removed, by function: the number done and the number purged.
    removed_deliveries: HashMap<FunctionId, (u64, u64)>,
    sink: Option<CommitSink>,
}

struct Row {
    stored: Arc<StoredEvent>,
    first_delivery: DeliveryId,
    owed: usize,
}

impl Row {
    /// Returns the ids of the event's live deliveries.
    fn deliveries(&self) -> std::ops::Range<DeliveryId> {
        self.first_delivery..self.first_delivery + self.owed as DeliveryId
    }
}

/// An event that compares and hashes by source and id only.
struct ById(Arc<StoredEvent>);

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.0.event.source, &self.0.event.id).hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0.event, &other.0.event);
        a.id == b.id && a.source == b.source
    }
}

impl Eq for ById {}

struct Delivery {
    event: Arc<StoredEvent>,
    function: FunctionId,
    trigger: Arc<str>,
    order_key: Option<String>,
    replay: Option<ReplayId>,
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
            events: Vec::new(),
            by_id: HashSet::new(),
            deliveries: Vec::new(),
            published: HashMap::new(),
            ready: HashMap::new(),
            due: HashMap::new(),
            unfinished: HashMap::new(),
            replays: Vec::new(),
            marks: BTreeMap::new(),
            buckets: Buckets::default(),
            backlog: Change::default(),
            owed: 0,
            replayed: 0,
            removed: Removed::default(),
            removed_deliveries: HashMap::new(),
            sink: None,
        };
        Self { inner: Mutex::new(inner), newest: watch::channel(0).0, backlog: Backlog::default() }
    }

    /// Sets the number of pending deliveries.
    #[cfg(any(test, feature = "test-util"))]
    pub fn set_pending(&self, pending: u64) {
        self.backlog.set(pending);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(&self, apply: impl FnOnce(&mut Inner, &mut Vec<DeliveryId>) -> T) -> StoreFuture<T> {
        self.write_and_settle(|inner, ready| (apply(inner, ready), Vec::new()))
    }

    /// Applies a write and passes its effects to the sink while holding the lock, which keeps commit order.
    fn write_and_settle<T>(
        &self,
        apply: impl FnOnce(&mut Inner, &mut Vec<DeliveryId>) -> (T, Vec<(Arc<Completion>, Result<Completed>)>),
    ) -> StoreFuture<T> {
        let mut inner = self.lock();
        let before = inner.events.len() as Seq;
        let mut ready = Vec::new();
        let (result, settled) = apply(&mut inner, &mut ready);
        self.backlog.apply(&mut inner.backlog);
        if (!ready.is_empty() || !settled.is_empty())
            && let Some(sink) = &inner.sink
        {
            let ready = ready.into_iter().filter_map(|id| inner.ready_delivery(id)).collect();
            sink(Committed { ready, settled });
        }
        let newest = inner.events.len() as Seq;
        drop(inner);
        if newest != before {
            self.newest.send_if_modified(|seq| std::mem::replace(seq, newest.max(*seq)) < newest);
        }
        StoreFuture::ready(Ok(result))
    }
}

fn ready<T>(value: T) -> StoreFuture<T> {
    StoreFuture::ready(Ok(value))
}

/// Converts a position or id, which count from 1, to an index.
fn index(id: i64) -> usize {
    usize::try_from(id - 1).unwrap_or(usize::MAX)
}

impl Store for MemoryStore {
    fn register(&self, names: Vec<String>) -> StoreFuture<Vec<FunctionId>> {
        let functions = &mut self.lock().functions;
        let ids = names.into_iter().map(|name| {
            let known = functions.iter().position(|f| *f == name).unwrap_or_else(|| {
                functions.push(name);
                functions.len() - 1
            });
            known as FunctionId + 1
        });
        ready(ids.collect())
    }

    fn on_commit(&self, sink: CommitSink) {
        self.lock().sink = Some(sink);
    }

    fn accept(&self, events: Vec<NewEvent>, marks: Vec<Mark>) -> StoreFuture<Vec<Accepted>> {
        self.write(|inner, ready| {
            for Mark { scope, key, value } in marks {
                match value {
                    Some(value) => inner.marks.insert((scope, key), value),
                    None => inner.marks.remove(&(scope, key)),
                };
            }
            events.into_iter().map(|new| inner.insert(new, ready)).collect()
        })
    }

    fn complete(&self, completion: Arc<Completion>) -> StoreFuture<Completed> {
        self.write(|inner, ready| inner.complete(&completion, ready))
    }

    fn settle(&self, completion: Arc<Completion>) -> StoreFuture<()> {
        self.write_and_settle(|inner, ready| {
            let completed = inner.complete(&completion, ready);
            ((), vec![(completion, Ok(completed))])
        })
    }

    fn redrive(&self, which: DeadFilter) -> StoreFuture<u64> {
        self.write(|inner, ready| inner.redrive(&which, ready))
    }

    fn purge(&self, which: DeadFilter) -> StoreFuture<u64> {
        self.write(|inner, ready| inner.purge(&which, ready))
    }

    fn retain(&self, retention: Retention) -> StoreFuture<u64> {
        self.write(|inner, _| inner.retain(retention))
    }

    fn start_replay(&self, new: NewReplay) -> StoreFuture<ReplayId> {
        self.write(|inner, _| inner.start_replay(new))
    }

    fn advance_replay(&self, replay: ReplayId, step: Step) -> StoreFuture<bool> {
        self.write(|inner, ready| inner.advance_replay(replay, step, ready))
    }

    fn transition_replay(&self, replay: ReplayId, from: &'static [ReplayState], to: ReplayState) -> StoreFuture<bool> {
        self.write(|inner, _| inner.transition_replay(replay, from, to))
    }

    fn purge_replay(&self, replay: ReplayId, except: Vec<DeliveryId>) -> StoreFuture<u64> {
        self.write(|inner, _| inner.purge_replay(replay, &except))
    }

    fn replays(&self) -> StoreFuture<Vec<Replay>> {
        let inner = self.lock();
        ready((1..).map_while(|id| inner.replay(id)).collect())
    }

    fn replay(&self, id: ReplayId) -> StoreFuture<Option<Replay>> {
        ready(self.lock().replay(id))
    }

    fn ready(
        &self,
        function: FunctionId,
        stream: Stream,
        after: DeliveryId,
        limit: usize,
    ) -> StoreFuture<Vec<ReadyDelivery>> {
        let inner = self.lock();
        let ids = inner.ready.get(&(function, stream)).into_iter().flat_map(|ids| ids.range(after + 1..)).take(limit);
        ready(ids.filter_map(|id| inner.ready_delivery(*id)).collect())
    }

    fn due(
        &self,
        function: FunctionId,
        stream: Stream,
        now_ms: UnixMs,
        limit: usize,
    ) -> StoreFuture<(Vec<ReadyDelivery>, Option<UnixMs>)> {
        let inner = self.lock();
        let all = || inner.due.get(&(function, stream)).into_iter().flatten();
        let ids: Vec<_> = all().take_while(|(due_ms, _)| *due_ms <= now_ms).take(limit).collect();
        let next = all().nth(ids.len()).map(|(due_ms, _)| *due_ms);
        ready((ids.into_iter().filter_map(|(_, id)| inner.ready_delivery(*id)).collect(), next))
    }

    fn state(&self, bucket: &str, key: &str) -> StoreFuture<Option<Entry>> {
        ready(self.lock().buckets.get(bucket, key))
    }

    /// Settling commits at once, so there are never staged writes.
    fn state_with_staged(&self, bucket: &str, key: &str) -> StoreFuture<Option<Entry>> {
        self.state(bucket, key)
    }

    fn stage(&self, transaction: &mut Transaction) -> std::result::Result<(), StateItem> {
        match self.lock().buckets.validate(transaction) {
            Validation::Conflict(place) => Err(place),
            Validation::Valid(_) | Validation::OverQuota(_) => Ok(()),
        }
    }

    fn state_keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> StoreFuture<Keys> {
        ready(self.lock().buckets.keys(bucket, after, limit))
    }

    fn state_usage(&self, bucket: &str) -> Usage {
        self.lock().buckets.bucket(bucket).usage
    }

    fn state_buckets(&self) -> BTreeMap<String, Usage> {
        self.lock().buckets.usages()
    }

    fn state_write(&self, changes: Transaction) -> StoreFuture<u64> {
        self.write(|inner, _| match inner.buckets.validate(&changes) {
            Validation::Valid(valid) => {
                let existed = valid.existed;
                inner.buckets.apply(&changes, valid);
                existed
            }
            // Never reached: a user's changes read nothing and have no quota.
            Validation::Conflict(_) | Validation::OverQuota(_) => 0,
        })
    }

    fn marks(&self, scope: String) -> StoreFuture<BTreeMap<String, Vec<u8>>> {
        let inner = self.lock();
        let of_scope = inner.marks.iter().filter(|((s, _), _)| *s == scope);
        ready(of_scope.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn event(&self, seq: Seq) -> StoreFuture<Option<StoredEvent>> {
        ready(self.lock().event(seq).map(|row| (*row.stored).clone()))
    }

    fn find(&self, id: String) -> StoreFuture<Vec<Seq>> {
        let inner = self.lock();
        let found = inner.events.iter().flatten().rev().filter(|row| row.stored.event.id == id);
        ready(found.map(|row| row.stored.seq).take(10).collect())
    }

    fn events(&self, filter: EventFilter) -> StoreFuture<Vec<StoredEvent>> {
        let inner = self.lock();
        let wanted = |e: &&Arc<StoredEvent>| {
            filter.after.is_none_or(|after| e.seq > after)
                && filter.before.is_none_or(|before| e.seq < before)
                && filter.since_ms.is_none_or(|since_ms| e.accepted_ms >= since_ms)
                && filter.until_ms.is_none_or(|until_ms| e.accepted_ms < until_ms)
                && filter.source.as_ref().is_none_or(|s| e.event.source == *s)
                && filter.type_.as_ref().is_none_or(|t| match t.strip_suffix('*') {
                    Some(prefix) => e.event.type_.starts_with(prefix),
                    None => e.event.type_ == *t,
                })
        };
        let all = inner.events.iter().flatten().map(|row| &row.stored);
        let mut found: Vec<StoredEvent> = if filter.after.is_some() {
            all.filter(wanted).take(filter.limit).map(|e| (**e).clone()).collect()
        } else {
            all.rev().filter(wanted).take(filter.limit).map(|e| (**e).clone()).collect()
        };
        found.sort_by_key(|e| e.seq);
        ready(found)
    }

    fn deliveries(&self, event: Seq) -> StoreFuture<Vec<DeliveryRecord>> {
        let inner = self.lock();
        let Some(row) = inner.event(event) else { return ready(Vec::new()) };
        ready(row.deliveries().chain(inner.replayed(event)).filter_map(|id| inner.record(id)).collect())
    }

    fn delivery(&self, id: DeliveryId) -> StoreFuture<Option<DeliveryRecord>> {
        ready(self.lock().record(id))
    }

    fn published(&self, delivery: DeliveryId) -> StoreFuture<Vec<StoredEvent>> {
        let inner = self.lock();
        let found = inner.published.get(&delivery).into_iter().flatten();
        ready(found.filter_map(|seq| inner.event(*seq)).map(|row| (*row.stored).clone()).collect())
    }

    fn dead(&self, which: DeadFilter, limit: usize) -> StoreFuture<Vec<DeliveryRecord>> {
        let inner = self.lock();
        ready(inner.dead(&which).take(limit).filter_map(|id| inner.record(id)).collect())
    }

    fn totals(&self) -> StoreFuture<Totals> {
        ready(self.lock().totals())
    }

    fn size_bytes(&self) -> StoreFuture<u64> {
        ready(0)
    }

    fn check(&self) -> StoreFuture<CheckReport> {
        let totals = self.lock().totals();
        let counted: u64 = totals.functions.values().map(Counts::total).sum();
        let due = totals.owed + totals.replayed;
        let problems = if counted == due {
            Vec::new()
        } else {
            vec![format!("{due} deliveries are owed or replayed, but {counted} are stored")]
        };
        ready(CheckReport { totals, problems })
    }

    fn newest(&self) -> watch::Receiver<Seq> {
        self.newest.subscribe()
    }

    fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    fn failure(&self) -> BoxFuture<'static, String> {
        std::future::pending().boxed()
    }

    fn instance(&self) -> &'static str {
        "memory"
    }

    fn close(&self) -> StoreFuture<()> {
        ready(())
    }
}

#[cfg(test)]
mod conformance {
    crate::conformance!(|clock, dedup_window| (super::MemoryStore::with(clock, dedup_window), ()));
}
