//! The store of the bus and of the sources.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::{Backlog, StoreFuture};
use evoke_model::{Accepted, ChainState, Mark, NewEvent, Origin, ReadEvent, Seq};

/// Selects events by their type.
pub type TypeFilter = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Accepts events, and stores the marks of their sources.
pub trait EventStore: Send + Sync + 'static {
    /// Returns the origin of each source URI, in the order of `uris`, and assigns an origin to each new URI. An origin
    /// keeps its number for the life of the store. The origins in [`Origin::BUILT_IN`] need no registration.
    fn register_origins(&self, uris: Vec<String>) -> StoreFuture<Vec<Origin>>;

    /// Stores events with their deliveries, and marks: the positions and other small values that sources keep. One
    /// commit stores all of them. An event is a duplicate if an event with the same source and id was accepted through
    /// the same origin ([`evoke_model::Lineage::entered`]) within the dedup window; a duplicate is reported and not
    /// stored. The marks are stored even if all events are duplicates. An event whose `notbefore` is in the future is
    /// stored without its deliveries, see [`crate::ScheduleStore`].
    fn accept(&self, events: Vec<NewEvent>, marks: Vec<Mark>) -> StoreFuture<Vec<Accepted>>;

    /// Returns the marks of a source, by key. `scope` is usually the URI of the source.
    fn marks(&self, scope: String) -> StoreFuture<BTreeMap<String, Vec<u8>>>;

    /// Returns an event that [`EventStore::accept`] reported as a duplicate; `None` when retention has removed it.
    fn accepted(&self, seq: Seq) -> StoreFuture<Option<ReadEvent>>;

    /// Returns the verified senders (principals) of events that [`EventStore::accept`] reported as duplicates. Reads no
    /// data of the events. An event is missing in the result if retention has removed it or its sender cannot be read.
    fn senders(&self, events: Vec<Seq>) -> StoreFuture<BTreeMap<Seq, Option<Arc<str>>>>;

    /// Returns the position of the newest event with this id that comes from `source`; `None` when there is none. An
    /// event comes from a source if the URI of the source is its attribute `source`, or if the event entered through
    /// the source that has this URI now. The second condition also finds events from before the source was renamed.
    fn event_of(&self, source: String, id: String) -> StoreFuture<Option<Seq>>;

    /// Returns true if a delivery of the event is pending, not counting deliveries of replays.
    fn is_pending(&self, event: Seq) -> StoreFuture<bool>;

    /// Returns the progress of the chain that an event from outside started. `wanted` selects the events that the
    /// caller waits for, among those that functions published. The time is proportional to the number of events of the
    /// chain.
    fn chain_state(&self, root: Seq, wanted: TypeFilter) -> StoreFuture<ChainState>;

    /// Returns a receiver of the position of the newest event. If several processes own the store, the position may be
    /// slightly outdated. A read that starts after a position was received finds all events up to this position.
    fn newest(&self) -> watch::Receiver<Seq>;

    /// Returns the number and size of pending deliveries, as of the last commit that this process has seen. If several
    /// processes own the store, the numbers may be slightly outdated. So a limit that is checked against them may be
    /// exceeded a little.
    fn backlog(&self) -> &Backlog;

    /// Returns the number and size of the scheduled events, each counted as one delivery. Like [`EventStore::backlog`],
    /// they may be slightly outdated.
    fn schedule_backlog(&self) -> &Backlog;

    /// Returns the number and size of the dead letters. Like [`EventStore::backlog`], they may be slightly outdated.
    fn dead_letters(&self) -> &Backlog;

    /// Returns the number of pending deliveries (ready, retrying or blocked). Like [`EventStore::backlog`], the number
    /// may be slightly outdated.
    fn pending(&self) -> u64 {
        self.backlog().total().deliveries
    }
}
