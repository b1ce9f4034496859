//! Implements the store's traits. Writes go to the writer thread; reads run on the connections of the readers.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use foldhash::HashSet;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::readers::Reader;
use super::write::accept::Accept;
use super::write::complete::Complete;
use super::write::dead::{Purge, Redrive, Replace};
use super::write::exits::RecordExit;
use super::write::register::{Register, RegisterOrigins};
use super::write::schedule::Release;
use super::write::state::WriteState;
use super::write::take_over::{Renamed, TakeOvers};
use super::{
    SqliteStore, chain, check, inspect, origins, pending, read, replays, retain, schedule, state, totals, write,
};
use evoke_model::clock::UnixMs;
use evoke_model::state::{Entry, Keys, StateItem, Transaction, Usage};
use evoke_model::text::count;
use evoke_model::{
    Accepted, Actor, ChainState, CheckReport, Completed, Completion, DamagedDelivery, DeadFilter, DeadSummary,
    DeliveryId, DeliveryState, DescendantsLimits, EventFilter, FunctionId, Mark, MarkNames, NewDelivery, NewEvent,
    NewReplay, Origin, PendingFilter, ReadDelivery, ReadEvent, ReadyDelivery, Replay, ReplayId, ReplayState, Retention,
    Seq, StateConflict, Step, Stream, TakeOver, TakenOver, Totals,
};
use evoke_store::running::UncleanExit;
use evoke_store::{
    Alarm, Backlog, CommitSink, DeliveryStore, EventStore, InspectionStore, LoadLimit, Ownership, ReplayStore,
    ScheduleStore, Scheduled, ScopeStore, StateStore, Store, StoreError, StoreFuture, TakeOverStore, TypeFilter,
    log_request,
};

impl EventStore for SqliteStore {
    fn register_origins(&self, uris: Vec<String>) -> StoreFuture<Vec<Origin>> {
        let table = self.origins.clone();
        let names = uris.clone();
        let registered = self.writes.submit_patiently(move || RegisterOrigins { uris: names.clone() });
        StoreFuture::from_future(async move {
            let origins = registered.await?;
            origins::publish(&table, &origins, uris);
            Ok(origins)
        })
    }

    fn accept(&self, events: Vec<NewEvent>, marks: Vec<Mark>) -> StoreFuture<Vec<Accepted>> {
        self.writes.accept(Accept { events, marks })
    }

    fn marks(&self, scope: String) -> StoreFuture<BTreeMap<String, Vec<u8>>> {
        self.read(Reader::Source, move |c| read::marks(c, &scope))
    }

    fn accepted(&self, seq: Seq) -> StoreFuture<Option<ReadEvent>> {
        self.read_at_wall(Reader::Source, move |c| read::event(c, seq))
    }

    fn senders(&self, events: Vec<Seq>) -> StoreFuture<BTreeMap<Seq, Option<Arc<str>>>> {
        self.read(Reader::Source, move |c| read::senders(c, &events))
    }

    fn event_of(&self, source: String, id: String) -> StoreFuture<Option<Seq>> {
        self.read(Reader::Source, move |c| read::event_of(c, &source, &id))
    }

    fn is_pending(&self, event: Seq) -> StoreFuture<bool> {
        self.read(Reader::Source, move |c| read::has_pending(c, event))
    }

    fn chain_state(&self, root: Seq, wanted: TypeFilter) -> StoreFuture<ChainState> {
        self.read(Reader::Source, move |c| chain::state(c, root, &*wanted))
    }

    fn newest(&self) -> watch::Receiver<Seq> {
        self.newest.clone()
    }

    fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    fn schedule_backlog(&self) -> &Backlog {
        &self.schedule_backlog
    }

    fn dead_letters(&self) -> &Backlog {
        &self.dead_letters
    }
}

impl DeliveryStore for SqliteStore {
    fn register(&self, names: Vec<String>) -> StoreFuture<Vec<FunctionId>> {
        self.writes.submit_patiently(move || Register { names: names.clone() })
    }

    fn on_commit(&self, sink: CommitSink) {
        *self.sink.lock().unwrap_or_else(PoisonError::into_inner) = Some(sink);
    }

    fn claim(
        &self,
        function: FunctionId,
        stream: Stream,
        after: DeliveryId,
        limit: LoadLimit,
    ) -> StoreFuture<Vec<ReadyDelivery>> {
        self.read_owed(move |c| read::ready(c, function, stream, after, limit))
    }

