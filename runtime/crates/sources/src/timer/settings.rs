//! The settings of a timer.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use evoke_manifest::units::{DurationText, duration_text};
use evoke_model::clock::UnixMs;

/// A timer: creates an event at each time of its schedule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimerSource {
    /// The times of the ticks.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// Which missed ticks to run. A tick is missed if its time passed while Evoke was not running.
    pub missed: Missed,
    /// How the timer handles a tick while deliveries of the previous tick are pending.
    #[serde(skip_serializing_if = "Overlap::is_default")]
    pub overlap: Overlap,
    /// A tick is skipped if it cannot be stored within this time after its scheduled instant.
    #[serde(serialize_with = "serialize_duration", skip_serializing_if = "Option::is_none")]
    pub start_deadline: Option<Duration>,
    /// The maximum delay of the ticks. All ticks of a timer have the same delay.
    #[serde(serialize_with = "serialize_duration", skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Duration>,
}

impl TimerSource {
    /// Returns the delay of all ticks of this timer in milliseconds: a part of the jitter. The part depends on a hash
    /// of the source's uri (FNV-1a), so that timers with the same schedule have different delays.
    pub(super) fn delay_ms(&self, uri: &str) -> i64 {
        let jitter = self.jitter.and_then(|jitter| u64::try_from(jitter.as_millis()).ok());
        let Some(most) = jitter else { return 0 };
        let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let hash = uri.bytes().fold(0xcbf2_9ce4_8422_2325, add);
        // Mixes the high bits into the low bits, because the hashes of names that differ only in their last letters are
        // similar.
        i64::try_from((hash ^ (hash >> 32)) % most.saturating_add(1)).unwrap_or_default()
    }
}

impl Schedule {
    /// Returns the schedule as text for the mark of a timer. If the text changes, the timer starts anew.
    pub(super) fn identity(&self) -> String {
        match self {
            Self::Cron { expr, timezone } => format!("cron {expr} {timezone}"),
            Self::Every { every } => format!("every {}ms", every.as_millis()),
            Self::At { at } => {
                let all: Vec<_> = at.iter().map(ToString::to_string).collect();
                format!("at {}", all.join(" "))
            }
        }
    }

    /// Returns the time zone of the schedule, for the data of the events.
    pub(super) fn timezone(&self) -> String {
        match self {
            Self::Cron { timezone, .. } => timezone.clone(),
            Self::Every { .. } | Self::At { .. } => "UTC".to_owned(),
        }
    }

    /// Returns the schedule as text for users, such as `every 1m`.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Cron { expr, timezone } => format!("cron {expr} ({timezone})"),
            Self::Every { every } => format!("every {}", duration_text(*every)),
            Self::At { at } => match &at[..] {
                [one] => format!("at {}", instant(*one)),
                all => format!("at {} times", all.len()),
            },
        }
    }
}

/// How the timer handles a tick while deliveries of the previous tick are pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// Store the tick: its deliveries wait for the pending ones, or run at the same time.
    #[default]
    Queue,
    /// Skip the tick.
    Skip,
}

impl Overlap {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The times at which a timer ticks.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Schedule {
    /// At the times of a cron expression, in the local time of a time zone.
    Cron {
        /// Five fields, or six with seconds first, or a nickname such as `@daily`. The parser has checked that the
        /// croner crate accepts the expression, and that it matches at least one time.
        #[serde(rename = "cron")]
        expr: String,
        /// A name of the IANA time zone database.
        timezone: String,
    },
    /// At fixed intervals.
    Every {
        /// Time between two ticks, at least 100 ms.
        #[serde(with = "DurationText")]
        every: Duration,
    },
    /// Once at each of these instants.
    At {
        /// The instants, in order and without duplicates.
        #[serde(serialize_with = "serialize_instants")]
        at: Vec<UnixMs>,
    },
}

fn serialize_duration<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => DurationText::serialize(duration, serializer),
        None => serializer.serialize_none(),
    }
}

fn serialize_instants<S: Serializer>(instants: &[UnixMs], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(instants.iter().map(|at| instant(*at)))
}

/// Formats an instant as RFC 3339 in UTC. Omits the fraction of a second if it is zero.
pub(super) fn instant(at: UnixMs) -> String {
    Timestamp::from_millisecond(at).unwrap_or_default().to_string()
}

/// Which missed ticks to run. A tick is missed if its time passed while Evoke was not running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// Skip all missed ticks.
    None,
    /// Run only the last missed tick.
    #[default]
    Last,
    /// Run the last missed ticks in order, at most this number. `all` without a number means 1,000.
    All(u32),
}
