//! Requests that wait for a reply. The chain of a request is the event that the request sent, with all events that
//! functions publish because of it. The reply is the first of these published events that has a wanted type. The number
//! of waiting requests is bounded. After each commit, the bus wakes the requests whose chain may have changed.
//!
//! A wake-up carries no data: the request reads its chain from the store. So a reply is always a stored event, and a
//! request that begins to wait late misses nothing. While no request waits, the check after a commit is one load of an
//! atomic.
//!
//! A change is decisive if a function published a wanted event, or if a delivery became a dead letter. The request then
//! usually has a result, so it reads its chain at once. After any other change, the chain may have ended without a
//! result. A chain can have thousands of such changes, so the request limits how often it reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Bus;
use evoke_model::{ChainState, Completed, Completion, DeliveryId, NewEvent, Origin, ReadEvent, Seq, Verdict};
use evoke_store::{Committed, StoreError, TypeFilter};

/// The maximum number of waiting requests of all sources together. A waiting request needs at most 2 KiB besides its
/// connection. The limit leaves half of the listener's connections to other requests.
const WAITING_MAX: usize = 2_048;
/// The maximum number of chains that are read at the same time. The limit leaves one of the store's readers for sources
/// to other reads.
const READS_MAX: usize = 2;
/// After each read of its chain, a request pauses: this factor times the duration of the read. A decisive change or the
/// deadline can end the pause earlier. Without decisive changes, the reads take at most a tenth of the time, however
/// many events the chain has.
const PAUSE_PER_READ: u32 = 9;
/// A completion (the result of an attempt) with more published events than this counts as decisive: the waiting
/// requests read their chain at once. The types of so many events are not compared with the wanted types, because this
/// would delay the commit.
const CHECKED_EVENTS_MAX: usize = 16;

pub(super) struct Replies {
    /// The number of entries of `Table::by_root`. A commit reads this number without the lock.
    watched: AtomicUsize,
    table: Mutex<Table>,
    reads: Semaphore,
}

#[derive(Default)]
struct Table {
    total: usize,
    by_source: HashMap<Origin, usize>,
    /// The waiting requests, by the event that they sent.
    by_root: HashMap<Seq, Vec<Arc<Waiter>>>,
}

/// The reason why a wait of a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    Decided,
    Changed,
    Deadline,
}

struct Waiter {
    /// Returns true for the types of events that are a reply.
    wanted: TypeFilter,
    /// Notified after a decisive change of the chain.
    decided: Notify,
    /// Notified after any other change of the chain.
    changed: Notify,
}

impl Waiter {
    fn new(wanted: TypeFilter) -> Self {
        Self { wanted, decided: Notify::new(), changed: Notify::new() }
    }

    /// Wakes the request after a completion in its chain. `is_committed` is true if the store has committed the
    /// completion.
    fn notify(&self, completion: &Completion, is_committed: bool) {
        let is_reply = |published: &NewEvent| (self.wanted)(&published.event.type_);
        let publishes = &completion.publishes;
        let is_decisive = || {
            let is_dead = matches!(completion.verdict, Verdict::Dead(_));
            is_dead || publishes.len() > CHECKED_EVENTS_MAX || publishes.iter().any(is_reply)
        };
        let woken = if is_committed && is_decisive() { &self.decided } else { &self.changed };
        woken.notify_one();
    }

    /// Waits for a change of the chain, at most until `deadline`. After a change, also waits until `pause_ends`. If
    /// `is_decided_at_once` is true, a decisive change ends the wait immediately.
    async fn wait(&self, is_decided_at_once: bool, pause_ends: Instant, deadline: Instant) -> Woken {
        let decided = async {
            self.decided.notified().await;
            // A timer can fire a millisecond late, so it is only used if necessary.
            if !is_decided_at_once {
                sleep_until(pause_ends).await;
            }
        };
        let changed = async {
            self.changed.notified().await;
            sleep_until(pause_ends).await;
        };
        tokio::select! {
            biased;
            () = decided => Woken::Decided,
            () = changed => Woken::Changed,
            () = sleep_until(deadline) => Woken::Deadline,
        }
    }
}

impl Default for Replies {
    fn default() -> Self {
        Self { watched: AtomicUsize::new(0), table: Mutex::default(), reads: Semaphore::new(READS_MAX) }
    }
}

