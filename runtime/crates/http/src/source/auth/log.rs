//! Log lines about refused requests, at a limited rate, because unverified clients cause them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use evoke_telemetry::AuthRefusal;

/// The shortest time between two lines of one source about the same reason.
pub(super) const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The log lines of one source.
#[derive(Debug, Default)]
pub(super) struct RefusalLog(Mutex<[LastLine; AuthRefusal::ALL.len()]>);

#[derive(Debug, Default)]
struct LastLine {
    at: Option<Instant>,
    /// The number of refusals since the last line.
    since: u64,
}

impl RefusalLog {
    /// If a line may be logged now, returns the number of refusals for this reason since the last line. Otherwise
    /// counts the refusal.
    pub(super) fn next(&self, reason: AuthRefusal) -> Option<u64> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.get_mut(reason as usize)?;
        if line.at.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            line.since += 1;
            return None;
        }
        line.at = Some(Instant::now());
        Some(std::mem::take(&mut line.since))
    }
}
