//! A store in memory, for tests and benches: the same promises but durability.

mod retain;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::backlog::{Change, Share};
use super::{
    Accepted, Answer, Backlog, CheckReport, CommitSink, Committed, Completion, Counts, DEDUP_WINDOW, DeadFilter,
    DeliveryId, DeliveryRecord, DeliveryState, EventFilter, FunctionId, Mark, NewDelivery, NewEvent, ReadyDelivery,
    Removed, Result, Retention, Seq, Store, StoredEvent, Totals, Verdict,
};
use crate::clock::{Clock, UnixMs};

/// Everything in maps behind one lock.
pub struct MemoryStore {
    state: Mutex<State>,
    newest: watch::Sender<Seq>,
    backlog: Backlog,
}

struct State {
    clock: Clock,
    functions: Vec<String>,
    events: BTreeMap<Seq, Row>,
    newest: Seq,
    dedup_window_ms: UnixMs,
    /// The newest of each source and id, and when it was accepted.
    by_id: HashMap<(String, String), (Seq, UnixMs)>,
    deliveries: BTreeMap<DeliveryId, Delivery>,
    last_delivery: DeliveryId,
    published: HashMap<DeliveryId, Vec<Seq>>,
    ready: HashMap<FunctionId, BTreeSet<DeliveryId>>,
    due: HashMap<FunctionId, BTreeSet<(UnixMs, DeliveryId)>>,
    /// Who of an order key is neither done nor purged.
    unfinished: HashMap<(FunctionId, String), BTreeSet<DeliveryId>>,
    marks: BTreeMap<(String, String), Vec<u8>>,
    backlog: Change,
    owed: u64,
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

struct Delivery {
    record: DeliveryRecord,
    function: FunctionId,
    trigger: Arc<str>,
    forgiven: u32,
    since_ms: UnixMs,
    event: Arc<StoredEvent>,
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
            events: BTreeMap::new(),
            newest: 0,
            by_id: HashMap::new(),
            deliveries: BTreeMap::new(),
            last_delivery: 0,
            published: HashMap::new(),
            ready: HashMap::new(),
            due: HashMap::new(),
            unfinished: HashMap::new(),
            marks: BTreeMap::new(),
            backlog: Change::default(),
            owed: 0,
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

