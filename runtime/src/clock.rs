//! Where time comes from: the wall clock for schedules and stamps. Intervals use tokio's monotonic clock, which
//! tests can pause.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Milliseconds since the Unix epoch.
pub type UnixMs = i64;

/// A wall clock.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Tokio {
        start_ms: UnixMs,
        start: Instant,
    },
    #[cfg(test)]
    Fixed(UnixMs),
    #[cfg(test)]
    ByHand(std::sync::Arc<std::sync::atomic::AtomicI64>),
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that starts at `start_ms` and runs with tokio's, so that a paused test moves both at once.
    pub fn following_tokio(start_ms: UnixMs) -> Self {
        Self(Source::Tokio { start_ms, start: Instant::now() })
    }

    /// A clock that stands still.
    #[cfg(test)]
    pub fn fixed(now_ms: UnixMs) -> Self {
        Self(Source::Fixed(now_ms))
    }

    /// A clock that is moved by hand.
    #[cfg(test)]
    pub fn by_hand(now_ms: &std::sync::Arc<std::sync::atomic::AtomicI64>) -> Self {
        Self(Source::ByHand(now_ms.clone()))
    }

    /// Now.
    pub fn now_ms(&self) -> UnixMs {
        match &self.0 {
            // A clock before 1970 is wrong by decades; nothing depends on by how much.
            Source::System => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| as_ms(since.as_millis())),
            Source::Tokio { start_ms, start } => start_ms.saturating_add(as_ms(start.elapsed().as_millis())),
            #[cfg(test)]
            Source::Fixed(now_ms) => *now_ms,
            #[cfg(test)]
            Source::ByHand(now_ms) => now_ms.load(std::sync::atomic::Ordering::SeqCst),
        }
    }
}

fn as_ms(millis: u128) -> UnixMs {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

/// A point in time as RFC 3339 with milliseconds, in UTC.
pub fn rfc3339(at_ms: UnixMs) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map(|t| format!("{t:.3}")).unwrap_or_default()
}
