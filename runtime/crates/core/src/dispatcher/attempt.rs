//! One attempt: run the function, stage its state writes, and build the completion to commit.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::measure::Measurement;
use super::state_locks::StateLock;
use super::{AttemptResult, Call, FunctionSpec, Inner, STORE_RETRY};
use crate::bus::Target;
use crate::runtime_events;
use evoke_model::clock::UnixMs;
use evoke_model::event::Event;
use evoke_model::outcome;
use evoke_model::outcome::{Next, Outcome};
use evoke_model::recording::NewRecording;
use evoke_model::state::{StateItem, Transaction};
use evoke_model::{
    AttemptRecord, Completion, DamagedEvent, DeliveryId, HOPS_MAX, Lineage, NewEvent, ReadyDelivery, Seq, StoredEvent,
    Verdict,
};
use evoke_store::running::{EXITS_MAX, Recorded, Work};

/// The number of functions that a message lists from each end of a chain.
const CHAIN_PART: usize = 8;

/// How a run ended.
pub(super) enum Ran<'a> {
    /// The attempt ended: its completion, its measurement, and the lock to hold until the next attempt can see the
    /// writes of this attempt.
    Ended(Box<(Completion, Measurement, Option<StateLock<'a>>)>),
    /// The attempt does not count and leaves no record: it was a failed probe of an endpoint that is down, or the
    /// endpoint is gone for good ([`Outcome::EndpointGone`]). The delivery stays pending.
    Uncounted(Measurement),
}

/// Runs the function and returns the completion to commit.
///
/// If another attempt changed state that this attempt had read, the result of the run is discarded. The attempt then
/// acquires the lock on that state and runs again. The second run still counts as the same attempt.
///
/// `exits` counts how often the process ended without a clean stop while the delivery ran.
///
/// `changed` is the state that another attempt had changed. It is set if the commit of an earlier run of this attempt
/// conflicted. The caller holds the returned lock until the next attempt can see this attempt's writes.
pub(super) async fn run<'a>(
    inner: &'a Inner,
    spec: &FunctionSpec,
    delivery: &ReadyDelivery,
    mut changed: Option<StateItem>,
    exits: u32,
) -> Ran<'a> {
    let mut state_lock: Option<StateLock<'_>> = None;
    loop {
        if let Some(item) = changed
            && !state_lock.as_ref().is_some_and(|lock| lock.is_for(&item))
        {
            // An attempt holds one lock at a time: otherwise two attempts could wait for each other's lock forever.
            drop(state_lock.take());
            state_lock = Some(inner.state_locks.acquire(item).await);
        }
        let (mut completion, measurement) = match run_once(inner, spec, delivery, exits).await {
            Ok(ended) => ended,
            Err(measurement) => return Ran::Uncounted(measurement),
        };
        changed = stage(inner, &mut completion.state, state_lock.is_some()).err();
        if changed.is_none() {
            return Ran::Ended(Box::new((completion, measurement, state_lock)));
        }
        measurement.runs_again(&spec.metrics);
    }
}

/// Makes the attempt's writes visible to other attempts. Fails if another attempt has changed state that this attempt
/// read. If this attempt holds no lock (`has_lock` is false), also fails if another attempt has locked such state,
/// because that attempt will most likely change it. The error is the changed or locked state.
fn stage(inner: &Inner, state: &mut Transaction, has_lock: bool) -> Result<(), StateItem> {
    if state.is_empty() {
        return Ok(());
    }
    match inner.state_locks.locked_item(state) {
        Some(item) if !has_lock => Err(item),
        _ => inner.store.stage(state),
    }
}

struct Started {
    attempt: u32,
    measurement: Measurement,
}

impl Started {
    fn now(inner: &Inner, spec: &FunctionSpec, delivery: &ReadyDelivery) -> (Self, Call) {
        let attempt = delivery.attempts + 1;
        let mut call = new_call(inner, delivery, attempt);
        let measurement = Measurement::start(inner.bus.spans(), &spec.metrics.name, delivery, &call);
        call.trace = measurement.trace_context();
        (Self { attempt, measurement }, call)
    }
}

