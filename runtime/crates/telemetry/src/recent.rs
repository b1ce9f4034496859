//! The rate and duration of attempts over the last minute, from samples of the metrics.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{FunctionMetrics, Metrics, all};

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(5);
/// The number of samples to keep. With one sample per [`INTERVAL`], these cover one minute.
const SAMPLES_MAX: usize = 12;

/// The samples of the last minute.
#[derive(Debug)]
pub(super) struct Recent(Mutex<VecDeque<Sample>>);

/// The figures of all functions at one moment.
#[derive(Debug)]
struct Sample {
    at: Instant,
    functions: BTreeMap<Arc<str>, Figures>,
}

/// Totals of a function since the start of the process.
#[derive(Debug, Clone, Default)]
struct Figures {
    failed: u64,
    /// The number of attempts in each bucket of durations, with the bucket's inclusive upper bound in seconds.
    durations: Vec<(f64, u64)>,
}

/// The attempts of a function during about the last minute.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Ended attempts per second.
    pub attempts: f64,
    /// Failed attempts per second.
    pub failed: f64,
    /// The duration that 95 of 100 attempts did not exceed, interpolated within a bucket of the histogram; `None` if no
    /// attempt ended.
    pub p95: Option<Duration>,
}

impl Recent {
    /// Starts with a sample in which all totals are zero, so that the first rates cover the time since the start.
    pub(super) fn new() -> Self {
        Self(Mutex::new(VecDeque::from([Sample { at: Instant::now(), functions: BTreeMap::new() }])))
    }
}

impl Metrics {
    /// Takes a sample for [`Metrics::rates`] if the last sample is at least [`INTERVAL`] old. Must be called every
    /// second.
    pub fn sample(&self) {
        let now = Instant::now();
        let mut samples = self.recent.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.back().is_some_and(|last| now.duration_since(last.at) < INTERVAL) {
            return;
        }
        samples.push_back(Sample { at: now, functions: self.figures() });
        while samples.len() > SAMPLES_MAX {
            samples.pop_front();
        }
    }

    /// Returns the rates of each function, by full name, over the time since the oldest sample: at most a minute.
    pub fn rates(&self) -> BTreeMap<Arc<str>, Rates> {
        let (now, figures) = (Instant::now(), self.figures());
        let samples = self.recent.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(oldest) = samples.front() else { return BTreeMap::new() };
        let elapsed = now.duration_since(oldest.at);
        let none = Figures::default();
        let rates = |(name, figures): (Arc<str>, Figures)| {
            let before = oldest.functions.get(&name).unwrap_or(&none);
            let rates = figures.since(before, elapsed);
            (name, rates)
        };
        figures.into_iter().map(rates).collect()
    }

    fn figures(&self) -> BTreeMap<Arc<str>, Figures> {
        let of = |metrics: Arc<FunctionMetrics>| {
            let failed = metrics.retried.get() + metrics.dead.get();
            (metrics.name.clone(), Figures { failed, durations: metrics.duration.read().buckets })
        };
        all(&self.functions).into_iter().map(of).collect()
    }
}

impl Figures {
    fn since(&self, before: &Self, elapsed: Duration) -> Rates {
        let count_before = |bucket: usize| before.durations.get(bucket).map_or(0, |(_, count)| *count);
        let ended: Vec<(f64, u64)> = self
            .durations
            .iter()
            .enumerate()
            .map(|(bucket, (bound, count))| (*bound, count.saturating_sub(count_before(bucket))))
            .collect();
        let total: u64 = ended.iter().map(|(_, count)| count).sum();
        let seconds = elapsed.as_secs_f64().max(1.0);
        let failed = self.failed.saturating_sub(before.failed);
        Rates { attempts: total as f64 / seconds, failed: failed as f64 / seconds, p95: quantile(&ended, total, 0.95) }
    }
}

/// Interpolates a quantile. Values beyond the last finite bound count as that bound.
fn quantile(buckets: &[(f64, u64)], total: u64, share: f64) -> Option<Duration> {
    if total == 0 {
        return None;
    }
    let rank = total as f64 * share;
    let (mut below, mut lower) = (0.0, 0.0);
    for (bound, count) in buckets {
        let count = *count as f64;
        if below + count >= rank {
            let value = if bound.is_finite() { lower + (bound - lower) * ((rank - below) / count) } else { lower };
            return Some(Duration::from_secs_f64(value));
        }
        below += count;
        if bound.is_finite() {
            lower = *bound;
        }
    }
    Some(Duration::from_secs_f64(lower))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_cover_the_time_since_the_oldest_sample() {
        let before = Figures { failed: 5, durations: vec![(0.1, 50), (1.0, 50), (f64::INFINITY, 0)] };
        let now = Figures { failed: 15, durations: vec![(0.1, 140), (1.0, 60), (f64::INFINITY, 0)] };
        let rates = now.since(&before, Duration::from_secs(50));
        assert_eq!((rates.attempts, rates.failed), (2.0, 0.2));
        // The 95th of the 100 new attempts is in the middle of the bucket from 0.1 to 1 s, which has the last ten.
        assert_eq!(rates.p95, Some(Duration::from_millis(550)));
        let idle = now.since(&now, Duration::from_secs(50));
        assert_eq!(idle, Rates::default());
    }

    #[test]
    fn a_quantile_beyond_the_last_bound_is_that_bound() {
        assert_eq!(quantile(&[(1.0, 0), (f64::INFINITY, 3)], 3, 0.95), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_new_function_counts_from_zero() {
        let metrics = Metrics::new();
        metrics.function("shop/charge").duration.observe(Duration::from_millis(3));
        let rates = metrics.rates();
        assert_eq!(rates.get("shop/charge").map(|rates| rates.attempts), Some(1.0));
    }
}
