//! Lists and changes that operators request, in the in-memory store.

use std::collections::{BTreeMap, BTreeSet};

use super::{Inner, index};
use evoke_model::clock::UnixMs;
use evoke_model::{
    Accepted, DeadFilter, DeadSummary, DeliveryId, DeliveryState, EventFilter, FunctionId, NewEvent, PendingFilter,
    Seq, Stream,
};

impl Inner {
    /// Returns true if a delivery of the event has the function and one of the states that the filter selects.
    pub(super) fn has_delivery(&self, seq: Seq, filter: &EventFilter) -> bool {
        if filter.function.is_none() && filter.states.is_empty() {
            return true;
        }
        let ids = self.event(seq).into_iter().flat_map(|row| row.deliveries().chain(self.replayed(seq)));
        ids.filter_map(|id| self.delivery(id)).any(|delivery| {
            filter.function.as_deref().is_none_or(|name| self.name(delivery.function) == name)
                && (filter.states.is_empty() || filter.states.contains(&delivery.state))
        })
    }

    pub(super) fn dead_summary(&self, id: DeliveryId) -> Option<DeadSummary> {
        let delivery = self.delivery(id)?;
        let ended = delivery
            .attempts
            .iter()
            .map(|attempt| attempt.started_ms + UnixMs::try_from(attempt.duration_us / 1_000).unwrap_or(UnixMs::MAX));
        Some(DeadSummary {
            id,
            event: delivery.event.seq,
            function: self.name(delivery.function).to_owned(),
            cause: delivery.cause.clone().unwrap_or_default(),
            ended_ms: ended.max(),
        })
    }

    pub(super) fn blocker(&self, blocked: DeliveryId) -> Option<(DeliveryId, DeliveryState)> {
        let delivery = self.delivery(blocked).filter(|delivery| delivery.state == DeliveryState::Blocked)?;
        let key = delivery.order_key.clone()?;
        let unfinished = self.unfinished.get(&(delivery.function, delivery.replay, key))?;
        let first = unfinished.first().copied().filter(|first| *first < blocked)?;
        Some((first, self.delivery(first)?.state))
    }

    pub(super) fn pending_since(&self) -> BTreeMap<String, UnixMs> {
        let mut found = BTreeMap::new();
        let live = self.deliveries.iter().flatten().filter(|delivery| delivery.replay.is_none());
        for state in [DeliveryState::Ready, DeliveryState::Retrying] {
            // For each function and state, only the delivery with the lowest id counts: it is the oldest.
            let mut seen = BTreeSet::new();
            for delivery in live.clone().filter(|delivery| delivery.state == state) {
                if seen.insert(delivery.function) {
                    let since_ms = found.entry(self.name(delivery.function).to_owned()).or_insert(delivery.since_ms);
                    *since_ms = delivery.since_ms.min(*since_ms);
                }
            }
        }
        found
    }

    pub(super) fn retry_now(&mut self, which: &PendingFilter, ready: &mut Vec<DeliveryId>) -> u64 {
        let now_ms = self.clock.store_ms();
        let ids: Vec<_> = self.pending(which).collect();
        let mut count = 0;
        for id in ids {
            let Some(delivery) = self.deliveries.get_mut(index(id.0)).and_then(Option::as_mut) else { continue };
            let Some(due_ms) = delivery.due_ms.filter(|due_ms| *due_ms > now_ms) else { continue };
            delivery.due_ms = None;
            let lane = delivery.lane();
            self.due.entry(lane).or_default().remove(&(due_ms, id));
            self.make_ready(id, ready);
            count += 1;
        }
        count
    }

    pub(super) fn move_pending(
        &mut self,
        from: &str,
        to: FunctionId,
        except: &[DeliveryId],
        ready: &mut Vec<DeliveryId>,
    ) -> u64 {
        let ids: Vec<_> = self.pending(&PendingFilter::Function(from.to_owned())).collect();
        let mut count = 0;
        for id in ids.into_iter().filter(|id| !except.contains(id)) {
            let Some(delivery) = self.delivery(id) else { continue };
            let (key, lane, due_ms) = (delivery.order_key.clone(), delivery.lane(), delivery.due_ms);
            let from = delivery.function;
            let later = key.as_ref().and_then(|key| self.unfinished.get(&(to, None, key.clone()))?.last().copied());
            if delivery.replay.is_some() || from == to || later.is_some_and(|later| later > id) {
                continue;
            }
            self.finish(id, ready);
            if let Some(waiting) = self.ready.get_mut(&lane) {
                waiting.remove(&id);
            }
            if let (Some(due_ms), Some(due)) = (due_ms, self.due.get_mut(&lane)) {
                due.remove(&(due_ms, id));
            }
            let is_first = key.is_none_or(|key| {
                let unfinished = self.unfinished.entry((to, None, key)).or_default();
                unfinished.insert(id);
                unfinished.first() == Some(&id)
            });
            let Some(delivery) = self.deliveries.get_mut(index(id.0)).and_then(Option::as_mut) else { continue };
            delivery.function = to;
            match due_ms {
                Some(due_ms) if is_first => drop(self.due.entry(lane_of(to)).or_default().insert((due_ms, id))),
                _ => {
                    delivery.due_ms = None;
                    delivery.state = DeliveryState::Blocked;
                    if is_first {
                        self.make_ready(id, ready);
                    }
                }
            }
            count += 1;
        }
        count
    }

    pub(super) fn replace_dead(
        &mut self,
        dead: DeliveryId,
        event: NewEvent,
        ready: &mut Vec<DeliveryId>,
    ) -> Option<Seq> {
        if self.delivery(dead)?.state != DeliveryState::Dead {
            return None;
        }
        let (Accepted::New(seq) | Accepted::Duplicate(seq)) = self.insert(event, ready);
        self.purge(&DeadFilter::Delivery(dead), ready);
        Some(seq)
    }
}

/// Returns the queue of a function's live deliveries.
fn lane_of(function: FunctionId) -> (FunctionId, Stream) {
    (function, Stream::Live)
}
