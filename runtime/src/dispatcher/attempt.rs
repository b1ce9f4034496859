//! One attempt from its start to the commit of its end.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::turns::Turn;
use super::{COMPLETION_BYTES, Call, Inner, Ran, STORE_RETRY, Worker};
use crate::bus::Target;
use crate::clock::UnixMs;
use crate::event::Event;
use crate::outcome::{self, Next, Outcome};
use crate::state::{Place, Transaction};
use crate::store::{
    AttemptRecord, Completed, Completion, Lineage, NewEvent, ReadyDelivery, Store, StoreError, Verdict,
};

/// Functions that an event may come through. A chain of this length is a loop: nobody draws one on purpose.
pub(super) const HOPS_MAX: u32 = 64;

/// How far the end of an attempt is.
pub(super) enum End {
    /// The store has it, and tells when it is committed.
    Handed,
    /// It is committed; when the delivery is tried again.
    Committed(Option<UnixMs>),
}

/// Runs the function and has the store commit how it ended. An attempt without state cannot be in conflict with
/// another: its end is handed over, and nobody waits for the commit.
///
/// An attempt that read state which another changed before it was committed runs again: it is the same attempt still,
/// and nothing is kept of how it went before.
pub(super) async fn make(inner: &Inner, worker: &Worker, delivery: &ReadyDelivery) -> End {
    let mut turn: Option<Turn<'_>> = None;
    loop {
        let changed = match run(inner, worker, delivery, turn.is_some()).await {
            Ok(end) => return end,
            Err(changed) => changed,
        };
        if !turn.as_ref().is_some_and(|turn| turn.is_at(&changed)) {
            // One turn at a time: two that each wait for what the other has would wait for good.
            drop(turn);
            turn = Some(inner.turns.take(changed).await);
        }
    }
}

/// Runs the function once. The error is what it read and another changed: nothing was committed.
async fn run(inner: &Inner, worker: &Worker, delivery: &ReadyDelivery, has_turn: bool) -> Result<End, Place> {
    let (started_ms, attempt) = (inner.clock.now_ms(), delivery.attempts + 1);
    let Ran { mut outcome, published, state, duration } = worker.runner.run(call(inner, delivery, attempt)).await;
    let mut publishes = Vec::new();
    if outcome == Outcome::Done {
        match route(inner, delivery, published) {
            Ok(routed) => publishes = routed,
            Err(failed) => outcome = failed,
        }
    }
    let verdict = verdict(inner, worker, delivery, &outcome);
    let state = match &verdict {
        Verdict::Done => state,
        // What it saw is why it is given up, so that has to hold. Another attempt sees for itself.
        Verdict::Dead(_) if !matches!(outcome, Outcome::Timeout { .. }) => state.only_reads(),
        Verdict::Dead(_) | Verdict::RetryAt(_) => Transaction::default(),
    };
    if !has_turn && let Some(place) = inner.turns.taken(&state) {
        return Err(place);
    }
    let record = |outcome: &Outcome| AttemptRecord {
        attempt,
        started_ms,
        duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        outcome: outcome.kind().into(),
        message: outcome.message(),
    };
    let (id, function) = (delivery.id, delivery.function);
    let completion = Completion { delivery: id, function, record: record(&outcome), verdict, publishes, state };
    if completion.state.is_empty() {
        hand_over(inner, completion).await;
        return Ok(End::Handed);
    }
    match commit(inner, completion).await {
        Ok(retry_at_ms) => Ok(End::Committed(retry_at_ms)),
        Err(Uncommitted::Conflict(place)) => Err(place),
        Err(Uncommitted::OverQuota(message)) => {
            let outcome = Outcome::Quota { message };
            let (record, verdict) = (record(&outcome), self::verdict(inner, worker, delivery, &outcome));
            let (publishes, state) = (Vec::new(), Transaction::default());
            hand_over(inner, Completion { delivery: id, function, record, verdict, publishes, state }).await;
            Ok(End::Handed)
        }
    }
}

async fn hand_over(inner: &Inner, completion: Completion) {
    inner.uncommitted.fetch_add(weight_of(&completion), Ordering::Relaxed);
    // A store that is gone for good says so itself; the delivery is pending when it is opened again.
    let _ = inner.store.settle(Arc::new(completion)).await;
}