    fn due(
        &self,
        function: FunctionId,
        stream: Stream,
        now_ms: UnixMs,
        held: HashSet<DeliveryId>,
        limit: LoadLimit,
    ) -> StoreFuture<(Vec<ReadyDelivery>, Option<UnixMs>)> {
        self.read_owed(move |c| read::due(c, function, stream, now_ms, &held, limit))
    }

    /// Does nothing: this store has one owner and tracks no claims, so the deliveries are still ready or due.
    fn release(&self, _: Vec<DeliveryId>) -> StoreFuture<()> {
        StoreFuture::ready(Ok(()))
    }

    fn stage(&self, transaction: &mut Transaction) -> std::result::Result<(), StateItem> {
        self.state_cache.stage(transaction)
    }

    fn complete(&self, completion: Arc<Completion>) -> StoreFuture<Completed> {
        self.writes.complete(Complete { completion })
    }

    fn settle(&self, completion: Arc<Completion>) -> StoreFuture<()> {
        self.writes.settle(Complete { completion })
    }

    fn order_key(&self, delivery: DeliveryId) -> StoreFuture<Option<String>> {
        self.read(Reader::Runtime, move |c| Ok(read::delivery(c, delivery)?.and_then(|record| record.ok()?.order_key)))
    }

    fn limit_descendants(&self, limits: DescendantsLimits) {
        *self.descendants_limits.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(limits);
    }

    fn chain(&self, delivery: DeliveryId) -> StoreFuture<Vec<String>> {
        self.read(Reader::Runtime, move |c| read::chain(c, delivery))
    }

    fn record_exit(&self, exit: Option<UncleanExit>) -> StoreFuture<BTreeMap<DeliveryId, u32>> {
        self.writes.submit_patiently(move || RecordExit { exit: exit.clone() })
    }

    fn instance(&self) -> &str {
        &self.instance
    }
}

impl StateStore for SqliteStore {
    fn state(&self, bucket: &str, key: &str) -> StoreFuture<Option<Entry>> {
        StoreFuture::ready(self.find_state(bucket, key, false))
    }

    fn state_with_staged(&self, bucket: &str, key: &str) -> StoreFuture<Option<Entry>> {
        StoreFuture::ready(self.find_state(bucket, key, true))
    }

    fn state_size_with_staged(&self, bucket: &str, key: &str) -> StoreFuture<Option<usize>> {
        StoreFuture::ready(self.find_state_size(bucket, key))
    }

    fn state_keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> StoreFuture<Keys> {
        // Read the version before the list. If the list is newer than its version, the attempt only runs again without
        // need. If the list were older than its version, the commit would accept it although it is outdated.
        let version = self.state_cache.bucket(bucket).members;
        let keys = self.readers.now(|c| state::keys(c, bucket, after, limit));
        StoreFuture::ready(keys.map(|(keys, is_last)| Keys { keys, version, is_last }))
    }

    fn state_usage(&self, bucket: &str) -> Usage {
        self.state_cache.bucket(bucket).usage
    }

    fn state_buckets(&self) -> BTreeMap<String, Usage> {
        self.state_cache.usages()
    }

    fn state_write(&self, actor: &Actor, changes: Transaction) -> StoreFuture<u64> {
        log_request(actor, format_args!("write {} of state", count(changes.keys.len(), "key")));
        self.writes.submit(WriteState { changes })
    }
}

impl ReplayStore for SqliteStore {
    fn start_replay(&self, actor: &Actor, new: NewReplay) -> StoreFuture<ReplayId> {
        log_request(actor, format_args!("start a replay: {}", new.filter));
        self.writes.submit(write::replays::Start { new })
    }

    fn advance_replay(&self, replay: ReplayId, step: Step) -> StoreFuture<bool> {
        self.writes.submit(write::replays::Advance { replay, step })
    }

    fn transition_replay(
        &self,
        actor: &Actor,
        replay: ReplayId,
        from: &'static [ReplayState],
        to: ReplayState,
    ) -> StoreFuture<bool> {
        log_request(actor, format_args!("change replay {replay} to {}", to.name()));
        self.writes.submit(write::replays::Transition { replay, from, to })
    }

    fn purge_replay(&self, actor: &Actor, replay: ReplayId, except: Vec<DeliveryId>) -> StoreFuture<u64> {
        log_request(actor, format_args!("purge the pending deliveries of replay {replay}"));
        let except: Arc<[DeliveryId]> = except.into();
        self.writes.submit_in_portions(move |after| write::replays::PurgePending {
            replay,
            except: except.clone(),
            after,
        })
    }

    fn replays(&self, after: ReplayId, limit: usize) -> StoreFuture<Vec<Replay>> {
        self.read_at_wall(Reader::Inspection, move |c| replays::list(c, after, limit))
    }

