//! The schedule in the in-memory store.

use std::ops::Bound;

use super::tables::share;
use super::{ById, Inner, MemoryStore, index, ready};
use crate::backlog::Share;
use crate::{Alarm, ScheduleStore, Scheduled, StoreFuture, log_request};
use evoke_model::clock::UnixMs;
use evoke_model::text::count;
use evoke_model::{Actor, DeliveryId, DeliveryState, NewDelivery, Seq, StoredEvent};

impl Inner {
    pub(super) fn schedule(&mut self, due_ms: UnixMs, event: &StoredEvent) {
        self.scheduled.insert((due_ms, event.seq));
        self.schedule_change.add(Share::of(&event.event, &event.lineage));
    }

    /// Removes an event from the schedule and adds its deliveries. Returns their ids; `None` if the event is not
    /// scheduled.
    fn release(
        &mut self,
        seq: Seq,
        deliveries: Vec<NewDelivery>,
        ready: &mut Vec<DeliveryId>,
    ) -> Option<impl Iterator<Item = DeliveryId> + use<>> {
        let now_ms = self.clock.store_ms();
        let first_delivery = DeliveryId(self.deliveries.len() as i64 + 1);
        let row = self.events.get_mut(index(seq.0)).and_then(Option::as_mut)?;
        let due_ms = row.scheduled_ms.take()?;
        row.released_ms = Some(now_ms);
        (row.first_delivery, row.owed) = (first_delivery, deliveries.len());
        let stored = row.stored.clone();
        self.owed += deliveries.len() as u64;
        self.scheduled.remove(&(due_ms, seq));
        self.schedule_change.remove(Share::of(&stored.event, &stored.lineage));
        self.by_id.replace(ById { stored: stored.clone(), released_ms: Some(now_ms) });
        deliveries.into_iter().for_each(|new| self.insert_delivery(&stored, new, None, ready));
        Some((first_delivery.0..=self.deliveries.len() as i64).map(DeliveryId))
    }

    /// Purges a delivery that was added just now.
    fn purge_new(&mut self, id: DeliveryId, cause: &str) {
        let Some(delivery) = self.deliveries.get_mut(index(id.0)).and_then(Option::as_mut) else { return };
        (delivery.state, delivery.cause) = (DeliveryState::Purged, Some(cause.to_owned()));
        let (lane, key) = (delivery.lane(), delivery.order_key.clone());
        self.backlog.remove(share(delivery));
        if let Some(ready) = self.ready.get_mut(&lane) {
            ready.remove(&id);
        }
        if let Some(key) = key {
            // The delivery is the last one of its key, so no other delivery waits for it.
            let key = (lane.0, None, key);
            let is_empty = self.unfinished.get_mut(&key).is_some_and(|unfinished| {
                unfinished.remove(&id);
                unfinished.is_empty()
            });
            if is_empty {
                self.unfinished.remove(&key);
            }
        }
    }

    fn scheduled_event(&self, (due_ms, seq): (UnixMs, Seq)) -> Option<Scheduled> {
        let stored = &self.event(seq)?.stored;
        Some(Scheduled { due_ms, seq, event: Ok((**stored).clone()) })
    }
}

impl ScheduleStore for MemoryStore {
    fn scheduled(&self, after: (UnixMs, Seq), limit: usize) -> StoreFuture<Vec<Scheduled>> {
        let inner = self.lock();
        let range = inner.scheduled.range((Bound::Excluded(after), Bound::Unbounded));
        ready(range.filter_map(|at| inner.scheduled_event(*at)).take(limit).collect())
    }

    fn due_events(&self, now_ms: UnixMs, limit: usize) -> StoreFuture<(Vec<Scheduled>, Option<UnixMs>)> {
        let inner = self.lock();
        let due: Vec<_> = inner.scheduled.iter().take_while(|(due_ms, _)| *due_ms <= now_ms).take(limit).collect();
        let next = inner.scheduled.iter().nth(due.len()).map(|(due_ms, _)| *due_ms);
        ready((due.into_iter().filter_map(|at| inner.scheduled_event(*at)).collect(), next))
    }

    fn release_events(&self, events: Vec<(Seq, Vec<NewDelivery>)>) -> StoreFuture<u64> {
        self.write(|inner, ready| {
            let released = events.into_iter().filter_map(|(seq, new)| inner.release(seq, new, ready).map(drop));
            released.count() as u64
        })
    }

    fn cancel_events(&self, actor: &Actor, events: Vec<(Seq, Vec<NewDelivery>)>, cause: &str) -> StoreFuture<u64> {
        log_request(actor, format_args!("cancel {}", count(events.len(), "scheduled event")));
        self.write(|inner, _| {
            let mut count = 0;
            for (seq, deliveries) in events {
                let Some(added) = inner.release(seq, deliveries, &mut Vec::new()) else { continue };
                added.for_each(|id| inner.purge_new(id, cause));
                count += 1;
            }
            count
        })
    }

    fn is_scheduled(&self, seq: Seq) -> StoreFuture<bool> {
        ready(self.lock().event(seq).is_some_and(|row| row.scheduled_ms.is_some()))
    }

    fn alarm(&self) -> &Alarm {
        &self.shared.alarm
    }
}
