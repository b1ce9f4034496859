//! A store in memory, for tests and benches: the same promises but durability.

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
use super::backlog::Change;
use super::judge::{Judged, Kept as _};
use super::{
    Accepted, Answer, AttemptRecord, Backlog, CheckReport, CommitSink, Committed, Completed, Completion, Counts,
    DEDUP_WINDOW, DeadFilter, DeliveryId, DeliveryRecord, DeliveryState, EventFilter, FunctionId, Mark, NewEvent,
    NewReplay, ReadyDelivery, Removed, Replay, ReplayId, ReplayState, Result, Retention, Seq, Step, Store, StoredEvent,
    Stream, Totals,
};
use crate::clock::{Clock, UnixMs};
use crate::state::{Entry, Keys, StateItem, Transaction, Usage};

/// Everything in maps behind one lock.
pub struct MemoryStore {
    state: Mutex<State>,
    newest: watch::Sender<Seq>,
    backlog: Backlog,
}

struct State {
    clock: Clock,
    functions: Vec<String>,
    /// By their number, from 1; `None` when retention removed it, as with deliveries.
    events: Vec<Option<Row>>,
    dedup_window_ms: UnixMs,
    /// The newest of each source and id.
    by_id: HashSet<ById>,
    deliveries: Vec<Option<Delivery>>,
    published: HashMap<DeliveryId, Vec<Seq>>,
    ready: HashMap<(FunctionId, Stream), BTreeSet<DeliveryId>>,
    due: HashMap<(FunctionId, Stream), BTreeSet<(UnixMs, DeliveryId)>>,
    /// Who of an order key, live or in a replay, is neither done nor purged.
    unfinished: HashMap<(FunctionId, Option<ReplayId>, String), BTreeSet<DeliveryId>>,
    replays: Vec<Replay>,
    marks: BTreeMap<(String, String), Vec<u8>>,
    kept: Buckets,
    backlog: Change,
    owed: u64,
    replayed: u64,
    removed: Removed,
    /// Deliveries that retention removed, by function: done and purged.
    removed_deliveries: HashMap<FunctionId, (u64, u64)>,
    sink: Option<CommitSink>,
}

struct Row {
    stored: Arc<StoredEvent>,
    first_delivery: DeliveryId,
    owed: usize,
}

impl Row {
    /// The deliveries that the event is owed.
    fn deliveries(&self) -> std::ops::Range<DeliveryId> {
        self.first_delivery..self.first_delivery + self.owed as DeliveryId
    }
}

/// An event where only its source and id count.
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
    /// An empty store.
    pub fn new(clock: Clock) -> Self {
        Self::with(clock, DEDUP_WINDOW)
    }

    /// The same, with the time in which a source and id are accepted once.
    pub fn with(clock: Clock, dedup_window: Duration) -> Self {
        let state = State {
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
            kept: Buckets::default(),
            backlog: Change::default(),
            owed: 0,
            replayed: 0,
            removed: Removed::default(),
            removed_deliveries: HashMap::new(),
            sink: None,
        };
        Self { state: Mutex::new(state), newest: watch::channel(0).0, backlog: Backlog::default() }
    }

    /// Has the store say that so many deliveries are owed.
    #[cfg(test)]
    pub(crate) fn set_pending(&self, pending: u64) {
        self.backlog.set(pending);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(&self, apply: impl FnOnce(&mut State, &mut Vec<DeliveryId>) -> T) -> Answer<T> {
        self.write_and_settle(|state, ready| (apply(state, ready), Vec::new()))
    }

    /// Applies a write and tells the sink what it brought about, in commit order: under the lock.
    fn write_and_settle<T>(
        &self,
        apply: impl FnOnce(&mut State, &mut Vec<DeliveryId>) -> (T, Vec<(Arc<Completion>, Result<Completed>)>),
    ) -> Answer<T> {
        let mut state = self.lock();
        let before = state.events.len() as Seq;
        let mut ready = Vec::new();
        let (result, settled) = apply(&mut state, &mut ready);
        self.backlog.apply(&mut state.backlog);
        if (!ready.is_empty() || !settled.is_empty())
            && let Some(sink) = &state.sink
        {
            let ready = ready.into_iter().filter_map(|id| state.ready_delivery(id)).collect();
            sink(Committed { ready, settled });
        }
        let newest = state.events.len() as Seq;
        drop(state);
        if newest != before {
            self.newest.send_if_modified(|seq| std::mem::replace(seq, newest.max(*seq)) < newest);
        }
        Answer::now(Ok(result))
    }
}

