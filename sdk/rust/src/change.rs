//! Readings in, changes out: what a monitor needs so that it does not cry at every reading.

use crate::{Draft, Failure, publish, state};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Watches one thing, and publishes an event when its state changes. The state it is in is kept in the function's
/// state, so the manifest has to grant `state: true` and the event's type.
///
/// The event has the thing as its subject and `{"from": "ok", "to": "warning"}` as its data, with the `reading` where
/// there is one. What was never seen before is taken to be in its default state, and starting there is no change.
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
///     // Warning from 80, critical from 90, and better again only at 5 less than that.
///     let limits = Thresholds::rising(80.0, 90.0).clear(5.0);
///     StateChange::of(&reading.path, "disk.changed").level(&limits, reading.used)?;
///     Ok(())
/// }
/// ```
///
/// Readings of one thing should come in order: `order_by` in the manifest sees to that.
#[derive(Debug, Clone, Copy)]
pub struct StateChange<'a> {
    what: &'a str,
    event_type: &'a str,
}

/// A change that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Changed<S> {
    /// The state that it was in.
    pub from: S,
    /// The state that it is in.
    pub to: S,
}

/// How a reading is to be judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing to say.
    #[default]
    Ok,
    /// Somebody should look.
    Warning,
    /// Somebody should come.
    Critical,
}

/// From where on a reading is a warning, and critical.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    warning: f64,
    critical: f64,
    clear: f64,
    /// 1 where high readings are bad, -1 where low ones are.
    sign: f64,
}

impl Thresholds {
    /// High readings are bad, such as a disk's use: a warning from `warning` on, critical from `critical` on.
    #[must_use]
    pub fn rising(warning: f64, critical: f64) -> Self {
        Self { warning, critical, clear: 0.0, sign: 1.0 }
    }

    /// Low readings are bad, such as a battery's charge: a warning from `warning` downwards, critical from `critical`
    /// downwards.
    #[must_use]
    pub fn falling(warning: f64, critical: f64) -> Self {
        Self { sign: -1.0, ..Self::rising(warning, critical) }
    }

    /// It gets better only when the reading is better than the threshold by more than `margin`: so a reading that
    /// swings around a threshold is one change and not many.
    #[must_use]
    pub fn clear(self, margin: f64) -> Self {
        Self { clear: margin.abs(), ..self }
    }

    /// The level of a reading of something that was at `before`. A reading that is no number changes nothing.
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
    /// Watches `what`, and publishes events of this type. One function may watch many things.
    #[must_use]
    pub fn of(what: &'a str, event_type: &'a str) -> Self {
        Self { what, event_type }
    }

    /// Takes a reading; publishes and returns the change of its level, if it is one.
    ///
    /// # Errors
    /// The state or the event is refused.
    pub fn level(&self, thresholds: &Thresholds, reading: f64) -> Result<Option<Changed<Level>>, Failure> {
        self.change(Some(reading), |before: &Level| thresholds.level(*before, reading))
    }

    /// Takes the state that it is in now, such as an enum of your own; publishes and returns the change, if it is one.
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
    /// The state or the event is refused.
    pub fn state<S>(&self, now: S) -> Result<Option<Changed<S>>, Failure>
    where
        S: Default + PartialEq + Serialize + DeserializeOwned,
    {
        self.change(None, |_| now)
    }

    fn change<S>(&self, reading: Option<f64>, judge: impl FnOnce(&S) -> S) -> Result<Option<Changed<S>>, Failure>
    where
        S: Default + PartialEq + Serialize + DeserializeOwned,
    {
        let (bucket, key) = (state::own()?, format!("state-change/{}", self.what));
        let from: S = bucket.get(&key)?.unwrap_or_default();
        let to = judge(&from);
        if from == to {
            return Ok(None);
        }
        bucket.set(&key, &to)?;
        let data = Data { from: &from, to: &to, reading };
        publish(Draft::new(self.event_type).subject(self.what).json(&data)?)?;
        Ok(Some(Changed { from, to }))
    }
}

/// What the event says.
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

    /// The levels that a series of readings comes to.
    fn levels(thresholds: &Thresholds, readings: &[f64]) -> Vec<Level> {
        let mut level = Level::Ok;
        let step = |reading: &f64| {
            level = thresholds.level(level, *reading);
            level
        };
        readings.iter().map(step).collect()
    }

    #[test]
    fn a_rising_reading_gets_better_only_when_it_is_clear_of_its_threshold() {
        use Level::{Critical, Ok, Warning};
        let disk = Thresholds::rising(80.0, 90.0).clear(5.0);
        let readings = [79.9, 80.0, 79.0, 75.0, 74.9, 79.9, 95.0, 86.0, 85.0, 84.9, 76.0, 10.0];
        let expected = [Ok, Warning, Warning, Warning, Ok, Ok, Critical, Critical, Critical, Warning, Warning, Ok];
        assert_eq!(levels(&disk, &readings), expected);
        // All the way down in one step.
        assert_eq!(disk.level(Critical, 0.0), Ok);
    }

    #[test]
    fn a_falling_reading_is_the_same_upside_down() {
        use Level::{Critical, Ok, Warning};
        let battery = Thresholds::falling(20.0, 5.0).clear(2.0);
        let readings = [21.0, 20.0, 22.0, 22.1, 5.0, 7.0, 7.1, 30.0];
        assert_eq!(levels(&battery, &readings), [Ok, Warning, Warning, Ok, Critical, Critical, Warning, Ok]);
    }

    #[test]
    fn without_a_margin_each_crossing_is_a_change_and_what_is_no_number_is_none() {
        use Level::{Ok, Warning};
        let bare = Thresholds::rising(80.0, 90.0);
        assert_eq!(levels(&bare, &[80.0, 79.9, 80.0]), [Warning, Ok, Warning]);
        assert_eq!(bare.level(Warning, f64::NAN), Warning);
        assert_eq!(bare.level(Ok, f64::INFINITY), Level::Critical);
        assert_eq!(Thresholds::rising(f64::NAN, 90.0).level(Ok, 85.0), Ok);
    }
}
