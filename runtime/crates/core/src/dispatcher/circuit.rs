//! The circuit breaker of a function that sends its deliveries to an endpoint. While the endpoint is down, deliveries
//! wait and use up no attempts; when the endpoint is back, deliveries start slowly. Plain data, no I/O, no clock.
//!
//! - **Closed**: deliveries start as the function's `rate` allows. [`OPEN_AFTER`] failures in a row open the circuit.
//! - **Open**: deliveries wait. One at a time starts as a probe, after a wait that doubles with each failed probe. When
//!   a probe succeeds, the circuit is recovering. A failed probe is not counted as an attempt. Its delivery goes to the
//!   end of the deliveries that wait in memory, so the next probe is another delivery if one waits. Every second probe
//!   is the newest delivery. Therefore, deliveries that the endpoint always refuses do not keep the circuit open, even
//!   if all deliveries that wait in memory are such deliveries.
//! - **Recovering**: for [`RECOVERY`], deliveries start at a low rate that doubles every second. A single failure
//!   without a response during this time opens the circuit again, and [`OPEN_AFTER`] failures in a row do, too.
//!   Otherwise, the circuit is closed after this time.
//!
//! When the endpoint asks for a wait (`Retry-After`), no delivery starts before the end of this wait.
//!
//! If the endpoint keeps refusing one delivery while it accepts others ([`Refused`]), the failures of that delivery do
//! not open the circuit and do not delay the others. The delivery is retried as the function's retry policy says.

mod refused;

use std::time::Duration;

use self::refused::Refused;
use foldhash::{HashMap, HashSet};
use tokio::time::Instant;

use super::AttemptResult;
use crate::runtime_events::FAILING_ATTEMPTS;
use evoke_model::DeliveryId;
use evoke_model::clock::UnixMs;
use evoke_model::outcome::Outcome;

/// This many failures in a row open the circuit. After the same number of failures, a function is reported as failing.
const OPEN_AFTER: u32 = FAILING_ATTEMPTS;

/// The wait before the first probe.
const PROBE_WAIT_MIN: Duration = Duration::from_secs(1);

/// The longest wait before a probe, unless the endpoint asks for a longer one.
const PROBE_WAIT_MAX: Duration = Duration::from_secs(60);

/// The longest time for which a response of the endpoint (`Retry-After`) can delay all deliveries.
const HOLD_MAX: Duration = Duration::from_secs(3600);

/// The time between two starts at the beginning of the recovery, halved every second.
const RECOVERY_INTERVAL: Duration = Duration::from_millis(100);

/// The duration of the recovery. In its last second, the time between two starts is 0.2 ms, which limits nothing in
/// practice.
const RECOVERY: Duration = Duration::from_secs(10);

/// The longest delay that is made up for: after a delayed start, the next deliveries start immediately until the rate
/// is reached again. Otherwise, a rate of more than 1,000 starts per second would not be reached, because timers have a
/// precision of 1 ms.
const CATCH_UP: Duration = Duration::from_millis(10);

/// The settings of a circuit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CircuitPolicy {
    /// The shortest time between the starts of two attempts. Zero means no limit.
    pub interval: Duration,
}

/// An open circuit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCircuit {
    /// When the circuit opened. If this was before this process started, the time comes from the stored report.
    pub since_ms: UnixMs,
    /// The number of failures in a row, probes included. 0 if the circuit opened before this process started, and no
    /// probe has ended since then.
    pub failures: u32,
    /// The kind of the last failure's outcome.
    pub outcome: String,
    /// The message of the last failure.
    pub message: Option<String>,
    /// The time until the next probe; `None` while a probe runs.
    pub next_probe: Option<Duration>,
    /// True if the open circuit is reported with a runtime event. It is not reported if runtime events caused all
    /// failed deliveries: the report would be another runtime event, whose delivery could fail, too.
    pub is_reported: bool,
}

/// Whether an ended attempt counts towards the limit of attempts of its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The attempt counts towards the limit of attempts.
    Counted,
    /// The attempt was a failed probe and does not count towards the limit.
    FailedProbe,
}

pub(super) struct Circuit {
    policy: CircuitPolicy,
    state: State,
    /// The number of failures since the last success.
    failures: u32,
    /// The outcome kind and the message of the last failure.
    last: (String, Option<String>),
    /// See [`OpenCircuit::is_reported`].
    is_reported: bool,
    /// No delivery starts before this time.
    not_before: Option<Instant>,
    refused: Refused,
}

