//! Rates, errors and percentiles of the functions over the last minutes, the last hour and the last day.
//!
//! Every ten seconds, the counters of the functions are read, and their increases since the last reading are stored in
//! memory, in three series. The steps of each series are intervals of a fixed length. A step takes no memory for
//! functions that had no attempts in it. A restart loses all counts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::request::Params;
use crate::admin::{Admin, ApiResult};
use evoke_http::problem::Problem;
use evoke_model::clock::{UnixMs, rfc3339};
use evoke_telemetry::{FunctionMetrics, Histogram};

/// How often the counters are read.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// The range of each series and the length of its steps, both in seconds. The series have 90, 60 and 288 steps.
const SERIES: [(u64, u64); 3] = [(15 * 60, 10), (60 * 60, 60), (24 * 60 * 60, 5 * 60)];
/// Maximum number of functions in a step. A step with this many functions takes about 40 KiB. The step does not count
/// further functions.
const FUNCTIONS_MAX: usize = 256;

/// The counts of the last day.
#[derive(Default)]
pub(in crate::admin) struct History(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// The values of the counters when they were last read.
    last: BTreeMap<Arc<str>, Counts>,
    last_accepted: u64,
    series: [VecDeque<Step>; SERIES.len()],
}

/// The counts of one step.
#[derive(Debug, Default, Clone)]
struct Step {
    start_ms: UnixMs,
    accepted: u64,
    functions: BTreeMap<Arc<str>, Counts>,
}

/// Counts of a function.
#[derive(Debug, Default, Clone, PartialEq)]
struct Counts {
    done: u64,
    retried: u64,
    dead: u64,
    published: u64,
    /// Number of attempts in each bucket of the histogram of durations.
    durations: Vec<u32>,
}

impl Counts {
    fn read(metrics: &FunctionMetrics) -> Self {
        let FunctionMetrics { done, retried, dead, published, duration, .. } = metrics;
        // The cast wraps. The increases are still right, as long as a step has fewer than 2^32 attempts.
        let durations = duration.read().buckets.into_iter().map(|(_, count)| count as u32).collect();
        Self { done: done.get(), retried: retried.get(), dead: dead.get(), published: published.get(), durations }
    }