/// Runs the function once. Returns the measurement as the error if the attempt does not count.
async fn run_once(
    inner: &Inner,
    spec: &FunctionSpec,
    delivery: &ReadyDelivery,
    exits: u32,
) -> Result<(Completion, Measurement), Measurement> {
    let (started, call) = Started::now(inner, spec, delivery);
    let result = match &delivery.event {
        Ok(_) if exits >= EXITS_MAX => not_run(Outcome::Crashed { exits }),
        Ok(_) if spec.runner.circuit().is_some() => {
            let result = spec.runner.run(call).await;
            if !inner.endpoint_ended(spec, delivery, &result) {
                return Err(started.measurement);
            }
            result
        }
        Ok(_) => {
            let (id, function, attempt) = (delivery.id, &*spec.metrics.name, started.attempt);
            let work = Work::Delivery { id, attempt, function, suspect: exits > 0 };
            let _recorded = Recorded::start(&inner.running, &work);
            spec.runner.run(call).await
        }
        Err(damaged) => damaged_event_result(damaged),
    };
    Ok(end(inner, spec, delivery, started, result).await)
}

/// Ends a delivery without a run of the function. The outcome must make the delivery a dead letter, because of the kind
/// of the outcome or because of the age of the delivery.
pub(super) async fn give_up(
    inner: &Inner,
    spec: &FunctionSpec,
    delivery: &ReadyDelivery,
    outcome: Outcome,
) -> (Completion, Measurement) {
    let (started, _) = Started::now(inner, spec, delivery);
    end(inner, spec, delivery, started, not_run(outcome)).await
}

/// Builds the completion of an attempt from its result.
async fn end(
    inner: &Inner,
    spec: &FunctionSpec,
    delivery: &ReadyDelivery,
    started: Started,
    result: AttemptResult,
) -> (Completion, Measurement) {
    let Started { attempt, mut measurement } = started;
    let ended_ms = inner.clock.now_ms();
    measurement.ran(inner.clock.store_ms());
    let AttemptResult { mut outcome, mut published, state, duration, note, recording, responded: _ } = result;
    let mut publishes = Vec::new();
    if outcome == Outcome::Done
        && let Ok(cause) = &delivery.event
    {
        measurement.publishes(inner.bus.spans(), &cause.event, &mut published);
        match route(inner, delivery.id, cause, published).await {
            Ok(routed) => publishes = routed,
            Err(Outcome::Loop { message }) => outcome = loop_of(inner, delivery.id, &message).await,
            Err(failed) => outcome = failed,
        }
    }
    let verdict = verdict(inner, spec, delivery, &outcome);
    if let Verdict::Dead(cause) = &verdict {
        publishes = dead_letter_event(inner, spec, delivery, outcome.kind(), cause).await;
    }
    let state = match &verdict {
        Verdict::Done => state,
        // The attempt may have failed because of the state that it read. If that state was outdated, the delivery must
        // not become a dead letter. So the commit checks that the reads still hold. An attempt that is retried needs no
        // check, because the retry reads the state again. The reads of a timed-out attempt are not checked either.
        Verdict::Dead(_) if !matches!(outcome, Outcome::Timeout { .. }) => state.without_writes(),
        Verdict::Dead(_) | Verdict::RetryAt(_) => Transaction::default(),
    };
    let record = AttemptRecord {
        attempt,
        started_ms: ended_ms - UnixMs::try_from(duration.as_millis()).unwrap_or_default(),
        duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        outcome: outcome.kind().into(),
        message: outcome.message().or(note),
    };
    let completion = Completion { recording, ..completion(delivery, record, verdict, publishes, state) };
    (completion, measurement)
}

/// The result of an attempt whose event is damaged. The delivery is not retried, because the event would still be
/// damaged.
fn damaged_event_result(damaged: &DamagedEvent) -> AttemptResult {
    let message = format!("{damaged}; restore the file from a backup, or purge this dead letter");
    not_run(Outcome::Damaged { message })
}

/// The result of an attempt that ended without a run of the function.
fn not_run(outcome: Outcome) -> AttemptResult {
    let (published, state, duration) = (Vec::new(), Transaction::default(), Duration::ZERO);
    AttemptResult { outcome, published, state, duration, note: None, recording: None, responded: false }
}

