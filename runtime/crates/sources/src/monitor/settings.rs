//! The settings of a monitor.

use std::time::Duration;

use evoke_manifest::units::{DurationText, duration_text};
use evoke_threshold::{Deviation, Direction, Flap, Rules, Thresholds};
use serde::{Serialize, Serializer};

use super::quantity::{Quantity, Threshold, Unit};
use super::readings::Check;

/// A monitor: takes a reading at an interval, and creates an event when the state changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MonitorSource {
    #[serde(flatten)]
    pub(super) check: Check,
    /// The time between two readings.
    #[serde(with = "DurationText")]
    pub(super) every: Duration,
    /// The maximum random delay of a reading.
    #[serde(with = "DurationText")]
    pub(super) jitter: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) warning: Option<Threshold>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) critical: Option<Threshold>,
    /// How far from a threshold a value must be for the state to improve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) clear: Option<Quantity>,
    /// How long all readings must be in a new state before the state changes.
    #[serde(rename = "for", with = "DurationText")]
    pub(super) hold: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flap: Option<FlapSettings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deviates: Option<Deviates>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_duration")]
    pub(super) repeat: Option<Duration>,
    /// How long the readings are stored.
    #[serde(with = "DurationText")]
    pub(super) keep: Duration,
}

fn optional_duration<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => DurationText::serialize(duration, serializer),
        None => serializer.serialize_none(),
    }
}

/// A state is flapping if it changes this number of times within this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct FlapSettings {
    pub(super) changes: u32,
    #[serde(with = "DurationText")]
    pub(super) within: Duration,
}

/// A value deviates if it is this number of standard deviations away from its moving average over this time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Deviates {
    pub(super) sigmas: f64,
    pub(super) over: Duration,
}

impl Serialize for Deviates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{} sigma over {}", self.sigmas, duration_text(self.over)))
    }
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl MonitorSource {
    /// Returns true if the monitor starts programs. The operator must allow this with `--allow-commands`.
    pub fn runs_commands(&self) -> bool {
        matches!(self.check, Check::Command(_))
    }

    /// Returns how long readings are stored, in hours.
    pub(super) fn keep_hours(&self) -> i64 {
        i64::try_from(self.keep.as_secs().div_ceil(3_600)).unwrap_or(i64::MAX)
    }

    /// Returns the rules of the state machine.
    pub(super) fn rules(&self) -> Rules {
        let limit = |threshold: Option<Threshold>| threshold.map(Threshold::limit);
        let thresholds = Thresholds::new(self.direction(), limit(self.warning), limit(self.critical));
        let flap = |flap: FlapSettings| Flap { changes: flap.changes, within_ms: millis(flap.within) };
        let deviation = |it: Deviates| Deviation { sigmas: it.sigmas, over_ms: millis(it.over) };
        Rules {
            thresholds: thresholds.clear(self.clear.map_or(0.0, |clear| clear.value)),
            hold_ms: millis(self.hold),
            flap: self.flap.map(flap),
            deviation: self.deviates.map(deviation),
            repeat_ms: self.repeat.map(millis),
        }
    }

    /// Returns the side of the thresholds on which readings are bad.
    pub(super) fn direction(&self) -> Direction {
        let written = [self.critical, self.warning].into_iter().flatten().find_map(Threshold::direction);
        written.unwrap_or(self.check.measure().direction)
    }

    /// Returns a quantity with the unit of the readings and a value without meaning. The unit is that of a threshold,
    /// or the first unit of the check if there are no thresholds. A counter without thresholds is a rate per second.
    pub(super) fn quantity(&self) -> Quantity {
        let measure = self.check.measure();
        let of_thresholds = self.critical.or(self.warning).map(|threshold| threshold.quantity);
        of_thresholds.unwrap_or(Quantity {
            value: 0.0,
            unit: measure.units.first().copied().unwrap_or(Unit::Count),
            per_ms: measure.is_counter.then_some(1_000),
        })
    }
}
