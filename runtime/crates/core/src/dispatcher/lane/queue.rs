//! Deliveries that wait in a lane, and the size of their events.

use std::collections::VecDeque;

use evoke_model::{DeliveryId, ReadyDelivery, ReplayId};

#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<ReadyDelivery>,
    /// The size in bytes of the events.
    bytes: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = DeliveryId> {
        self.waiting.iter().map(|delivery| delivery.id)
    }

    pub(super) fn ids_of(&self, replay: ReplayId) -> impl Iterator<Item = DeliveryId> {
        self.waiting.iter().filter(move |delivery| delivery.replay == Some(replay)).map(|delivery| delivery.id)
    }

    pub(super) fn push_back(&mut self, delivery: ReadyDelivery) {
        self.bytes += delivery.event_size();
        self.waiting.push_back(delivery);
    }

    pub(super) fn push_front(&mut self, delivery: ReadyDelivery) {
        self.bytes += delivery.event_size();
        self.waiting.push_front(delivery);
    }

    pub(super) fn pop_front(&mut self) -> Option<ReadyDelivery> {
        self.pop_front_if(|_| true)
    }

    pub(super) fn pop_back(&mut self) -> Option<ReadyDelivery> {
        let delivery = self.waiting.pop_back()?;
        self.bytes = self.bytes.saturating_sub(delivery.event_size());
        Some(delivery)
    }

    pub(super) fn pop_front_if(&mut self, is_taken: impl FnOnce(&ReadyDelivery) -> bool) -> Option<ReadyDelivery> {
        let delivery = self.waiting.pop_front_if(|delivery| is_taken(delivery))?;
        self.bytes = self.bytes.saturating_sub(delivery.event_size());
        Some(delivery)
    }

    /// Removes a delivery; `None` if it does not wait here.
    pub(super) fn remove(&mut self, id: DeliveryId) -> Option<ReadyDelivery> {
        let at = self.waiting.iter().position(|delivery| delivery.id == id)?;
        let removed = self.waiting.remove(at)?;
        self.bytes = self.bytes.saturating_sub(removed.event_size());
        Some(removed)
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.bytes = 0;
    }
}
