//! Timers: events at the instants of a schedule.
//!
//! # Ticks
//! A tick is its trigger and its scheduled instant, nothing else: the event's id is the instant (RFC 3339, UTC), its
//! source the timer's, so that a tick which is offered twice is stored once. An interval's instants are the multiples
//! of the interval since the Unix epoch, a cron expression's those at which the wall clock of its time zone shows
//! what it says; neither depends on when Evoke was started.
//!
//! ```json
//! { "type": "evoke.timer.tick", "source": "/shop/nightly", "id": "2026-01-31T01:00:00Z", "time": "2026-01-31T01:00:00Z",
//!   "data": { "scheduled": "2026-01-31T01:00:00Z", "timezone": "Europe/Berlin", "missed": false } }
//! ```
//!
//! # Daylight saving time
//! What an expression does when clocks change depends on its second, minute and hour (those of `croner`):
//! - **One time of day** (each of the three is a single number, as in `30 2 * * *`): it ticks once on every day it
//!   names. A time that the day leaves out is moved to the first instant after the gap (02:30 to 03:00), one that the
//!   day has twice ticks the first time only.
//! - **Several times of day** (one of the three is a list, range, step or `*`, as in `*/30 * * * *`): it follows the
//!   wall clock. Times that a day leaves out do not tick, times that it has twice tick twice.
//!
//! A date that a zone leaves out (30 December 2011 in Apia) is a gap of a day, which is longer than what a time is
//! moved by: nothing ticks for it.
//!
//! # Marks
//! Scope: the source's uri. Key `last`: a JSON object of `v` (1), `at` (the last instant that was dealt with, in
//! milliseconds since the Unix epoch) and `schedule` (in words); committed with the tick. A timer without a mark, or
//! with one of another schedule, begins now: it has missed nothing.
//!
//! # Absence and jumps of the clock
//! What came due while Evoke was not running, or was jumped over by the wall clock (also by a suspended machine),
//! is *missed* and follows the policy `missed`. What came due while it ran is never left out, however long the bus
//! refuses it. After a jump back the timer is silent until the clock passes its last tick again: those instants had
//! their ticks. A mark more than a day in the future means that the clock was wrong when it was written; the timer
//! then follows the clock, and the bus still knows the ids of ticks that were.

mod schedule;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use self::schedule::{Tick, Times, due};
use super::Context;
use super::handover::{NotTaken, hand_over, marks};
use crate::bus::Offer;
use crate::clock::UnixMs;
use crate::event::{Data, Event};
use crate::manifest::{Missed, Schedule, TimerSource};
use crate::store::Mark;

/// Ticks in one commit: enough that an absence is made up for quickly, few enough to hold.
const BATCH_MAX: usize = 64;
/// The longest sleep. The monotonic clock that sleeps are made of does not see the wall clock jump: this is how late
/// a tick can be after a jump.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How far wall clock and monotonic clock may part between two looks before it is a jump: clocks that are steered
/// gently stay far below.
const JUMP_MIN_MS: i64 = 2_000;
/// A mark that is further in the future than this was written by a wrong clock.
const AHEAD_MAX_MS: i64 = 24 * 60 * 60 * 1000;

/// What the mark `last` holds.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Last {
    v: u32,
    at: UnixMs,
    schedule: String,
}

/// Hands over the ticks of `config` until it is stopped.
pub async fn run(config: TimerSource, ctx: Context) {
    let times = match Times::new(&config.schedule) {
        Ok(times) => times,
        Err(reason) => {
            ctx.health.degraded(reason);
            return ctx.stop.cancelled().await;
        }
    };
    let Some(noted) = marks(&ctx).await else { return };
    let mut timer = Timer::new(config, times, &noted, ctx.clock.now_ms());
    if timer.is_new && hand_over(&ctx, &timer.offer(&ctx, &[])).await.is_err() {
        return;
    }
    loop {
        let now = ctx.clock.now_ms();
        timer.look(now, Instant::now());
        while timer.next.is_some_and(|next| next <= now) {
            if !timer.tick(&ctx, now).await {
                return;
            }
        }
        tokio::select! {
            () = ctx.stop.cancelled() => return,
            () = tokio::time::sleep(timer.pause(ctx.clock.now_ms())) => {}
        }
    }
}

struct Timer {
    times: Times,
    /// The schedule in words, as the mark has it.
    schedule: String,
    timezone: String,
    missed: Missed,
    /// Whether nothing was noted of this schedule before.
    is_new: bool,
    /// Every instant up to this one is dealt with.
    last: UnixMs,
    /// Instants after this one came due before our eyes.
    live_since: UnixMs,
    /// When something is due next; `None` when never again.
    next: Option<UnixMs>,
    /// Whether the bus finds fault with the ticks themselves.
    refused: bool,
    /// The clocks at the last look.
    looked: (UnixMs, Instant),
}

