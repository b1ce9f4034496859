//! Functions whose attempts are requests to an endpoint: their circuits (see `circuit`), and endpoints that are gone
//! for good.
//!
//! A circuit can delay the deliveries of its function. A task puts the function's lanes (its queues in memory) into the
//! run queue when the circuit allows a delivery. Usually, a delivery that is older than `max_age` becomes a dead letter
//! when its next attempt fails. While a circuit is open, only probes run, so most deliveries have no attempt.
//! Therefore, the task then turns the deliveries that are older than `max_age` into dead letters.

use std::sync::{Arc, Weak};
use std::time::Duration;

use foldhash::HashMap;
use tokio::time::Instant;

use super::circuit::{Ended, OpenCircuit};
use super::function::Function;
use super::lane::LOAD_MAX;
use super::scheduling::Schedule;
use super::{AttemptResult, Dispatcher, FunctionSpec, Inner, attempt};
use crate::runtime_events;
use evoke_model::clock::UnixMs;
use evoke_model::outcome::Outcome;
use evoke_model::{FunctionId, ReadyDelivery, Stream};

/// The longest wait until the next check of circuits.
const CHECK_MAX: Duration = Duration::from_secs(1);

/// The wait until the next check after deliveries became dead letters: the store may have more deliveries that are too
/// old.
const CHECK_AGAIN: Duration = Duration::from_millis(20);

impl Schedule {
    /// Handles a delivery whose attempt does not count: the delivery waits at the end of its lane again. A delivery
    /// that was cancelled while the attempt ran is removed.
    pub(super) fn put_back_uncounted(&mut self, delivery: &ReadyDelivery) {
        let is_cancelled = self.circuits.ended(delivery.id);
        if let Some(function) = self.functions.get_mut(&delivery.function) {
            let lane = function.lane(Stream::of(delivery.replay));
            if is_cancelled {
                lane.completed(delivery.id, None);
            } else {
                lane.put_back_last(delivery.clone());
            }
        }
    }
}

impl Inner {
    /// Updates the function's circuit after an attempt, or suspends the function if its endpoint is gone. Returns false
    /// if the attempt does not count.
    pub(super) fn endpoint_ended(&self, spec: &FunctionSpec, delivery: &ReadyDelivery, result: &AttemptResult) -> bool {
        let mut schedule = self.schedule.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(function) = schedule.functions.get_mut(&delivery.function) else { return true };
        if let Outcome::EndpointGone { message } = &result.outcome {
            function.set_gone(format!("{message} (delivery {})", delivery.id));
            self.health.notify_one();
            return false;
        }
        let Some(circuit) = &mut function.circuit else { return true };
        let was_open = circuit.is_open();
        // If a runtime event caused the delivery, its failure causes no report: the report would be another runtime
        // event, whose delivery could fail in the same way.
        let is_reported = delivery.origin != runtime_events::origin();
        let ended = circuit.ended(delivery.id, result, is_reported, Instant::now(), self.clock.now_ms());
        if circuit.is_open() != was_open {
            self.health.notify_one();
        }
        if ended == Ended::Counted {
            return true;
        }
        spec.metrics.failed_probes.increment();
        // If the delivery is too old, the attempt counts, and its failure makes the delivery a dead letter.
        attempt::age(self.clock.store_ms(), delivery) > spec.retry.max_age
    }
}

/// A delivery that became too old while it waited for an open circuit.
struct Expired {
    spec: Arc<FunctionSpec>,
    delivery: ReadyDelivery,
    outcome: Outcome,
}

impl Dispatcher {
    /// Returns the functions that have a circuit, each with the state of the circuit if it is open.
    pub fn circuits(&self) -> HashMap<FunctionId, Option<OpenCircuit>> {
        let now = Instant::now();
        let circuit = |(id, function): (&FunctionId, &Function)| Some((*id, function.circuit.as_ref()?.open(now)));
        self.lock().functions.iter().filter_map(circuit).collect()
    }

    /// Restores the circuits that were open before this process started. `since_ms` maps the full name of each function
    /// to the time when its circuit opened. Call this before [`Dispatcher::set_functions`].
    pub fn restore_circuits(&self, since_ms: HashMap<String, UnixMs>) {
        self.lock().circuits.was_open = since_ms;
    }

