//! The traits of the in-memory store.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashSet;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{MemoryStore, ready};
use crate::running::UncleanExit;
use crate::validate::{CommittedState as _, Validation};
use crate::{
    Backlog, CommitSink, DeliveryStore, EventStore, InspectionStore, LoadLimit, Ownership, ReplayStore, ScopeStore,
    StateStore, Store, StoreError, StoreFuture, TypeFilter, log_request,
};
use evoke_model::clock::UnixMs;
use evoke_model::state::{Entry, Keys, StateItem, Transaction, Usage};
use evoke_model::text::count;
use evoke_model::{
    Accepted, Actor, ChainState, CheckReport, Completed, Completion, Counts, DamagedDelivery, DamagedEvent, DeadFilter,
    DeadSummary, DeliveryId, DeliveryState, DescendantsLimits, EventFilter, FunctionId, Mark, NewEvent, NewReplay,
    Origin, PendingFilter, ReadDelivery, ReadEvent, ReadyDelivery, Replay, ReplayId, ReplayState, Retention, Seq, Step,
    StoredEvent, Stream, Totals,
};

impl EventStore for MemoryStore {
    fn register_origins(&self, uris: Vec<String>) -> StoreFuture<Vec<Origin>> {
        let origins = &mut self.lock().origins;
        ready(uris.iter().map(|uri| origins.find(uri).unwrap_or_else(|| origins.insert(uri))).collect())
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

    fn marks(&self, scope: String) -> StoreFuture<BTreeMap<String, Vec<u8>>> {
        let inner = self.lock();
        let of_scope = inner.marks.iter().filter(|((s, _), _)| *s == scope);
        ready(of_scope.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn accepted(&self, seq: Seq) -> StoreFuture<Option<ReadEvent>> {
        self.event(seq)
    }

    fn senders(&self, events: Vec<Seq>) -> StoreFuture<BTreeMap<Seq, Option<Arc<str>>>> {
        let inner = self.lock();
        let sender = |seq: Seq| Some((seq, inner.event(seq)?.stored.event.principal.clone()));
        ready(events.into_iter().filter_map(sender).collect())
    }

    fn event_of(&self, source: String, id: String) -> StoreFuture<Option<Seq>> {
        let inner = self.lock();
        let origin = inner.origins.find(&source);
        let is_of_source = |StoredEvent { event, lineage, .. }: &StoredEvent| {
            event.source == source || origin.is_some() && lineage.entered() == origin
        };
        let mut found = inner.events.iter().flatten().rev();
        let found = found.find(|row| row.stored.event.id == id && is_of_source(&row.stored));
        ready(found.map(|row| row.stored.seq))
    }

    fn is_pending(&self, event: Seq) -> StoreFuture<bool> {
        ready(self.lock().has_pending(event))
    }

    fn chain_state(&self, root: Seq, wanted: TypeFilter) -> StoreFuture<ChainState> {
        ready(self.lock().chain_state(root, &*wanted))
    }

    fn newest(&self) -> watch::Receiver<Seq> {
        self.shared.newest.subscribe()
    }

    fn backlog(&self) -> &Backlog {
        &self.shared.backlog
    }

    fn schedule_backlog(&self) -> &Backlog {
        &self.shared.schedule_backlog
    }

    fn dead_letters(&self) -> &Backlog {
        &self.shared.dead_letters
    }
}

impl DeliveryStore for MemoryStore {
    fn register(&self, names: Vec<String>) -> StoreFuture<Vec<FunctionId>> {
        let functions = &mut self.lock().functions;
        let ids = names.into_iter().map(|name| {
            let known = functions.iter().position(|f| *f == name).unwrap_or_else(|| {
                functions.push(name);
                functions.len() - 1
            });
            FunctionId(known as i64 + 1)
        });
        ready(ids.collect())
    }

    fn on_commit(&self, sink: CommitSink) {
        self.lock().sink = Some(sink);
    }

    fn claim(
        &self,
        function: FunctionId,
        stream: Stream,
        after: DeliveryId,
        limit: LoadLimit,
    ) -> StoreFuture<Vec<ReadyDelivery>> {
        let inner = self.lock();
        let ids = inner.ready.get(&(function, stream)).into_iter().flat_map(|ids| ids.range(after.next()..));
        ready(inner.load(ids.copied(), limit))
    }

    fn due(
        &self,
        function: FunctionId,
        stream: Stream,
        now_ms: UnixMs,
        held: HashSet<DeliveryId>,
        limit: LoadLimit,
    ) -> StoreFuture<(Vec<ReadyDelivery>, Option<UnixMs>)> {
        let inner = self.lock();
        let all = || inner.due.get(&(function, stream)).into_iter().flatten().filter(|(_, id)| !held.contains(id));
        let due = all().take_while(|(due_ms, _)| *due_ms <= now_ms).map(|(_, id)| *id);
        let found = inner.load(due, limit);
        let next = all().nth(found.len()).map(|(due_ms, _)| *due_ms);
        ready((found, next))
    }

    /// Does nothing: this store has one owner and tracks no claims, so the deliveries are still ready or due.
    fn release(&self, _: Vec<DeliveryId>) -> StoreFuture<()> {
        ready(())
    }

    fn stage(&self, transaction: &mut Transaction) -> std::result::Result<(), StateItem> {
        match self.lock().buckets.validate(transaction) {
            Validation::Conflict(place) => Err(place),
            Validation::Valid(_) | Validation::OverQuota(_) => Ok(()),
        }
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

    fn order_key(&self, delivery: DeliveryId) -> StoreFuture<Option<String>> {
        ready(self.lock().delivery(delivery).and_then(|delivery| delivery.order_key.clone()))
    }

    fn limit_descendants(&self, limits: DescendantsLimits) {
        self.lock().descendants_limits = limits;
    }

    fn chain(&self, delivery: DeliveryId) -> StoreFuture<Vec<String>> {
        ready(self.lock().chain(delivery))
    }

    fn record_exit(&self, exit: Option<UncleanExit>) -> StoreFuture<BTreeMap<DeliveryId, u32>> {
        self.write(|inner, _| inner.record_exit(exit))
    }

    fn instance(&self) -> &'static str {
        "memory"
    }
}

impl StateStore for MemoryStore {
    fn state(&self, bucket: &str, key: &str) -> StoreFuture<Option<Entry>> {
        ready(self.lock().buckets.get(bucket, key))
    }

    /// The in-memory store commits each completion immediately, so there are never staged writes.
    fn state_with_staged(&self, bucket: &str, key: &str) -> StoreFuture<Option<Entry>> {
        self.state(bucket, key)
    }

    fn state_size_with_staged(&self, bucket: &str, key: &str) -> StoreFuture<Option<usize>> {
        ready(self.lock().buckets.get(bucket, key).map(|entry| entry.value.len()))
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

    fn state_write(&self, actor: &Actor, changes: Transaction) -> StoreFuture<u64> {
        log_request(actor, format_args!("write {} of state", count(changes.keys.len(), "key")));
        self.write(|inner, _| match inner.buckets.validate(&changes) {
            Validation::Valid(valid) => {
                let existed = valid.existed;
                inner.buckets.apply(&changes, valid);
                existed
            }
            // Never reached: changes of an operator read nothing and have no quota.
            Validation::Conflict(_) | Validation::OverQuota(_) => 0,
        })
    }
}

impl ReplayStore for MemoryStore {
    fn start_replay(&self, actor: &Actor, new: NewReplay) -> StoreFuture<ReplayId> {
        log_request(actor, format_args!("start a replay: {}", new.filter));
        self.write(|inner, _| inner.start_replay(new))
    }

    fn advance_replay(&self, replay: ReplayId, step: Step) -> StoreFuture<bool> {
        self.write(|inner, ready| inner.advance_replay(replay, step, ready))
    }

    fn transition_replay(
        &self,
        actor: &Actor,
        replay: ReplayId,
        from: &'static [ReplayState],
        to: ReplayState,
    ) -> StoreFuture<bool> {
        log_request(actor, format_args!("change replay {replay} to {}", to.name()));
        self.write(|inner, _| inner.transition_replay(replay, from, to))
    }

    fn purge_replay(&self, actor: &Actor, replay: ReplayId, except: Vec<DeliveryId>) -> StoreFuture<u64> {
        log_request(actor, format_args!("purge the pending deliveries of replay {replay}"));
        self.write(|inner, _| inner.purge_replay(replay, &except))
    }

    fn replays(&self, after: ReplayId, limit: usize) -> StoreFuture<Vec<Replay>> {
        let inner = self.lock();
        ready((after.next().0..).map_while(|id| inner.replay(ReplayId(id))).take(limit).collect())
    }

    fn replay(&self, id: ReplayId) -> StoreFuture<Option<Replay>> {
        ready(self.lock().replay(id))
    }
}

impl InspectionStore for MemoryStore {
    fn origin_uri(&self, origin: Origin) -> Option<Arc<str>> {
        self.lock().origins.uri(origin)
    }

    fn event(&self, seq: Seq) -> StoreFuture<Option<ReadEvent>> {
        ready(self.lock().event(seq).map(|row| Ok((*row.stored).clone())))
    }

    fn find(&self, id: String) -> StoreFuture<Vec<Seq>> {
        let inner = self.lock();
        let found = inner.events.iter().flatten().rev().filter(|row| row.stored.event.id == id);
        ready(found.map(|row| row.stored.seq).take(10).collect())
    }

    fn events(&self, filter: EventFilter) -> StoreFuture<Vec<ReadEvent>> {
        let inner = self.lock();
        let wanted = |e: &&Arc<StoredEvent>| {
            filter.after.max(filter.above).is_none_or(|after| e.seq > after)
                && filter.before.is_none_or(|before| e.seq < before)
                && filter.since_ms.is_none_or(|since_ms| e.accepted_ms >= since_ms)
                && filter.until_ms.is_none_or(|until_ms| e.accepted_ms < until_ms)
                && filter.source.as_ref().is_none_or(|s| e.event.source == *s)
                && inner.has_delivery(e.seq, &filter)
                && filter.type_.as_ref().is_none_or(|t| match t.strip_suffix('*') {
                    Some(prefix) => e.event.type_.starts_with(prefix),
                    None => e.event.type_ == *t,
                })
        };
        let all = inner.events.iter().flatten().map(|row| &row.stored);
        let read = |e: &Arc<StoredEvent>| Ok::<_, StoreError>(Ok((**e).clone()));
        let found = if filter.after.is_some() {
            filter.take(all.filter(wanted).take(filter.limit).map(read))
        } else {
            filter.take(all.rev().filter(wanted).take(filter.limit).map(read))
        };
        StoreFuture::ready(found.map(|mut found| {
            found.sort_by_key(DamagedEvent::seq_of);
            found
        }))
    }

    fn first_since(&self, wall_ms: UnixMs) -> StoreFuture<Seq> {
        let inner = self.lock();
        let first = inner.events.iter().flatten().find(|row| row.stored.accepted_ms >= wall_ms);
        ready(first.map_or_else(|| inner.newest().next(), |row| row.stored.seq))
    }

    fn deliveries(&self, event: Seq) -> StoreFuture<Vec<ReadDelivery>> {
        let inner = self.lock();
        let Some(row) = inner.event(event) else { return ready(Vec::new()) };
        ready(row.deliveries().chain(inner.replayed(event)).filter_map(|id| inner.record(id)).map(Ok).collect())
    }

    fn delivery(&self, id: DeliveryId) -> StoreFuture<Option<ReadDelivery>> {
        ready(self.lock().record(id).map(Ok))
    }

    fn published(&self, delivery: DeliveryId) -> StoreFuture<Vec<ReadEvent>> {
        let inner = self.lock();
        let found = inner.published.get(&delivery).into_iter().flatten();
        ready(found.filter_map(|seq| inner.event(*seq)).map(|row| Ok((*row.stored).clone())).collect())
    }

    fn dead(&self, which: DeadFilter, after: DeliveryId, limit: usize) -> StoreFuture<Vec<ReadDelivery>> {
        let inner = self.lock();
        ready(
            inner.dead(&which).filter(|id| *id > after).take(limit).filter_map(|id| inner.record(id)).map(Ok).collect(),
        )
    }

    fn newest_dead(
        &self,
        which: DeadFilter,
        before: DeliveryId,
        limit: usize,
    ) -> StoreFuture<Vec<Result<DeadSummary, DamagedDelivery>>> {
        let inner = self.lock();
        let mut ids: Vec<_> = inner.dead(&which).filter(|id| *id < before).collect();
        ids.reverse();
        ready(ids.into_iter().take(limit).filter_map(|id| inner.dead_summary(id)).map(Ok).collect())
    }

    fn pending_ids(
        &self,
        which: PendingFilter,
        state: Option<DeliveryState>,
        after: DeliveryId,
        limit: usize,
    ) -> StoreFuture<Vec<DeliveryId>> {
        let inner = self.lock();
        let is_meant = |id: &DeliveryId| {
            *id > after && state.is_none_or(|state| inner.delivery(*id).is_some_and(|found| found.state == state))
        };
        ready(inner.pending(&which).filter(is_meant).take(limit).collect())
    }

    fn blocker(&self, blocked: DeliveryId) -> StoreFuture<Option<(DeliveryId, DeliveryState)>> {
        ready(self.lock().blocker(blocked))
    }

    fn pending_since(&self) -> StoreFuture<BTreeMap<String, UnixMs>> {
        ready(self.lock().pending_since())
    }

    fn retry_now(&self, actor: &Actor, which: PendingFilter) -> StoreFuture<u64> {
        log_request(actor, format_args!("retry deliveries now: {which:?}"));
        self.write(|inner, ready| inner.retry_now(&which, ready))
    }

    fn move_pending(&self, actor: &Actor, from: String, to: FunctionId, except: Vec<DeliveryId>) -> StoreFuture<u64> {
        log_request(actor, format_args!("move the pending deliveries of {from} to another function"));
        self.write(|inner, ready| inner.move_pending(&from, to, &except, ready))
    }

    fn replace_dead(&self, actor: &Actor, dead: DeliveryId, event: NewEvent) -> StoreFuture<Option<Seq>> {
        log_request(actor, format_args!("replace dead letter {dead} with a new event"));
        self.write(|inner, ready| inner.replace_dead(dead, event, ready))
    }

    fn cancel(&self, actor: &Actor, which: PendingFilter, cause: &str) -> StoreFuture<u64> {
        log_request(actor, format_args!("cancel pending deliveries: {which:?}"));
        self.write(|inner, _| inner.cancel(&which, cause))
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
            vec![format!(
                "the number of stored or removed deliveries is {counted}, but events and replays created {due}; the \
                 numbers must be equal"
            )]
        };
        ready(CheckReport { totals, problems })
    }

    fn redrive(&self, actor: &Actor, which: DeadFilter) -> StoreFuture<u64> {
        log_request(actor, format_args!("redrive dead letters: {which:?}"));
        self.write(|inner, ready| inner.redrive(&which, ready))
    }

    fn purge(&self, actor: &Actor, which: DeadFilter) -> StoreFuture<u64> {
        log_request(actor, format_args!("purge dead letters: {which:?}"));
        self.write(|inner, ready| inner.purge(&which, ready))
    }
}

impl ScopeStore for MemoryStore {
    fn own(&self, scope: &str) -> StoreFuture<Option<Ownership>> {
        ready(self.shared.scopes.own(scope))
    }
}

impl Store for MemoryStore {
    fn retain(&self, actor: &Actor, retention: Retention) -> StoreFuture<u64> {
        log_request(actor, format_args!("remove finished events: {retention:?}"));
        self.write(|inner, _| inner.retain(retention))
    }

    fn failure(&self) -> BoxFuture<'static, String> {
        std::future::pending().boxed()
    }

    fn close(&self) -> StoreFuture<()> {
        ready(())
    }
}
