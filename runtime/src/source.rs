//! Where events enter. Each source is one worker that hands what it sees to the bus, and knows nothing else.

pub mod files;
pub mod http;
pub mod timer;

mod handover;

use std::sync::{Arc, RwLock};

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

/// How a source is doing: written by the source, read by `status`.
#[derive(Clone, Default)]
pub struct Health(Arc<RwLock<Option<String>>>);

impl Health {
    /// It works.
    pub fn recovered(&self) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }

    /// It does not work fully, for this reason; it keeps trying.
    pub fn degraded(&self, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::warn!("source degraded: {reason}");
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(reason);
    }

    /// Why it is degraded; `None` when it works.
    pub fn trouble(&self) -> Option<String> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