    /// Returns the functions whose endpoint is gone and that are not paused yet, each with the reason.
    pub fn gone(&self) -> HashMap<FunctionId, String> {
        let gone = |(id, function): (&FunctionId, &Function)| Some((*id, function.gone()?.to_owned()));
        self.lock().functions.iter().filter_map(gone).collect()
    }

    /// Starts the task that watches circuits, if a function has a circuit and the task was not started yet.
    pub(super) fn watch_circuits(&self, schedule: &mut Schedule) {
        if !schedule.circuits.is_watched && schedule.functions.values().any(|function| function.circuit.is_some()) {
            schedule.circuits.is_watched = true;
            self.0.runtime.spawn(Self::check_circuits(Arc::downgrade(&self.0)));
        }
    }

    /// Checks the circuits each time a circuit allows its next delivery, and at least every [`CHECK_MAX`]. Ends when
    /// the dispatcher stops or is dropped.
    async fn check_circuits(inner: Weak<Inner>) {
        loop {
            let Some(dispatcher) = inner.upgrade().map(Self) else { return };
            let Some((expired, wait)) = dispatcher.advance_circuits() else { return };
            for Expired { spec, delivery, outcome } in expired {
                let (completion, measurement) = attempt::give_up(&dispatcher.0, &spec, &delivery, outcome).await;
                dispatcher.commit(&spec, &delivery, (completion, measurement, None)).await;
            }
            let _ = tokio::time::timeout(wait, dispatcher.0.circuits.notified()).await;
        }
    }

    /// Starts the deliveries that the circuits allow now. Returns the deliveries that became older than `max_age`, and
    /// the time until the next check. Returns `None` if the dispatcher stops.
    fn advance_circuits(&self) -> Option<(Vec<Expired>, Duration)> {
        let (now, now_ms) = (Instant::now(), self.0.clock.store_ms());
        let mut schedule = self.lock();
        if schedule.stopping {
            return None;
        }
        // With this value, `update_queue` does not wake the task. The time of the next check is set below.
        schedule.circuits.wakes_at = Some(now);
        let with_circuit = schedule.functions.iter().filter(|(_, function)| function.circuit.is_some());
        let ids: Vec<FunctionId> = with_circuit.map(|(id, _)| *id).collect();
        let mut expired = Vec::new();
        for id in ids {
            if let Some(function) = schedule.functions.get_mut(&id) {
                expired.append(&mut take_expired(function, now, now_ms));
            }
            self.update_queue(&mut schedule, id);
        }
        self.spawn_worker(&mut schedule);
        let longest = now + if expired.is_empty() { CHECK_MAX } else { CHECK_AGAIN };
        let wakes = schedule.functions.values().filter_map(Function::circuit_wakes_at).min();
        let wakes_at = wakes.map_or(longest, |at| at.min(longest));
        schedule.circuits.wakes_at = Some(wakes_at);
        Some((expired, wakes_at - now))
    }
}

/// Takes deliveries that became older than `max_age` while the function's circuit is open.
fn take_expired(function: &mut Function, now: Instant, now_ms: UnixMs) -> Vec<Expired> {
    let Some(open) = function.circuit.as_ref().and_then(|circuit| circuit.open(now)) else { return Vec::new() };
    let max_age_ms = i64::try_from(function.spec.retry.max_age.as_millis()).unwrap_or(i64::MAX);
    let since_ms = now_ms.saturating_sub(max_age_ms);
    let taken = Stream::ALL.map(|stream| function.lane(stream).take_older(since_ms, LOAD_MAX));
    let spec = &function.spec;
    let expired = |delivery| {
        let OpenCircuit { outcome, message, .. } = &open;
        let last = message
            .as_ref()
            .map_or_else(String::new, |message| format!("; the last request had the outcome `{outcome}`: {message}"));
        let message = format!("no request was sent, because the endpoint keeps failing (its circuit is open){last}");
        Expired { spec: spec.clone(), delivery, outcome: Outcome::EndpointFailed { message, after: None } }
    };
    taken.into_iter().flatten().map(expired).collect()
}
