//! Retention, with the behaviour of `store-sqlite/src/retain.rs`.

use super::{Inner, Row, index};
use evoke_model::clock::UnixMs;
use evoke_model::{DeliveryState, Retention, Seq};

impl Inner {
    pub(super) fn retain(&mut self, retention: Retention) -> u64 {
        let age_ms = UnixMs::try_from(retention.age.as_millis()).unwrap_or(UnixMs::MAX);
        let before_ms = self.clock.store_ms().saturating_sub(age_ms);
        let mut bytes: u64 = self.events.iter().flatten().map(|row| row.stored.event.size() as u64).sum();
        let mut finished: Vec<Seq> = Vec::new();
        for row in self.events.iter().flatten() {
            if row.stored.accepted_ms >= before_ms && bytes <= retention.bytes {
                break;
            }
            let is_young = row.since_ms() >= before_ms && bytes <= retention.bytes;
            if !is_young && row.scheduled_ms.is_none() && self.is_finished(row) {
                bytes -= row.stored.event.size() as u64;
                finished.push(row.stored.seq);
            }
        }
        finished.iter().for_each(|seq| self.remove(*seq));
        self.expire_recordings();
        let since_ms = self.clock.store_ms().saturating_sub(self.dedup_window_ms);
        let events = &self.events;
        let is_there = |seq: Seq| events.get(index(seq.0)).is_some_and(Option::is_some);
        self.by_id.retain(|known| known.since_ms() > since_ms || is_there(known.stored.seq));
        finished.len() as u64
    }

    fn is_finished(&self, row: &Row) -> bool {
        let finished = |state| matches!(state, DeliveryState::Done | DeliveryState::Purged);
        let mut all = row.deliveries().chain(self.replayed(row.stored.seq));
        all.all(|id| self.delivery(id).is_none_or(|delivery| finished(delivery.state)))
    }

    fn remove(&mut self, seq: Seq) {
        let Some(row) = self.events.get_mut(index(seq.0)).and_then(Option::take) else { return };
        let ids: Vec<_> = row.deliveries().chain(self.replayed(seq)).collect();
        for id in ids {
            let Some(delivery) = self.deliveries.get_mut(index(id.0)).and_then(Option::take) else { continue };
            let (done, purged) = self.removed_deliveries.entry(delivery.function).or_default();
            *if delivery.state == DeliveryState::Purged { purged } else { done } += 1;
            *if delivery.replay.is_some() { &mut self.removed.replayed } else { &mut self.removed.owed } += 1;
            self.published.remove(&id);
            self.remove_recordings(id);
        }
        self.removed.events += 1;
        self.removed.to = self.removed.to.max(seq);
    }
}