impl Replies {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the requests whose chain a commit may have changed. Does not block.
    fn notify(&self, committed: &Committed) {
        // A request is added to the table before it reads its chain for the first time. So a request that is not in the
        // table yet sees this commit in its first read.
        if self.watched.load(Ordering::SeqCst) == 0 {
            return;
        }
        let table = self.lock();
        if !committed.cancelled.is_empty() {
            // An operator cancelled deliveries. Their chains are not known here, so all requests are woken. A
            // cancellation is rare.
            table.by_root.values().flatten().for_each(|waiter| waiter.changed.notify_one());
        }
        for (completion, result) in &committed.settled {
            let is_committed = matches!(result, Ok(Completed::Committed));
            let waiters = table.by_root.get(&completion.root).into_iter().flatten();
            waiters.for_each(|waiter| waiter.notify(completion, is_committed));
        }
    }
}

/// The permission for one request to wait for a reply. The permission takes one of the limited places for waiting
/// requests until it is dropped.
pub struct ReplyPermit {
    replies: Arc<Replies>,
    source: Origin,
}

impl Drop for ReplyPermit {
    fn drop(&mut self) {
        let mut table = self.replies.lock();
        table.total -= 1;
        if let Some(owned) = table.by_source.get_mut(&self.source) {
            *owned -= 1;
            if *owned == 0 {
                table.by_source.remove(&self.source);
            }
        }
    }
}

/// Receives the wake-ups for the chain of `root` until this value is dropped.
struct Watch<'a> {
    replies: &'a Replies,
    root: Seq,
    waiter: Arc<Waiter>,
}

impl<'a> Watch<'a> {
    fn start(replies: &'a Replies, root: Seq, wanted: TypeFilter) -> Self {
        let waiter = Arc::new(Waiter::new(wanted));
        let mut table = replies.lock();
        table.by_root.entry(root).or_default().push(waiter.clone());
        replies.watched.store(table.by_root.len(), Ordering::SeqCst);
        Self { replies, root, waiter }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut table = self.replies.lock();
        if let Some(of_root) = table.by_root.get_mut(&self.root) {
            of_root.retain(|other| !Arc::ptr_eq(other, &self.waiter));
            if of_root.is_empty() {
                table.by_root.remove(&self.root);
            }
        }
        self.replies.watched.store(table.by_root.len(), Ordering::SeqCst);
    }
}

/// The result of a wait for a reply.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The first event of a wanted type that a function of the chain published.
    Event(ReadEvent),
    /// A delivery of the chain is a dead letter, see [`ChainState::Dead`].
    Dead {
        /// The delivery that became a dead letter.
        delivery: DeliveryId,
        /// The kind of the outcome of the last attempt at this delivery.
        kind: String,
    },
    /// All deliveries of the chain have ended, and no function published an event of a wanted type.
    Finished,
    /// The deadline has passed, and deliveries of the chain are still pending.
    TimedOut,
}

impl Bus {
    /// Reserves a place for a request that will wait for a reply. Returns `None` if too many requests wait.
    ///
    /// A source gets a place while it holds fewer places than are free. So a single source with many slow requests gets
    /// at most half of all places.
    pub fn reserve_reply(&self, source: Origin) -> Option<ReplyPermit> {
        let replies = &self.inner.replies;
        let mut table = replies.lock();
        let free = WAITING_MAX.saturating_sub(table.total);
        let owned = table.by_source.get(&source).copied().unwrap_or_default();
        if owned >= free {
            return None;
        }
        table.by_source.insert(source, owned + 1);
        table.total += 1;
        Some(ReplyPermit { replies: replies.clone(), source })
    }

    /// Returns the number of requests that have reserved a place to wait for a reply, including requests that do not
    /// wait yet.
    pub fn waiting_replies(&self) -> usize {
        self.inner.replies.lock().total
    }