/// Returns the outcome of an attempt whose chain of events reached a limit. `limit` describes this limit. The message
/// also lists the functions of the chain.
pub(super) async fn loop_of(inner: &Inner, delivery: DeliveryId, limit: &str) -> Outcome {
    let chain = inner.store.chain(delivery).await.unwrap_or_default();
    let message = format!("{limit}; the functions publish to each other in a loop: {}", describe_chain(&chain));
    Outcome::Loop { message }
}

/// Lists the functions of a chain in order. Of a long chain, only its beginning and its end are listed.
fn describe_chain(chain: &[String]) -> String {
    let (first, last) = match (chain.get(..CHAIN_PART), chain.get(chain.len().saturating_sub(CHAIN_PART)..)) {
        (Some(first), Some(last)) if chain.len() > 2 * CHAIN_PART => (first, last),
        _ => return chain.join(" → "),
    };
    let left_out = chain.len() - 2 * CHAIN_PART;
    format!("{} → … {left_out} more … → {}", first.join(" → "), last.join(" → "))
}

/// Builds the completion of an attempt whose effects the store refused. The function succeeded, but the attempt counts
/// as failed with `outcome`.
pub(super) async fn refused(
    inner: &Inner,
    spec: &FunctionSpec,
    delivery: &ReadyDelivery,
    (record, recording): (AttemptRecord, Option<NewRecording>),
    outcome: Outcome,
) -> Completion {
    let record = AttemptRecord { outcome: outcome.kind().into(), message: outcome.message(), ..record };
    let verdict = verdict(inner, spec, delivery, &outcome);
    let publishes = match &verdict {
        Verdict::Dead(cause) => dead_letter_event(inner, spec, delivery, outcome.kind(), cause).await,
        Verdict::Done | Verdict::RetryAt(_) => Vec::new(),
    };
    Completion { recording, ..completion(delivery, record, verdict, publishes, Transaction::default()) }
}

fn completion(
    delivery: &ReadyDelivery,
    record: AttemptRecord,
    verdict: Verdict,
    publishes: Vec<NewEvent>,
    state: Transaction,
) -> Completion {
    let (id, function, root, origin) = (delivery.id, delivery.function, root(delivery), delivery.origin);
    Completion { delivery: id, function, root, origin, record, verdict, publishes, state, recording: None }
}

/// Returns the event from outside that started the chain of the delivered event. If the delivered event is damaged, its
/// chain is unknown, so the damaged event is returned.
fn root(delivery: &ReadyDelivery) -> Seq {
    let event = delivery.event.as_ref();
    event.map_or_else(|damaged| damaged.seq, |stored| stored.lineage.root.unwrap_or(stored.seq))
}

/// Returns the runtime event that reports a dead letter, with its deliveries. Returns an empty list if a runtime event
/// caused the delivery: the report would be another runtime event, whose delivery could become a dead letter, too.
async fn dead_letter_event(
    inner: &Inner,
    spec: &FunctionSpec,
    delivery: &ReadyDelivery,
    outcome: &str,
    cause: &str,
) -> Vec<NewEvent> {
    let ReadyDelivery { id, trigger, attempts, replay, origin, event, .. } = delivery;
    if *origin == runtime_events::origin() {
        return Vec::new();
    }
    // The order key is read from the store and not computed from the event: the manifest may define another order key
    // by now.
    let order_key = order_key(inner, *id).await;
    let dead_letter = runtime_events::DeadLetter {
        instance: inner.store.instance(),
        delivery: *id,
        function: &spec.metrics.name,
        trigger,
        order_key: order_key.as_deref(),
        replay: replay.is_some(),
        attempts: attempts + 1,
        outcome,
        cause,
        event: event.as_deref(),
    };
    let report = dead_letter.to_event(inner.clock.now_ms());
    let deliveries = inner.bus.router().route(&report, None, &Target::Matching).unwrap_or_default();
    // No function published this event, and it cannot be part of a loop, so the hops start at 0.
    let lineage = Lineage { cause: Some(*id), root: Some(root(delivery)), hops: 0, origin: runtime_events::origin() };
    vec![NewEvent { event: Arc::new(report), lineage, deliveries }]
}

