//! Where events enter. Each source is one worker that hands what it sees to the bus, and knows nothing else.

pub mod files;
pub mod http;
pub mod timer;

mod handover;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Target};
use crate::clock::Clock;

/// What every source is given.
#[derive(Clone)]
pub struct Context {
    /// Where its events go.
    pub bus: Bus,
    /// The `source` attribute of its events, `/<app>/<name>`; also the scope of its marks.
    pub uri: String,
    /// Who its events are for.
    pub target: Target,
    /// Where its time comes from.
    pub clock: Clock,
    /// Cancelled when it is to stop; it returns soon after, with nothing half done.
    pub stop: CancellationToken,
    /// How it is doing, for people.
    pub health: Health,
}

/// How long a source counts as one that refuses: whoever looks once a second finds it.
const REFUSING: Duration = Duration::from_secs(2);

/// How a source is doing: written by the source, read by `status`.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<RwLock<State>>);

#[derive(Debug, Default)]
struct State {
    trouble: Option<String>,
    /// Why it refused what it was sent, and when.
    refused: Option<(Instant, String)>,
}

impl Health {
    /// It works.
    pub fn recovered(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).trouble = None;
    }

    /// It does not work fully, for this reason; it keeps trying.
    pub fn degraded(&self, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::warn!("source degraded: {reason}");
        self.0.write().unwrap_or_else(PoisonError::into_inner).trouble = Some(reason);
    }

    /// It refused what it was sent for this reason, which may be over at once. Many refusals a second cost little.
    pub fn refused(&self, reason: impl FnOnce() -> String) {
        let now = Instant::now();
        let noted =
            |state: &State| state.refused.as_ref().is_some_and(|(at, _)| now.duration_since(*at) < REFUSING / 4);
        if !noted(&self.0.read().unwrap_or_else(PoisonError::into_inner)) {
            self.0.write().unwrap_or_else(PoisonError::into_inner).refused = Some((now, reason()));
        }
    }

    /// Why it is degraded; `None` when it works.
    pub fn trouble(&self) -> Option<String> {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let refused = state.refused.as_ref().filter(|(at, _)| at.elapsed() < REFUSING);
        state.trouble.clone().or_else(|| refused.map(|(_, reason)| format!("it refuses what it is sent: {reason}")))
    }
}