    /// Waits until a function publishes an event of a wanted type because of the event `root`. Returns earlier if a
    /// delivery of the chain becomes a dead letter, or if all deliveries of the chain have ended. Returns at `deadline`
    /// at the latest. An event that was published before the call is found, too.
    ///
    /// # Errors
    /// The chain cannot be read.
    pub async fn wait_for_reply(
        &self,
        _permit: &ReplyPermit,
        root: Seq,
        wanted: TypeFilter,
        deadline: Instant,
    ) -> Result<Reply, StoreError> {
        let replies = &*self.inner.replies;
        let watch = Watch::start(replies, root, wanted.clone());
        let mut woken = Woken::Changed;
        loop {
            let started = Instant::now();
            // The reads of other requests can take long. The inner result is never an error, because the semaphore is
            // never closed.
            let Ok(turn) = timeout_at(deadline, replies.reads.acquire()).await else { return Ok(Reply::TimedOut) };
            let state = self.inner.store.chain_state(root, wanted.clone()).await?;
            drop(turn);
            match state {
                ChainState::Published(event) => return Ok(Reply::Event(event)),
                ChainState::Dead { delivery, kind } => return Ok(Reply::Dead { delivery, kind }),
                ChainState::Finished => return Ok(Reply::Finished),
                ChainState::Pending => {}
            }
            let ended = Instant::now();
            let pause_ends = (ended + (ended - started) * PAUSE_PER_READ).min(deadline);
            // If the last change seemed decisive but gave no result, the next decisive change does not end the pause.
            // Otherwise many such changes, for example dead letters of a replay, would cause reads without a pause.
            let is_decided_at_once = woken != Woken::Decided;
            if ended < deadline {
                woken = watch.waiter.wait(is_decided_at_once, pause_ends, deadline).await;
            }
            if ended >= deadline || woken == Woken::Deadline {
                return Ok(Reply::TimedOut);
            }
        }
    }

    /// Wakes the waiting requests whose chain this commit may have changed.
    pub(crate) fn notify_waiting(&self, committed: &Committed) {
        self.inner.replies.notify(committed);
    }

    /// Returns the stored event with this number, as it was accepted. The number comes from
    /// [`Accepted::Duplicate`](evoke_model::Accepted::Duplicate). Returns `None` when retention has removed the event.
    ///
    /// # Errors
    /// The event cannot be read.
    pub async fn accepted(&self, seq: Seq) -> Result<Option<ReadEvent>, StoreError> {
        self.inner.store.accepted(seq).await
    }

    /// Returns the verified senders of stored events. The numbers come from
    /// [`Accepted::Duplicate`](evoke_model::Accepted::Duplicate). Returns nothing for an event that retention has
    /// removed or whose sender cannot be read.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn senders(&self, events: Vec<Seq>) -> Result<BTreeMap<Seq, Option<Arc<str>>>, StoreError> {
        self.inner.store.senders(events).await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::bus::{Limits, Offer};
    use crate::router::{Router, Target};
    use evoke_model::clock::Clock;
    use evoke_model::event::Event;
    use evoke_model::state::Transaction;
    use evoke_model::{AttemptRecord, Completion, FunctionId, Lineage, NewEvent, Verdict};
    use evoke_store::DeliveryStore;
    use evoke_store::memory::MemoryStore;

    const SOURCE: Origin = Origin(7);

    fn bus() -> (Bus, MemoryStore) {
        let store = MemoryStore::new(Clock::system());
        let bus = Bus::new(Arc::new(store.clone()), Router::default(), Limits::default());
        let waiting = bus.clone();
        store.on_commit(Box::new(move |committed| waiting.notify_waiting(&committed)));
        (bus, store)
    }

    async fn send(bus: &Bus, id: &str) {
        let event = Event { id: id.into(), source: "/s".into(), type_: "asked".into(), ..Event::default() };
        let target = Target::Function { function: FunctionId(1), trigger: "on[0]".into() };
        bus.accept(Offer { events: vec![event], target, origin: SOURCE, ..Offer::default() }).await.unwrap();
    }

    async fn publish(store: &MemoryStore, number: i64, type_: &str) {
        let (delivery, root) = (DeliveryId(number), Seq(number));
        let event = Event { id: number.to_string(), source: "/f".into(), type_: type_.into(), ..Event::default() };
        let lineage = Lineage { cause: Some(delivery), root: Some(root), hops: 1, origin: SOURCE };
        let publishes = vec![NewEvent { event: Arc::new(event), lineage, deliveries: Vec::new() }];
        let record = AttemptRecord { attempt: 1, started_ms: 0, duration_us: 0, outcome: "done".into(), message: None };
        let (function, verdict, state) = (FunctionId(1), Verdict::Done, Transaction::default());
        let completion =
            Completion { delivery, function, root, origin: SOURCE, record, verdict, publishes, state, recording: None };
        store.settle(Arc::new(completion)).await.unwrap();
    }

