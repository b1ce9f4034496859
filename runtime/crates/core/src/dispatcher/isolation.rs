//! Runs suspects alone. A suspect is a delivery that was running when an earlier process ended without a clean stop: it
//! may have caused that end. If the process ends again while a suspect runs alone, the suspect is the cause.
//!
//! A suspect waits until no attempt runs, and no other attempt starts while the suspect runs. After that, the other
//! deliveries run at least as long as the suspect ran. So the suspects, even if there are many, at most halve the
//! throughput of the other deliveries.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::FunctionSpec;
use evoke_model::state::StateItem;
use evoke_model::{DeliveryId, ReadyDelivery};
use evoke_store::running::EXITS_MAX;

/// A delivery to run now.
pub(super) struct Picked {
    pub(super) spec: Arc<FunctionSpec>,
    pub(super) delivery: ReadyDelivery,
    /// The state that another attempt changed. Set only if the delivery runs again because of this conflict.
    pub(super) changed: Option<StateItem>,
    /// How often the process ended without a clean stop while the delivery ran.
    pub(super) exits: u32,
}

impl Picked {
    /// Returns true if the delivery must run alone. A delivery with [`EXITS_MAX`] exits becomes a dead letter and does
    /// not run.
    pub(super) fn is_suspect(&self) -> bool {
        (1..EXITS_MAX).contains(&self.exits)
    }
}

#[derive(Default)]
pub(super) struct Isolation {
    /// For each delivery: how often the process ended without a clean stop while the delivery ran.
    exits: BTreeMap<DeliveryId, u32>,
    /// Suspects that were picked and wait until they may run alone. Each of them counts as running for its function, so
    /// the concurrency of the functions bounds their number.
    waiting: VecDeque<Picked>,
    /// The suspect that runs, and when it started.
    running: Option<(DeliveryId, Instant)>,
    /// Until this time, the other deliveries run, even if suspects wait.
    others_until: Option<Instant>,
}

impl Isolation {
    pub(super) fn new(exits: BTreeMap<DeliveryId, u32>) -> Self {
        Self { exits, ..Self::default() }
    }

    /// Returns how often the process ended without a clean stop while the delivery ran.
    pub(super) fn exits(&self, id: DeliveryId) -> u32 {
        if self.exits.is_empty() { 0 } else { self.exits.get(&id).copied().unwrap_or_default() }
    }

    /// Records that a delivery became a dead letter because of its exit count. Sets the count to 1. So if an operator
    /// redrives the delivery (runs it again), it is a suspect.
    pub(super) fn given_up(&mut self, id: DeliveryId) {
        if let Some(exits) = self.exits.get_mut(&id) {
            *exits = 1;
        }
    }

    /// Forgets a delivery that is done.
    pub(super) fn done(&mut self, id: DeliveryId) {
        if !self.exits.is_empty() {
            self.exits.remove(&id);
        }
    }

    pub(super) fn push(&mut self, suspect: Picked) {
        self.waiting.push_back(suspect);
    }

    /// Removes and returns the waiting suspects for which `is_taken` returns true.
    pub(super) fn take_waiting(&mut self, is_taken: impl Fn(&Picked) -> bool) -> VecDeque<Picked> {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let (taken, stays) = waiting.partition(is_taken);
        self.waiting = stays;
        taken
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns true if other deliveries must not start now: a suspect runs, or a waiting suspect is next.
    pub(super) fn excludes_others(&self) -> bool {
        if self.running.is_none() && self.waiting.is_empty() {
            return false;
        }
        self.running.is_some() || self.others_until.is_none_or(|until| Instant::now() >= until)
    }

    /// Takes the next suspect to run it alone. The caller has checked that no attempt runs.
    pub(super) fn start_next(&mut self) -> Option<Picked> {
        let suspect = self.waiting.pop_front()?;
        self.running = Some((suspect.delivery.id, Instant::now()));
        Some(suspect)
    }

    /// Records that an attempt at a delivery ended.
    pub(super) fn ended(&mut self, id: DeliveryId) {
        if let Some((running, since)) = self.running
            && running == id
        {
            let took: Duration = since.elapsed();
            self.running = None;
            self.others_until = Some(Instant::now() + took);
        }
    }
}