    fn replay(&self, id: ReplayId) -> StoreFuture<Option<Replay>> {
        self.read_at_wall(Reader::Inspection, move |c| replays::one(c, id))
    }
}

impl ScheduleStore for SqliteStore {
    fn scheduled(&self, after: (UnixMs, Seq), limit: usize) -> StoreFuture<Vec<Scheduled>> {
        self.read_at_wall(Reader::Inspection, move |c| schedule::after(c, after, limit))
    }

    fn due_events(&self, now_ms: UnixMs, limit: usize) -> StoreFuture<(Vec<Scheduled>, Option<UnixMs>)> {
        self.read_owed(move |c| schedule::due(c, now_ms, limit))
    }

    fn release_events(&self, events: Vec<(Seq, Vec<NewDelivery>)>) -> StoreFuture<u64> {
        self.writes.submit(Release { events, cancel: None })
    }

    fn cancel_events(&self, actor: &Actor, events: Vec<(Seq, Vec<NewDelivery>)>, cause: &str) -> StoreFuture<u64> {
        log_request(actor, format_args!("cancel {}", count(events.len(), "scheduled event")));
        self.writes.submit(Release { events, cancel: Some(cause.into()) })
    }

    fn is_scheduled(&self, seq: Seq) -> StoreFuture<bool> {
        self.read(Reader::Inspection, move |c| schedule::contains(c, seq))
    }

    fn alarm(&self) -> &Alarm {
        &self.alarm
    }
}

impl InspectionStore for SqliteStore {
    fn origin_uri(&self, origin: Origin) -> Option<Arc<str>> {
        origins::uri(&self.origins, origin)
    }

    fn event(&self, seq: Seq) -> StoreFuture<Option<ReadEvent>> {
        self.read_at_wall(Reader::Inspection, move |c| read::event(c, seq))
    }

    fn find(&self, id: String) -> StoreFuture<Vec<Seq>> {
        self.read(Reader::Inspection, move |c| read::find(c, &id))
    }

    fn events(&self, filter: EventFilter) -> StoreFuture<Vec<ReadEvent>> {
        let to_store = |wall_ms: Option<UnixMs>| wall_ms.map(|wall_ms| self.clock.to_store(wall_ms));
        let (since_ms, until_ms) = (to_store(filter.since_ms), to_store(filter.until_ms));
        let filter = EventFilter { since_ms, until_ms, ..filter };
        self.read_at_wall(Reader::Inspection, move |c| read::events(c, &filter))
    }

    fn first_since(&self, wall_ms: UnixMs) -> StoreFuture<Seq> {
        let since_ms = self.clock.to_store(wall_ms);
        self.read(Reader::Inspection, move |c| inspect::first_since(c, since_ms))
    }

    fn deliveries(&self, event: Seq) -> StoreFuture<Vec<ReadDelivery>> {
        self.read_at_wall(Reader::Inspection, move |c| read::deliveries(c, event))
    }

    fn delivery(&self, id: DeliveryId) -> StoreFuture<Option<ReadDelivery>> {
        self.read_at_wall(Reader::Inspection, move |c| read::delivery(c, id))
    }

    fn published(&self, delivery: DeliveryId) -> StoreFuture<Vec<ReadEvent>> {
        self.read_at_wall(Reader::Inspection, move |c| read::published(c, delivery))
    }

    fn dead(&self, which: DeadFilter, after: DeliveryId, limit: usize) -> StoreFuture<Vec<ReadDelivery>> {
        self.read_at_wall(Reader::Inspection, move |c| read::dead(c, &which, after, limit))
    }

    fn newest_dead(
        &self,
        which: DeadFilter,
        before: DeliveryId,
        limit: usize,
    ) -> StoreFuture<Vec<std::result::Result<DeadSummary, DamagedDelivery>>> {
        self.read(Reader::Inspection, move |c| inspect::newest_dead(c, &which, before, limit))
    }

    fn pending_ids(
        &self,
        which: PendingFilter,
        state: Option<DeliveryState>,
        after: DeliveryId,
        limit: usize,
    ) -> StoreFuture<Vec<DeliveryId>> {
        self.read(Reader::Inspection, move |c| pending::list_ids(c, &which, state, after, limit))
    }

    fn blocker(&self, blocked: DeliveryId) -> StoreFuture<Option<(DeliveryId, DeliveryState)>> {
        self.read(Reader::Inspection, move |c| inspect::blocker(c, blocked))
    }

