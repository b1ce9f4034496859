//! The state machine of one watched thing.

use serde::{Deserialize, Serialize};

use super::baseline::{Baseline, Deviation};
use super::flap::{Changes, Flap};
use super::level::{Level, State, Thresholds};

/// A point in time on the wall clock and on the monotonic clock. Durations are measured on the monotonic clock, so that
/// a jump of the wall clock does not change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since the Unix epoch.
    pub wall_ms: i64,
    /// Microseconds on a monotonic clock; the clock may start at any value. Not milliseconds, because the difference of two
    /// times that are rounded down can be a millisecond more than the time between them.
    pub mono_us: i64,
}

impl Moment {
    /// Returns the time on the monotonic clock in milliseconds, rounded down.
    pub fn mono_ms(self) -> i64 {
        self.mono_us.div_euclid(1_000)
    }

    /// Returns the whole milliseconds from `earlier` to this moment; 0 if `earlier` is later.
    pub fn ms_since(self, earlier: Self) -> i64 {
        self.mono_us.saturating_sub(earlier.mono_us).max(0) / 1_000
    }

    /// Converts a stored wall time to a moment, with the help of the current time `now` on both clocks. For a wall time
    /// in the future, the monotonic time of the result is that of `now`.
    fn of_wall(wall_ms: i64, now: Self) -> Self {
        let ago = now.wall_ms.saturating_sub(wall_ms).max(0);
        Self { wall_ms, mono_us: now.mono_us.saturating_sub(ago.saturating_mul(1_000)) }
    }

    /// Converts a time on the monotonic clock to a wall time that can be stored.
    fn to_wall(mono_ms: i64, now: Self) -> i64 {
        now.wall_ms.saturating_sub(now.mono_ms().saturating_sub(mono_ms))
    }
}

/// The rules for when readings change the state.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    /// The thresholds with which values are compared.
    pub thresholds: Thresholds,
    /// The state changes only if all readings for this number of milliseconds support the change. With 0, the first
    /// reading that supports the change is enough.
    pub hold_ms: i64,
    /// The rule for when the thing is flapping, that is, changes its state too often. With `None`, it is never
    /// flapping.
    pub flap: Option<Flap>,
    /// If set, a value that deviates from its moving average is at least a warning.
    pub deviation: Option<Deviation>,
    /// The interval of reminders while the state is not ok, in milliseconds. With `None`, there are no reminders.
    pub repeat_ms: Option<i64>,
}

/// A reading of a thing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sample {
    /// The thing could not be read.
    Missing,
    /// The thing was read.
    Read {
        /// The value to compare with the thresholds; `None` for a check that returns a level and no value.
        value: Option<f64>,
        /// The level that the check itself returned; the state is never better than this level.
        at_least: Level,
    },
}

impl Sample {
    /// Creates a reading with a value. The thresholds decide its level.
    pub fn value(value: f64) -> Self {
        Self::Read { value: Some(value), at_least: Level::Ok }
    }

    /// Creates a reading without a value. The check itself returned its level.
    pub fn level(level: Level) -> Self {
        Self::Read { value: None, at_least: level }
    }
}

/// A report that the machine returns after a reading. The caller sends an event with this report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is reported: a change of state, a reminder, or the start or end of flapping.
    pub kind: ChangeKind,
    /// The previously reported state.
    pub from: State,
    /// The current state.
    pub to: State,
    /// The time of the first reading with the current state.
    pub since: Moment,
    /// How long the previous state lasted, in milliseconds. For a reminder, and when flapping ends: how long the
    /// current state has lasted.
    pub lasted_ms: i64,
    /// True if the state changed before this process took its first reading. The time of the change is then unknown.
    pub missed: bool,
}

/// The kind of a [`Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The state changed.
    Changed,
    /// The state has not changed, but is still not ok.
    Reminder,
    /// The state changed, and has now changed so often that later changes are not reported until [`Self::Settled`].
    Flapping,
    /// The state changes less often again. Changes are reported again from now on. The state may be the same as in the
    /// last report.
    Settled,
}