fn answer<T>(value: T) -> Answer<T> {
    Answer::now(Ok(value))
}

/// Positions and names count from 1.
fn index(id: i64) -> usize {
    usize::try_from(id - 1).unwrap_or(usize::MAX)
}

impl Store for MemoryStore {
    fn register(&self, names: Vec<String>) -> Answer<Vec<FunctionId>> {
        let functions = &mut self.lock().functions;
        let ids = names.into_iter().map(|name| {
            let known = functions.iter().position(|f| *f == name).unwrap_or_else(|| {
                functions.push(name);
                functions.len() - 1
            });
            known as FunctionId + 1
        });
        answer(ids.collect())
    }

    fn on_commit(&self, sink: CommitSink) {
        self.lock().sink = Some(sink);
    }

    fn accept(&self, events: Vec<NewEvent>, marks: Vec<Mark>) -> Answer<Vec<Accepted>> {
        self.write(|state, ready| {
            for Mark { scope, key, value } in marks {
                match value {
                    Some(value) => state.marks.insert((scope, key), value),
                    None => state.marks.remove(&(scope, key)),
                };
            }
            events.into_iter().map(|new| state.insert(new, ready)).collect()
        })
    }

    fn complete(&self, completion: Arc<Completion>) -> Answer<Completed> {
        self.write(|state, ready| state.complete(&completion, ready))
    }

    fn settle(&self, completion: Arc<Completion>) -> Answer<()> {
        self.write_and_settle(|state, ready| {
            let completed = state.complete(&completion, ready);
            ((), vec![(completion, Ok(completed))])
        })
    }

    fn redrive(&self, which: DeadFilter) -> Answer<u64> {
        self.write(|state, ready| state.redrive(&which, ready))
    }

    fn purge(&self, which: DeadFilter) -> Answer<u64> {
        self.write(|state, ready| state.purge(&which, ready))
    }

    fn retain(&self, retention: Retention) -> Answer<u64> {
        self.write(|state, _| state.retain(retention))
    }

    fn start_replay(&self, new: NewReplay) -> Answer<ReplayId> {
        self.write(|state, _| state.start_replay(new))
    }

    fn advance_replay(&self, replay: ReplayId, step: Step) -> Answer<bool> {
        self.write(|state, ready| state.advance_replay(replay, step, ready))
    }

    fn turn_replay(&self, replay: ReplayId, from: &'static [ReplayState], to: ReplayState) -> Answer<bool> {
        self.write(|state, _| state.turn_replay(replay, from, to))
    }

    fn drop_replay(&self, replay: ReplayId, but_for: Vec<DeliveryId>) -> Answer<u64> {
        self.write(|state, _| state.drop_replay(replay, &but_for))
    }

    fn replays(&self) -> Answer<Vec<Replay>> {
        let state = self.lock();
        answer((1..).map_while(|id| state.replay(id)).collect())
    }

    fn replay(&self, id: ReplayId) -> Answer<Option<Replay>> {
        answer(self.lock().replay(id))
    }

    fn ready(
        &self,
        function: FunctionId,
        stream: Stream,
        after: DeliveryId,
        limit: usize,
    ) -> Answer<Vec<ReadyDelivery>> {
        let state = self.lock();
        let ids = state.ready.get(&(function, stream)).into_iter().flat_map(|ids| ids.range(after + 1..)).take(limit);
        answer(ids.filter_map(|id| state.ready_delivery(*id)).collect())
    }

    fn due(
        &self,
        function: FunctionId,
        stream: Stream,
        now_ms: UnixMs,
        limit: usize,
    ) -> Answer<(Vec<ReadyDelivery>, Option<UnixMs>)> {
        let state = self.lock();
        let all = || state.due.get(&(function, stream)).into_iter().flatten();
        let ids: Vec<_> = all().take_while(|(due_ms, _)| *due_ms <= now_ms).take(limit).collect();
        let next = all().nth(ids.len()).map(|(due_ms, _)| *due_ms);
        answer((ids.into_iter().filter_map(|(_, id)| state.ready_delivery(*id)).collect(), next))
    }

