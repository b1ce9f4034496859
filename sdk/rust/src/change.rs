//! Turns a series of readings into change events, so that a monitor reports changes and not every reading.

use crate::{Draft, Failure, publish, state};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Watches one thing, and publishes an event when its condition changes. The condition is stored in the function's
/// state, so the manifest must grant `state: true` and the event's type.
///
/// The event's subject is the thing; its data is `{"from": "ok", "to": "warning"}`, plus the `reading` if there is one.
/// A thing that was never seen before starts in the default condition; that start is not a change.
///
/// ```no_run
/// # extern crate evoke_sdk as evoke;
/// use evoke::{Failure, Json, StateChange, Thresholds};
///
/// #[derive(serde::Deserialize)]
/// struct Reading { path: String, used: f64 }
///
/// #[evoke::function]
/// fn handle(reading: Json<Reading>) -> Result<(), Failure> {
///     // Warning from 80, critical from 90; the condition improves only 5 below each limit.
///     let limits = Thresholds::rising(80.0, 90.0).clear(5.0);
///     StateChange::of(&reading.path, "disk.changed").level(&limits, reading.used)?;
///     Ok(())
/// }
/// ```
///
/// Readings of one thing should arrive in order; use `order_by` in the manifest for that.
#[derive(Debug, Clone, Copy)]
pub struct StateChange<'a> {
    what: &'a str,
    event_type: &'a str,
}

/// A published change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Changed<S> {
    /// The condition before the change.
    pub from: S,
    /// The condition after the change.
    pub to: S,
}

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

/// The thresholds from which a reading is a warning or critical.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    warning: f64,
    critical: f64,
    clear: f64,
    /// 1 if high readings are bad, -1 if low readings are bad.
    sign: f64,
}

impl Thresholds {
    /// For readings where high values are bad, such as disk usage: a warning from `warning` upwards, critical from
    /// `critical` upwards.
    #[must_use]
    pub fn rising(warning: f64, critical: f64) -> Self {
        Self { warning, critical, clear: 0.0, sign: 1.0 }
    }

    /// For readings where low values are bad, such as a battery's charge: a warning from `warning` downwards, critical
    /// from `critical` downwards.
    #[must_use]
    pub fn falling(warning: f64, critical: f64) -> Self {
        Self { sign: -1.0, ..Self::rising(warning, critical) }
    }

    /// Sets the hysteresis: the level improves only when the reading is better than the threshold by more than
    /// `margin`. A reading that swings around a threshold is then one change instead of many.
    #[must_use]
    pub fn clear(self, margin: f64) -> Self {
        Self { clear: margin.abs(), ..self }
    }

    /// Returns the level for a reading, given the level `before`. A reading that is not a number (NaN) keeps the level.
    #[must_use]
    pub fn level(&self, before: Level, reading: f64) -> Level {
        if reading.is_nan() {
            return before;
        }
        let is_at = |level: Level, threshold: f64| {
            let worse_by = (reading - threshold) * self.sign;
            worse_by >= 0.0 || (before >= level && worse_by >= -self.clear)
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

impl<'a> StateChange<'a> {
    /// Watches `what`, and publishes events of this type. One function may watch several things.
    #[must_use]
    pub fn of(what: &'a str, event_type: &'a str) -> Self {
        Self { what, event_type }
    }

    /// Processes a reading. If its level changed, publishes and returns the change.
    ///
    /// # Errors
    /// The state operation or the event was refused.
    pub fn level(&self, thresholds: &Thresholds, reading: f64) -> Result<Option<Changed<Level>>, Failure> {
        self.change(Some(reading), |before: &Level| thresholds.level(*before, reading))
    }

    /// Processes the current condition, for example an enum of your own. If it changed, publishes and returns the
    /// change.
    ///
    /// ```no_run
    /// # extern crate evoke_sdk as evoke;
    /// # use evoke::StateChange;
    /// #[derive(Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
    /// enum Door { #[default] Closed, Open, Jammed }
    ///
    /// # fn handle() -> Result<(), evoke::Failure> {
    /// if let Some(changed) = StateChange::of("front", "door.changed").state(Door::Open)? {
    ///     evoke::log::info!("the door was {}", if changed.from == Door::Closed { "closed" } else { "not closed" });
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The state operation or the event was refused.
    pub fn state<S>(&self, now: S) -> Result<Option<Changed<S>>, Failure>
    where
        S: Default + PartialEq + Serialize + DeserializeOwned,
    {
        self.change(None, |_| now)
    }

    fn change<S>(&self, reading: Option<f64>, next: impl FnOnce(&S) -> S) -> Result<Option<Changed<S>>, Failure>
    where
        S: Default + PartialEq + Serialize + DeserializeOwned,
    {
        let (bucket, key) = (state::own()?, format!("state-change/{}", self.what));
        let from: S = bucket.get(&key)?.unwrap_or_default();
        let to = next(&from);
        if from == to {
            return Ok(None);
        }
        bucket.set(&key, &to)?;
        let data = Data { from: &from, to: &to, reading };
        publish(Draft::new(self.event_type).subject(self.what).json(&data)?)?;
        Ok(Some(Changed { from, to }))
    }
}

/// The data of the published event.
#[derive(Serialize)]
struct Data<'s, S> {
    from: &'s S,
    to: &'s S,
    #[serde(skip_serializing_if = "Option::is_none")]
    reading: Option<f64>,
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
}
