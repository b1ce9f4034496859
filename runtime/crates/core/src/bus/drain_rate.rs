//! The drain rate: how many pending deliveries end per second. From this rate, the bus computes how long a rejected
//! producer should wait before a retry.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The time over which the rate is measured.
const WINDOW: Duration = Duration::from_secs(10);
/// The time between two samples. So the window has at most 11 samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// The rate counts as unknown until the oldest sample is at least this old.
const SPAN_MIN: Duration = Duration::from_millis(500);
/// The wait that is returned while the rate is unknown.
const UNKNOWN: Duration = Duration::from_secs(5);
/// The shortest and the longest wait. The unit of `Retry-After` is a second, so the shortest wait is one second. The
/// longest is a minute: with a longer wait, producers would still wait when the rate has already recovered.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Samples of the last [`WINDOW`]: the time and the number of deliveries that had ended by then.
#[derive(Default)]
pub(super) struct DrainRate(Mutex<VecDeque<(Instant, u64)>>);

impl DrainRate {
    /// Records that `ended` deliveries in total have ended by `now`. Keeps at most one sample per [`INTERVAL`].
    pub(super) fn record(&self, now: Instant, ended: u64) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= INTERVAL) {
            while samples.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
                samples.pop_front();
            }
            samples.push_back((now, ended));
        }
    }

    /// Returns the estimated time until `excess` more deliveries have ended, in whole seconds within [`BOUNDS`].
    /// `ended` is the number of deliveries that have ended by `now`. Returns [`UNKNOWN`] if there are not enough
    /// samples.
    pub(super) fn time_until_ended(&self, excess: f64, now: Instant, ended: u64) -> Duration {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((since, before)) = samples.front() else { return UNKNOWN };
        let span = now.duration_since(*since);
        if span < SPAN_MIN {
            return UNKNOWN;
        }
        let rate = ended.saturating_sub(*before) as f64 / span.as_secs_f64();
        let seconds = (excess / rate).clamp(BOUNDS.0.as_secs_f64(), BOUNDS.1.as_secs_f64());
        Duration::from_secs(seconds.ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_the_excess_divided_by_the_rate_within_bounds() {
        let rate = DrainRate::default();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(rate.time_until_ended(100.0, start, 0), UNKNOWN);
        // 100 deliveries per second.
        (0..=5).for_each(|s| rate.record(at(s * 1000), s * 100));
        assert_eq!(rate.time_until_ended(1000.0, at(5000), 500), Duration::from_secs(10));
        assert_eq!(rate.time_until_ended(1.0, at(5000), 500), Duration::from_secs(1));
        assert_eq!(rate.time_until_ended(1e9, at(5000), 500), Duration::from_secs(60));
        // No more deliveries end: the old samples leave the window and the rate falls to 0.
        (6..=30).for_each(|s| rate.record(at(s * 1000), 500));
        assert_eq!(rate.time_until_ended(1.0, at(30_000), 500), Duration::from_secs(60));
    }
}
