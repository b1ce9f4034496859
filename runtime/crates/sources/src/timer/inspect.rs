//! The past and the next ticks of a timer, for the console and the command line.

use std::collections::BTreeMap;

use super::mark::{Skip, last_mark};
use super::schedule::Times;
use super::settings::{TimerSource, instant};
use evoke_manifest::Settings;
use evoke_model::clock::UnixMs;

/// The past and the next ticks of a timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerTimes {
    /// The schedule as text, such as `every 1m`.
    pub schedule: String,
    /// The next instants of the schedule, in order.
    pub next: Vec<UnixMs>,
    /// The delay of each tick after its instant, in milliseconds. The option `jitter` causes this delay.
    pub delay_ms: i64,
    /// The newest instants that had their ticks, in order. The id of a tick's event is [`TimerTimes::id`].
    pub ticked: Vec<UnixMs>,
    /// The newest instants that were skipped, in order, with the reason.
    pub skipped: Vec<(UnixMs, Skip)>,
}

impl TimerTimes {
    /// Returns the id of the event for the tick of this instant.
    pub fn id(at: UnixMs) -> String {
        instant(at)
    }
}

/// Returns the next `count` and the last `count` ticks of a timer. `marks` are the marks of the timer's source. Returns
/// `None` if the settings belong to another kind of source.
pub fn inspect(
    settings: &Settings,
    uri: &str,
    marks: &BTreeMap<String, Vec<u8>>,
    now: UnixMs,
    count: usize,
) -> Option<TimerTimes> {
    let config = settings.get::<TimerSource>()?;
    let times = Times::new(&config.schedule).ok()?;
    let delay_ms = config.delay_ms(uri);
    let last = last_mark(marks).filter(|last| last.schedule == config.schedule.identity());
    let mut next = Vec::new();
    let mut at = now.saturating_sub(delay_ms);
    while next.len() < count
        && let Some(instant) = times.after(at)
    {
        next.push(instant);
        at = instant;
    }
    let (ticked, skipped) = match last {
        Some(last) => (last.ticked.newest_of(&times, count), last.skipped),
        None => (Vec::new(), Vec::new()),
    };
    let schedule = config.schedule.describe();
    Some(TimerTimes { schedule, next, delay_ms, ticked, skipped })
}
