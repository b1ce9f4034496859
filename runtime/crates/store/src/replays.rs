//! The store of replays.

use crate::StoreFuture;
use evoke_model::{Actor, DeliveryId, NewReplay, Replay, ReplayId, ReplayState, Step};

/// Stores replays and their deliveries.
pub trait ReplayStore: Send + Sync + 'static {
    /// Creates a replay that has not offered any events yet.
    fn start_replay(&self, actor: &Actor, new: NewReplay) -> StoreFuture<ReplayId>;

    /// Adds deliveries for the next events of a running replay and stores its position, all or nothing. Returns
    /// `false`, and does nothing, when the replay is not running or is already at or past this position. Deliveries of
    /// one replay with the same order key run in order; they never wait for live deliveries, nor live ones for them.
    fn advance_replay(&self, replay: ReplayId, step: Step) -> StoreFuture<bool>;

    /// Moves a replay from one of the states `from` to the state `to`. Returns `false` when it was in none of them.
    fn transition_replay(
        &self,
        actor: &Actor,
        replay: ReplayId,
        from: &'static [ReplayState],
        to: ReplayState,
    ) -> StoreFuture<bool>;

    /// Purges the pending deliveries of a replay, except for those in `except`. Purged deliveries stay on record.
    /// Returns the number of purged deliveries.
    fn purge_replay(&self, actor: &Actor, replay: ReplayId, except: Vec<DeliveryId>) -> StoreFuture<u64>;

    /// Returns the first `limit` replays with a number after `after`, in order. Damaged replays are left out and
    /// logged, so that the other replays continue.
    fn replays(&self, after: ReplayId, limit: usize) -> StoreFuture<Vec<Replay>>;

    /// Returns one replay, or `None` when there is no such replay.
    fn replay(&self, id: ReplayId) -> StoreFuture<Option<Replay>>;
}