    async fn wait(bus: &Bus, permit: &ReplyPermit, root: i64) -> Reply {
        let deadline = Instant::now() + Duration::from_secs(5);
        bus.wait_for_reply(permit, Seq(root), Arc::new(|type_: &str| type_ == "answered"), deadline).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_request_is_woken_by_its_own_chain_and_leaves_nothing_behind() {
        let (bus, store) = bus();
        send(&bus, "1").await;
        send(&bus, "2").await;
        let permit = bus.reserve_reply(SOURCE).unwrap();
        let mut waiting = pin!(wait(&bus, &permit, 1));
        assert!(waiting.as_mut().now_or_never().is_none());
        publish(&store, 2, "answered").await;
        assert!(waiting.as_mut().now_or_never().is_none(), "a commit of another chain does not wake the request");
        publish(&store, 1, "answered").await;
        assert!(matches!(waiting.await, Reply::Event(Ok(event)) if event.event.type_ == "answered"));
        // The event was published before the wait began.
        assert!(matches!(wait(&bus, &permit, 2).await, Reply::Event(_)));
        let replies = &bus.inner.replies;
        assert_eq!((replies.lock().by_root.len(), replies.watched.load(Ordering::SeqCst)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_decisive_change_is_read_before_the_pause_ends() {
        let (bus, store) = bus();
        let wanted: TypeFilter = Arc::new(|type_: &str| type_ == "answered");
        for id in ["1", "2", "3"] {
            send(&bus, id).await;
        }
        let watches = [1, 2, 3].map(|root| Watch::start(&bus.inner.replies, Seq(root), wanted.clone()));
        publish(&store, 1, "answered").await;
        publish(&store, 2, "other").await;
        let started = Instant::now();
        let (pause_ends, deadline) = (started + Duration::from_secs(1), started + Duration::from_secs(5));
        for (watch, woken, after_s) in
            [(&watches[0], Woken::Decided, 0), (&watches[1], Woken::Changed, 1), (&watches[2], Woken::Deadline, 5)]
        {
            assert_eq!(watch.waiter.wait(true, pause_ends, deadline).await, woken);
            assert_eq!(started.elapsed().as_secs(), after_s);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_given_up_at_its_deadline_and_when_it_is_dropped() {
        let (bus, store) = bus();
        send(&bus, "1").await;
        let permit = bus.reserve_reply(SOURCE).unwrap();
        let started = Instant::now();
        assert!(matches!(wait(&bus, &permit, 1).await, Reply::TimedOut));
        assert!((5_000..5_100).contains(&started.elapsed().as_millis()));
        let mut dropped = Box::pin(wait(&bus, &permit, 1));
        assert!(dropped.as_mut().now_or_never().is_none());
        assert_eq!(bus.inner.replies.lock().by_root.len(), 1);
        drop(dropped);
        assert_eq!(bus.inner.replies.lock().by_root.len(), 0);
        publish(&store, 1, "other").await;
        assert!(matches!(wait(&bus, &permit, 1).await, Reply::Finished));
    }

    #[tokio::test(start_paused = true)]
    async fn the_reads_of_other_requests_do_not_extend_the_deadline() {
        let (bus, _store) = bus();
        send(&bus, "1").await;
        let permit = bus.reserve_reply(SOURCE).unwrap();
        let _reads = bus.inner.replies.reads.acquire_many(READS_MAX as u32).await.unwrap();
        let started = Instant::now();
        assert!(matches!(wait(&bus, &permit, 1).await, Reply::TimedOut));
        assert!((5_000..5_100).contains(&started.elapsed().as_millis()));
    }

    #[test]
    fn a_source_may_own_as_many_places_as_are_free() {
        let (bus, _store) = bus();
        let take = |source: u32| std::iter::from_fn(|| bus.reserve_reply(Origin(source))).collect::<Vec<_>>();
        let (first, second) = (take(1), take(2));
        assert_eq!((first.len(), second.len()), (WAITING_MAX / 2, WAITING_MAX / 4));
        drop(first);
        assert!(bus.reserve_reply(Origin(1)).is_some());
        drop(second);
        assert_eq!(bus.inner.replies.lock().total, 0);
        assert!(bus.inner.replies.lock().by_source.is_empty());
    }
}
