//! One attempt from its start to the commit of its end.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::measure::Measured;
use super::turns::Turn;
use super::{Call, Inner, Ran, STORE_RETRY, Worker};
use crate::bus::Target;
use crate::clock::UnixMs;
use crate::event::Event;
use crate::outcome::{self, Next, Outcome};
use crate::runtime_events;
use crate::state::{Place, Transaction};
use crate::store::{
    AttemptRecord, Completed, Completion, Lineage, NewEvent, ReadyDelivery, Result, Store, StoreError, Verdict,
};

/// Functions that an event may come through. A chain of this length is a loop: nobody draws one on purpose.
pub(super) const HOPS_MAX: u32 = 64;

/// Runs the function; answers how it ended, to be committed.
///
/// An attempt that read state which another changed meanwhile runs again, when it has its turn at it: it is the same
/// attempt still, and nothing is kept of how it went before. `changed` is what another changed the last time. The turn
/// is over when the next can see what this one wrote.
pub(super) async fn make<'a>(
    inner: &'a Inner,
    worker: &Worker,
    delivery: &ReadyDelivery,
    mut changed: Option<Place>,
) -> (Completion, Measured, Option<Turn<'a>>) {
    let mut turn: Option<Turn<'_>> = None;
    loop {
        if let Some(place) = changed
            && !turn.as_ref().is_some_and(|turn| turn.is_at(&place))
        {
            // One turn at a time: two that each wait for what the other has would wait for good.
            drop(turn.take());
            turn = Some(inner.turns.take(place).await);
        }
        let (mut completion, measured) = run(inner, worker, delivery).await;
        changed = stage(inner, &mut completion.state, turn.is_some()).err();
        if changed.is_none() {
            return (completion, measured, turn);
        }
        measured.runs_again(&worker.metrics);
    }
}

/// Shows others what the attempt writes. The error is what another changed, or is about to.
fn stage(inner: &Inner, state: &mut Transaction, has_turn: bool) -> std::result::Result<(), Place> {
    if state.is_empty() {
        return Ok(());
    }
    match inner.turns.taken(state) {
        Some(place) if !has_turn => Err(place),
        _ => inner.store.stage(state),
    }
}

/// Runs the function once.
async fn run(inner: &Inner, worker: &Worker, delivery: &ReadyDelivery) -> (Completion, Measured) {
    let (started_ms, attempt) = (inner.clock.now_ms(), delivery.attempts + 1);
    let call = call(inner, delivery, attempt);
    let mut measured = Measured::start(inner.bus.spans(), &worker.metrics.name, delivery, &call);
    let Ran { mut outcome, mut published, state, duration } = match &delivery.event.damage {
        None => worker.runner.run(call).await,
        Some(damage) => lost(damage),
    };
    let mut publishes = Vec::new();
    if outcome == Outcome::Done {
        measured.publishes(inner.bus.spans(), delivery, &mut published);
        match route(inner, delivery, published) {
            Ok(routed) => publishes = routed,
            Err(failed) => outcome = failed,
        }
    }
    let verdict = verdict(inner, worker, delivery, &outcome);
    if let Verdict::Dead(cause) = &verdict {
        publishes = dead(inner, worker, delivery, outcome.kind(), cause).await;
    }
    let state = match &verdict {
        Verdict::Done => state,
        // What it saw is why it is given up, so that has to hold. Another attempt sees for itself.
        Verdict::Dead(_) if !matches!(outcome, Outcome::Timeout { .. }) => state.only_reads(),
        Verdict::Dead(_) | Verdict::RetryAt(_) => Transaction::default(),
    };
    let record = AttemptRecord {
        attempt,
        started_ms,
        duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        outcome: outcome.kind().into(),
        message: outcome.message(),
    };
    (completion(delivery, record, verdict, publishes, state), measured)
}

/// How an attempt ends for which there is no event: another would find none either.
fn lost(damage: &str) -> Ran {
    let message = format!("{damage}; put a backup in place of the file, or purge this dead letter");
    let (published, state, duration) = (Vec::new(), Transaction::default(), Duration::ZERO);
    Ran { outcome: Outcome::Damaged { message }, published, state, duration }
}

/// An attempt that was done, but for the room in a bucket of its state.
pub(super) struct OverQuota {
    /// How it went until then.
    pub(super) record: AttemptRecord,
    /// Which bucket.
    pub(super) message: String,
}

/// What becomes of one.
pub(super) async fn over_quota(
    inner: &Inner,
    worker: &Worker,
    delivery: &ReadyDelivery,
    OverQuota { record, message }: OverQuota,
) -> Completion {
    let outcome = Outcome::Quota { message };
    let record = AttemptRecord { outcome: outcome.kind().into(), message: outcome.message(), ..record };
    let verdict = verdict(inner, worker, delivery, &outcome);
    let publishes = match &verdict {
        Verdict::Dead(cause) => dead(inner, worker, delivery, outcome.kind(), cause).await,
        Verdict::Done | Verdict::RetryAt(_) => Vec::new(),
    };
    completion(delivery, record, verdict, publishes, Transaction::default())
}

fn completion(
    delivery: &ReadyDelivery,
    record: AttemptRecord,
    verdict: Verdict,
    publishes: Vec<NewEvent>,
    state: Transaction,
) -> Completion {
    let (id, function, origin) = (delivery.id, delivery.function, delivery.event.lineage.origin);
    Completion { delivery: id, function, origin, record, verdict, publishes, state }
}

/// What is said of a delivery that is given up: nothing, when it came of such an event itself.
async fn dead(inner: &Inner, worker: &Worker, delivery: &ReadyDelivery, outcome: &str, cause: &str) -> Vec<NewEvent> {
    let ReadyDelivery { id, trigger, attempts, replay, event, .. } = delivery;
    let lineage = event.lineage;
    if lineage.origin == runtime_events::origin() {
        return Vec::new();
    }
    // What is parked is what the store has: the manifest may order by something else today.
    let stored = inner.store.delivery(*id).await.ok().flatten();
    let dead = runtime_events::Dead {
        instance: inner.store.instance(),
        delivery: *id,
        function: &worker.metrics.name,
        trigger,
        order_key: stored.as_ref().and_then(|stored| stored.order_key.as_deref()),
        replay: replay.is_some(),
        attempts: attempts + 1,
        outcome,
        cause,
        event,
    };
    let said = dead.event(inner.clock.now_ms());
    let deliveries = inner.bus.router().route(&said, &Target::Matching).unwrap_or_default();
    // No function made it, and it begins no circle: the hops begin anew.
    let root = Some(lineage.root.unwrap_or(event.seq));
    let lineage = Lineage { cause: Some(*id), root, hops: 0, origin: runtime_events::origin() };
    vec![NewEvent { event: Arc::new(said), lineage, deliveries }]
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
fn route(
    inner: &Inner,
    delivery: &ReadyDelivery,
    published: Vec<Event>,
) -> std::result::Result<Vec<NewEvent>, Outcome> {
    if published.is_empty() {
        return Ok(Vec::new());
    }
    let cause = &delivery.event;
    let hops = cause.lineage.hops + 1;
    if hops > HOPS_MAX {
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
pub(super) async fn commit_when_there_is_room(store: &dyn Store, completion: &Arc<Completion>) -> Result<Completed> {
    loop {
        tokio::time::sleep(STORE_RETRY).await;
        match store.complete(completion.clone()).await {
            Err(StoreError::Full) => {}
            // When the store is gone for good it says so itself; the delivery is pending when it is opened again.
            other => return other,
        }
    }
}

/// A random share from 0 to 1.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1u64 << 53) as f64
}
