//! The outcome of an attempt and the next step of its delivery. Plain data and pure functions; no I/O here.

use std::time::Duration;

use crate::text::count;

/// How one attempt at a delivery ended. The messages are shown to operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The function returned success: its published events and state writes are committed.
    Done,
    /// The function asked for another attempt.
    Retry {
        /// The function's reason.
        message: String,
        /// The wait that the function asked for; `None` means the wait of the retry policy.
        after: Option<Duration>,
    },
    /// The function can never handle this event.
    Reject {
        /// The function's reason.
        message: String,
    },
    /// The guest trapped (unreachable, out-of-bounds access, stack overflow, …).
    Trap {
        /// The kind of trap and its location.
        message: String,
    },
    /// The attempt reached the function's `timeout` and was stopped.
    Timeout {
        /// The function's `timeout`.
        limit: Duration,
    },
    /// The guest failed because it needed more memory than its `memory` limit.
    OutOfMemory {
        /// The function's `memory`, in bytes.
        limit_bytes: u64,
    },
    /// The guest exceeded its grants or limits: a publish that is not allowed, too many events, ….
    Denied {
        /// The denied request and the grant that it needs.
        message: String,
    },
    /// The state writes of the attempt would exceed the quota of a bucket, or the limit of scheduled events leaves no
    /// room for an event that the attempt published with `notbefore`.
    Quota {
        /// The bucket and the setting that raises its limit, or the limit of scheduled events.
        message: String,
    },
    /// The host could not run the guest: its component is missing or cannot be instantiated.
    Unavailable {
        /// The reason, as a message for the operator.
        message: String,
    },
    /// The endpoint of the function was not reached, or could not take the request now: a connection error, or a status
    /// such as 503.
    EndpointFailed {
        /// The status or the error.
        message: String,
        /// The wait that the endpoint asked for (`Retry-After`); `None` means the wait of the retry policy.
        after: Option<Duration>,
    },
    /// The endpoint of the function is gone for good: its URL has no values of events and responds with 410. The
    /// dispatcher suspends the function, and the delivery stays pending.
    EndpointGone {
        /// The status of the response, as in `410 Gone`.
        message: String,
    },
    /// The stored event is damaged: its content differs from the accepted event. The function does not receive it.
    Damaged {
        /// The damaged item and its file.
        message: String,
    },
    /// The process ended without a clean stop while attempts at this delivery ran, and this happened as often as is
    /// allowed for one delivery. The function does not run again.
    Crashed {
        /// How often the process ended in this way.
        exits: u32,
    },
    /// The chain of events reached its maximum length, or the maximum number or total size of its events: functions
    /// publish to each other in a loop.
    Loop {
        /// The limit, and the functions of the chain in order.
        message: String,
    },
}

impl Outcome {
    /// The kind of [`Outcome::Damaged`]: the function was not run, as the event is damaged.
    pub const DAMAGED: &str = "damaged";

    /// The kind of [`Outcome::Crashed`].
    pub const CRASHED: &str = "crashed";

    /// Every value of [`Outcome::kind`].
    pub const KINDS: [&'static str; 14] = [
        "done",
        "retry",
        "reject",
        "trap",
        "timeout",
        "out-of-memory",
        "denied",
        "quota",
        "unavailable",
        "endpoint-failed",
        "endpoint-gone",
        "damaged",
        "crashed",
        "loop",
    ];

