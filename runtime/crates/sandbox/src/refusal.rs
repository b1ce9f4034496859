//! The refused host calls of an attempt.

use std::sync::{Arc, OnceLock};

/// Why the host refused a call of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No grant covers the call, or the call exceeds a limit that is the same for every attempt. A retry would fail
    /// too.
    Denied(String),
    /// The quota of a state bucket is exhausted.
    Quota(String),
}

impl Refusal {
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Denied(reason) | Self::Quota(reason) => reason,
        }
    }

    fn cut(mut self) -> Self {
        let (Self::Denied(reason) | Self::Quota(reason)) = &mut self;
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        self
    }
}

/// Length limit of a recorded reason, in bytes. A reason can contain text of the guest.
const REASON_BYTES_MAX: usize = 4 * 1024;

/// Records refusals. A guest can handle a refusal and succeed. If the guest fails, the recorded refusal is reported as
/// the cause.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// The first refused publish.
    publish: Option<Refusal>,
    /// The refusal of the latest state operation. Removed by the next state operation that is not refused, and by the
    /// next published event, because the guest has then handled the refusal.
    state: Option<Refusal>,
    /// Holds the refusal of the first refused HTTP request. `None` until `wasi:http` is used for the first time.
    outbound: Option<SharedRefusal>,
}

/// The place in which the tasks that send requests record a refusal. Only the first refusal counts.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedRefusal(Arc<OnceLock<Refusal>>);

impl SharedRefusal {
    pub(super) fn record(&self, refusal: Refusal) {
        // An error means that an earlier refusal is recorded.
        let _ = self.0.set(refusal.cut());
    }
}

impl Refusals {
    pub(super) fn record_publish(&mut self, refusal: Refusal) {
        self.publish.get_or_insert_with(|| refusal.cut());
    }

    /// Records whether the latest state operation was refused; `None` if it was not.
    pub(super) fn record_state(&mut self, refusal: Option<Refusal>) {
        self.state = refusal.map(Refusal::cut);
    }

    /// Returns the refusal to report if the guest fails.
    pub(super) fn cause(&self) -> Option<&Refusal> {
        self.state.as_ref().or(self.publish.as_ref()).or_else(|| self.outbound.as_ref()?.0.get())
    }

    /// Returns the place in which refused HTTP requests are recorded.
    pub(super) fn outbound(&mut self) -> SharedRefusal {
        self.outbound.get_or_insert_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refused_publish_and_the_latest_state_operation_count() {
        let denied = |reason: &str| Refusal::Denied(reason.to_owned());
        let mut refusals = Refusals::default();
        assert_eq!(refusals.cause(), None);
        refusals.outbound().record(denied("request"));
        refusals.outbound().record(denied("second request"));
        assert_eq!(refusals.cause(), Some(&denied("request")));
        refusals.record_publish(denied("first"));
        refusals.record_publish(denied("second"));
        assert_eq!(refusals.cause(), Some(&denied("first")));
        let quota = Refusal::Quota("full".into());
        refusals.record_state(Some(quota.clone()));
        assert_eq!(refusals.cause(), Some(&quota));
        refusals.record_state(None);
        assert_eq!(refusals.cause(), Some(&denied("first")));
    }
}