/// Returns the order key of a delivery that becomes a dead letter. After a temporary error of the store, reads the key
/// again: the report of the dead letter is stored only once, and must name the blocked key. Returns `None` after any
/// other error: either the store has failed and cannot store the report, or the delivery is damaged.
async fn order_key(inner: &Inner, delivery: DeliveryId) -> Option<String> {
    loop {
        match inner.store.order_key(delivery).await {
            Ok(order_key) => return order_key,
            Err(error) if error.is_temporary() => tokio::time::sleep(STORE_RETRY).await,
            Err(error) => {
                tracing::error!("cannot read the order key of delivery {delivery} for its dead-letter event: {error}");
                return None;
            }
        }
    }
}

/// Returns the age of a delivery at a store time. The limit `max_age` applies to this age.
pub(super) fn age(at_ms: UnixMs, delivery: &ReadyDelivery) -> Duration {
    Duration::from_millis(u64::try_from(at_ms - delivery.since_ms).unwrap_or_default())
}

fn verdict(inner: &Inner, spec: &FunctionSpec, delivery: &ReadyDelivery, outcome: &Outcome) -> Verdict {
    let ended_ms = inner.clock.store_ms();
    let age = age(ended_ms, delivery);
    let counted = (delivery.attempts + 1).saturating_sub(delivery.attempts_forgiven);
    match outcome::decide(&spec.retry, outcome, counted, age, jitter) {
        Next::Done => Verdict::Done,
        Next::RetryAfter(wait) => Verdict::RetryAt(ended_ms + i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 2)),
        Next::Dead { cause } => Verdict::Dead(cause),
    }
}

fn new_call(inner: &Inner, delivery: &ReadyDelivery, attempt: u32) -> Call {
    Call {
        // No function runs with a damaged event. The call is then only used to describe the attempt.
        event: delivery.event.as_ref().map_or_else(|_| Arc::default(), |stored| stored.event.clone()),
        delivery: delivery.id,
        delivery_id: format!("{}-{}", inner.store.instance(), delivery.id),
        attempt,
        trigger: delivery.trigger.clone(),
        replay: delivery.replay.is_some(),
        hops: delivery.event.as_ref().map_or(0, |stored| stored.lineage.hops),
        trace: None,
    }
}

/// Adds the lineage and the deliveries to published events. Returns [`Outcome::Loop`] as the error when the chain
/// exceeds the hop limit, [`Outcome::Denied`] for an invalid event, and [`Outcome::Quota`] if an event has a
/// `notbefore` in the future and the schedule has no room for it.
///
/// The attempt holds no turn and no instance any more while large events are matched on other threads. It keeps its
/// place and the lock on its state, because its writes are not visible yet.
async fn route(
    inner: &Inner,
    delivery: DeliveryId,
    cause: &StoredEvent,
    published: Vec<Event>,
) -> Result<Vec<NewEvent>, Outcome> {
    if published.is_empty() {
        return Ok(Vec::new());
    }
    let hops = cause.lineage.hops + 1;
    if hops > HOPS_MAX {
        return Err(Outcome::Loop {
            message: format!("the chain of events reached the limit of {HOPS_MAX} functions"),
        });
    }
    let root = Some(cause.lineage.root.unwrap_or(cause.seq));
    let lineage = Lineage { cause: Some(delivery), root, hops, origin: cause.lineage.origin };
    let denied = |e: &str| Outcome::Denied { message: format!("the function published an invalid event: {e}") };
    let now_ms = inner.clock.now_ms();
    for event in &published {
        event.check_not_before(now_ms).map_err(|e| denied(&e.to_string()))?;
        // A scheduled event takes room in the store until it is due, for up to a year. So the limit of the schedule
        // also applies to events that functions publish.
        if event.not_before_ms().is_some_and(|due_ms| due_ms > now_ms) {
            let room = inner.bus.check_schedule_room(lineage.origin);
            room.map_err(|full| Outcome::Quota { message: format!("the published event was not stored: {full}") })?;
        }
    }
    inner.bus.route_published(published, lineage).await.map_err(|e| denied(&e))
}

/// Returns a random number from 0 to 1 for the retry jitter.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1u64 << 53) as f64
}