    /// Returns the name of this outcome in tables, JSON, metrics and the store.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry { .. } => "retry",
            Self::Reject { .. } => "reject",
            Self::Trap { .. } => "trap",
            Self::Timeout { .. } => "timeout",
            Self::OutOfMemory { .. } => "out-of-memory",
            Self::Denied { .. } => "denied",
            Self::Quota { .. } => "quota",
            Self::Unavailable { .. } => "unavailable",
            Self::EndpointFailed { .. } => "endpoint-failed",
            Self::EndpointGone { .. } => "endpoint-gone",
            Self::Damaged { .. } => Self::DAMAGED,
            Self::Crashed { .. } => Self::CRASHED,
            Self::Loop { .. } => "loop",
        }
    }

    /// Returns the details for the operator; `None` for `Done`.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::Done => None,
            Self::Retry { message, .. }
            | Self::Reject { message }
            | Self::Trap { message }
            | Self::Denied { message }
            | Self::Quota { message }
            | Self::Unavailable { message }
            | Self::EndpointFailed { message, .. }
            | Self::EndpointGone { message }
            | Self::Damaged { message }
            | Self::Loop { message } => Some(message.clone()),
            Self::Timeout { limit } => Some(format!("reached its timeout of {limit:?}")),
            Self::OutOfMemory { limit_bytes } => {
                Some(format!("exceeded its memory limit of {} KiB", limit_bytes / 1024))
            }
            Self::Crashed { exits } => Some(format!(
                "Evoke ended {} without a clean stop (a crash, a kill or a lack of memory) while this delivery ran; \
                 the last time, no other delivery was running",
                count(*exits, "time")
            )),
        }
    }

    /// Returns true if another attempt could succeed.
    fn is_retryable(&self) -> bool {
        match self {
            Self::Retry { .. }
            | Self::Trap { .. }
            | Self::Timeout { .. }
            | Self::OutOfMemory { .. }
            | Self::Quota { .. }
            | Self::Unavailable { .. }
            | Self::EndpointFailed { .. }
            | Self::EndpointGone { .. } => true,
            Self::Done
            | Self::Reject { .. }
            | Self::Denied { .. }
            | Self::Damaged { .. }
            | Self::Crashed { .. }
            | Self::Loop { .. } => false,
        }
    }
}

/// When a failed delivery is retried, and when it becomes a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The maximum number of attempts, the first included; at least 1.
    pub attempts: u32,
    /// The maximum wait after the first failure. The maximum doubles with each further failure.
    pub backoff: Duration,
    /// The upper bound of the doubled `backoff`.
    pub max_backoff: Duration,
    /// A delivery is not retried if it would be older than this at the retry. The age counts from
    /// [`since_ms`](crate::ReadyDelivery::since_ms).
    pub max_age: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 8,
            backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(5 * 60),
            max_age: Duration::from_secs(24 * 3600),
        }
    }
}

/// The next step of a delivery after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The delivery is done.
    Done,
    /// The delivery is retried when this time has passed.
    RetryAfter(Duration),
    /// The delivery becomes a dead letter.
    Dead {
        /// The reason, shown to the operator.
        cause: String,
    },
}

