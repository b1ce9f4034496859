//! One attempt from its start to the commit of its end.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::{Call, Inner, Ran, STORE_RETRY, Worker};
use crate::bus::Target;
use crate::clock::UnixMs;
use crate::event::Event;
use crate::outcome::{self, Next, Outcome};
use crate::store::{AttemptRecord, Completion, Lineage, NewEvent, ReadyDelivery, StoreError, Verdict};
use crate::telemetry::{Attempting, Live};

/// Functions that an event may come through. A chain of this length is a loop: nobody draws one on purpose.
pub(super) const HOPS_MAX: u32 = 64;

/// Runs the function and commits how it ended; answers when it is tried again.
pub(super) async fn make(inner: &Inner, worker: &Worker, delivery: ReadyDelivery) -> Option<UnixMs> {
    let started_ms = inner.clock.now_ms();
    let attempt = delivery.attempts + 1;
    let metrics = &worker.metrics;
    if attempt == 1 {
        metrics.wait.observe(between(delivery.event.accepted_ms, started_ms));
    }
    let call = call(inner, &delivery, attempt);
    let span = inner.bus.spans().attempt(&Attempting {
        function: &metrics.name,
        delivery_id: &call.delivery_id,
        attempt,
        trigger: &delivery.trigger,
        event: &call.event,
    });
    let Ran { mut outcome, mut published, duration } = worker.runner.run(call).await;
    let mut publishes = Vec::new();
    // They end when what was published is committed.
    let mut publishing = Vec::new();
    if outcome == Outcome::Done {
        publishing = inner.bus.spans().publish(&span, &delivery.event.event, &mut published);
        match route(inner, &delivery, published) {
            Ok(routed) => publishes = routed,
            Err(failed) => {
                outcome = failed;
                publishing.drain(..).for_each(Live::not_committed);
            }
        }
    }
    metrics.attempted(&outcome, duration);

    let ended_ms = inner.clock.now_ms();
    let age = between(delivery.since_ms, ended_ms);
    let counted = attempt.saturating_sub(delivery.attempts_forgiven);
    let verdict = match outcome::decide(&worker.retry, &outcome, counted, age, jitter) {
        Next::Done => Verdict::Done,
        Next::RetryAfter(wait) => Verdict::RetryAt(ended_ms + i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 2)),
        Next::Dead { cause } => Verdict::Dead(cause),
    };
    let record = AttemptRecord {
        attempt,
        started_ms,
        duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        outcome: outcome.kind().into(),
        message: outcome.message(),
    };
    let completion = Arc::new(Completion { delivery: delivery.id, record, verdict, publishes });
    let committed = commit(inner, completion.clone()).await;
    if !committed {
        publishing.into_iter().chain([span]).for_each(Live::not_committed);
        return None;
    }
    drop(publishing);
    let retry_at_ms = match completion.verdict {
        Verdict::Done => {
            metrics.done.increment();
            metrics.published.add(completion.publishes.len() as u64);
            metrics.latency.observe(between(delivery.event.accepted_ms, ended_ms));
            None
        }
        Verdict::RetryAt(at_ms) => {
            metrics.retried.increment();
            Some(at_ms)
        }
        Verdict::Dead(_) => {
            metrics.dead.increment();
            None
        }
    };
    span.ended(&outcome, &completion.verdict, duration);
    retry_at_ms
}

/// None when the clock was set back meanwhile.
fn between(start_ms: UnixMs, end_ms: UnixMs) -> Duration {
    Duration::from_millis(u64::try_from(end_ms - start_ms).unwrap_or_default())
}

fn call(inner: &Inner, delivery: &ReadyDelivery, attempt: u32) -> Call {
    Call {
        event: delivery.event.event.clone(),
        delivery: delivery.id,
        delivery_id: format!("{}-{}", inner.store.instance(), delivery.id),
        attempt,
        trigger: delivery.trigger.clone(),
    }
}

/// The published events with who is owed them.
fn route(inner: &Inner, delivery: &ReadyDelivery, published: Vec<Event>) -> Result<Vec<NewEvent>, Outcome> {
    let cause = &delivery.event;
    let hops = cause.lineage.hops + 1;
    if hops > HOPS_MAX && !published.is_empty() {
        return Err(Outcome::Loop { hops: HOPS_MAX });
    }
    let lineage = Lineage { cause: Some(delivery.id), root: Some(cause.lineage.root.unwrap_or(cause.seq)), hops };
    let router = inner.bus.router();
    let routed = published.into_iter().map(|event| {
        let deliveries = router
            .route(&event, &Target::Matching)
            .map_err(|message| Outcome::Denied { message: format!("published an event that is not one: {message}") })?;
        Ok(NewEvent { event: Arc::new(event), lineage, deliveries })
    });
    routed.collect()
}

/// Commits the end of an attempt, and says whether it did. While the disk is full the delivery keeps its place here
/// and tries again.
async fn commit(inner: &Inner, completion: Arc<Completion>) -> bool {
    loop {
        match inner.store.complete(completion.clone()).await {
            Ok(()) => return true,
            Err(StoreError::Full) => tokio::time::sleep(STORE_RETRY).await,
            Err(error) => {
                // The store is gone for good and says so itself; the delivery is pending when it is opened again.
                tracing::debug!("an outcome was not committed: {error}");
                return false;
            }
        }
    }
}

/// A random share from 0 to 1.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1u64 << 53) as f64
}
