//! Replays, with the behaviour of `store-sqlite/src/write/replays.rs`.

use super::tables::share;
use super::{Inner, index};
use evoke_model::{Counts, DeliveryId, DeliveryState, NewReplay, Replay, ReplayId, ReplayState, Seq, Step};

impl Inner {
    pub(super) fn start_replay(&mut self, new: NewReplay) -> ReplayId {
        let NewReplay { filter, after, until } = new;
        let id = ReplayId(self.replays.len() as i64 + 1);
        self.replays.push(Replay {
            id,
            filter,
            created_ms: self.clock.store_ms(),
            state: ReplayState::Running,
            position: after,
            until,
            events: 0,
            deliveries: Counts::default(),
        });
        id
    }

    pub(super) fn advance_replay(&mut self, id: ReplayId, step: Step, ready: &mut Vec<DeliveryId>) -> bool {
        let Some(replay) = self.replays.get_mut(index(id.0)) else { return false };
        if replay.state != ReplayState::Running || replay.position >= step.position {
            return false;
        }
        replay.position = step.position;
        for (event, deliveries) in step.offers {
            if self.event(event.seq).is_none_or(|row| row.scheduled_ms.is_some()) {
                continue;
            }
            if let Some(replay) = self.replays.get_mut(index(id.0)) {
                replay.events += 1;
            }
            self.replayed += deliveries.len() as u64;
            for new in deliveries {
                self.insert_delivery(&event, new, Some(id), ready);
            }
        }
        true
    }

    pub(super) fn transition_replay(&mut self, id: ReplayId, from: &[ReplayState], to: ReplayState) -> bool {
        match self.replays.get_mut(index(id.0)) {
            Some(replay) if from.contains(&replay.state) => {
                replay.state = to;
                true
            }
            _ => false,
        }
    }

    pub(super) fn purge_replay(&mut self, id: ReplayId, except: &[DeliveryId]) -> u64 {
        let mut count = 0;
        for (delivery_id, delivery) in (1..).map(DeliveryId).zip(self.deliveries.iter_mut()) {
            let Some(delivery) = delivery.as_mut().filter(|d| d.replay == Some(id)) else { continue };
            let pending =
                matches!(delivery.state, DeliveryState::Ready | DeliveryState::Retrying | DeliveryState::Blocked);
            if !pending || except.contains(&delivery_id) {
                continue;
            }
            count += 1;
            delivery.state = DeliveryState::Purged;
            delivery.cause = Some(Replay::CANCELLED.into());
            self.ready.entry(delivery.lane()).or_default().remove(&delivery_id);
            let due_ms = delivery.due_ms.take().unwrap_or_default();
            self.due.entry(delivery.lane()).or_default().remove(&(due_ms, delivery_id));
            self.backlog.remove(share(delivery));
            if let Some(key) = delivery.order_key.clone()
                && let Some(unfinished) = self.unfinished.get_mut(&(delivery.function, Some(id), key))
            {
                unfinished.remove(&delivery_id);
            }
        }
        count
    }

    pub(super) fn replay(&self, id: ReplayId) -> Option<Replay> {
        let mut replay = self.replays.get(index(id.0))?.clone();
        for delivery in self.deliveries.iter().flatten().filter(|d| d.replay == Some(id)) {
            *replay.deliveries.get_mut(delivery.state) += 1;
        }
        Some(replay)
    }

    /// Returns the deliveries that replays added to an event.
    pub(super) fn replayed(&self, event: Seq) -> impl Iterator<Item = DeliveryId> {
        let all = (1..).map(DeliveryId).zip(&self.deliveries);
        all.filter(move |(_, d)| d.as_ref().is_some_and(|d| d.replay.is_some() && d.event.seq == event))
            .map(|(id, _)| id)
    }
}
