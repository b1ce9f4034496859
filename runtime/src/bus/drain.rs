//! How fast the backlog drains, and so when somebody who is refused should come back.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What is measured over.
const WINDOW: Duration = Duration::from_secs(10);
/// Between two samples: eleven cover the window.
const INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time that says anything about a rate.
const SPAN_MIN: Duration = Duration::from_millis(500);
/// The answer while nothing is known.
const UNKNOWN: Duration = Duration::from_secs(5);
/// Earlier nobody comes back, as `Retry-After` counts seconds; later somebody would wait for nothing when the rate
/// picked up.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How many deliveries had ended by when, over the last seconds.
#[derive(Default)]
pub(super) struct Drain(Mutex<VecDeque<(Instant, u64)>>);

impl Drain {
    /// Notes that so many deliveries have ended by now.
    pub(super) fn note(&self, now: Instant, ended: u64) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= INTERVAL) {
            while samples.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
                samples.pop_front();
            }
            samples.push_back((now, ended));
        }
    }

    /// How long it takes until `excess` deliveries more have ended.
    pub(super) fn time_for(&self, excess: f64, now: Instant, ended: u64) -> Duration {
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
    fn the_time_is_what_is_too_much_over_the_rate_and_bounded() {
        let drain = Drain::default();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(drain.time_for(100.0, start, 0), UNKNOWN);
        // A hundred a second.
        (0..=5).for_each(|s| drain.note(at(s * 1000), s * 100));
        assert_eq!(drain.time_for(1000.0, at(5000), 500), Duration::from_secs(10));
        assert_eq!(drain.time_for(1.0, at(5000), 500), Duration::from_secs(1));
        assert_eq!(drain.time_for(1e9, at(5000), 500), Duration::from_secs(60));
        // Nothing ends any more: the old rate counts less and less, and then not at all.
        (6..=30).for_each(|s| drain.note(at(s * 1000), 500));
        assert_eq!(drain.time_for(1.0, at(30_000), 500), Duration::from_secs(60));
    }
}
