//! Timers: sources that send an event at each instant of a schedule.
//!
//! # Ticks
//! A tick is identified by its timer and its scheduled instant, and by nothing else: the event's id is the instant (RFC
//! 3339, UTC) and its source is the timer's, so a tick that is submitted twice is stored once. The instants of an
//! interval are the multiples of the interval since the Unix epoch. The instants of a cron expression are those at
//! which the wall clock of its time zone matches the expression. Neither depends on when Evoke was started.
//!
//! ```json
//! { "type": "evoke.timer.tick", "source": "/shop/nightly", "id": "2026-01-31T01:00:00Z", "time": "2026-01-31T01:00:00Z",
//!   "data": { "scheduled": "2026-01-31T01:00:00Z", "timezone": "Europe/Berlin", "missed": false } }
//! ```
//!
//! # Daylight saving time
//! How an expression behaves at a clock change depends on its second, minute and hour fields (as `croner` defines it):
//! - **One time of day** (each of the three is a single number, as in `30 2 * * *`): the timer ticks once on every
//!   matching day. A time that does not exist on that day moves to the first instant after the gap (02:30 to 03:00); of
//!   a time that occurs twice, only the first ticks.
//! - **Several times of day** (one of the three is a list, range, step or `*`, as in `*/30 * * * *`): the timer follows
//!   the wall clock. Times that do not exist on a day do not tick; times that occur twice tick twice.
//!
//! A date that a zone skips (30 December 2011 in Apia) is a gap of a day, longer than the largest gap over which a time
//! is moved: no tick occurs for it.
//!
//! # Cron expressions
//! Five fields, or six with the second first. Each has values with commas between them: a number or a name (`MON`,
//! `JAN`; Sunday is 0 and 7), a range that does not go backwards, `*/STEP`, `FIRST-LAST/STEP`, and for days `L`, `LW`,
//! `15W`, `5L` and `5#2`. If both the day of the month and the day of the week are given, a day needs to match only one
//! of them, as in crontabs; after a `+`, as in `1-7 * +MON`, a day must match both. An expression that never occurs is an
//! error; one that means something else than it seems to gets a warning, and so does the name of such a time zone.
//!
//! # Marks
//! Scope: the source's uri. Key `last`: a JSON object of `v` (1), `at` (the last processed instant, in milliseconds
//! since the Unix epoch), `schedule` (its textual form) and `ticked` (the newest instants that had their ticks, as pairs
//! of the first and the last one), committed with the tick. A timer without a mark, or with the mark of another schedule,
//! starts now and has missed nothing.
//!
//! # Downtime and clock jumps
//! Instants that came due while Evoke was not running, or that the wall clock jumped over (also on a suspended
//! machine), are *missed* and follow the policy `missed`. Instants that came due while Evoke ran are never skipped,
//! however long the bus refuses their ticks. After a backward jump, also while Evoke was not running, the timer follows
//! the clock and leaves out the instants that had their ticks; the instants between its last tick and the clock are
//! missed.

mod config;
mod cron;
mod schedule;
mod settings;
mod ticked;
mod zone;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use self::config::TimerKind;
use self::schedule::{Tick, Times, due};
pub use self::settings::{Missed, Schedule, TimerSource};
use self::ticked::Ticked;
use crate::{Services, TaskKind};
use evoke_core::bus::Offer;
use evoke_core::source::Context;
use evoke_core::source::submit::{SubmitError, marks, submit};
use evoke_manifest::Settings;
use evoke_model::Mark;
use evoke_model::clock::UnixMs;
use evoke_model::event::{Data, Event};

/// The most ticks in one commit: large enough to catch up quickly after downtime, small enough to keep in memory.
const BATCH_MAX: usize = 64;
/// The longest sleep, and so the longest delay of a tick after a wall-clock jump: sleeps run on the monotonic clock,
/// which does not see such jumps.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// The smallest difference between wall clock and monotonic clock, from one check to the next, that counts as a jump.
/// Gradual clock adjustment (slewing) stays far below.
const JUMP_MIN_MS: i64 = 2_000;

/// The content of the mark `last`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LastMark {
    v: u32,
    at: UnixMs,
    schedule: String,
    #[serde(default)]
    ticked: Ticked,
}

impl TaskKind for TimerKind {
    fn run(&self, settings: &Settings, ctx: Context, _: &Services) -> Option<BoxFuture<'static, ()>> {
        let config = settings.get::<TimerSource>()?.clone();
        Some(Box::pin(run(config, ctx)))
    }

    fn next_times(&self, settings: &Settings, after_ms: UnixMs, limit: usize) -> Vec<UnixMs> {
        let times = settings.get::<TimerSource>().and_then(|config| Times::new(&config.schedule).ok());
        let after = |at: UnixMs| times.as_ref()?.after(at);
        std::iter::successors(after(after_ms), |at| after(*at)).take(limit).collect()
    }
}

/// Runs the timer: submits the ticks of `config` until the source is stopped.
async fn run(config: TimerSource, ctx: Context) {
    let times = match Times::new(&config.schedule) {
        Ok(times) => times,
        Err(reason) => {
            ctx.health.degraded(reason);
            return ctx.stop.cancelled().await;
        }
    };
    let Some(stored_marks) = marks(&ctx).await else { return };
    let mut timer = Timer::new(config, times, &stored_marks, ctx.clock.now_ms());
    if timer.is_new && submit(&ctx, &timer.offer(&ctx, &[], Ticked::default())).await.is_err() {
        return;
    }
    loop {
        let now = ctx.clock.now_ms();
        timer.check_clocks(now, Instant::now());
        while timer.next.is_some_and(|next| next <= now) {
            if !timer.tick(&ctx, now).await {
                return;
            }
        }
        tokio::select! {
            () = ctx.stop.cancelled() => return,
            () = tokio::time::sleep(timer.sleep_time(ctx.clock.now_ms())) => {}
        }
    }
}

