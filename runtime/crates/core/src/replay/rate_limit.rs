//! The rate limit of a replay.

use tokio::time::Instant;

/// The limiter keeps at most the unused tokens of this many seconds. So after a pause, only few deliveries are created
/// at once.
const BURST_S: f64 = 0.1;

/// A token bucket of deliveries per second. A step can take more tokens than the bucket has. The next step then waits
/// until the missing tokens are refilled.
pub(super) struct RateLimiter {
    rate: Option<f64>,
    tokens: f64,
    at: Instant,
}

impl RateLimiter {
    pub(super) fn new(rate: Option<f64>) -> Self {
        Self { rate, tokens: 1.0, at: Instant::now() }
    }

    /// Returns the number of events whose deliveries may be created now; at most `max`.
    pub(super) fn room(&mut self, max: usize) -> usize {
        let Some(rate) = self.rate else { return max };
        let now = Instant::now();
        let filled = self.tokens + rate * now.duration_since(self.at).as_secs_f64();
        self.tokens = filled.min((rate * BURST_S).max(1.0));
        self.at = now;
        if self.tokens < 1.0 { 0 } else { max.min(self.tokens as usize) }
    }

    /// Takes one token for each delivery that was created.
    pub(super) fn offered(&mut self, deliveries: usize) {
        self.tokens -= deliveries as f64;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_limits_the_offered_deliveries_over_time() {
        let mut limiter = RateLimiter::new(Some(100.0));
        let mut offered = 0;
        for _ in 0..500 {
            tokio::time::advance(Duration::from_millis(20)).await;
            // Each event goes to three functions.
            let deliveries = 3 * limiter.room(64);
            limiter.offered(deliveries);
            offered += deliveries;
        }
        assert!((980..=1_040).contains(&offered), "{offered} in ten seconds");
        assert_eq!(RateLimiter::new(None).room(64), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_below_one_per_second_works() {
        let mut limiter = RateLimiter::new(Some(0.5));
        let mut offered = 0;
        for _ in 0..1_000 {
            tokio::time::advance(Duration::from_millis(20)).await;
            let deliveries = limiter.room(64);
            limiter.offered(deliveries);
            offered += deliveries;
        }
        assert!((10..=11).contains(&offered), "{offered} in twenty seconds");
    }
}
