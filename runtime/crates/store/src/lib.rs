//! Storage of events and deliveries: one small trait per caller, the trait [`Store`] that combines them, and a
//! conformance suite that tests every backend.
//!
//! | trait | caller |
//! |---|---|
//! | [`EventStore`] | the bus and the sources |
//! | [`DeliveryStore`] | the dispatcher |
//! | [`StateStore`] | the sandbox, for the state of functions, and the admin API |
//! | [`ReplayStore`] | the replays |
//! | [`ScheduleStore`] | the scheduler, for events with `notbefore`, and the admin API |
//! | [`RecordingStore`] | the admin API, which makes tests from recorded attempts |
//! | [`InspectionStore`] | the admin API |
//! | [`ScopeStore`] | work that only one owner may do at a time, such as running a timer |
//! | [`TakeOverStore`] | the start and each reload, for functions that were renamed |
//!
//! The store records decisions of the bus; it matches no patterns and runs no functions. Each method documents its own
//! guarantees. Two guarantees hold for all methods: writes are applied in call order, and when the future of a write
//! resolves to `Ok`, the write is durably committed. After [`StoreError::Failed`] and [`StoreError::Unreachable`], it
//! is unknown whether the write was committed; after any other error, no part of it was.
//!
//! Methods that change data for an operator or for the runtime take an [`Actor`]: the store logs who requested the
//! change.

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
pub use self::deliveries::{CommitSink, Committed, DeliveryStore, LoadLimit};
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

/// Default dedup window: for this time after an event was accepted, another event with the same origin, source and
/// id is a duplicate. Producers retry for less than a day, and some of them use the same id again on the next day.
pub const DEDUP_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// All store traits together. The code that opens and closes the store uses this trait; other callers take only the
/// traits that they need.
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
    /// Removes finished events with their deliveries and attempts. An event is finished when all of its deliveries are
    /// done or purged. The oldest events are removed first: all finished events that are older than the retention age,
    /// and then more finished events while the store is larger than its size limit. The removal is split into several
    /// writes, so that other writes can be committed in between. The source and id of a removed event are still
    /// deduplicated until the dedup window ends. Returns the number of removed events.
    fn retain(&self, actor: &Actor, retention: Retention) -> StoreFuture<u64>;

    /// Resolves with the reason when the process must stop: the store has failed permanently ([`StoreError::Failed`]),
    /// or another owner took over ([`StoreError::Fenced`]).
    fn failure(&self) -> BoxFuture<'static, String>;

    /// Returns the temporary error with which the store refuses writes now: [`StoreError::Full`] or
    /// [`StoreError::Busy`]. Returns `None` if the store commits writes.
    fn refusal(&self) -> Option<StoreError> {
        None
    }

    /// Commits all queued writes and rejects later writes.
    fn close(&self) -> StoreFuture<()>;
}

/// Logs who requested a change. Backends call this at the start of every write that takes an [`Actor`].
pub fn log_request(actor: &Actor, request: std::fmt::Arguments<'_>) {
    match actor {
        // The runtime requests retention every few seconds, which would fill the log.
        Actor::Runtime => tracing::debug!("{request}, requested by {actor}"),
        Actor::Operator(_) => tracing::info!("{request}, requested by {actor}"),
    }
}