/// The stored form of a machine. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The state after the last reading.
    pub state: State,
    /// The time of the first reading with `state`.
    pub since_ms: i64,
    /// The time of the last report about the thing.
    pub told_ms: i64,
    /// The last reported state. While the thing is flapping, `state` may differ from it.
    pub told: State,
    /// True if the thing is flapping, that is, changes its state too often.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flapping: bool,
    /// The times of the last state changes, from which flapping is detected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes_ms: Vec<i64>,
}

/// The state machine of one watched thing. A thing that was never read before starts as ok, without a report.
#[derive(Debug, Clone)]
pub struct Machine {
    state: State,
    since: Moment,
    told: State,
    told_at: Moment,
    /// For each state of [`State::ALL`]: the time since which all readings have supported a change to this state.
    /// `None` if the last reading did not support this change, and for the current state.
    supported: [Option<Support>; 4],
    changes: Changes,
    baseline: Baseline,
    /// True if the state was restored from the store, and no reading has been processed since.
    is_restored: bool,
}

#[derive(Debug, Clone, Copy)]
struct Support {
    since: Moment,
    /// True if the first reading after a restart already supported the change.
    from_start: bool,
}

impl Machine {
    /// Creates the machine of a thing that was never read before.
    pub fn new(now: Moment) -> Self {
        Self {
            state: State::Ok,
            since: now,
            told: State::Ok,
            told_at: now,
            supported: [None; 4],
            changes: Changes::default(),
            baseline: Baseline::default(),
            is_restored: false,
        }
    }

    /// Creates the machine of a thing that an earlier process read.
    pub fn restore(saved: &Saved, now: Moment) -> Self {
        let changes = saved.changes_ms.iter().map(|wall| Moment::of_wall(*wall, now).mono_ms()).collect();
        Self {
            state: saved.state,
            since: Moment::of_wall(saved.since_ms, now),
            told: saved.told,
            told_at: Moment::of_wall(saved.told_ms, now),
            changes: Changes::restore(changes, saved.flapping),
            is_restored: true,
            ..Self::new(now)
        }
    }

    /// Returns the form of the machine that the caller must store together with each reported change.
    pub fn saved(&self, now: Moment) -> Saved {
        Saved {
            state: self.state,
            since_ms: self.since.wall_ms,
            told_ms: self.told_at.wall_ms,
            told: self.told,
            flapping: self.changes.is_flapping,
            changes_ms: self.changes.times().map(|mono| Moment::to_wall(mono, now)).collect(),
        }
    }

    /// Returns the current state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns the time of the first reading with the current state.
    pub fn since(&self) -> Moment {
        self.since
    }

    /// Returns true if the thing is flapping, that is, changes its state too often.
    pub fn is_flapping(&self) -> bool {
        self.changes.is_flapping
    }

    /// Adds a value that was read before this machine was created to the moving average of [`Rules::deviation`]. Does
    /// not change the state.
    pub fn learn(&mut self, rules: &Rules, at_mono_ms: i64, value: f64) {
        if let Some(deviation) = &rules.deviation {
            self.baseline.observe(deviation, at_mono_ms, value);
        }
    }

    /// Processes a reading. Returns the change to report, if there is one. The caller stores [`Machine::saved`]
    /// together with the report. Changes while the thing is flapping are not reported, and the caller need not store
    /// them.
    pub fn observe(&mut self, rules: &Rules, now: Moment, sample: Sample) -> Option<Change> {
        let candidate = self.candidate(rules, now, sample);
        let from_start = std::mem::take(&mut self.is_restored);
        for (state, supported) in State::ALL.iter().zip(&mut self.supported) {
            let supports = *state != self.state && supports(self.state, candidate, *state);
            *supported = match *supported {
                Some(support) if supports => Some(support),
                _ if supports => Some(Support { since: now, from_start }),
                _ => None,
            };
        }
        let Some((to, support)) = self.reached(rules, now) else { return self.unchanged(rules, now) };
        let lasted_ms = support.since.ms_since(self.since);
        (self.state, self.since) = (to, support.since);
        // The earlier readings may also support a change from the new state to a third state. The time of these
        // readings counts for that change too.
        for (state, supported) in State::ALL.iter().zip(&mut self.supported) {
            if *state == to || !supports(to, candidate, *state) {
                *supported = None;
            }
        }
        let kind = match &rules.flap {
            Some(flap) if self.changes.add(flap, now.mono_ms()) => ChangeKind::Flapping,
            Some(_) if self.changes.is_flapping => return None,
            _ => ChangeKind::Changed,
        };
        Some(self.tell(kind, now, lasted_ms, support.from_start))
    }

