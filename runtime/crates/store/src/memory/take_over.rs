//! Moves the data of renamed functions in the in-memory store.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Inner, MemoryStore, index};
use crate::take_over::find_conflict;
use crate::validate::CommittedState as _;
use crate::{StoreFuture, TakeOverStore};
use evoke_model::{DeliveryId, DeliveryState, FunctionId, MarkNames, ReplayState, StateConflict, TakeOver, TakenOver};

impl TakeOverStore for MemoryStore {
    fn take_over(
        &self,
        functions: Vec<TakeOver>,
        names: &'static [MarkNames],
    ) -> StoreFuture<Result<Vec<TakenOver>, StateConflict>> {
        self.write(|inner, ready| match find_conflict(&functions, |name| inner.buckets.bucket(name).usage.keys) {
            Some(conflict) => Err(conflict),
            None => Ok(functions.into_iter().filter_map(|one| inner.take_over(one, names, ready)).collect()),
        })
    }
}

impl Inner {
    fn take_over(
        &mut self,
        take_over: TakeOver,
        names: &[MarkNames],
        ready: &mut Vec<DeliveryId>,
    ) -> Option<TakenOver> {
        let (pending, dead, is_renamed) = match (self.id_of(&take_over.from), self.id_of(&take_over.to)) {
            (None, _) => (0, 0, false),
            (Some(from), None) => {
                if let Some(name) = self.functions.get_mut(index(from.0)) {
                    name.clone_from(&take_over.to);
                }
                let of_function = self.deliveries.iter().flatten().filter(|delivery| delivery.function == from);
                let count = |is_wanted: fn(DeliveryState) -> bool| {
                    of_function.clone().filter(|delivery| is_wanted(delivery.state)).count() as u64
                };
                let dead = count(|state| state == DeliveryState::Dead);
                (count(is_unfinished) - dead, dead, true)
            }
            (Some(from), Some(to)) => {
                let (pending, dead) = self.move_unfinished(from, to, ready);
                (pending, dead, false)
            }
        };
        let keys = self.buckets.rename(&take_over.from, &take_over.to);
        let others = [self.rename_marks(&take_over, names), self.rename_origins(&take_over)];
        let replays = self.rename_filters(&take_over);
        let is_changed = is_renamed || replays || others.contains(&true) || pending + dead + keys > 0;
        let TakeOver { from, to } = take_over;
        is_changed.then_some(TakenOver { from, to, pending, dead, keys })
    }

    fn id_of(&self, name: &str) -> Option<FunctionId> {
        self.functions.iter().position(|known| known == name).map(|at| FunctionId(at as i64 + 1))
    }

    /// Moves the pending deliveries and the dead letters of `from` to `to`. Returns the number of each.
    fn move_unfinished(&mut self, from: FunctionId, to: FunctionId, ready: &mut Vec<DeliveryId>) -> (u64, u64) {
        let offered: BTreeSet<_> = (self.deliveries.iter().flatten())
            .filter(|delivery| delivery.function == to && delivery.replay.is_some())
            .map(|delivery| (delivery.replay, delivery.event.seq))
            .collect();
        let (mut pending, mut dead, mut chains) = (0, 0, BTreeSet::new());
        for (id, delivery) in (1..).map(DeliveryId).zip(self.deliveries.iter_mut()) {
            let Some(delivery) = delivery.as_mut().filter(|delivery| delivery.function == from) else { continue };
            let is_offered = delivery.replay.is_some() && offered.contains(&(delivery.replay, delivery.event.seq));
            if !is_unfinished(delivery.state) || is_offered {
                continue;
            }
            let old_lane = delivery.lane();
            delivery.function = to;
            match delivery.state {
                DeliveryState::Ready => {
                    self.ready.entry(old_lane).or_default().remove(&id);
                    self.ready.entry(delivery.lane()).or_default().insert(id);
                    ready.push(id);
                }
                DeliveryState::Retrying => {
                    let due = (delivery.due_ms.unwrap_or_default(), id);
                    self.due.entry(old_lane).or_default().remove(&due);
                    self.due.entry(delivery.lane()).or_default().insert(due);
                }
                _ => {}
            }
            match delivery.state {
                DeliveryState::Dead => dead += 1,
                _ => pending += 1,
            }
            if let Some(key) = &delivery.order_key {
                let chain = |function| (function, delivery.replay, key.clone());
                self.unfinished.entry(chain(from)).or_default().remove(&id);
                self.unfinished.entry(chain(to)).or_default().insert(id);
                chains.insert((delivery.replay, key.clone()));
            }
        }
        for (replay, key) in chains {
            let ids: Vec<_> = self.unfinished.get(&(to, replay, key)).into_iter().flatten().copied().collect();
            for (at, id) in ids.into_iter().enumerate() {
                self.put_in_order(id, at == 0, ready);
            }
        }
        (pending, dead)
    }