/// Decides the next step after an attempt. Retries use exponential backoff with full jitter. The maximum wait is
/// `backoff × 2^(attempt - 1)`, but not more than `max_backoff`; the wait is this maximum times `jitter`, a random
/// number between 0 and 1. If the function or its endpoint asked for a wait, that wait is used unchanged.
///
/// `attempt` is the number of the attempt that just ended, from 1. `age` is the time since
/// [`since_ms`](crate::ReadyDelivery::since_ms) of the delivery.
pub fn decide(
    policy: &RetryPolicy,
    outcome: &Outcome,
    attempt: u32,
    age: Duration,
    jitter: impl FnOnce() -> f64,
) -> Next {
    if *outcome == Outcome::Done {
        return Next::Done;
    }
    // Returns the name of the outcome between two copies of `mark`, and then the message of the outcome.
    let why = |mark: &str| {
        let message = outcome.message().map_or_else(String::new, |message| format!(": {message}"));
        format!("{mark}{}{mark}{message}", outcome.kind())
    };
    if !outcome.is_retryable() {
        return Next::Dead { cause: why("") };
    }
    if attempt >= policy.attempts {
        return Next::Dead {
            cause: format!(
                "gave up after {}; the last attempt had the outcome {}",
                count(attempt, "attempt"),
                why("`")
            ),
        };
    }
    let wait = match outcome {
        Outcome::Retry { after: Some(after), .. } | Outcome::EndpointFailed { after: Some(after), .. } => *after,
        _ => {
            let doubling = 2u32.saturating_pow(attempt.saturating_sub(1).min(31));
            policy.backoff.saturating_mul(doubling).min(policy.max_backoff).mul_f64(jitter().clamp(0.0, 1.0))
        }
    };
    if age.saturating_add(wait) > policy.max_age {
        return Next::Dead {
            cause: format!(
                "gave up at an age of {}s: the next attempt would be later than `max_age` ({:?}) allows; the last \
                 attempt had the outcome {}",
                age.as_secs(),
                policy.max_age,
                why("`")
            ),
        };
    }
    Next::RetryAfter(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(after: Option<Duration>) -> Outcome {
        Outcome::Retry { message: "gateway down".into(), after }
    }

    #[test]
    fn kinds_lists_the_kind_of_every_outcome() {
        let message = String::new();
        let all = [
            Outcome::Done,
            retry(None),
            Outcome::Reject { message: message.clone() },
            Outcome::Trap { message: message.clone() },
            Outcome::Timeout { limit: Duration::ZERO },
            Outcome::OutOfMemory { limit_bytes: 0 },
            Outcome::Denied { message: message.clone() },
            Outcome::Quota { message: message.clone() },
            Outcome::Unavailable { message: message.clone() },
            Outcome::EndpointFailed { message: message.clone(), after: None },
            Outcome::EndpointGone { message: message.clone() },
            Outcome::Damaged { message: message.clone() },
            Outcome::Crashed { exits: 2 },
            Outcome::Loop { message },
        ];
        assert_eq!(all.map(|outcome| outcome.kind()), Outcome::KINDS);
    }

    #[test]
    fn the_longest_wait_doubles_up_to_max_backoff_and_jitter_scales_it() {
        let policy = RetryPolicy { attempts: 100, ..RetryPolicy::default() };
        let wait = |attempt, jitter| decide(&policy, &retry(None), attempt, Duration::ZERO, || jitter);
        assert_eq!(wait(1, 1.0), Next::RetryAfter(Duration::from_millis(500)));
        assert_eq!(wait(2, 1.0), Next::RetryAfter(Duration::from_secs(1)));
        assert_eq!(wait(5, 0.5), Next::RetryAfter(Duration::from_secs(4)));
        assert_eq!(wait(60, 1.0), Next::RetryAfter(Duration::from_secs(300)));
        assert_eq!(wait(60, 0.0), Next::RetryAfter(Duration::ZERO));
    }

    #[test]
    fn a_wait_that_the_function_asked_for_is_used_unchanged() {
        let next = decide(&RetryPolicy::default(), &retry(Some(Duration::from_secs(7))), 1, Duration::ZERO, || 0.1);
        assert_eq!(next, Next::RetryAfter(Duration::from_secs(7)));
    }

    #[test]
    fn too_many_attempts_or_too_high_an_age_make_a_dead_letter_with_the_cause() {
        let policy = RetryPolicy::default();
        let Next::Dead { cause } = decide(&policy, &retry(None), 8, Duration::ZERO, || 1.0) else { unreachable!() };
        assert_eq!(cause, "gave up after 8 attempts; the last attempt had the outcome `retry`: gateway down");
        let Next::Dead { cause } = decide(&policy, &retry(None), 2, policy.max_age, || 1.0) else { unreachable!() };
        assert!(cause.starts_with("gave up at an age of 86400s"), "{cause}");
    }

    #[test]
    fn a_reject_makes_a_dead_letter_without_a_retry() {
        let next =
            decide(&RetryPolicy::default(), &Outcome::Reject { message: "no total".into() }, 1, Duration::ZERO, || 1.0);
        assert_eq!(next, Next::Dead { cause: "reject: no total".into() });
    }
}