/// What a completion weighs until it is committed, in bytes.
pub(super) fn weight_of(completion: &Completion) -> usize {
    COMPLETION_BYTES + completion.publishes.iter().map(|new| new.event.size()).sum::<usize>()
}

fn verdict(inner: &Inner, worker: &Worker, delivery: &ReadyDelivery, outcome: &Outcome) -> Verdict {
    let ended_ms = inner.clock.now_ms();
    let age = Duration::from_millis(u64::try_from(ended_ms - delivery.since_ms).unwrap_or_default());
    let counted = (delivery.attempts + 1).saturating_sub(delivery.attempts_forgiven);
    match outcome::decide(&worker.retry, outcome, counted, age, jitter) {
        Next::Done => Verdict::Done,
        Next::RetryAfter(wait) => Verdict::RetryAt(ended_ms + i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 2)),
        Next::Dead { cause } => Verdict::Dead(cause),
    }
}

fn call(inner: &Inner, delivery: &ReadyDelivery, attempt: u32) -> Call {
    Call {
        event: delivery.event.event.clone(),
        delivery: delivery.id,
        delivery_id: format!("{}-{}", inner.store.instance(), delivery.id),
        attempt,
        trigger: delivery.trigger.clone(),
        replay: delivery.replay.is_some(),
    }
}

/// The published events with who is owed them.
fn route(inner: &Inner, delivery: &ReadyDelivery, published: Vec<Event>) -> Result<Vec<NewEvent>, Outcome> {
    let cause = &delivery.event;
    let hops = cause.lineage.hops + 1;
    if hops > HOPS_MAX && !published.is_empty() {
        return Err(Outcome::Loop { hops: HOPS_MAX });
    }
    let Lineage { root, origin, .. } = cause.lineage;
    let lineage = Lineage { cause: Some(delivery.id), root: Some(root.unwrap_or(cause.seq)), hops, origin };
    let router = inner.bus.router();
    let routed = published.into_iter().map(|event| {
        let deliveries = router
            .route(&event, &Target::Matching)
            .map_err(|message| Outcome::Denied { message: format!("published an event that is not one: {message}") })?;
        Ok(NewEvent { event: Arc::new(event), lineage, deliveries })
    });
    routed.collect()
}

/// Why the end of an attempt does not stand.
enum Uncommitted {
    /// It read what another changed.
    Conflict(Place),
    /// A bucket would hold more than it may.
    OverQuota(String),
}

/// Commits the end of an attempt; answers when another follows. While the disk is full the delivery keeps its place
/// here and tries again.
async fn commit(inner: &Inner, completion: Completion) -> Result<Option<UnixMs>, Uncommitted> {
    let completion = Arc::new(completion);
    loop {
        match inner.store.complete(completion.clone()).await {
            Ok(Completed::Committed) => break,
            Ok(Completed::Conflict(place)) => return Err(Uncommitted::Conflict(place)),
            Ok(Completed::OverQuota(refusal)) => return Err(Uncommitted::OverQuota(refusal)),
            Err(StoreError::Full) => tokio::time::sleep(STORE_RETRY).await,
            Err(error) => {
                // The store is gone for good and says so itself; the delivery is pending when it is opened again.
                tracing::debug!("an outcome was not committed: {error}");
                return Ok(None);
            }
        }
    }
    Ok(retry_at_ms(&completion))
}

/// When the delivery is tried again.
pub(super) fn retry_at_ms(completion: &Completion) -> Option<UnixMs> {
    match completion.verdict {
        Verdict::RetryAt(at_ms) => Some(at_ms),
        Verdict::Done | Verdict::Dead(_) => None,
    }
}

/// Commits an end without state that the disk had no room for. Until it has, the delivery keeps its place.
pub(super) async fn commit_when_there_is_room(store: &dyn Store, completion: &Arc<Completion>) {
    loop {
        tokio::time::sleep(STORE_RETRY).await;
        if !matches!(store.complete(completion.clone()).await, Err(StoreError::Full)) {
            return;
        }
    }
}

/// A random share from 0 to 1.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1u64 << 53) as f64
}