    fn state(&self, bucket: &str, key: &str) -> Answer<Option<Entry>> {
        answer(self.lock().kept.get(bucket, key))
    }

    /// Nothing is between being settled and being committed.
    fn state_ahead(&self, bucket: &str, key: &str) -> Answer<Option<Entry>> {
        self.state(bucket, key)
    }

    fn stage(&self, transaction: &mut Transaction) -> std::result::Result<(), StateItem> {
        match self.lock().kept.judge(transaction) {
            Judged::Conflict(place) => Err(place),
            Judged::Stands(_) | Judged::OverQuota(_) => Ok(()),
        }
    }

    fn state_keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> Answer<Keys> {
        answer(self.lock().kept.keys(bucket, after, limit))
    }

    fn state_usage(&self, bucket: &str) -> Usage {
        self.lock().kept.bucket(bucket).usage
    }

    fn state_buckets(&self) -> BTreeMap<String, Usage> {
        self.lock().kept.usages()
    }

    fn state_write(&self, changes: Transaction) -> Answer<u64> {
        self.write(|state, _| match state.kept.judge(&changes) {
            Judged::Stands(stands) => {
                let existed = stands.existed;
                state.kept.apply(&changes, stands);
                existed
            }
            // A person's changes were not read before and have no quota.
            Judged::Conflict(_) | Judged::OverQuota(_) => 0,
        })
    }

    fn marks(&self, scope: String) -> Answer<BTreeMap<String, Vec<u8>>> {
        let state = self.lock();
        let of_scope = state.marks.iter().filter(|((s, _), _)| *s == scope);
        answer(of_scope.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn event(&self, seq: Seq) -> Answer<Option<StoredEvent>> {
        answer(self.lock().event(seq).map(|row| (*row.stored).clone()))
    }

    fn find(&self, id: String) -> Answer<Vec<Seq>> {
        let state = self.lock();
        let found = state.events.iter().flatten().rev().filter(|row| row.stored.event.id == id);
        answer(found.map(|row| row.stored.seq).take(10).collect())
    }

    fn events(&self, filter: EventFilter) -> Answer<Vec<StoredEvent>> {
        let state = self.lock();
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
        let all = state.events.iter().flatten().map(|row| &row.stored);
        let mut found: Vec<StoredEvent> = if filter.after.is_some() {
            all.filter(wanted).take(filter.limit).map(|e| (**e).clone()).collect()
        } else {
            all.rev().filter(wanted).take(filter.limit).map(|e| (**e).clone()).collect()
        };
        found.sort_by_key(|e| e.seq);
        answer(found)
    }

    fn deliveries(&self, event: Seq) -> Answer<Vec<DeliveryRecord>> {
        let state = self.lock();
        let Some(row) = state.event(event) else { return answer(Vec::new()) };
        answer(row.deliveries().chain(state.replayed(event)).filter_map(|id| state.record(id)).collect())
    }

    fn delivery(&self, id: DeliveryId) -> Answer<Option<DeliveryRecord>> {
        answer(self.lock().record(id))
    }

    fn published(&self, delivery: DeliveryId) -> Answer<Vec<StoredEvent>> {
        let state = self.lock();
        let found = state.published.get(&delivery).into_iter().flatten();
        answer(found.filter_map(|seq| state.event(*seq)).map(|row| (*row.stored).clone()).collect())
    }

    fn dead(&self, which: DeadFilter, limit: usize) -> Answer<Vec<DeliveryRecord>> {
        let state = self.lock();
        answer(state.dead(&which).take(limit).filter_map(|id| state.record(id)).collect())
    }

    fn totals(&self) -> Answer<Totals> {
        answer(self.lock().totals())
    }

    fn size_bytes(&self) -> Answer<u64> {
        answer(0)
    }

    fn check(&self) -> Answer<CheckReport> {
        let totals = self.lock().totals();
        let counted: u64 = totals.functions.values().map(Counts::total).sum();
        let due = totals.owed + totals.replayed;
        let problems = if counted == due {
            Vec::new()
        } else {
            vec![format!("{due} deliveries are owed or replayed, and {counted} are there")]
        };
        answer(CheckReport { totals, problems })
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

    fn close(&self) -> Answer<()> {
        answer(())
    }
}