    fn pending_since(&self) -> StoreFuture<BTreeMap<String, UnixMs>> {
        let (shared, readers, clock) = (self.pending_since.clone(), self.readers.clone(), self.clock.clone());
        StoreFuture::from_future(async move {
            let found = shared.read(readers).await?;
            Ok(found.into_iter().map(|(name, since_ms)| (name, clock.to_wall(since_ms))).collect())
        })
    }

    fn retry_now(&self, actor: &Actor, which: PendingFilter) -> StoreFuture<u64> {
        log_request(actor, format_args!("retry deliveries now: {which:?}"));
        StoreFuture::from_future(pending::retry_now(self.writes.clone(), self.readers.clone(), which))
    }

    fn move_pending(&self, actor: &Actor, from: String, to: FunctionId, except: Vec<DeliveryId>) -> StoreFuture<u64> {
        log_request(actor, format_args!("move the pending deliveries of {from} to another function"));
        let (writes, readers) = (self.writes.clone(), self.readers.clone());
        StoreFuture::from_future(pending::transfer(writes, readers, from, to, except))
    }

    fn replace_dead(&self, actor: &Actor, dead: DeliveryId, event: NewEvent) -> StoreFuture<Option<Seq>> {
        log_request(actor, format_args!("replace dead letter {dead} with a new event"));
        self.writes.submit(Replace { dead, event: Some(event) })
    }

    fn cancel(&self, actor: &Actor, which: PendingFilter, cause: &str) -> StoreFuture<u64> {
        log_request(actor, format_args!("cancel pending deliveries: {which:?}"));
        let (writes, readers) = (self.writes.clone(), self.readers.clone());
        StoreFuture::from_future(pending::cancel(writes, readers, which, cause.to_owned()))
    }

    fn totals(&self) -> StoreFuture<Totals> {
        // A short query, for which a reload also waits.
        self.read(Reader::Runtime, totals::read)
    }

    fn size_bytes(&self) -> StoreFuture<u64> {
        StoreFuture::ready(Ok(self.readers.size_bytes()))
    }

    fn check(&self) -> StoreFuture<CheckReport> {
        self.read(Reader::Inspection, |c| Ok(check::check(c)))
    }

    fn redrive(&self, actor: &Actor, which: DeadFilter) -> StoreFuture<u64> {
        log_request(actor, format_args!("redrive dead letters: {which:?}"));
        self.writes.submit_in_portions(move |after| Redrive { which: which.clone(), after })
    }

    fn purge(&self, actor: &Actor, which: DeadFilter) -> StoreFuture<u64> {
        log_request(actor, format_args!("purge dead letters: {which:?}"));
        self.writes.submit_in_portions(move |after| Purge { which: which.clone(), after })
    }
}

impl TakeOverStore for SqliteStore {
    fn take_over(
        &self,
        functions: Vec<TakeOver>,
        names: &'static [MarkNames],
    ) -> StoreFuture<std::result::Result<Vec<TakenOver>, StateConflict>> {
        let table = self.origins.clone();
        let renamed = self.writes.submit_patiently(move || TakeOvers { functions: functions.clone(), names });
        StoreFuture::from_future(async move {
            Ok(renamed.await?.map(|Renamed { taken, origins: renamed }| {
                origins::rename(&table, renamed);
                taken
            }))
        })
    }
}

impl ScopeStore for SqliteStore {
    fn own(&self, scope: &str) -> StoreFuture<Option<Ownership>> {
        StoreFuture::ready(Ok(self.scopes.own(scope)))
    }
}

impl Store for SqliteStore {
    fn retain(&self, actor: &Actor, retention: Retention) -> StoreFuture<u64> {
        log_request(actor, format_args!("remove finished events: {retention:?}"));
        let (writes, readers) = (self.writes.clone(), self.readers.clone());
        let age_ms = UnixMs::try_from(retention.age.as_millis()).unwrap_or(UnixMs::MAX);
        let before_ms = self.clock.store_ms().saturating_sub(age_ms);
        StoreFuture::from_future(retain::sweep(writes, readers, before_ms, retention.bytes))
    }

    fn failure(&self) -> BoxFuture<'static, String> {
        let mut failure = self.failed.subscribe();
        async move {
            loop {
                if let Some(reason) = failure.borrow_and_update().clone() {
                    return reason;
                }
                if failure.changed().await.is_err() {
                    // The store was closed without a failure, and can no longer fail.
                    std::future::pending::<()>().await;
                }
            }
        }
        .boxed()
    }

    fn refusal(&self) -> Option<StoreError> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn close(&self) -> StoreFuture<()> {
        self.writes.close()
    }
}
