//! How an attempt ended, and what follows from it. Plain data and pure functions; no I/O here.

use std::time::Duration;

/// How one attempt at a delivery ended. Each fate has its own variant; the message is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The function returned success: its publishes and state writes are committed.
    Done,
    /// The function asked for another attempt, by policy or after the stated time.
    Retry {
        /// Why.
        message: String,
        /// The wait it asked for.
        after: Option<Duration>,
    },
    /// The function will never be able to handle this event.
    Reject {
        /// Why.
        message: String,
    },
    /// The guest trapped (unreachable, out-of-bounds access, stack overflow, …).
    Trap {
        /// Which trap, and where.
        message: String,
    },
    /// The attempt reached the function's `timeout` and was ended.
    Timeout {
        /// The `timeout`.
        limit: Duration,
    },
    /// The guest wanted more memory than its `memory` allows and failed for it.
    OutOfMemory {
        /// The `memory`.
        limit_bytes: u64,
    },
    /// The guest went past what it is granted or bounded to: a publish that is not allowed, too many events, ….
    Denied {
        /// What was wanted, and what would grant it.
        message: String,
    },
    /// What it writes would take a bucket of its state past what it may hold.
    Quota {
        /// Which bucket, and what would raise its limit.
        message: String,
    },
    /// The host could not run the guest: its component is missing or cannot be instantiated.
    Unavailable {
        /// Why.
        message: String,
    },
    /// The event that is owed is not what was accepted: the disk lost it, and nobody is handed what is left.
    Damaged {
        /// What is damaged, in which file.
        message: String,
    },
    /// The event came this way too often: a loop of functions, stopped at the hop limit.
    Loop {
        /// How many functions the chain went through.
        hops: u32,
    },
}

impl Outcome {
    /// The kind of an attempt that was none: its event is damaged.
    pub const DAMAGED: &str = "damaged";

    /// Every [`Outcome::kind`].
    pub const KINDS: [&'static str; 11] = [
        "done",
        "retry",
        "reject",
        "trap",
        "timeout",
        "out-of-memory",
        "denied",
        "quota",
        "unavailable",
        "damaged",
        "loop",
    ];

    /// The word for this outcome in tables, JSON, metrics and the store.
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
            Self::Damaged { .. } => Self::DAMAGED,
            Self::Loop { .. } => "loop",
        }
    }

    /// What a person is told beyond the kind; `None` for `Done`.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::Done => None,
            Self::Retry { message, .. }
            | Self::Reject { message }
            | Self::Trap { message }
            | Self::Denied { message }
            | Self::Quota { message }
            | Self::Unavailable { message }
            | Self::Damaged { message } => Some(message.clone()),
            Self::Timeout { limit } => Some(format!("ended at its time-out of {limit:?}")),
            Self::OutOfMemory { limit_bytes } => {
                Some(format!("needed more than its {} KiB of memory", limit_bytes / 1024))
            }
            Self::Loop { hops } => {
                Some(format!("stopped after {hops} hops: the functions that published it feed themselves"))
            }
        }
    }

    /// Whether another attempt could end otherwise.
    fn is_retryable(&self) -> bool {
        match self {
            Self::Retry { .. }
            | Self::Trap { .. }
            | Self::Timeout { .. }
            | Self::OutOfMemory { .. }
            | Self::Quota { .. }
            | Self::Unavailable { .. } => true,
            Self::Done | Self::Reject { .. } | Self::Denied { .. } | Self::Damaged { .. } | Self::Loop { .. } => false,
        }
    }
}

/// When a failed delivery is tried again, and when it is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; at least 1.
    pub attempts: u32,
    /// The ceiling of the wait after the first failure; it doubles with each further one.
    pub backoff: Duration,
    /// The most that the ceiling grows to.
    pub max_backoff: Duration,
    /// A delivery older than this is not tried again.
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

/// What becomes of a delivery after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It is done.
    Done,
    /// It is tried again after this time.
    RetryAfter(Duration),
    /// It is a dead letter, with the cause.
    Dead {
        /// Why it was given up.
        cause: String,
    },
}

/// Decides what follows an attempt. Exponential backoff with full jitter: the wait is `jitter` (0 to 1) of the
/// ceiling `backoff × 2^(attempt - 1)`; a wait that the function asked for is taken as it is.
///
/// `attempt` counts from 1 and includes the one that just ended; `age` is the time since the event was accepted.
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
    let why = || outcome.message().map_or_else(|| outcome.kind().to_owned(), |m| format!("{}: {m}", outcome.kind()));
    if !outcome.is_retryable() {
        return Next::Dead { cause: why() };
    }
    if attempt >= policy.attempts {
        return Next::Dead { cause: format!("gave up after {attempt} attempts; the last ended as {}", why()) };
    }
    let wait = match outcome {
        Outcome::Retry { after: Some(after), .. } => *after,
        _ => {
            let doubling = 2u32.saturating_pow(attempt.saturating_sub(1).min(31));
            policy.backoff.saturating_mul(doubling).min(policy.max_backoff).mul_f64(jitter().clamp(0.0, 1.0))
        }
    };
    if age.saturating_add(wait) > policy.max_age {
        return Next::Dead {
            cause: format!(
                "gave up at an age of {}s, past its max_age; the last attempt ended as {}",
                age.as_secs(),
                why()
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
    fn every_outcome_has_its_kind_among_the_kinds() {
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
            Outcome::Damaged { message },
            Outcome::Loop { hops: 1 },
        ];
        assert_eq!(all.map(|outcome| outcome.kind()), Outcome::KINDS);
    }

    #[test]
    fn the_ceiling_doubles_up_to_its_maximum_and_jitter_takes_a_share_of_it() {
        let policy = RetryPolicy { attempts: 100, ..RetryPolicy::default() };
        let wait = |attempt, jitter| decide(&policy, &retry(None), attempt, Duration::ZERO, || jitter);
        assert_eq!(wait(1, 1.0), Next::RetryAfter(Duration::from_millis(500)));
        assert_eq!(wait(2, 1.0), Next::RetryAfter(Duration::from_secs(1)));
        assert_eq!(wait(5, 0.5), Next::RetryAfter(Duration::from_secs(4)));
        assert_eq!(wait(60, 1.0), Next::RetryAfter(Duration::from_secs(300)));
        assert_eq!(wait(60, 0.0), Next::RetryAfter(Duration::ZERO));
    }

    #[test]
    fn a_wait_that_the_function_asked_for_is_taken_as_it_is() {
        let next = decide(&RetryPolicy::default(), &retry(Some(Duration::from_secs(7))), 1, Duration::ZERO, || 0.1);
        assert_eq!(next, Next::RetryAfter(Duration::from_secs(7)));
    }

    #[test]
    fn attempts_and_age_end_in_a_dead_letter_that_says_why() {
        let policy = RetryPolicy::default();
        let Next::Dead { cause } = decide(&policy, &retry(None), 8, Duration::ZERO, || 1.0) else { unreachable!() };
        assert_eq!(cause, "gave up after 8 attempts; the last ended as retry: gateway down");
        let Next::Dead { cause } = decide(&policy, &retry(None), 2, policy.max_age, || 1.0) else { unreachable!() };
        assert!(cause.starts_with("gave up at an age of 86400s"), "{cause}");
    }

    #[test]
    fn a_reject_is_dead_at_once() {
        let next =
            decide(&RetryPolicy::default(), &Outcome::Reject { message: "no total".into() }, 1, Duration::ZERO, || 1.0);
        assert_eq!(next, Next::Dead { cause: "reject: no total".into() });
    }
}
