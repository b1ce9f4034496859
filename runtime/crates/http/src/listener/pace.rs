//! The lowest allowed rate at which a peer sends a body or reads a response. Only the time in which the server waits
//! for the peer counts, so a slow service does not make its peer count as slow.

use std::time::Duration;

use tokio::time::Instant;

/// The lowest allowed rate of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinRate {
    /// Bytes per second, as an average over each window.
    pub bytes_per_s: u32,
    /// The length of a window. Only the time in which the server waits for the peer counts. A peer that sends enough
    /// bytes at the start of a window can then pause until the end of the next window.
    pub window: Duration,
}

/// Measures the rate of one peer in consecutive windows.
#[derive(Debug)]
pub(super) struct Pace {
    min: MinRate,
    /// The number of bytes that the peer has sent or read in the current window.
    bytes: u64,
    /// How long the server has waited for the peer in the current window, not counting the current wait, which began at
    /// `waiting_since`.
    waited: Duration,
    waiting_since: Option<Instant>,
}

impl Pace {
    pub(super) fn new(min: MinRate) -> Self {
        Self { min, bytes: 0, waited: Duration::ZERO, waiting_since: None }
    }

    /// Records that the peer sent or read bytes. This ends the current wait for the peer.
    pub(super) fn progress(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
    }

    /// Records that the server waits for the peer. Returns the time at which the window ends if the server waits
    /// without interruption until then.
    pub(super) fn wait(&mut self, now: Instant) -> Instant {
        let since = *self.waiting_since.get_or_insert(now);
        since + self.min.window.saturating_sub(self.waited)
    }

    /// Returns true if the current window has ended and the peer was too slow in it. If the peer was fast enough,
    /// begins the next window.
    pub(super) fn is_too_slow(&mut self, now: Instant) -> bool {
        let waited =
            self.waited + self.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if waited < self.min.window {
            return false;
        }
        let needed = f64::from(self.min.bytes_per_s) * waited.as_secs_f64();
        if (self.bytes as f64) < needed {
            return true;
        }
        (self.bytes, self.waited, self.waiting_since) = (0, Duration::ZERO, Some(now));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: MinRate = MinRate { bytes_per_s: 100, window: Duration::from_secs(5) };

    #[tokio::test(start_paused = true)]
    async fn a_peer_below_the_rate_is_too_slow_at_the_end_of_a_window() {
        let mut pace = Pace::new(MIN);
        pace.progress(499);
        let end = pace.wait(Instant::now());
        assert_eq!(end - Instant::now(), MIN.window);
        tokio::time::advance(Duration::from_millis(4_999)).await;
        assert!(!pace.is_too_slow(Instant::now()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(pace.is_too_slow(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_of_earlier_windows_do_not_count() {
        let mut pace = Pace::new(MIN);
        pace.progress(1_000_000);
        pace.wait(Instant::now());
        tokio::time::advance(MIN.window).await;
        assert!(!pace.is_too_slow(Instant::now()));
        tokio::time::advance(MIN.window).await;
        assert!(pace.is_too_slow(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_waits_for_the_peer_does_not_count() {
        let mut pace = Pace::new(MIN);
        for _ in 0..10 {
            pace.wait(Instant::now());
            tokio::time::advance(Duration::from_millis(400)).await;
            pace.progress(1);
            tokio::time::advance(Duration::from_secs(60)).await;
            assert!(!pace.is_too_slow(Instant::now()));
        }
        assert_eq!(pace.wait(Instant::now()) - Instant::now(), Duration::from_secs(1));
    }
}
