//! One attempt from its start to the commit of its end.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::{Call, Inner, Ran, STORE_RETRY, Worker};
use crate::bus::Target;
use crate::clock::UnixMs;
use crate::event::Event;
use crate::outcome::{self, Next, Outcome};
use crate::store::{AttemptRecord, Completion, Lineage, NewEvent, ReadyDelivery, Store, StoreError, Verdict};

/// Functions that an event may come through. A chain of this length is a loop: nobody draws one on purpose.
pub(super) const HOPS_MAX: u32 = 64;

/// Runs the function; answers how it ended, to be committed.
pub(super) async fn make(inner: &Inner, worker: &Worker, delivery: &ReadyDelivery) -> Completion {
    let started_ms = inner.clock.now_ms();
    let attempt = delivery.attempts + 1;
    let ran = worker.runner.run(call(inner, delivery, attempt)).await;
    let Ran { mut outcome, published, duration } = ran;
    let mut publishes = Vec::new();
    if outcome == Outcome::Done {
        match route(inner, delivery, published) {
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
    Completion { delivery: delivery.id, function: delivery.function, record, verdict, publishes }
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

/// When the delivery is tried again.
pub(super) fn retry_at_ms(completion: &Completion) -> Option<UnixMs> {
    match completion.verdict {
        Verdict::RetryAt(at_ms) => Some(at_ms),
        Verdict::Done | Verdict::Dead(_) => None,
    }
}

/// Commits an end that the disk had no room for. Until it has, the delivery keeps its place and tries again.
pub(super) async fn commit_when_there_is_room(store: &dyn Store, completion: &Arc<Completion>) {
    loop {
        tokio::time::sleep(STORE_RETRY).await;
        match store.complete(completion.clone()).await {
            Err(StoreError::Full) => {}
            // When the store is gone for good it says so itself; the delivery is pending when it is opened again.
            Ok(()) | Err(StoreError::Failed(_) | StoreError::Closed) => return,
        }
    }
}

/// A random share from 0 to 1.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1u64 << 53) as f64
}
