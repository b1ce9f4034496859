//! The store of functions that were renamed.

use crate::StoreFuture;
use evoke_model::{MarkNames, StateConflict, TakeOver, TakenOver};

/// Moves the data stored under earlier names of functions to their present names.
pub trait TakeOverStore: Send + Sync + 'static {
    /// Renames functions, in this order and all in one commit. For each of them, this moves to the present name:
    ///
    /// - deliveries and running totals. If the store does not know the present name yet, all of them are moved.
    ///   Otherwise, the unfinished deliveries and the dead letters are moved, and finished deliveries keep the earlier
    ///   name. Within an order key, deliveries continue in the order of their acceptance. A replayed delivery is not
    ///   moved if the same replay has also offered its event to the present name.
    /// - the function's bucket of state. If more than one name of a function has state, nothing at all is changed, and
    ///   the result is the conflict.
    /// - marks and origins of the function's own sources (`/app/function/…`), and the keys of the marks `names`, except
    ///   those that exist under the present name already: marks of the function itself are then removed, others stay.
    /// - the filters of replays that are not finished.
    ///
    /// Returns the functions for which something was moved, so a repeated call returns an empty list. During the call,
    /// no attempt of a function may be running under the earlier name, nor under the present name if deliveries are
    /// moved to it. The sink of [`crate::DeliveryStore::on_commit`] receives the moved deliveries that are ready, and
    /// [`crate::DeliveryStore::claim`] finds them.
    fn take_over(
        &self,
        functions: Vec<TakeOver>,
        names: &'static [MarkNames],
    ) -> StoreFuture<Result<Vec<TakenOver>, StateConflict>>;
}

/// Returns the first conflict of state. `keys` returns the number of keys of state that a name has.
pub fn find_conflict(functions: &[TakeOver], keys: impl Fn(&str) -> u64) -> Option<StateConflict> {
    functions.iter().find_map(|TakeOver { to, .. }| {
        let earlier = functions.iter().filter(|other| other.to == *to).map(|other| &other.from);
        let with_keys = std::iter::once(to).chain(earlier).map(|name| (name.clone(), keys(name)));
        let names: Vec<_> = with_keys.filter(|(_, keys)| *keys > 0).collect();
        (names.len() > 1).then(|| StateConflict { to: to.clone(), names })
    })
}
