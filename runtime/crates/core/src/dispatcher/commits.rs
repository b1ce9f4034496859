//! Commits: passes the completions of attempts to the store, and handles the results of commits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::circuit::Circuit;
use super::measure::Measurement;
use super::scheduling::Schedule;
use super::state_locks::StateLock;
use super::{Dispatcher, FunctionSpec, STORE_RETRY, attempt};
use evoke_model::clock::UnixMs;
use evoke_model::outcome::Outcome;
use evoke_model::recording::NewRecording;
use evoke_model::{AttemptRecord, Completed, Completion, ReadyDelivery, Stream, Verdict};
use evoke_store::{Committed, StoreError};

/// The assumed size in bytes of a completion, without its published events, its state and its recording.
const COMPLETION_BYTES: usize = 8 * 1024;

impl Dispatcher {
    /// Passes a completion to the store and returns before the commit, so that the worker can continue with the next
    /// delivery. The store reports the commit to [`Dispatcher::committed`].
    pub(super) async fn commit(
        &self,
        spec: &FunctionSpec,
        delivery: &ReadyDelivery,
        (completion, measurement, state_lock): (Completion, Measurement, Option<StateLock<'_>>),
    ) {
        self.0.uncommitted.fetch_add(completion_bytes(&completion), Ordering::Relaxed);
        if !can_be_refused(&completion) {
            measurement.ended(&spec.metrics, &completion);
        } else {
            self.lock().awaiting_commit.insert(delivery.id, (delivery.clone(), measurement));
        }
        let completion = Arc::new(completion);
        if state_lock.is_some() && !completion.state.lists.is_empty() {
            // An attempt that lists the keys of a bucket sees new keys only after their commit. The next holder of the
            // lock must see the new keys of this attempt, so the lock is held until the commit.
            let result = self.0.store.complete(completion.clone()).await;
            self.committed(Committed { settled: vec![(completion, result)], ..Committed::default() });
        } else {
            // An error means that the store has failed permanently, which the store reports itself. The delivery is
            // still pending when the store is opened again.
            let _ = self.0.store.settle(completion).await;
        }
    }

    /// Receives the result of a commit from the store: the results of completions, and the deliveries that became ready
    /// or were cancelled.
    pub(super) fn committed(&self, committed: Committed) {
        self.0.bus.notify_waiting(&committed);
        let Committed { ready, settled, cancelled } = committed;
        let mut bytes = 0;
        let mut schedule = self.lock();
        let mut has_retry = false;
        for (completion, result) in settled {
            if matches!(&result, Err(error) if error.is_temporary()) {
                self.0.tasks.spawn_on(self.clone().commit_later(completion), &self.0.runtime);
                continue;
            }
            bytes += completion_bytes(&completion);
            let is_committed = matches!(result, Ok(Completed::Committed));
            let is_superseded = matches!(result, Ok(Completed::Superseded));
            schedule.circuits.ended(completion.delivery);
            if can_be_refused(&completion) && self.needs_rerun(&mut schedule, &completion, result) {
                continue;
            }
            let retry_at_ms = if is_superseded { None } else { retry_at_ms(&completion) };
            has_retry |= retry_at_ms.is_some();
            if let Some(function) = schedule.functions.get_mut(&completion.function) {
                function.completed(completion.delivery, retry_at_ms);
                if is_committed {
                    self.update_health(function, &completion);
                    if let Some(sink) = self.0.on_ended.get() {
                        sink(&completion);
                    }
                }
            }
            match completion.verdict {
                Verdict::Done if is_committed => schedule.isolation.done(completion.delivery),
                Verdict::Dead(_) if completion.record.outcome == Outcome::CRASHED => {
                    schedule.isolation.given_up(completion.delivery);
                }
                _ => {}
            }
        }
        for (function, id) in cancelled {
            schedule.cancel(function, id);
            self.update_queue(&mut schedule, function);
        }
        let mut unknown = Vec::new();
        for delivery in ready {
            let id = delivery.function;
            match schedule.functions.get_mut(&id) {
                Some(function) => {
                    let is_open = function.circuit.as_ref().is_some_and(Circuit::is_open);
                    let lane = function.lane(Stream::of(delivery.replay));
                    if let Some(left) = lane.offer(delivery)
                        && is_open
                    {
                        lane.keep_newest(left);
                    }
                    self.update_queue(&mut schedule, id);
                }
                None => unknown.push(delivery.id),
            }
        }
        self.release(unknown);
        self.0.uncommitted.fetch_sub(bytes, Ordering::Relaxed);
        self.spawn_worker(&mut schedule);
        drop(schedule);
        if has_retry {
            self.0.alarm.notify_one();
        }
    }

    /// Handles the commit result of an attempt that used state or published events. Returns true if the attempt is not
    /// over: after a conflict, it runs again; if a quota or the limit of a chain would be exceeded, its failure must be
    /// committed first.
    fn needs_rerun(
        &self,
        schedule: &mut Schedule,
        completion: &Completion,
        result: Result<Completed, StoreError>,
    ) -> bool {
        let Some((delivery, measurement)) = schedule.awaiting_commit.remove(&completion.delivery) else { return false };
        let Some(function) = schedule.functions.get_mut(&completion.function) else { return false };
        let metrics = &function.spec.metrics;
        match result {
            Ok(Completed::Conflict(item)) => {
                measurement.runs_again(metrics);
                schedule.reruns.insert(delivery.id, item);
                function.lane(Stream::of(delivery.replay)).put_back(delivery);
                self.update_queue(schedule, completion.function);
            }
            Ok(Completed::OverQuota(message)) => {
                let (spec, ended) = (function.spec.clone(), (completion.record.clone(), completion.recording.clone()));
                let failed = self.clone().fail_refused(spec, delivery, measurement, ended, Refused::Quota(message));
                self.0.tasks.spawn_on(failed, &self.0.runtime);
            }
            Ok(Completed::TooManyDescendants(limit)) => {
                let (spec, ended) = (function.spec.clone(), (completion.record.clone(), completion.recording.clone()));
                let failed = self.clone().fail_refused(spec, delivery, measurement, ended, Refused::Loop(limit));
                self.0.tasks.spawn_on(failed, &self.0.runtime);
            }
            Ok(Completed::Committed | Completed::Superseded) | Err(_) => {
                measurement.ended(metrics, completion);
                return false;
            }
        }
        true
    }

    /// Commits an attempt as failed. The function succeeded, but the store refused the effects of the attempt.
    async fn fail_refused(
        self,
        spec: Arc<FunctionSpec>,
        delivery: ReadyDelivery,
        measurement: Measurement,
        ended: (AttemptRecord, Option<NewRecording>),
        refused: Refused,
    ) {
        let outcome = match refused {
            Refused::Quota(message) => Outcome::Quota { message },
            Refused::Loop(limit) => attempt::loop_of(&self.0, delivery.id, &limit).await,
        };
        let completion = attempt::refused(&self.0, &spec, &delivery, ended, outcome).await;
        measurement.ended(&spec.metrics, &completion);
        self.0.uncommitted.fetch_add(completion_bytes(&completion), Ordering::Relaxed);
        // An error needs no handling: the store reports its permanent failure itself.
        let _ = self.0.store.settle(Arc::new(completion)).await;
    }

    /// Commits a completion after a temporary error of the store: the disk is full, or the store cannot be reached.
    /// Retries every [`STORE_RETRY`] until the error is gone. Until then, the delivery stays in its lane.
    async fn commit_later(self, completion: Arc<Completion>) {
        let result = loop {
            tokio::time::sleep(STORE_RETRY).await;
            match self.0.store.complete(completion.clone()).await {
                Err(error) if error.is_temporary() => {}
                // A permanent failure needs no handling: the store reports it itself.
                other => break other,
            }
        };
        self.committed(Committed { settled: vec![(completion, result)], ..Committed::default() });
    }
}

/// Why the store refused the effects of an attempt. Each variant has the message of the store.
enum Refused {
    /// The quota of a state bucket would be exceeded.
    Quota(String),
    /// The events that one event causes would exceed a limit on their number or on their total size.
    Loop(String),
}

/// Returns true if the store can refuse to commit the completion: the attempt must then run again, or be committed as
/// failed.
fn can_be_refused(completion: &Completion) -> bool {
    !completion.state.is_empty() || (completion.verdict == Verdict::Done && !completion.publishes.is_empty())
}

/// Returns the approximate size of a completion in bytes, for the limit of uncommitted completions.
fn completion_bytes(completion: &Completion) -> usize {
    let published = completion.publishes.iter().map(|new| new.event.size()).sum::<usize>();
    let recording = completion.recording.as_ref().map_or(0, |recording| recording.data.len());
    COMPLETION_BYTES + published + completion.state.size() + recording
}

/// Returns the time at which the delivery is retried, or `None` if the delivery is done or dead.
fn retry_at_ms(completion: &Completion) -> Option<UnixMs> {
    match completion.verdict {
        Verdict::RetryAt(at_ms) => Some(at_ms),
        Verdict::Done | Verdict::Dead(_) => None,
    }
}
