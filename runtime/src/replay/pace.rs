//! How fast a replay goes.

use tokio::time::Instant;

/// What may be offered at once after a pause, in seconds of the rate.
const BURST_S: f64 = 0.1;

/// Deliveries a second: a bucket that fills at the rate, and may be overdrawn by one step.
pub(super) struct Pace {
    rate: Option<f64>,
    tokens: f64,
    at: Instant,
}

impl Pace {
    pub(super) fn new(rate: Option<f64>) -> Self {
        Self { rate, tokens: 1.0, at: Instant::now() }
    }

    /// How many events may be offered now, at most `max`.
    pub(super) fn room(&mut self, max: usize) -> usize {
        let Some(rate) = self.rate else { return max };
        let now = Instant::now();
        let filled = self.tokens + rate * now.duration_since(self.at).as_secs_f64();
        self.tokens = filled.min((rate * BURST_S).max(1.0));
        self.at = now;
        if self.tokens < 1.0 { 0 } else { max.min(self.tokens as usize) }
    }

    /// So many deliveries were offered.
    pub(super) fn offered(&mut self, deliveries: usize) {
        self.tokens -= deliveries as f64;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn over_time_no_more_is_offered_than_the_rate_allows() {
        let mut pace = Pace::new(Some(100.0));
        let mut offered = 0;
        for _ in 0..500 {
            tokio::time::advance(Duration::from_millis(20)).await;
            // Each event goes to three functions.
            let deliveries = 3 * pace.room(64);
            pace.offered(deliveries);
            offered += deliveries;
        }
        assert!((980..=1_040).contains(&offered), "{offered} in ten seconds");
        assert_eq!(Pace::new(None).room(64), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn less_than_one_a_second_is_a_rate_too() {
        let mut pace = Pace::new(Some(0.5));
        let mut offered = 0;
        for _ in 0..1_000 {
            tokio::time::advance(Duration::from_millis(20)).await;
            let deliveries = pace.room(64);
            pace.offered(deliveries);
            offered += deliveries;
        }
        assert!((10..=11).contains(&offered), "{offered} in twenty seconds");
    }
}