enum State {
    Closed,
    Open {
        since_ms: UnixMs,
        /// The wait before the next probe.
        wait: Duration,
        /// The running probe.
        probe: Option<DeliveryId>,
        /// True if the next probe is the newest delivery, false if it is the one that waited longest.
        is_newest_next: bool,
    },
    Recovering {
        since: Instant,
    },
}

impl State {
    /// A circuit that opened and had no probe yet.
    fn opened(since_ms: UnixMs) -> Self {
        Self::Open { since_ms, wait: PROBE_WAIT_MIN, probe: None, is_newest_next: true }
    }
}

/// The state of the endpoint, derived from the result of an attempt.
enum Sign {
    Up,
    /// The endpoint failed or did not respond. `after` is the wait that it asked for.
    Down {
        after: Option<Duration>,
    },
    /// The attempt did not test the endpoint. For example, the event cannot be written as a request. A producer can
    /// send any number of such events, so they must not count as proof that the endpoint is up.
    Unknown,
}

impl Sign {
    /// `Up` requires that the endpoint responded. `Down` does not, because an endpoint that cannot be reached sends no
    /// response.
    fn of(result: &AttemptResult) -> Self {
        match &result.outcome {
            Outcome::Done | Outcome::Reject { .. } if result.responded => Self::Up,
            Outcome::EndpointFailed { after, .. } => Self::Down { after: *after },
            Outcome::Timeout { .. } => Self::Down { after: None },
            _ => Self::Unknown,
        }
    }
}

impl Circuit {
    pub(super) fn new(policy: CircuitPolicy) -> Self {
        let last = (String::new(), None);
        let refused = Refused::default();
        Self { policy, state: State::Closed, failures: 0, last, is_reported: false, not_before: None, refused }
    }

    /// Restores a circuit that was open before this process started. The first delivery is a probe.
    pub(super) fn open_since(policy: CircuitPolicy, since_ms: UnixMs) -> Self {
        Self { state: State::opened(since_ms), is_reported: true, ..Self::new(policy) }
    }

    /// Replaces the settings. The new settings can be those of another endpoint. So waiting deliveries can start
    /// immediately, and no delivery counts as refused.
    pub(super) fn replace_policy(&mut self, policy: CircuitPolicy) {
        self.policy = policy;
        self.not_before = None;
        self.refused = Refused::default();
    }

    /// Returns true if a delivery may start.
    pub(super) fn may_start(&self, now: Instant) -> bool {
        !matches!(self.state, State::Open { probe: Some(_), .. }) && self.not_before.is_none_or(|at| at <= now)
    }

    /// Returns the time from which on a delivery may start; `None` if one may start now, or if a probe must end first.
    pub(super) fn wakes_at(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|at| *at > now && !matches!(self.state, State::Open { probe: Some(_), .. }))
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Returns true if the circuit is open and the next probe is the newest delivery.
    pub(super) fn probes_newest(&self) -> bool {
        matches!(self.state, State::Open { is_newest_next: true, .. })
    }

    /// Returns the state of an open circuit; `None` if it is not open.
    pub(super) fn open(&self, now: Instant) -> Option<OpenCircuit> {
        let State::Open { since_ms, probe, .. } = self.state else { return None };
        let (outcome, message) = self.last.clone();
        let next_probe = probe.is_none().then(|| self.not_before.map_or(Duration::ZERO, |at| at - now.min(at)));
        let (failures, is_reported) = (self.failures, self.is_reported);
        Some(OpenCircuit { since_ms, failures, outcome, message, next_probe, is_reported })
    }

    /// Records that a delivery starts.
    pub(super) fn started(&mut self, id: DeliveryId, now: Instant) {
        if let State::Open { probe, .. } = &mut self.state {
            *probe = Some(id);
            return;
        }
        let interval = self.interval(now);
        self.not_before = (interval > Duration::ZERO).then(|| {
            let planned = self.not_before.unwrap_or(now);
            planned.max(now.checked_sub(CATCH_UP).unwrap_or(now)) + interval
        });
    }

    /// Records that a delivery was passed to [`Self::started`] but did not start.
    pub(super) fn not_started(&mut self, id: DeliveryId) {
        if let State::Open { probe, .. } = &mut self.state
            && *probe == Some(id)
        {
            *probe = None;
        }
    }