    /// Makes a blocked delivery ready if it is the first one of its order key, and blocks a ready or retrying delivery
    /// if it is not the first one.
    fn put_in_order(&mut self, id: DeliveryId, is_first: bool, ready: &mut Vec<DeliveryId>) {
        let Some(delivery) = self.deliveries.get_mut(index(id.0)).and_then(Option::as_mut) else { return };
        match delivery.state {
            DeliveryState::Blocked if is_first => self.make_ready(id, ready),
            DeliveryState::Ready | DeliveryState::Retrying if !is_first => {
                let due_ms = delivery.due_ms.take();
                delivery.state = DeliveryState::Blocked;
                let lane = delivery.lane();
                self.ready.entry(lane).or_default().remove(&id);
                if let Some(due_ms) = due_ms {
                    self.due.entry(lane).or_default().remove(&(due_ms, id));
                }
                ready.retain(|other| *other != id);
            }
            _ => {}
        }
    }

    /// Returns true if a mark was renamed or removed.
    fn rename_marks(&mut self, take_over: &TakeOver, names: &[MarkNames]) -> bool {
        let present: BTreeSet<String> = self.marks.keys().map(|(scope, _)| scope.clone()).collect();
        let new_key = |(scope, key): &(String, String)| match take_over.renamed_uri(scope) {
            Some(new) => (!present.contains(&new)).then(|| Some((new, key.clone()))),
            None => names.iter().filter(|names| names.scope == scope).find_map(|names| {
                let new = (scope.clone(), take_over.renamed_key(names, key)?);
                match self.marks.contains_key(&new) {
                    true => take_over.is_name(names, key).then_some(None),
                    false => Some(Some(new)),
                }
            }),
        };
        let changed: Vec<_> = self.marks.keys().filter_map(|old| Some((old.clone(), new_key(old)?))).collect();
        let is_changed = !changed.is_empty();
        for (old, new) in changed {
            if let (Some(value), Some(new)) = (self.marks.remove(&old), new) {
                self.marks.insert(new, value);
            }
        }
        is_changed
    }

    /// Returns true if an origin was renamed.
    fn rename_origins(&mut self, take_over: &TakeOver) -> bool {
        let new: Vec<_> =
            self.origins.iter().filter_map(|(origin, uri)| Some((origin, take_over.renamed_uri(uri)?))).collect();
        let renamed = new.into_iter().filter(|(origin, uri)| self.origins.rename(*origin, Arc::from(uri.as_str())));
        renamed.count() > 0
    }

    /// Returns true if the filter of at least one replay was changed.
    fn rename_filters(&mut self, take_over: &TakeOver) -> bool {
        let is_open = |state| matches!(state, ReplayState::Running | ReplayState::Paused | ReplayState::Cancelling);
        let mut is_changed = false;
        for replay in self.replays.iter_mut().filter(|replay| is_open(replay.state)) {
            if let Some(filter) = take_over.renamed_filter(&replay.filter) {
                replay.filter = filter;
                is_changed = true;
            }
        }
        is_changed
    }
}

/// Returns true for pending deliveries and dead letters.
fn is_unfinished(state: DeliveryState) -> bool {
    !matches!(state, DeliveryState::Done | DeliveryState::Purged)
}