    /// Returns the state that this reading supports, without regard to the hold time. Adds the value to the moving
    /// average.
    fn candidate(&mut self, rules: &Rules, now: Moment, sample: Sample) -> State {
        let Sample::Read { value, at_least } = sample else { return State::Unknown };
        let before = self.state.level().unwrap_or_default();
        let of_value = value.map_or(Level::Ok, |value| rules.thresholds.level(before, value));
        let deviates = rules
            .deviation
            .as_ref()
            .zip(value)
            .and_then(|(deviation, value)| self.baseline.observe(deviation, now.mono_ms(), value));
        let of_deviation = if deviates == Some(true) { Level::Warning } else { Level::Ok };
        of_value.max(of_deviation).max(at_least).into()
    }

    /// Returns the new state if readings have supported a change to it for the hold time. Of several such states,
    /// returns the worst state that is worse than the current state. If none is worse, returns the best state.
    fn reached(&self, rules: &Rules, now: Moment) -> Option<(State, Support)> {
        let held = |state: State| {
            let support = self.supported[state as usize]?;
            (now.ms_since(support.since) >= rules.hold_ms).then_some((state, support))
        };
        let current = self.state.level();
        let is_worse = |state: State| state.level() > current;
        let worse = [State::Critical, State::Warning].into_iter().filter(|state| is_worse(*state)).find_map(held);
        worse.or_else(|| [State::Ok, State::Warning, State::Unknown].into_iter().find_map(held))
    }

    /// Processes a reading that does not change the state. Reports the end of flapping, or a reminder that is due.
    fn unchanged(&mut self, rules: &Rules, now: Moment) -> Option<Change> {
        let lasts_ms = now.ms_since(self.since);
        match &rules.flap {
            // The configuration no longer has a rule for flapping.
            None if self.changes.is_flapping => {
                self.changes = Changes::default();
                return Some(self.tell(ChangeKind::Settled, now, lasts_ms, false));
            }
            Some(flap) if self.changes.settle(flap, now.mono_ms()) => {
                return Some(self.tell(ChangeKind::Settled, now, lasts_ms, false));
            }
            _ => {}
        }
        let is_due = |repeat_ms: i64| now.ms_since(self.told_at) >= repeat_ms;
        let reminds = self.state != State::Ok && rules.repeat_ms.is_some_and(is_due);
        reminds.then(|| self.tell(ChangeKind::Reminder, now, lasts_ms, false))
    }

    fn tell(&mut self, kind: ChangeKind, now: Moment, lasted_ms: i64, missed: bool) -> Change {
        let from = std::mem::replace(&mut self.told, self.state);
        self.told_at = now;
        Change { kind, from, to: self.state, since: self.since, lasted_ms, missed }
    }
}

/// Returns true if a reading with the state `candidate` supports a change from `current` to `state`. A critical reading
/// also supports a change from ok to warning. An ok reading also supports a change from critical to warning.
fn supports(current: State, candidate: State, state: State) -> bool {
    match (current.level(), candidate.level(), state.level()) {
        (_, None, None) => true,
        (_, None, Some(_)) | (_, Some(_), None) => false,
        (Some(current), Some(candidate), Some(state)) if state > current => candidate >= state,
        (Some(_), Some(candidate), Some(state)) => candidate <= state,
        (None, Some(candidate), Some(Level::Ok)) => candidate == Level::Ok,
        (None, Some(candidate), Some(state)) => candidate >= state,
    }
}

#[cfg(test)]
mod tests;