    /// Records the end of an attempt. `is_reported` is false if a runtime event caused the delivery.
    pub(super) fn ended(
        &mut self,
        id: DeliveryId,
        result: &AttemptResult,
        is_reported: bool,
        now: Instant,
        now_ms: UnixMs,
    ) -> Ended {
        let was_probe = matches!(&self.state, State::Open { probe, .. } if *probe == Some(id));
        match Sign::of(result) {
            Sign::Unknown => {
                self.not_started(id);
                // The probe failed in Evoke, for example because of too many DNS lookups at the same time. The endpoint
                // was not tested, so the attempt must not count.
                if was_probe && matches!(result.outcome, Outcome::Unavailable { .. }) {
                    self.not_before = Some(now + PROBE_WAIT_MIN);
                    return Ended::FailedProbe;
                }
            }
            Sign::Up => {
                self.refused.taken(id);
                self.succeeded(now);
            }
            Sign::Down { after } => {
                if self.refused.failed(id) && !self.is_open() {
                    self.hold(after, now);
                    return Ended::Counted;
                }
                self.failures = self.failures.saturating_add(1);
                self.last = (result.outcome.kind().to_owned(), result.outcome.message());
                self.is_reported |= is_reported;
                self.failed(was_probe, result.responded, now, now_ms);
                self.hold(after, now);
                if was_probe {
                    return Ended::FailedProbe;
                }
            }
        }
        Ended::Counted
    }

    /// Lets no delivery start during the wait that the endpoint asked for.
    fn hold(&mut self, after: Option<Duration>, now: Instant) {
        if let Some(after) = after {
            let until = now + after.min(HOLD_MAX);
            self.not_before = Some(self.not_before.map_or(until, |at| at.max(until)));
        }
    }

    fn succeeded(&mut self, now: Instant) {
        self.failures = 0;
        self.is_reported = false;
        match self.state {
            State::Open { .. } => {
                self.state = State::Recovering { since: now };
                self.not_before = None;
            }
            State::Recovering { since } if now - since >= RECOVERY => self.state = State::Closed,
            State::Recovering { .. } | State::Closed => {}
        }
    }

    fn failed(&mut self, was_probe: bool, responded: bool, now: Instant, now_ms: UnixMs) {
        // Without a response, the endpoint is probably down again. With one, it may refuse only this delivery.
        let is_down_again = !responded && matches!(self.state, State::Recovering { since } if now - since < RECOVERY);
        match &mut self.state {
            State::Open { wait, probe, is_newest_next, .. } if was_probe => {
                *probe = None;
                *is_newest_next = !*is_newest_next;
                *wait = (*wait * 2).min(PROBE_WAIT_MAX);
                self.not_before = Some(now + *wait);
            }
            // The attempt started before the circuit opened.
            State::Open { .. } => {}
            State::Closed | State::Recovering { .. } if is_down_again || self.failures >= OPEN_AFTER => {
                self.state = State::opened(now_ms);
                self.not_before = Some(now + PROBE_WAIT_MIN);
            }
            State::Closed | State::Recovering { .. } => {}
        }
    }

    /// Returns the shortest time between two starts, as of `now`.
    fn interval(&self, now: Instant) -> Duration {
        match self.state {
            State::Recovering { since } if now - since < RECOVERY => {
                let seconds = u32::try_from((now - since).as_secs()).unwrap_or(u32::MAX);
                self.policy.interval.max(RECOVERY_INTERVAL / 2u32.saturating_pow(seconds))
            }
            _ => self.policy.interval,
        }
    }
}

/// The state of the task that watches circuits, and the deliveries that were cancelled while they ran. A delivery that
/// was cancelled while it ran as a probe must not wait again after the probe failed.
#[derive(Default)]
pub(super) struct Circuits {
    /// True once the task was spawned.
    pub(super) is_watched: bool,
    /// When the task checks the circuits next, at the latest.
    pub(super) wakes_at: Option<Instant>,
    /// The functions whose circuits were open before this process started, by full name, with the times when they
    /// opened. An entry is removed when its function becomes active.
    pub(super) was_open: HashMap<String, UnixMs>,
    /// Deliveries that were cancelled while they ran; at most as many as there are started deliveries.
    cancelled: HashSet<DeliveryId>,
}

impl Circuits {
    /// Records that a started delivery of a function with a circuit was cancelled.
    pub(super) fn cancelled(&mut self, id: DeliveryId) {
        self.cancelled.insert(id);
    }

    /// Records that a started delivery ended. Returns true if it was cancelled.
    pub(super) fn ended(&mut self, id: DeliveryId) -> bool {
        !self.cancelled.is_empty() && self.cancelled.remove(&id)
    }
}

#[cfg(test)]
mod tests;