struct Timer {
    times: Times,
    /// The textual form of the schedule, as stored in the mark.
    schedule: String,
    timezone: String,
    missed: Missed,
    /// Whether there was no mark of this schedule.
    is_new: bool,
    /// Every instant up to this one is processed.
    last: UnixMs,
    /// The instants that had their ticks.
    ticked: Ticked,
    /// Instants after this one came due while the timer ran; those up to it were missed.
    running_since: UnixMs,
    /// The next due instant; `None` when the schedule has ended.
    next: Option<UnixMs>,
    /// Whether the bus rejected the last ticks as invalid.
    rejected: bool,
    /// The wall clock and the monotonic clock at the last check.
    last_check: (UnixMs, Instant),
}

impl Timer {
    fn new(config: TimerSource, times: Times, marks: &BTreeMap<String, Vec<u8>>, now: UnixMs) -> Self {
        let (schedule, timezone) = match config.schedule {
            Schedule::Cron { expr, timezone } => (format!("cron {expr} {timezone}"), timezone),
            Schedule::Every { every } => (format!("every {}ms", every.as_millis()), "UTC".to_owned()),
        };
        let last = marks
            .get("last")
            .and_then(|value| serde_json::from_slice::<LastMark>(value).ok())
            .filter(|last| last.v == 1 && last.schedule == schedule);
        let is_new = last.is_none();
        let (last, ticked) = last.map_or((now, Ticked::default()), |last| (last.at, last.ticked));
        Self {
            times,
            schedule,
            timezone,
            missed: config.missed,
            is_new,
            last,
            ticked,
            running_since: now,
            next: Some(now),
            rejected: false,
            last_check: (now, Instant::now()),
        }
    }

    /// Compares both clocks with their values at the last check, to find jumps of the wall clock.
    fn check_clocks(&mut self, wall: UnixMs, monotonic: Instant) {
        let (wall_before, monotonic_before) = std::mem::replace(&mut self.last_check, (wall, monotonic));
        let passed_ms = i64::try_from((monotonic - monotonic_before).as_millis()).unwrap_or(i64::MAX);
        let jumped_ms = wall.saturating_sub(wall_before).saturating_sub(passed_ms);
        if jumped_ms > JUMP_MIN_MS {
            tracing::warn!("the wall clock jumped forward by {jumped_ms} ms");
            self.running_since = wall.saturating_sub(passed_ms);
            self.next = Some(wall);
        } else if jumped_ms < -JUMP_MIN_MS {
            tracing::warn!("the wall clock jumped back by {} ms", -jumped_ms);
            self.running_since = self.running_since.min(wall);
            self.next = Some(wall);
        }
        if self.last.saturating_sub(wall) > JUMP_MIN_MS {
            self.last = self.ticked.processed_at(wall);
            self.running_since = wall;
            self.next = Some(wall);
        }
    }

    /// Submits one batch of the ticks due at `now`. Returns false when the source is stopped.
    async fn tick(&mut self, ctx: &Context, now: UnixMs) -> bool {
        let mut due = due(&self.times, self.last, self.running_since, now, self.missed, BATCH_MAX);
        let mut ticked = self.ticked.clone();
        ticked.add(&self.times, &due.ticks);
        due.ticks.retain(|tick| !self.ticked.contains(tick.scheduled));
        if !due.ticks.is_empty() {
            match submit(ctx, &self.offer(ctx, &due.ticks, ticked.clone())).await {
                Ok(()) if self.rejected => ctx.health.recovered(),
                Ok(()) => {}
                Err(SubmitError::Stopped) => return false,
                Err(rejected) => {
                    // All ticks have the same form, so the bus rejects all of them until the routes change.
                    if !std::mem::replace(&mut self.rejected, true) {
                        ctx.health.degraded(format!("the bus rejects the timer's ticks: {rejected:?}"));
                    }
                    return tokio::time::timeout(SLEEP_MAX, ctx.stop.cancelled()).await.is_err();
                }
            }
        }
        self.rejected = false;
        self.ticked = ticked;
        self.last = due.processed;
        self.next = due.next;
        true
    }

    /// How long to sleep from `now`.
    fn sleep_time(&self, now: UnixMs) -> Duration {
        let until_next = self.next.map_or(SLEEP_MAX, |next| {
            Duration::from_millis(u64::try_from(next.saturating_sub(now)).unwrap_or_default())
        });
        until_next.min(SLEEP_MAX)
    }

    /// Builds an offer to the bus that contains the events of `ticks` and the mark that records the last of them. If there
    /// are no ticks, the offer contains only a mark with the starting point.
    fn offer(&self, ctx: &Context, ticks: &[Tick], ticked: Ticked) -> Offer {
        let at = ticks.last().map_or(self.last, |tick| tick.scheduled);
        let last = LastMark { v: 1, at, schedule: self.schedule.clone(), ticked };
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
            principal: None,
        }
    }
}

/// Formats an instant as RFC 3339 in UTC, with a fraction only when there is one.
fn instant(at: UnixMs) -> String {
    Timestamp::from_millisecond(at).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests;
