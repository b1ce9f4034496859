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

/// Functions that an event may come through. A chain of this length is a loop: nobody draws one on purpose.
pub(super) const HOPS_MAX: u32 = 64;

/// Runs the function and commits how it ended; answers when it is tried again.
pub(super) async fn make(inner: &Inner, worker: &Worker, delivery: ReadyDelivery) -> Option<UnixMs> {
    let started_ms = inner.clock.now_ms();
    let attempt = delivery.attempts + 1;
    let ran = worker.runner.run(call(inner, &delivery, attempt)).await;
    let Ran { mut outcome, published, duration } = ran;
    let mut publishes = Vec::new();
    if outcome == Outcome::Done {
        match route(inner, &delivery, published) {
            Ok(routed) => publishes = routed,
            Err(failed) => outcome = failed,
        }
    }

    let ended_ms = inner.clock.now_ms();
    let age = Duration::from_millis(u64::try_from(ended_ms - delivery.since_ms).unwrap_or_default());
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
    commit(inner, Arc::new(Completion { delivery: delivery.id, record, verdict, publishes })).await
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
    let root = Some(cause.lineage.root.unwrap_or(cause.seq));
    let lineage = Lineage { cause: Some(delivery.id), root, hops, origin: cause.lineage.origin };
    let router = inner.bus.router();
    let routed = published.into_iter().map(|event| {
        let deliveries = router
            .route(&event, &Target::Matching)
            .map_err(|message| Outcome::Denied { message: format!("published an event that is not one: {message}") })?;
        Ok(NewEvent { event: Arc::new(event), lineage, deliveries })
    });
    routed.collect()
}

/// Commits the end of an attempt. While the disk is full the delivery keeps its place here and tries again.
async fn commit(inner: &Inner, completion: Arc<Completion>) -> Option<UnixMs> {
    let retry_at_ms = match completion.verdict {
        Verdict::RetryAt(at_ms) => Some(at_ms),
        Verdict::Done | Verdict::Dead(_) => None,
    };
    loop {
        match inner.store.complete(completion.clone()).await {
            Ok(()) => return retry_at_ms,
            Err(StoreError::Full) => tokio::time::sleep(STORE_RETRY).await,
            Err(error) => {
                // The store is gone for good and says so itself; the delivery is pending when it is opened again.
                tracing::debug!("an outcome was not committed: {error}");
                return None;
            }
        }
    }
}

/// A random share from 0 to 1.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1u64 << 53) as f64
}
