//! The store of replays.

use crate::StoreFuture;
use evoke_model::{Actor, DeliveryId, NewReplay, Replay, ReplayId, ReplayState, Step};

/// Stores replays and their deliveries.
pub trait ReplayStore: Send + Sync + 'static {
    /// Creates a running replay, which has no deliveries yet.
    fn start_replay(&self, actor: &Actor, new: NewReplay) -> StoreFuture<ReplayId>;

    /// Adds deliveries of the next events of a running replay and stores its position, all in one commit. Returns
    /// `false`, and changes nothing, when the replay is not running or has already reached this position. Deliveries of
    /// one replay with the same order key run in order. Replayed deliveries never wait for live deliveries, and live
    /// deliveries never wait for replayed ones.
    fn advance_replay(&self, replay: ReplayId, step: Step) -> StoreFuture<bool>;

    /// Moves a replay from one of the states `from` to the state `to`. Returns `false`, and changes nothing, when the
    /// replay is in another state.
    fn transition_replay(
        &self,
        actor: &Actor,
        replay: ReplayId,
        from: &'static [ReplayState],
        to: ReplayState,
    ) -> StoreFuture<bool>;

    /// Purges the pending deliveries of a replay, except for those in `except`. Purged deliveries stay in the store.
    /// Returns the number of purged deliveries.
    fn purge_replay(&self, actor: &Actor, replay: ReplayId, except: Vec<DeliveryId>) -> StoreFuture<u64>;

    /// Returns the first `limit` replays with an id greater than `after`, in order. Damaged replays are logged and left
    /// out, so that the other replays continue.
    fn replays(&self, after: ReplayId, limit: usize) -> StoreFuture<Vec<Replay>>;

    /// Returns one replay, or `None` when there is no such replay.
    fn replay(&self, id: ReplayId) -> StoreFuture<Option<Replay>>;
}
