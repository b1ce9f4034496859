//! The requests that a source refused: their number, and the reasons of the last ones.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use evoke_model::clock::UnixMs;

/// Maximum number of reasons that are kept.
const REASONS_MAX: usize = 5;
/// Maximum length of a reason, in characters. A reason can repeat parts of the request.
const REASON_CHARS_MAX: usize = 300;
/// Minimum time between two refusals whose reasons are kept, so that a flood of refusals costs little.
const INTERVAL: Duration = Duration::from_millis(250);

/// Counts the refused requests of a source since its start.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    count: AtomicU64,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    /// The time at which the last reason was kept.
    kept: Option<Instant>,
    /// Newest first, each reason once.
    refusals: VecDeque<Refusal>,
}

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// When a request was last refused for this reason.
    pub at_ms: UnixMs,
    /// The reason, as text for users.
    pub reason: String,
}

/// The refused requests of a source since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// Number of requests.
    pub count: u64,
    /// The last reasons, newest first. While many requests are refused, only some of the reasons are kept.
    pub last: Vec<Refusal>,
}

impl Refusals {
    /// Counts a refusal. Keeps its reason, unless the reason of another refusal was kept within [`INTERVAL`].
    pub(super) fn add(&self, at_ms: UnixMs, reason: impl FnOnce() -> String) {
        self.count.fetch_add(1, Ordering::Relaxed);
        // If another refusal holds the lock, many requests are being refused, so this reason is not kept.
        let Ok(mut last) = self.last.try_lock() else { return };
        let now = Instant::now();
        if last.kept.is_some_and(|kept| now.duration_since(kept) < INTERVAL) {
            return;
        }
        last.kept = Some(now);
        let reason: String = reason().chars().take(REASON_CHARS_MAX).collect();
        last.refusals.retain(|known| known.reason != reason);
        last.refusals.push_front(Refusal { at_ms, reason });
        last.refusals.truncate(REASONS_MAX);
    }

    pub(super) fn read(&self) -> Refused {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        Refused { count: self.count.load(Ordering::Relaxed), last: last.refusals.iter().cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_refusal_counts_and_the_last_reasons_are_kept_once_each() {
        let refusals = Refusals::default();
        for (at_ms, reason) in ["a", "b", "a", "c", "d", "e", "f"].into_iter().enumerate() {
            refusals.add(at_ms as UnixMs, || reason.to_owned());
            refusals.add(at_ms as UnixMs, || panic!("the reason must not be computed so soon again"));
            tokio::time::advance(INTERVAL).await;
        }
        refusals.add(9, || "x".repeat(1_000));
        let Refused { count, last } = refusals.read();
        assert_eq!(count, 15);
        let shown: Vec<_> = last.iter().map(|one| (one.at_ms, &one.reason[..1])).collect();
        assert_eq!(shown, [(9, "x"), (6, "f"), (5, "e"), (4, "d"), (3, "c")]);
        assert_eq!(last[0].reason.len(), REASON_CHARS_MAX);
    }
}
