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
    /// Maps the URIs of sources to origins that stay the same for the life of the store. The origins in
    /// [`Origin::BUILT_IN`] need no registration.
    fn register_origins(&self, uris: Vec<String>) -> StoreFuture<Vec<Origin>>;

    /// Stores events with their deliveries, and marks: the positions and other small values that sources keep. All are
    /// stored in one commit, or none is. An event whose source and id were accepted within the dedup window, through the
    /// same origin ([`evoke_model::Lineage::entered`]), is returned as a duplicate and not stored; the marks are stored
    /// even if all events are duplicates. An event whose `notbefore` is in the future is stored without its deliveries,
    /// see [`crate::ScheduleStore`].
    fn accept(&self, events: Vec<NewEvent>, marks: Vec<Mark>) -> StoreFuture<Vec<Accepted>>;

    /// Returns the marks of a source, by key.
    fn marks(&self, scope: String) -> StoreFuture<BTreeMap<String, Vec<u8>>>;

    /// Returns an event that [`EventStore::accept`] reported as a duplicate; `None` when retention has removed it.
    fn accepted(&self, seq: Seq) -> StoreFuture<Option<ReadEvent>>;

    /// Returns the position of the newest event with this id that has this source, or that entered through the source
    /// that has this URI now; `None` when there is none. The second case finds events from before the source was
    /// renamed.
    fn event_of(&self, source: String, id: String) -> StoreFuture<Option<Seq>>;

    /// Returns true if a delivery of the event is pending, not counting deliveries of replays.
    fn is_pending(&self, event: Seq) -> StoreFuture<bool>;

    /// Returns the progress of the chain that an event from outside started. `wanted` selects the events that the
    /// caller waits for, among those that functions published. The time is proportional to the number of events of the
    /// chain.
    fn chain_state(&self, root: Seq, wanted: TypeFilter) -> StoreFuture<ChainState>;

    /// Returns a receiver of the position of the newest event. This is a view: with several owners of one store it may
    /// be a moment old. A read that starts after a position was received finds all events up to it.
    fn newest(&self) -> watch::Receiver<Seq>;

    /// Returns the number and size of pending deliveries. This is a view as of the last commit that this process has
    /// seen: with several owners of one store it may be a moment old, so limits that are checked against it may be
    /// exceeded a little.
    fn backlog(&self) -> &Backlog;

    /// Returns the number and size of the scheduled events, each counted as one delivery; a view like
    /// [`EventStore::backlog`].
    fn schedule_backlog(&self) -> &Backlog;

    /// Returns the number of pending deliveries (ready, retrying or blocked); a view like [`EventStore::backlog`].
    fn pending(&self) -> u64 {
        self.backlog().total().deliveries
    }
}
