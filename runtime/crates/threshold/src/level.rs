//! The severity of one reading.

use serde::{Deserialize, Serialize};

/// Severity of a reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// No problem.
    #[default]
    Ok,
    /// A problem to look into soon.
    Warning,
    /// A problem that needs action now.
    Critical,
}

/// The state of a watched thing: a [`Level`], or unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No problem.
    #[default]
    Ok,
    /// A problem to look into soon.
    Warning,
    /// A problem that needs action now.
    Critical,
    /// There is no reading.
    Unknown,
}

impl State {
    /// All states, in the order of their discriminants: 0 ok, 1 warning, 2 critical, 3 unknown.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Warning, Self::Critical, Self::Unknown];

    /// Returns the name of the state in events and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the severity of the state; `None` for [`State::Unknown`].
    pub fn level(self) -> Option<Level> {
        match self {
            Self::Ok => Some(Level::Ok),
            Self::Warning => Some(Level::Warning),
            Self::Critical => Some(Level::Critical),
            Self::Unknown => None,
        }
    }
}

impl From<Level> for State {
    fn from(level: Level) -> Self {
        match level {
            Level::Ok => Self::Ok,
            Level::Warning => Self::Warning,
            Level::Critical => Self::Critical,
        }
    }
}

/// The side of a threshold on which readings are bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// High readings are bad, such as disk usage.
    #[default]
    Above,
    /// Low readings are bad, such as a battery's charge.
    Below,
}

/// One threshold: readings at this value or on its bad side (see [`Direction`]) have a level, such as a warning.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// The threshold, in the unit of the readings.
    pub value: f64,
    /// True if a reading equal to the threshold has the level too.
    pub inclusive: bool,
}

impl From<f64> for Limit {
    fn from(value: f64) -> Self {
        Self { value, inclusive: true }
    }
}

/// The thresholds of the levels warning and critical. The default has no thresholds: every reading is ok.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Thresholds {
    direction: Direction,
    warning: Option<Limit>,
    critical: Option<Limit>,
    clear: f64,
}

impl Thresholds {
    /// Creates thresholds; either of them may be missing.
    #[must_use]
    pub fn new(direction: Direction, warning: Option<Limit>, critical: Option<Limit>) -> Self {
        Self { direction, warning, critical, clear: 0.0 }
    }

    /// Creates thresholds for readings where high values are bad, such as disk usage: a warning from `warning` upwards,
    /// critical from `critical` upwards.
    #[must_use]
    pub fn rising(warning: f64, critical: f64) -> Self {
        Self::new(Direction::Above, Some(warning.into()), Some(critical.into()))
    }

    /// Creates thresholds for readings where low values are bad, such as a battery's charge: a warning from `warning`
    /// downwards, critical from `critical` downwards.
    #[must_use]
    pub fn falling(warning: f64, critical: f64) -> Self {
        Self::new(Direction::Below, Some(warning.into()), Some(critical.into()))
    }

    /// Sets the hysteresis: the level improves only when a reading is more than `margin` better than the threshold. So
    /// readings that swing around a threshold cause one change instead of many.
    #[must_use]
    pub fn clear(self, margin: f64) -> Self {
        Self { clear: margin.abs(), ..self }
    }

    /// Returns the level for a reading. `before` is the level of the previous reading; it matters for the hysteresis.
    /// For a reading that is not a number (NaN), returns `before`.
    #[must_use]
    pub fn level(&self, before: Level, reading: f64) -> Level {
        if reading.is_nan() {
            return before;
        }
        let is_at = |level: Level, limit: Option<Limit>| {
            let Some(Limit { value, inclusive }) = limit else { return false };
            let worse_by = match self.direction {
                Direction::Above => reading - value,
                Direction::Below => value - reading,
            };
            let is_held = before >= level && self.clear > 0.0 && worse_by >= -self.clear;
            is_held || if inclusive { worse_by >= 0.0 } else { worse_by > 0.0 }
        };
        if is_at(Level::Critical, self.critical) {
            Level::Critical
        } else if is_at(Level::Warning, self.warning) {
            Level::Warning
        } else {
            Level::Ok
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the level after each reading of a series.
    fn levels(thresholds: &Thresholds, readings: &[f64]) -> Vec<Level> {
        let mut level = Level::Ok;
        let step = |reading: &f64| {
            level = thresholds.level(level, *reading);
            level
        };
        readings.iter().map(step).collect()
    }

    #[test]
    fn a_rising_reading_improves_only_past_the_margin() {
        use Level::{Critical, Ok, Warning};
        let disk = Thresholds::rising(80.0, 90.0).clear(5.0);
        let readings = [79.9, 80.0, 79.0, 75.0, 74.9, 79.9, 95.0, 86.0, 85.0, 84.9, 76.0, 10.0];
        let expected = [Ok, Warning, Warning, Warning, Ok, Ok, Critical, Critical, Critical, Warning, Warning, Ok];
        assert_eq!(levels(&disk, &readings), expected);
        // From critical to ok in one step.
        assert_eq!(disk.level(Critical, 0.0), Ok);
    }

    #[test]
    fn a_falling_reading_uses_the_same_rules_reversed() {
        use Level::{Critical, Ok, Warning};
        let battery = Thresholds::falling(20.0, 5.0).clear(2.0);
        let readings = [21.0, 20.0, 22.0, 22.1, 5.0, 7.0, 7.1, 30.0];
        assert_eq!(levels(&battery, &readings), [Ok, Warning, Warning, Ok, Critical, Critical, Warning, Ok]);
    }

    #[test]
    fn without_a_margin_each_crossing_is_a_change_and_nan_is_none() {
        use Level::{Ok, Warning};
        let bare = Thresholds::rising(80.0, 90.0);
        assert_eq!(levels(&bare, &[80.0, 79.9, 80.0]), [Warning, Ok, Warning]);
        assert_eq!(bare.level(Warning, f64::NAN), Warning);
        assert_eq!(bare.level(Ok, f64::INFINITY), Level::Critical);
        assert_eq!(Thresholds::rising(f64::NAN, 90.0).level(Ok, 85.0), Ok);
    }

    #[test]
    fn a_strict_limit_leaves_out_the_threshold_itself() {
        use Level::{Critical, Ok};
        let strict = Limit { value: 0.0, inclusive: false };
        let errors = Thresholds::new(Direction::Above, None, Some(strict));
        assert_eq!(levels(&errors, &[0.0, 1.0, 0.0]), [Ok, Critical, Ok]);
        assert_eq!(levels(&Thresholds::default(), &[f64::MAX, f64::MIN]), [Ok, Ok]);
    }
}
