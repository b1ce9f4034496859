//! The wall clock, for schedules and timestamps. Waits and durations do not use this clock: they use tokio's monotonic
//! clock, which tests can pause.

use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(feature = "test-util")]
use tokio::time::Instant;

/// Milliseconds since the Unix epoch.
pub type UnixMs = i64;

/// A wall clock; cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    #[cfg(feature = "test-util")]
    Tokio {
        start_ms: UnixMs,
        start: Instant,
    },
    #[cfg(feature = "test-util")]
    Fixed(UnixMs),
    #[cfg(feature = "test-util")]
    Manual(std::sync::Arc<std::sync::atomic::AtomicI64>),
}

impl Clock {
    /// Returns the clock of the operating system.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Returns a clock that starts at `start_ms` and advances with tokio's clock. A test that pauses tokio's clock also
    /// pauses this one.
    #[cfg(feature = "test-util")]
    pub fn following_tokio(start_ms: UnixMs) -> Self {
        Self(Source::Tokio { start_ms, start: Instant::now() })
    }

    /// Returns a clock whose time never changes.
    #[cfg(feature = "test-util")]
    pub fn fixed(now_ms: UnixMs) -> Self {
        Self(Source::Fixed(now_ms))
    }

    /// Returns a clock that reads its time from `now_ms`, which the test changes.
    #[cfg(feature = "test-util")]
    pub fn manual(now_ms: &std::sync::Arc<std::sync::atomic::AtomicI64>) -> Self {
        Self(Source::Manual(now_ms.clone()))
    }

    /// Returns the current time in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> UnixMs {
        match &self.0 {
            // A system clock before 1970 is certainly wrong; returns 0 for it.
            Source::System => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| as_ms(since.as_millis())),
            #[cfg(feature = "test-util")]
            Source::Tokio { start_ms, start } => start_ms.saturating_add(as_ms(start.elapsed().as_millis())),
            #[cfg(feature = "test-util")]
            Source::Fixed(now_ms) => *now_ms,
            #[cfg(feature = "test-util")]
            Source::Manual(now_ms) => now_ms.load(std::sync::atomic::Ordering::SeqCst),
        }
    }
}

fn as_ms(millis: u128) -> UnixMs {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

/// Formats a point in time as RFC 3339 in UTC, with milliseconds. Returns an empty string if the time is out of range.
pub fn rfc3339(at_ms: UnixMs) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map(|t| format!("{t:.3}")).unwrap_or_default()
}
