//! Sources: the places where events enter. Each source is one worker that submits its events to the bus. A source
//! depends only on its [`Context`].

mod refusals;
pub mod submit;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::refusals::Refusals;
pub use self::refusals::{Refusal, Refused};
use crate::bus::{Bus, Origin, Target};
use evoke_model::clock::{Clock, UnixMs};

/// The context that every source gets at its start.
#[derive(Clone)]
pub struct Context {
    /// The bus that accepts the source's events.
    pub bus: Bus,
    /// The `source` attribute of the events, `/<app>/<name>`. Also the scope of the source's marks, which are the small
    /// values that it keeps in the store.
    pub uri: String,
    /// The origin of the events.
    pub origin: Origin,
    /// The functions that receive the events.
    pub target: Target,
    /// The clock to read the time from.
    pub clock: Clock,
    /// Stops the source when cancelled: the source returns soon afterwards and leaves no work half done.
    pub stop: CancellationToken,
    /// The health that the source reports and `status` shows.
    pub health: Health,
}

/// How long a source counts as degraded after it refused a request: two polls of the health monitor, which polls once a
/// second.
const REFUSAL_SHOWN_FOR: Duration = Duration::from_secs(2);

/// The health of a source: written by the source, read by `status`.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    problems: RwLock<Problems>,
    refusals: Refusals,
}

#[derive(Debug, Default)]
struct Problems {
    trouble: Option<String>,
    /// True if the next reload must restart the source, even if its settings are unchanged.
    until_reload: bool,
    /// The time and the reason of the last recorded refusal.
    refused: Option<(Instant, String)>,
}

impl Health {
    /// Marks the source as working.
    pub fn recovered(&self) {
        self.set(None, false);
    }

    /// Marks the source as degraded for this reason, and logs the reason. The source keeps trying.
    pub fn degraded(&self, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::warn!("a source is degraded: {reason}");
        self.set(Some(reason), false);
    }

    /// Like [`Self::degraded`], for a problem that an operator can accept with a reload. The next reload restarts the
    /// source even if its settings are unchanged.
    pub fn degraded_until_reload(&self, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::warn!("a source is degraded: {reason}");
        self.set(Some(reason), true);
    }

    /// Returns true if a reload must restart the source.
    pub fn needs_reload(&self) -> bool {
        self.read().until_reload
    }

    /// Counts a request that the source refused. Users see the `reason`.
    pub fn count_refusal(&self, at_ms: UnixMs, reason: impl FnOnce() -> String) {
        self.0.refusals.add(at_ms, reason);
    }

    /// Returns the requests that the source refused since its start.
    pub fn refusals(&self) -> Refused {
        self.0.refusals.read()
    }

    fn read(&self) -> RwLockReadGuard<'_, Problems> {
        self.0.problems.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Problems> {
        self.0.problems.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, trouble: Option<String>, until_reload: bool) {
        let mut problems = self.write();
        (problems.trouble, problems.until_reload) = (trouble, until_reload);
    }

    /// Marks the source as degraded for a short time, because it refused a request. The source can still accept the
    /// next request. At most about two refusals a second take the write lock, so a flood of refusals costs little.
    pub fn refused(&self, reason: impl FnOnce() -> String) {
        let now = Instant::now();
        let is_recent = |problems: &Problems| {
            problems.refused.as_ref().is_some_and(|(at, _)| now.duration_since(*at) < REFUSAL_SHOWN_FOR / 4)
        };
        if !is_recent(&self.read()) {
            self.write().refused = Some((now, reason()));
        }
    }

    /// Returns why the source is degraded; `None` if it works.
    pub fn trouble(&self) -> Option<String> {
        let problems = self.read();
        let refused = problems.refused.as_ref().filter(|(at, _)| at.elapsed() < REFUSAL_SHOWN_FOR);
        problems.trouble.clone().or_else(|| refused.map(|(_, reason)| format!("the source refuses requests: {reason}")))
    }
}