    /// Applies a write and tells the sink what it brought about, in commit order: under the lock.
    fn write<T>(
        &self,
        settled: Vec<(Arc<Completion>, Result<()>)>,
        apply: impl FnOnce(&mut State, &mut Vec<DeliveryId>) -> T,
    ) -> Answer<T> {
        let mut state = self.lock();
        let before = state.newest;
        let mut ready = Vec::new();
        let result = apply(&mut state, &mut ready);
        self.backlog.apply(&mut state.backlog);
        if (!ready.is_empty() || !settled.is_empty())
            && let Some(sink) = &state.sink
        {
            let ready = ready.into_iter().filter_map(|id| state.ready_delivery(id)).collect();
            sink(Committed { ready, settled });
        }
        let newest = state.newest;
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

/// What a delivery of an event is of the backlog.
fn share(event: &StoredEvent) -> Share {
    Share { origin: event.lineage.origin, bytes: i64::try_from(event.event.size()).unwrap_or(i64::MAX) }
}

/// Functions count from 1.
fn index(id: FunctionId) -> usize {
    usize::try_from(id - 1).unwrap_or(usize::MAX)
}

impl State {
    fn event(&self, seq: Seq) -> Option<&Row> {
        self.events.get(&seq)
    }

    /// The deliveries that an event is owed.
    fn owed(&self, row: &Row) -> impl Iterator<Item = &Delivery> {
        let first = row.first_delivery;
        self.deliveries.range(first..first + row.owed as DeliveryId).map(|(_, delivery)| delivery)
    }

    fn ready_delivery(&self, id: DeliveryId) -> Option<ReadyDelivery> {
        let delivery = self.deliveries.get(&id)?;
        Some(ReadyDelivery {
            id,
            function: delivery.function,
            trigger: delivery.trigger.clone(),
            attempts: delivery.record.attempts.len() as u32,
            attempts_forgiven: delivery.forgiven,
            since_ms: delivery.since_ms,
            event: delivery.event.clone(),
        })
    }

    fn insert(&mut self, new: NewEvent, ready: &mut Vec<DeliveryId>) -> Accepted {
        let NewEvent { event, lineage, deliveries } = new;
        let key = (event.source.clone(), event.id.clone());
        let now_ms = self.clock.now_ms();
        let since_ms = now_ms.saturating_sub(self.dedup_window_ms);
        if let Some((seq, accepted_ms)) = self.by_id.get(&key)
            && *accepted_ms > since_ms
        {
            return Accepted::Duplicate(*seq);
        }
        self.newest += 1;
        let seq = self.newest;
        self.by_id.insert(key, (seq, now_ms));
        let stored = Arc::new(StoredEvent { seq, accepted_ms: now_ms, lineage, event });
        if let Some(cause) = lineage.cause {
            self.published.entry(cause).or_default().push(seq);
        }
        self.owed += deliveries.len() as u64;
        let row = Row { stored: stored.clone(), first_delivery: self.last_delivery + 1, owed: deliveries.len() };
        self.events.insert(seq, row);
        for new in deliveries {
            self.owe(&stored, new, ready);
        }
        Accepted::New(seq)
    }

    fn owe(&mut self, event: &Arc<StoredEvent>, new: NewDelivery, ready: &mut Vec<DeliveryId>) {
        let NewDelivery { function, trigger, order_key } = new;
        self.last_delivery += 1;
        let id = self.last_delivery;
        let blocked = order_key.as_ref().is_some_and(|key| {
            let unfinished = self.unfinished.entry((function, key.clone())).or_default();
            unfinished.insert(id);
            unfinished.first() != Some(&id)
        });
        let record = DeliveryRecord {
            id,
            event: event.seq,
            function: self.functions.get(index(function)).cloned().unwrap_or_default(),
            trigger: trigger.to_string(),
            order_key,
            state: DeliveryState::Blocked,
            cause: None,
            due_ms: None,
            attempts: Vec::new(),
        };
        let since_ms = event.accepted_ms;
        self.backlog.came(share(event));
        let delivery = Delivery { record, function, trigger, forgiven: 0, since_ms, event: event.clone() };
        self.deliveries.insert(id, delivery);
        if !blocked {
            self.make_ready(id, ready);
        }
    }

    fn make_ready(&mut self, id: DeliveryId, ready: &mut Vec<DeliveryId>) {
        if let Some(delivery) = self.deliveries.get_mut(&id) {
            delivery.record.state = DeliveryState::Ready;
            self.ready.entry(delivery.function).or_default().insert(id);
            ready.push(id);
        }
    }

    /// Takes a delivery that is done or purged off its order key and wakes the next.
    fn finish(&mut self, id: DeliveryId, ready: &mut Vec<DeliveryId>) {
        let Some(delivery) = self.deliveries.get(&id) else { return };
        let Some(key) = delivery.record.order_key.clone() else { return };
        let lane = (delivery.function, key);
        let Some(unfinished) = self.unfinished.get_mut(&lane) else { return };
        unfinished.remove(&id);
        match unfinished.first().copied() {
            None => drop(self.unfinished.remove(&lane)),
            Some(next) => {
                let next_state = self.deliveries.get(&next).map(|d| d.record.state);
                if next_state == Some(DeliveryState::Blocked) {
                    self.make_ready(next, ready);
                }
            }
        }
    }

    fn complete(&mut self, completion: &Completion, ready: &mut Vec<DeliveryId>) {
        let Completion { delivery: id, record, verdict, publishes, .. } = completion;
        let id = *id;
        let Some(delivery) = self.deliveries.get_mut(&id) else { return };
        match delivery.record.state {
            DeliveryState::Ready => {
                self.ready.entry(delivery.function).or_default().remove(&id);
            }
            DeliveryState::Retrying => {
                let due_ms = delivery.record.due_ms.take().unwrap_or_default();
                self.due.entry(delivery.function).or_default().remove(&(due_ms, id));
            }
            _ => return,
        }
        delivery.record.attempts.push(record.clone());
        if !matches!(verdict, Verdict::RetryAt(_)) {
            self.backlog.went(share(&delivery.event));
        }
        match verdict {
            Verdict::Done => {
                delivery.record.state = DeliveryState::Done;
                for new in publishes {
                    self.insert(new.clone(), ready);
                }
                self.finish(id, ready);
            }
            Verdict::RetryAt(due_ms) => {
                delivery.record.state = DeliveryState::Retrying;
                delivery.record.due_ms = Some(*due_ms);
                self.due.entry(delivery.function).or_default().insert((*due_ms, id));
            }
            Verdict::Dead(cause) => {
                delivery.record.state = DeliveryState::Dead;
                delivery.record.cause = Some(cause.clone());
            }
        }
    }

    fn dead<'a>(&'a self, which: &'a DeadFilter) -> impl Iterator<Item = &'a DeliveryRecord> {
        self.deliveries.values().map(|d| &d.record).filter(move |r| {
            r.state == DeliveryState::Dead
                && match which {
                    DeadFilter::All => true,
                    DeadFilter::Function(name) => r.function == *name,
                    DeadFilter::Delivery(id) => r.id == *id,
                }
        })
    }

    fn dead_ids(&self, which: &DeadFilter) -> Vec<DeliveryId> {
        self.dead(which).map(|r| r.id).collect()
    }

    fn redrive(&mut self, which: &DeadFilter, ready: &mut Vec<DeliveryId>) -> u64 {
        let ids = self.dead_ids(which);
        let now_ms = self.clock.now_ms();
        for id in &ids {
            if let Some(delivery) = self.deliveries.get_mut(id) {
                delivery.forgiven = delivery.record.attempts.len() as u32;
                delivery.since_ms = now_ms;
                delivery.record.cause = None;
                self.backlog.came(share(&delivery.event));
            }
            self.make_ready(*id, ready);
        }
        ids.len() as u64
    }

    fn purge(&mut self, which: &DeadFilter, ready: &mut Vec<DeliveryId>) -> u64 {
        let ids = self.dead_ids(which);
        for id in &ids {
            if let Some(delivery) = self.deliveries.get_mut(id) {
                delivery.record.state = DeliveryState::Purged;
            }
            self.finish(*id, ready);
        }
        ids.len() as u64
    }

    fn totals(&self) -> Totals {
        let mut functions: BTreeMap<String, Counts> = BTreeMap::new();
        for delivery in self.deliveries.values() {
            let counts = functions.entry(delivery.record.function.clone()).or_default();
            *counts.of(delivery.record.state) += 1;
        }
        for (function, (done, purged)) in &self.removed_deliveries {
            let counts =
                functions.entry(self.functions.get(index(*function)).cloned().unwrap_or_default()).or_default();
            counts.done += done;
            counts.purged += purged;
            counts.removed += done + purged;
        }
        let events = u64::try_from(self.newest).unwrap_or_default();
        Totals { events, owed: self.owed, removed: self.removed, functions }
    }
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
        self.write(Vec::new(), |state, ready| {
            for Mark { scope, key, value } in marks {
                match value {
                    Some(value) => state.marks.insert((scope, key), value),
                    None => state.marks.remove(&(scope, key)),
                };
            }
            events.into_iter().map(|new| state.insert(new, ready)).collect()
        })
    }

    fn complete(&self, completion: Arc<Completion>) -> Answer<()> {
        self.write(Vec::new(), |state, ready| state.complete(&completion, ready))
    }

    fn settle(&self, completion: Arc<Completion>) -> Answer<()> {
        self.write(vec![(completion.clone(), Ok(()))], |state, ready| state.complete(&completion, ready))
    }

    fn redrive(&self, which: DeadFilter) -> Answer<u64> {
        self.write(Vec::new(), |state, ready| state.redrive(&which, ready))
    }

    fn purge(&self, which: DeadFilter) -> Answer<u64> {
        self.write(Vec::new(), |state, ready| state.purge(&which, ready))
    }

    fn retain(&self, retention: Retention) -> Answer<u64> {
        self.write(Vec::new(), |state, _| state.retain(retention))
    }

    fn ready(&self, function: FunctionId, after: DeliveryId, limit: usize) -> Answer<Vec<ReadyDelivery>> {
        let state = self.lock();
        let ids = state.ready.get(&function).into_iter().flat_map(|ids| ids.range(after + 1..)).take(limit);
        answer(ids.filter_map(|id| state.ready_delivery(*id)).collect())
    }

    fn due(&self, function: FunctionId, now_ms: UnixMs, limit: usize) -> Answer<(Vec<ReadyDelivery>, Option<UnixMs>)> {
        let state = self.lock();
        let all = || state.due.get(&function).into_iter().flatten();
        let ids: Vec<_> = all().take_while(|(due_ms, _)| *due_ms <= now_ms).take(limit).collect();
        let next = all().nth(ids.len()).map(|(due_ms, _)| *due_ms);
        answer((ids.into_iter().filter_map(|(_, id)| state.ready_delivery(*id)).collect(), next))
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
        let found = state.events.values().rev().filter(|row| row.stored.event.id == id);
        answer(found.map(|row| row.stored.seq).take(10).collect())
    }

    fn events(&self, filter: EventFilter) -> Answer<Vec<StoredEvent>> {
        let state = self.lock();
        let wanted = |e: &&Arc<StoredEvent>| {
            filter.after.is_none_or(|after| e.seq > after)
                && filter.before.is_none_or(|before| e.seq < before)
                && filter.source.as_ref().is_none_or(|s| e.event.source == *s)
                && filter.type_.as_ref().is_none_or(|t| match t.strip_suffix('*') {
                    Some(prefix) => e.event.type_.starts_with(prefix),
                    None => e.event.type_ == *t,
                })
        };
        let all = state.events.values().map(|row| &row.stored);
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
        let found = state.event(event).map(|row| state.owed(row).map(|d| d.record.clone()).collect());
        answer(found.unwrap_or_default())
    }

    fn delivery(&self, id: DeliveryId) -> Answer<Option<DeliveryRecord>> {
        answer(self.lock().deliveries.get(&id).map(|d| d.record.clone()))
    }

    fn published(&self, delivery: DeliveryId) -> Answer<Vec<StoredEvent>> {
        let state = self.lock();
        let found = state.published.get(&delivery).into_iter().flatten();
        answer(found.filter_map(|seq| state.event(*seq)).map(|row| (*row.stored).clone()).collect())
    }

    fn dead(&self, which: DeadFilter, limit: usize) -> Answer<Vec<DeliveryRecord>> {
        answer(self.lock().dead(&which).take(limit).cloned().collect())
    }

    fn totals(&self) -> Answer<Totals> {
        answer(self.lock().totals())
    }

    fn check(&self) -> Answer<CheckReport> {
        let totals = self.lock().totals();
        let counted: u64 = totals.functions.values().map(Counts::total).sum();
        let problems = if counted == totals.owed {
            Vec::new()
        } else {
            vec![format!("{} deliveries are owed and {counted} are there", totals.owed)]
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
