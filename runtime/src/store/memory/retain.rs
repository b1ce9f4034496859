//! Retention, as `store/sqlite/retain.rs` does it.

use super::{Row, State};
use crate::clock::UnixMs;
use crate::store::{DeliveryState, Retention, Seq};

impl State {
    pub(super) fn retain(&mut self, retention: Retention) -> u64 {
        let age_ms = UnixMs::try_from(retention.age.as_millis()).unwrap_or(UnixMs::MAX);
        let before_ms = self.clock.now_ms().saturating_sub(age_ms);
        let mut bytes: u64 = self.events.values().map(|row| row.stored.event.size() as u64).sum();
        let mut over: Vec<Seq> = Vec::new();
        for (seq, row) in &self.events {
            let is_over = |row: &Row| {
                self.owed(row).all(|d| matches!(d.record.state, DeliveryState::Done | DeliveryState::Purged))
            };
            if row.stored.accepted_ms >= before_ms && bytes <= retention.bytes {
                break;
            }
            if is_over(row) {
                bytes -= row.stored.event.size() as u64;
                over.push(*seq);
            }
        }
        over.iter().for_each(|seq| self.remove(*seq));
        let since_ms = self.clock.now_ms().saturating_sub(self.dedup_window_ms);
        self.by_id.retain(|_, (seq, accepted_ms)| *accepted_ms > since_ms || self.events.contains_key(seq));
        over.len() as u64
    }

    fn remove(&mut self, seq: Seq) {
        let Some(row) = self.events.remove(&seq) else { return };
        let ids: Vec<_> = self.owed(&row).map(|delivery| delivery.record.id).collect();
        for delivery in ids.iter().filter_map(|id| self.deliveries.remove(id)) {
            let (done, purged) = self.removed_deliveries.entry(delivery.function).or_default();
            *if delivery.record.state == DeliveryState::Purged { purged } else { done } += 1;
            self.published.remove(&delivery.record.id);
        }
        self.removed.events += 1;
        self.removed.owed += row.owed as u64;
        self.removed.to = self.removed.to.max(seq);
    }
}
