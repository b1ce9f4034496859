//! One watched thing: its state machine, its last readings, and the values that are shown to users.

use std::collections::VecDeque;

use evoke_model::clock::rfc3339;
use evoke_threshold::{Counter, Level, Machine, Moment, Rules, Sample, Saved, State};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::minutes::Minutes;
use super::quantity::Quantity;
use super::readings::{Found, Outcome};

/// Maximum number of readings in an event.
const READINGS_MAX: usize = 10;

#[derive(Debug)]
pub(super) struct Watched {
    pub(super) machine: Machine,
    counter: Counter,
    /// The last readings: wall time and value.
    readings: VecDeque<(i64, f64)>,
    /// The value of the last reading.
    pub(super) value: Option<f64>,
    /// The text for users from the last reading, such as the reason why there is no value.
    pub(super) detail: Option<String>,
    /// The averages of each minute of the last hours.
    pub(super) minutes: Minutes,
    /// True if the store has a state of this thing.
    pub(super) is_stored: bool,
    /// True after the first reading since the monitor started. A reading without a sample does not count, such as the
    /// first reading of a counter.
    pub(super) is_read: bool,
    /// True if the last reading found the thing. A thing can disappear, for example if a file is removed.
    pub(super) is_found: bool,
}

/// The content of the mark `state/SUBJECT`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StateMark {
    pub(super) v: u32,
    #[serde(flatten)]
    pub(super) saved: Saved,
}

impl Watched {
    pub(super) fn new(saved: Option<&Saved>, now: Moment) -> Self {
        Self {
            machine: saved.map_or_else(|| Machine::new(now), |saved| Machine::restore(saved, now)),
            counter: Counter::default(),
            readings: VecDeque::new(),
            value: None,
            detail: None,
            minutes: Minutes::default(),
            is_stored: saved.is_some(),
            is_read: false,
            is_found: true,
        }
    }

    /// Converts the outcome of a reading to a sample for the state machine. Returns `None` if there is no value yet:
    /// the value of a counter needs two readings, and this is the first one, or the first one after a reset.
    pub(super) fn sample(
        &mut self,
        outcome: Outcome,
        now: Moment,
        quantity: Quantity,
        is_counter: bool,
    ) -> Option<Sample> {
        match outcome {
            Outcome::Pending => None,
            Outcome::Unknown(reason) => {
                (self.value, self.detail) = (None, Some(reason));
                Some(Sample::Missing)
            }
            Outcome::Read(Found { value, at_least, detail }) => {
                self.detail = detail;
                let value = match value {
                    Some(count) if is_counter => self.counter.observe(now.mono_ms(), count, quantity.per()),
                    value => value,
                };
                if is_counter && value.is_none() && at_least == Level::Ok {
                    return None;
                }
                self.value = value.filter(|value| value.is_finite());
                if let Some(value) = self.value {
                    if self.readings.len() == READINGS_MAX {
                        self.readings.pop_front();
                    }
                    self.readings.push_back((now.wall_ms, value));
                    self.minutes.add(now.wall_ms, value);
                }
                Some(Sample::Read { value, at_least })
            }
        }
    }

    /// Returns the last readings in the format of events, oldest first.
    pub(super) fn readings(&self) -> serde_json::Value {
        let readings = self.readings.iter();
        readings.map(|(at, value)| json!({ "time": rfc3339(*at), "value": rounded(*value) })).collect()
    }

    pub(super) fn observe(&mut self, rules: &Rules, now: Moment, sample: Sample) -> Option<evoke_threshold::Change> {
        self.is_read = true;
        self.machine.observe(rules, now, sample)
    }

    pub(super) fn state(&self) -> State {
        self.machine.state()
    }

    /// Returns the content of the mark `state/SUBJECT`.
    pub(super) fn mark(&self, now: Moment) -> Vec<u8> {
        // Serialising numbers and strings cannot fail.
        serde_json::to_vec(&StateMark { v: 1, saved: self.machine.saved(now) }).unwrap_or_default()
    }
}

/// Rounds to six significant digits, because more digits are noise and hard to read.
pub(super) fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() || value.abs() >= 1e6 {
        return value.round();
    }
    let factor = 10_f64.powi(5 - value.abs().log10().floor() as i32);
    // For extremely small numbers, the factor is infinite.
    if factor.is_finite() { (value * factor).round() / factor } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_six_significant_digits() {
        for (value, expected) in
            [(83.123_456_789, 83.123_5), (0.000_123_456_78, 0.000_123_457), (5e9, 5e9), (0.0, 0.0), (1e-310, 1e-310)]
        {
            assert_eq!(rounded(value), expected);
        }
    }
}
