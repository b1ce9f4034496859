//! The store of functions that were renamed.

use crate::StoreFuture;
use evoke_model::{MarkNames, StateConflict, TakeOver, TakenOver};

/// Moves the data stored under earlier names of functions to their present names.
pub trait TakeOverStore: Send + Sync + 'static {
    /// Renames functions, in this order and all in one commit. For each function, the following data moves to the
    /// present name:
    ///
    /// - deliveries and totals. If the store does not know the present name yet, all of them move. Otherwise, only the
    ///   unfinished deliveries and the dead letters move, and finished deliveries keep the earlier name. Within an
    ///   order key, deliveries continue in the order of their acceptance. A replayed delivery does not move if the same
    ///   replay has also added a delivery of this event under the present name.
    /// - the function's bucket of state. If state is stored under more than one name of a function, the call changes
    ///   nothing at all, and the result is the conflict.
    /// - marks and origins of the function's own sources (`/app/function/…`), unless the same source has marks or an
    ///   origin under the present name.
    /// - the marks of the groups in `names`. The key of each mark contains the name of the function, and the mark is
    ///   for the function itself or for one of its sources. If a mark with the new key already exists, the old mark
    ///   does not move: it stays if it is for a source, and is removed if it is for the function itself.
    /// - the filters of replays that are not finished.
    ///
    /// Returns the functions for which some data moved, so a repeated call returns an empty list. The caller ensures
    /// that no attempt of a function is running under the earlier name during the call, and also none under the present
    /// name if deliveries move to this name. The sink of [`crate::DeliveryStore::on_commit`] receives the moved
    /// deliveries that are ready, and [`crate::DeliveryStore::claim`] returns them.
    fn take_over(
        &self,
        functions: Vec<TakeOver>,
        names: &'static [MarkNames],
    ) -> StoreFuture<Result<Vec<TakenOver>, StateConflict>>;
}

/// Returns the first function that has state under more than one of its names. `keys` returns the number of keys of
/// state that are stored under a name.
pub fn find_conflict(functions: &[TakeOver], keys: impl Fn(&str) -> u64) -> Option<StateConflict> {
    functions.iter().find_map(|TakeOver { to, .. }| {
        let earlier = functions.iter().filter(|other| other.to == *to).map(|other| &other.from);
        let with_keys = std::iter::once(to).chain(earlier).map(|name| (name.clone(), keys(name)));
        let names: Vec<_> = with_keys.filter(|(_, keys)| *keys > 0).collect();
        (names.len() > 1).then(|| StateConflict { to: to.clone(), names })
    })
}