    fn since(&self, before: &Self) -> Self {
        let earlier = before.durations.iter().copied().chain(std::iter::repeat(0));
        Self {
            done: self.done.wrapping_sub(before.done),
            retried: self.retried.wrapping_sub(before.retried),
            dead: self.dead.wrapping_sub(before.dead),
            published: self.published.wrapping_sub(before.published),
            durations: self.durations.iter().zip(earlier).map(|(now, then)| now.wrapping_sub(then)).collect(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.done += other.done;
        self.retried += other.retried;
        self.dead += other.dead;
        self.published += other.published;
        self.durations.resize(self.durations.len().max(other.durations.len()), 0);
        self.durations.iter_mut().zip(&other.durations).for_each(|(sum, count)| *sum = sum.saturating_add(*count));
    }

    fn is_zero(&self) -> bool {
        self.done == 0 && self.retried == 0 && self.dead == 0 && self.durations.iter().all(|count| *count == 0)
    }
}

impl History {
    /// Reads the counters, and adds their increases since the last reading to all series.
    fn sample(&self, now_ms: UnixMs, accepted: u64, functions: &[Arc<FunctionMetrics>]) {
        let mut inner = self.lock();
        let mut step = Step { start_ms: now_ms, ..Step::default() };
        step.accepted = accepted.saturating_sub(std::mem::replace(&mut inner.last_accepted, accepted));
        for metrics in functions {
            let now = Counts::read(metrics);
            let difference = now.since(inner.last.get(&metrics.name).unwrap_or(&Counts::default()));
            if !difference.is_zero() && step.functions.len() < FUNCTIONS_MAX {
                step.functions.insert(metrics.name.clone(), difference);
            }
            inner.last.insert(metrics.name.clone(), now);
        }
        for (series, (range_s, step_s)) in inner.series.iter_mut().zip(SERIES) {
            let is_same_step = |last: &Step| now_ms.div_euclid(ms(step_s)) == last.start_ms.div_euclid(ms(step_s));
            match series.back_mut().filter(|last| is_same_step(last)) {
                Some(last) => last.add(&step),
                None => series.push_back(step.clone()),
            }
            // The number of steps is limited here, not their age, because the wall clock may jump.
            while series.len() as u64 > range_s / step_s {
                series.pop_front();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Step {
    fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        for (name, counts) in &other.functions {
            if self.functions.len() < FUNCTIONS_MAX || self.functions.contains_key(name) {
                self.functions.entry(name.clone()).or_default().add(counts);
            }
        }
    }
}

fn ms(seconds: u64) -> UnixMs {
    UnixMs::try_from(seconds).unwrap_or(UnixMs::MAX).saturating_mul(1_000)
}

/// Reads the counters regularly until the API stops.
pub(in crate::admin) async fn sample(admin: &Admin) {
    let mut ticks = interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Events that were accepted before this start of the process do not count.
    let newest = || u64::try_from(admin.store.newest().borrow().0).unwrap_or_default();
    admin.console.history.lock().last_accepted = newest();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = admin.stop.cancelled() => return,
        }
        admin.console.history.sample(admin.clock.now_ms(), newest(), &admin.metrics.functions());
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Query {
    /// Length of the time up to now, in seconds: 900, 3600 or 86400.
    range: Option<u64>,
    /// The function whose steps are returned; without it, the steps have the sums of all functions.
    function: Option<String>,
}

/// Rates over a range.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct Rates {
    /// Length of the counted time in seconds: the range, or the time since the start of the process if that is shorter.
    seconds: f64,
    step_s: u64,
    functions: Vec<Function>,
    /// The steps of the requested function, or of all functions together; oldest first.
    steps: Vec<Point>,
}

#[derive(Debug, Serialize)]
struct Point {
    at: String,
    accepted: u64,
    done: u64,
    failed: u64,
}

#[derive(Debug, Serialize)]
struct Function {
    name: String,
    /// Number of attempts.
    attempts: u64,
    done: u64,
    retried: u64,
    dead: u64,
    published: u64,
    /// Percentiles of the duration of an attempt, in seconds; absent without attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p95_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_s: Option<f64>,
}

pub(in crate::admin) async fn rates(
    State(admin): State<Arc<Admin>>,
    Params(query): Params<Query>,
) -> ApiResult<Json<Rates>> {
    let range = query.range.unwrap_or(900);
    let Some(at) = SERIES.iter().position(|(range_s, _)| *range_s == range) else {
        return Err(Problem::malformed(format!("range is {range}; it must be 900, 3600 or 86400 seconds")).into());
    };
    // Reads the counters now, so that the rates include the time since the last reading.
    let now_ms = admin.clock.now_ms();
    let newest = u64::try_from(admin.store.newest().borrow().0).unwrap_or_default();
    admin.console.history.sample(now_ms, newest, &admin.metrics.functions());
    let steps: Vec<Step> = {
        let inner = admin.console.history.lock();
        let series = inner.series.get(at).into_iter().flatten();
        series.filter(|step| step.start_ms > now_ms.saturating_sub(ms(range))).cloned().collect()
    };
    let step_s = SERIES.get(at).map_or(0, |(_, step_s)| *step_s);
    let seconds = (admin.started.elapsed().as_secs_f64()).min(range as f64).max(1.0);
    Ok(Json(summarise(&steps, seconds, step_s, query.function.as_deref())))
}

fn summarise(steps: &[Step], seconds: f64, step_s: u64, function: Option<&str>) -> Rates {
    let mut sums: BTreeMap<Arc<str>, Counts> = BTreeMap::new();
    for (name, counts) in steps.iter().flat_map(|step| &step.functions) {
        sums.entry(name.clone()).or_default().add(counts);
    }
    let bounds: Vec<f64> = Histogram::for_durations().read().buckets.into_iter().map(|(bound, _)| bound).collect();
    let functions = sums.into_iter().map(|(name, counts)| {
        let at = |share| percentile(&counts.durations, &bounds, share);
        Function {
            name: name.to_string(),
            attempts: counts.durations.iter().map(|count| u64::from(*count)).sum(),
            done: counts.done,
            retried: counts.retried,
            dead: counts.dead,
            published: counts.published,
            p50_s: at(0.5),
            p95_s: at(0.95),
            p99_s: at(0.99),
        }
    });
    let points = steps.iter().map(|step| {
        let wanted = |name: &str| function.is_none_or(|function| function == name);
        let of_wanted = step.functions.iter().filter(|(name, _)| wanted(name));
        let sum = |of: fn(&Counts) -> u64| of_wanted.clone().map(|(_, counts)| of(counts)).sum::<u64>();
        let failed = sum(|counts| counts.retried + counts.dead);
        Point { at: rfc3339(step.start_ms), accepted: step.accepted, done: sum(|counts| counts.done), failed }
    });
    Rates { seconds, step_s, functions: functions.collect(), steps: points.collect() }
}

/// Returns the duration in seconds that `share` of the values do not exceed; `None` if there are no values. Estimates
/// it from the number of values in each bucket, by linear interpolation within a bucket. A value in the last bucket,
/// which has no upper bound, counts as the lower bound of that bucket.
fn percentile(counts: &[u32], bounds: &[f64], share: f64) -> Option<f64> {
    let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
    let wanted = (total > 0).then_some(total as f64 * share)?;
    let (mut below, mut lower) = (0.0, 0.0);
    for (count, bound) in counts.iter().zip(bounds) {
        let count = f64::from(*count);
        if below + count >= wanted && count > 0.0 {
            let upper = if bound.is_finite() { *bound } else { lower };
            return Some(lower + (upper - lower) * ((wanted - below) / count));
        }
        below += count;
        lower = if bound.is_finite() { *bound } else { lower };
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evoke_model::Verdict;
    use evoke_telemetry::AttemptEnd;

    fn attempt(metrics: &FunctionMetrics, took: Duration, verdict: &Verdict) {
        let since_accepted = took;
        metrics.attempt_ended(&AttemptEnd {
            outcome: "done",
            verdict,
            took,
            waited: None,
            since_accepted,
            published: 0,
        });
    }

    #[test]
    fn counts_are_differences_in_steps_and_old_steps_are_dropped() {
        let history = History::default();
        let metrics = Arc::new(FunctionMetrics::new("shop/charge".into()));
        let functions = [metrics.clone()];
        attempt(&metrics, Duration::from_millis(1), &Verdict::Done);
        history.sample(0, 1, &functions);
        attempt(&metrics, Duration::from_millis(1), &Verdict::Dead("x".into()));
        history.sample(1_000, 3, &functions);
        history.sample(10_000, 3, &functions);
        {
            let inner = history.lock();
            let [short, middle, _] = &inner.series;
            let of = |step: &Step| (step.accepted, step.functions.get("shop/charge").map(|c| (c.done, c.dead)));
            assert_eq!(short.iter().map(of).collect::<Vec<_>>(), [(3, Some((1, 1))), (0, None)]);
            assert_eq!(middle.iter().map(of).collect::<Vec<_>>(), [(3, Some((1, 1)))]);
        }
        for n in 2..200 {
            history.sample(n * 10_000, 3, &functions);
        }
        assert_eq!(history.lock().series.each_ref().map(VecDeque::len), [90, 34, 7]);
    }

    #[test]
    fn percentiles_are_estimated_within_their_bucket() {
        let metrics = FunctionMetrics::new("f".into());
        assert_eq!(percentile(&Counts::read(&metrics).durations, &[1.0], 0.5), None);
        for n in 1..=100 {
            attempt(&metrics, Duration::from_millis(n), &Verdict::Done);
        }
        let step = Step { functions: [("f".into(), Counts::read(&metrics))].into(), ..Step::default() };
        let rates = summarise(&[step], 60.0, 10, Some("f"));
        let f = &rates.functions[0];
        assert_eq!((f.attempts, f.done, rates.steps[0].done), (100, 100, 100));
        for (found, exact) in [(f.p50_s, 0.050), (f.p95_s, 0.095), (f.p99_s, 0.099)] {
            assert!((found.unwrap() - exact).abs() < 0.002, "{found:?} {exact}");
        }
        attempt(&metrics, Duration::from_secs(3_600), &Verdict::Done);
        let bounds: Vec<f64> = Histogram::for_durations().read().buckets.into_iter().map(|(bound, _)| bound).collect();
        let slowest = percentile(&Counts::read(&metrics).durations, &bounds, 1.0).unwrap();
        assert!(slowest.is_finite() && slowest >= 60.0, "{slowest}");
    }
}