impl Timer {
    fn new(config: TimerSource, times: Times, noted: &BTreeMap<String, Vec<u8>>, now: UnixMs) -> Self {
        let (schedule, timezone) = match config.schedule {
            Schedule::Cron { expr, timezone } => (format!("cron {expr} {timezone}"), timezone),
            Schedule::Every { every } => (format!("every {}ms", every.as_millis()), "UTC".to_owned()),
        };
        let last = noted
            .get("last")
            .and_then(|value| serde_json::from_slice::<Last>(value).ok())
            .filter(|last| last.v == 1 && last.schedule == schedule)
            .map(|last| last.at);
        Self {
            times,
            schedule,
            timezone,
            missed: config.missed,
            is_new: last.is_none(),
            last: last.unwrap_or(now),
            live_since: now,
            next: Some(now),
            refused: false,
            looked: (now, Instant::now()),
        }
    }

    /// Compares the clocks with those of the last look.
    fn look(&mut self, wall: UnixMs, monotonic: Instant) {
        let (wall_before, monotonic_before) = std::mem::replace(&mut self.looked, (wall, monotonic));
        let passed_ms = i64::try_from((monotonic - monotonic_before).as_millis()).unwrap_or(i64::MAX);
        let jumped_ms = wall.saturating_sub(wall_before).saturating_sub(passed_ms);
        if jumped_ms > JUMP_MIN_MS {
            tracing::warn!("the clock jumped ahead by {jumped_ms} ms");
            self.live_since = wall.saturating_sub(passed_ms);
            self.next = Some(wall);
        } else if jumped_ms < -JUMP_MIN_MS {
            tracing::warn!("the clock jumped back by {} ms", -jumped_ms);
            self.live_since = self.live_since.min(wall);
            self.next = Some(wall);
        }
        if self.last.saturating_sub(wall) > AHEAD_MAX_MS {
            tracing::warn!("the last tick is more than a day ahead of the clock; the timer follows the clock");
            self.last = wall;
            self.live_since = wall;
            self.next = Some(wall);
        }
    }

    /// Hands over what is due at `now`, a batch of it; false when the timer is to stop.
    async fn tick(&mut self, ctx: &Context, now: UnixMs) -> bool {
        let due = due(&self.times, self.last, self.live_since, now, self.missed, BATCH_MAX);
        if !due.ticks.is_empty() {
            match hand_over(ctx, &self.offer(ctx, &due.ticks)).await {
                Ok(()) if self.refused => ctx.health.recovered(),
                Ok(()) => {}
                Err(NotTaken::Stopped) => return false,
                Err(refused) => {
                    // Every tick is shaped alike: until the routes change, none is taken.
                    if !std::mem::replace(&mut self.refused, true) {
                        ctx.health.degraded(format!("its ticks are refused: {refused:?}"));
                    }
                    return tokio::time::timeout(LOOK_MAX, ctx.stop.cancelled()).await.is_err();
                }
            }
        }
        self.refused = false;
        self.last = due.seen;
        self.next = due.next;
        true
    }

    /// How long to sleep at `now`.
    fn pause(&self, now: UnixMs) -> Duration {
        let until_next = self.next.map_or(LOOK_MAX, |next| {
            Duration::from_millis(u64::try_from(next.saturating_sub(now)).unwrap_or_default())
        });
        until_next.min(LOOK_MAX)
    }

    /// The events of `ticks`, with the mark that says so; without ticks, the mark of where the timer begins.
    fn offer(&self, ctx: &Context, ticks: &[Tick]) -> Offer {
        let at = ticks.last().map_or(self.last, |tick| tick.scheduled);
        let last = Last { v: 1, at, schedule: self.schedule.clone() };
        // Numbers and strings always serialise.
        let value = serde_json::to_vec(&last).unwrap_or_default();
        Offer {
            events: ticks.iter().map(|tick| self.event(ctx, *tick)).collect(),
            target: ctx.target.clone(),
            marks: vec![Mark { scope: ctx.uri.clone(), key: "last".to_owned(), value: Some(value) }],
            ..Offer::default()
        }
    }

    fn event(&self, ctx: &Context, tick: Tick) -> Event {
        let scheduled = instant(tick.scheduled);
        let data = serde_json::json!({ "scheduled": scheduled, "timezone": self.timezone, "missed": tick.missed });
        Event {
            id: scheduled.clone(),
            source: ctx.uri.clone(),
            type_: "evoke.timer.tick".to_owned(),
            subject: None,
            time: Some(scheduled),
            datacontenttype: Some("application/json".to_owned()),
            dataschema: None,
            extensions: BTreeMap::new(),
            data: Data::Json(Bytes::from(data.to_string())),
        }
    }
}

/// An instant as RFC 3339 in UTC, with a fraction only where there is one.
fn instant(at: UnixMs) -> String {
    Timestamp::from_millisecond(at).unwrap_or_default().to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
