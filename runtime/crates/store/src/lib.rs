//! Storage of events and deliveries: one small trait per caller, [`Store`] for all of them together, and a conformance
//! suite that runs over every backend.
//!
//! | trait | caller |
//! |---|---|
//! | [`EventStore`] | the bus and the sources |
//! | [`DeliveryStore`] | the dispatcher |
//! | [`StateStore`] | the sandbox, for the state of functions, and the admin API |
//! | [`ReplayStore`] | the replays |
//! | [`ScheduleStore`] | the scheduler, for events with `notbefore`, and the admin API |
//! | [`RecordingStore`] | the admin API, for tests of recorded attempts |
//! | [`InspectionStore`] | the admin API |
//! | [`ScopeStore`] | everything that only one owner may run |
//! | [`TakeOverStore`] | the wiring, when it loads functions that were renamed |
//!
//! The store records decisions of the bus; it matches no patterns and runs no functions. Each method documents its own
//! guarantees. For all of them: writes are applied in call order. When a write's future resolves to `Ok`, the write is
//! durably committed. When it resolves to an error, nothing of it was committed, except after [`StoreError::Failed`]
//! and [`StoreError::Unreachable`]: then the outcome is unknown.
//!
//! Calls that change something on request take an [`Actor`], and the store logs who asked.

#![warn(missing_docs)]

pub mod backlog;
mod deliveries;
pub mod descendants;
mod error;
mod events;
mod future;
mod inspection;
pub mod memory;
pub mod origins;
mod recordings;
mod replays;
pub mod running;
mod schedule;
mod scopes;
mod state;
pub mod take_over;
pub mod validate;

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;

use std::time::Duration;

use evoke_model::{Actor, Retention};
use futures_util::future::BoxFuture;

pub use self::backlog::Backlog;
pub use self::deliveries::{CommitSink, Committed, DeliveryStore};
pub use self::error::{Result, StoreError};
pub use self::events::{EventStore, TypeFilter};
pub use self::future::StoreFuture;
pub use self::inspection::InspectionStore;
pub use self::recordings::RecordingStore;
pub use self::replays::ReplayStore;
pub use self::schedule::{Alarm, ScheduleStore, Scheduled};
pub use self::scopes::{Ownership, ScopeStore, Scopes};
pub use self::state::StateStore;
pub use self::take_over::TakeOverStore;

/// Default time for which a source and id are deduplicated: longer than producers retry, and short enough to reuse an
/// id on the next day.
pub const DEDUP_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// A durable store, as the wiring opens and closes it. Callers take the smallest of the traits that they need.
pub trait Store:
    EventStore
    + DeliveryStore
    + StateStore
    + ReplayStore
    + ScheduleStore
    + RecordingStore
    + InspectionStore
    + ScopeStore
    + TakeOverStore
{
    /// Removes finished events, oldest first, with their deliveries and attempts: the events older than the retention
    /// age, and more events while the store is larger than its size limit. Other writes run in between. The source and
    /// id of a removed event are still deduplicated until the dedup window ends. Returns the number of removed events.
    fn retain(&self, actor: &Actor, retention: Retention) -> StoreFuture<u64>;

    /// Resolves with the reason when the process must stop: the store has failed permanently ([`StoreError::Failed`]),
    /// or another owner took over ([`StoreError::Fenced`]).
    fn failure(&self) -> BoxFuture<'static, String>;

    /// Returns why writes are refused now ([`StoreError::Full`] or [`StoreError::Busy`]): the error of the last write,
    /// if no later write was committed.
    fn refusal(&self) -> Option<StoreError> {
        None
    }

    /// Commits all queued writes and rejects later ones.
    fn close(&self) -> StoreFuture<()>;
}

/// Logs who asked for a change. Backends call this at the start of every write that takes an [`Actor`].
pub fn log_request(actor: &Actor, request: std::fmt::Arguments<'_>) {
    match actor {
        // The runtime asks for retention every few seconds.
        Actor::Runtime => tracing::debug!("{request}, asked for by {actor}"),
        Actor::Operator(_) => tracing::info!("{request}, asked for by {actor}"),
    }
}
