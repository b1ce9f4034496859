//! Turns a series of readings into change events, so that a monitor reports changes and not every reading.

use crate::{Draft, Failure, publish, state};
pub use evoke_threshold::{Level, Thresholds};
use serde::{Serialize, de::DeserializeOwned};

/// Watches one thing, and publishes an event when its condition changes. The condition is stored in the function's
/// state, so the manifest must grant `state: true` and the event's type.
///
/// The subject of the event is the name of the thing. The data of the event is `{"from": "ok", "to": "warning"}`, with
/// the member `reading` if the change was found by [`StateChange::level`]. Before its first reading, a thing has the
/// default condition.
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
///     // Warning from 80, critical from 90. A level ends only when the reading is more than 5 below its limit.
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

impl<'a> StateChange<'a> {
    /// Watches the thing with the name `what`, and publishes events of the type `event_type`. One function may watch
    /// several things.
    #[must_use]
    pub fn of(what: &'a str, event_type: &'a str) -> Self {
        Self { what, event_type }
    }

    /// Compares a reading with the thresholds. If the level of the thing changed, publishes and returns the change.
    ///
    /// # Errors
    /// The state operation or the event was refused.
    pub fn level(&self, thresholds: &Thresholds, reading: f64) -> Result<Option<Changed<Level>>, Failure> {
        self.change(Some(reading), |before: &Level| thresholds.level(*before, reading))
    }

    /// Compares the current condition, for example an enum of your own, with the stored one. If the condition changed,
    /// publishes and returns the change.
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
