//! Loads ready deliveries and due retries from the store into the lanes (the functions' queues in memory). Also
//! releases deliveries that this process has claimed, but does not run now.

use std::time::Duration;

use foldhash::HashSet;

use super::function::Function;
use super::{Dispatcher, Inner, STORE_RETRY};
use evoke_model::clock::UnixMs;
use evoke_model::{DeliveryId, FunctionId, Stream};
use evoke_store::LoadLimit;

/// The longest wait until the next check for due retries. While the machine sleeps, this wait does not advance, but
/// store time does. So after the sleep, a retry is late by at most this wait.
const ALARM_MAX: Duration = Duration::from_secs(1);

impl Dispatcher {
    /// Loads ready deliveries with ids after `after` into a lane, up to the limit, in the background. After an error,
    /// the lane starts the load again when [`STORE_RETRY`] has passed.
    pub(super) fn load(&self, function: FunctionId, stream: Stream, after: DeliveryId, limit: LoadLimit) {
        let dispatcher = self.clone();
        self.0.runtime.spawn(async move {
            match dispatcher.0.store.claim(function, stream, after, limit).await {
                Ok(found) => dispatcher.change_lane(function, stream, |lane| lane.loaded(after, found)),
                Err(error) => {
                    tracing::warn!("cannot load pending deliveries from the store; trying again: {error}");
                    tokio::time::sleep(STORE_RETRY).await;
                    dispatcher.change_lane(function, stream, |lane| lane.load_failed(after));
                }
            }
        });
    }

    /// Releases, in the background, deliveries that this process has claimed but does not run now.
    pub(super) fn release(&self, deliveries: Vec<DeliveryId>) {
        if deliveries.is_empty() {
            return;
        }
        let released = self.0.store.release(deliveries);
        // An error needs no retry: the store reports its permanent failure itself, and the claims of this process end
        // when the process ends.
        self.0.tasks.spawn_on(async move { drop(released.await) }, &self.0.runtime);
    }

    /// Loads retries when they are due, until the dispatcher stops or is dropped.
    pub(super) async fn watch_retries(inner: std::sync::Weak<Inner>) {
        loop {
            let Some(dispatcher) = inner.upgrade().map(Self) else { return };
            if dispatcher.lock().stopping {
                return;
            }
            let now_ms = dispatcher.0.clock.store_ms();
            for (function, stream, (held, limit)) in dispatcher.start_retry_loads(now_ms) {
                let due = dispatcher.0.store.due(function, stream, now_ms, held, limit).await;
                let (found, next_retry_ms) = match due {
                    Ok(due) => due,
                    Err(error) => {
                        tracing::warn!("cannot load due retries from the store; trying again: {error}");
                        (Vec::new(), Some(now_ms + STORE_RETRY.as_millis() as UnixMs))
                    }
                };
                dispatcher.change_lane(function, stream, |lane| lane.retries_loaded(found, next_retry_ms));
            }
            let wait = dispatcher.until_next_retry();
            let _ = tokio::time::timeout(wait, dispatcher.0.alarm.notified()).await;
        }
    }

    /// Starts a load for each lane whose next retry is due. Returns the lanes with their held deliveries
    /// and the limit of each load.
    fn start_retry_loads(&self, now_ms: UnixMs) -> Vec<(FunctionId, Stream, (HashSet<DeliveryId>, LoadLimit))> {
        let mut due = Vec::new();
        for (id, function) in self.lock().functions.iter_mut().filter(|(_, function)| function.concurrency > 0) {
            for stream in Stream::ALL {
                let lane = function.lane(stream);
                if lane.next_retry_ms().is_some_and(|at_ms| at_ms <= now_ms) {
                    due.push((*id, stream, lane.start_retry_load()));
                }
            }
        }
        due
    }

    /// Returns the time until the next retry is due, at most [`ALARM_MAX`].
    fn until_next_retry(&self) -> Duration {
        let next_ms = self.lock().functions.values().filter_map(Function::next_retry_ms).min();
        next_ms.map_or(ALARM_MAX, |at_ms| {
            let wait_ms = u64::try_from(at_ms.saturating_sub(self.0.clock.store_ms())).unwrap_or_default();
            Duration::from_millis(wait_ms).min(ALARM_MAX)
        })
    }
}
