//! Where time comes from: the wall clock for schedules and stamps. Intervals use tokio's monotonic clock, which
//! tests can pause.

use std::sync::Arc;

/// Milliseconds since the Unix epoch.
pub type UnixMs = i64;

/// A wall clock; cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixMs + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Arc::new(|| jiff::Timestamp::now().as_millisecond()))
    }

    /// A clock that starts at `start_ms` and runs with tokio's, so that a paused test moves both at once.
    pub fn following_tokio(start_ms: UnixMs) -> Self {
        let start = tokio::time::Instant::now();
        Self(Arc::new(move || start_ms + i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX)))
    }

    /// A clock that stands still.
    #[cfg(test)]
    pub fn fixed(now_ms: UnixMs) -> Self {
        Self(Arc::new(move || now_ms))
    }

    /// A clock that is moved by hand.
    #[cfg(test)]
    pub fn by_hand(now_ms: &Arc<std::sync::atomic::AtomicI64>) -> Self {
        let now_ms = now_ms.clone();
        Self(Arc::new(move || now_ms.load(std::sync::atomic::Ordering::SeqCst)))
    }

    /// Now.
    pub fn now_ms(&self) -> UnixMs {
        (self.0)()
    }
}

/// A point in time as RFC 3339 with milliseconds, in UTC.
pub fn rfc3339(at_ms: UnixMs) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map(|t| format!("{t:.3}")).unwrap_or_default()
}
