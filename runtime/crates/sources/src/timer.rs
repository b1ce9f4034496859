//! Timers: sources that send an event, called a tick, at each instant of a schedule.
//!
//! # Ticks
//! A tick is identified only by its timer and its scheduled instant: the event's id is the instant (RFC 3339, UTC), and
//! its source is the uri of the timer. So if a tick is submitted twice, both events have the same id, and the bus
//! stores only one. The instants of an interval are the multiples of the interval since the Unix epoch. The instants of
//! a cron expression are the times at which the wall clock of its time zone matches the expression. The instants do not
//! depend on when Evoke was started.
//!
//! ```json
//! { "type": "evoke.timer.tick", "source": "/shop/nightly", "id": "2026-01-31T01:00:00Z",
//!   "time": "2026-01-31T01:00:00Z",
//!   "data": { "scheduled": "2026-01-31T01:00:00Z", "timezone": "Europe/Berlin", "missed": false } }
//! ```
//!
//! # Daylight saving time
//! How an expression behaves at a clock change depends on its second, minute and hour fields. The rules are those of
//! the crate `croner`:
//! - **One time of day** (each of the three fields is a single number, as in `30 2 * * *`): the timer ticks once on
//!   every matching day. A time that does not exist on that day moves to the first instant after the gap (02:30 to
//!   03:00). If the time occurs twice on that day, the timer ticks only at the first occurrence.
//! - **Several times of day** (one of the three fields is a list, range, step or `*`, as in `*/30 * * * *`): the timer
//!   follows the wall clock. It does not tick at times that do not exist on a day. It ticks twice at times that occur
//!   twice.
//!
//! A time zone can skip a whole date (30 December 2011 in Apia). Times in such a long gap are not moved behind it: the
//! timer does not tick for this date.
//!
//! # Cron expressions
//! An expression has five fields. With six fields, the first one is for the seconds. A field is a list of values with
//! commas between them. A value is a number or a name (`MON`, `JAN`; Sunday is 0 and 7), a range that does not go
//! backwards, `*/STEP` or `FIRST-LAST/STEP`. The day of the month can also be `L` (the last day), `LW` (the last
//! workday) or `15W` (the workday nearest to the 15th); the day of the week also `5L` (the last Friday of the month) or
//! `5#2` (the second Friday).
//!
//! If both the day of the month and the day of the week are set, a day needs to match only one of the two fields, as in
//! crontabs. With a `+` before the day of the week, as in `0 2 1-7 * +MON`, a day must match both fields. An expression
//! that matches no date is an error. An expression or a time zone that is easily misunderstood gets a warning.
//!
//! # Options
//! - `at`: one time or several times; the timer ticks once at each of them. A time that has passed without a tick is
//!   missed, also if the timer is new or the list was changed.
//! - `overlap: skip`: a tick is skipped while deliveries of the previous tick are pending (ready, retrying or blocked).
//!   If several ticks are due together, only the newest one is stored.
//! - `start_deadline`: a tick is skipped if it cannot be stored within this time after its instant. So this option also
//!   limits how old a missed tick may be, and how long the timer retries a tick that the bus refuses.
//! - `jitter`: delays all ticks of a timer by the same part of this time, so that timers with equal schedules do not
//!   tick together. The part depends on a hash of the source's uri. The ids and times of the events are not delayed.
//!
//! # Marks
//! A timer stores its progress as a mark (a value that is committed together with events). The scope (namespace) of the
//! mark is the source's uri, its key is `last`, and its value is a JSON object. The fields of the object are `v` (1),
//! `at` (the last processed instant, in milliseconds since the Unix epoch), `schedule` (the schedule as text), `ticked`
//! (the newest instants that had their ticks, as pairs of a first and a last instant) and `skipped` (the newest skipped
//! instants, each with the reason). A timer without a mark, or with the mark of another schedule, starts at the current
//! time. It has no missed ticks, except with `at`.
//!
//! # Downtime and clock jumps
//! Instants are *missed* if they came due while Evoke was not running, or if the wall clock jumped over them (also
//! because the machine was suspended). The option `missed` decides which missed ticks are sent. Instants that came due
//! while Evoke ran are not missed: the timer retries their ticks for as long as the bus refuses them. After a backward
//! jump, even one while Evoke was not running, the timer follows the wall clock, but does not repeat ticks. The timer
//! looks for its last tick before the new time of the clock: the instants after this tick and until the new time are
//! missed.

mod config;
mod cron;
mod inspect;
mod jumps;
mod mark;
mod schedule;
mod settings;
mod ticked;
mod zone;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

pub use self::config::TimerKind;
pub use self::inspect::{TimerTimes, inspect};
use self::jumps::{JUMP_MIN_MS, Jumps, jump_ms};
pub use self::mark::Skip;
use self::mark::{LastMark, SKIPPED_MAX, last_mark, ticked_of_earlier};
use self::schedule::{Tick, Times, due};
use self::settings::instant;
pub use self::settings::{Missed, Overlap, Schedule, TimerSource};
use self::ticked::Ticked;
use crate::{Services, TaskKind};
use evoke_core::bus::Offer;
use evoke_core::source::Context;
use evoke_core::source::submit::{SubmitError, marks, submit, submit_until};
use evoke_manifest::Settings;
use evoke_model::Mark;
use evoke_model::clock::UnixMs;
use evoke_model::event::{Data, Event};
use evoke_store::StoreError;

/// Maximum number of ticks that the timer submits together: enough to catch up quickly after downtime, and few enough
/// to hold in memory.
const BATCH_MAX: usize = 64;
/// The longest sleep, on the monotonic clock. After each sleep, the timer compares this clock with the wall clock.
/// During one sleep, a gradual adjustment of the wall clock (slewing) stays far below [`JUMP_MIN_MS`], so the timer
/// does not take the adjustment for a jump. A real jump ends a sleep early, through [`Jumps`].
const SLEEP_MAX: Duration = Duration::from_secs(600);
/// A time that is earlier than every time that RFC 3339 can express.
const BEFORE_ALL: UnixMs = UnixMs::MIN / 4;
/// How long to wait before a retry, after the bus rejected a tick or the store could not be read.
const RETRY: Duration = Duration::from_secs(1);

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
    let jumps = Jumps::of(&ctx.clock);
    let mut jumped = jumps.receiver();
    let delay_ms = config.delay_ms(&ctx.uri);
    // The timer uses the wall clock minus the delay as its time. So the rest of the code need not care about the
    // jitter.
    let now = || ctx.clock.now_ms().saturating_sub(delay_ms);
    let mut timer = Timer::new(&config, times, &stored_marks, now());
    if timer.is_new
        && submit(&ctx, &timer.offer(&ctx, &[], timer.last, timer.ticked.clone(), Vec::new())).await.is_err()
    {
        return;
    }
    loop {
        // Check the clocks before each tick: the wall clock may have jumped while the previous tick was submitted.
        let moment = now();
        timer.check_clocks(moment, Instant::now());
        if timer.next.is_some_and(|next| next <= moment) {
            if !timer.tick(&ctx, moment, &now).await {
                return;
            }
            continue;
        }
        tokio::select! {
            () = ctx.stop.cancelled() => return,
            () = tokio::time::sleep(timer.sleep_time(now())) => {}
            _ = jumped.changed() => {}
        }
    }
}

struct Timer {
    times: Times,
    /// The textual form of the schedule, as stored in the mark.
    schedule: String,
    timezone: String,
    missed: Missed,
    overlap: Overlap,
    start_deadline: Option<Duration>,
    /// True if the store had no mark of this schedule.
    is_new: bool,
    /// Every instant up to and including this time is processed.
    last: UnixMs,
    /// The instants that had their ticks.
    ticked: Ticked,
    /// The newest instants that were skipped, with the reasons.
    skipped: Vec<(UnixMs, Skip)>,
    /// Unprocessed instants up to this time are missed; later instants came due while the timer ran.
    running_since: UnixMs,
    /// The next due instant; `None` after the last instant of the schedule.
    next: Option<UnixMs>,
    /// True if the bus rejected the last ticks as invalid.
    rejected: bool,
    /// The wall clock and the monotonic clock at the last check.
    last_check: (UnixMs, Instant),
}

impl Timer {
    fn new(config: &TimerSource, times: Times, marks: &BTreeMap<String, Vec<u8>>, now: UnixMs) -> Self {
        let (schedule, timezone) = (config.schedule.identity(), config.schedule.timezone());
        let stored = last_mark(marks);
        let is_new = stored.as_ref().is_none_or(|last| last.schedule != schedule);
        let (last, ticked, skipped) = match stored {
            Some(last) if !is_new => (last.at, last.ticked, last.skipped),
            // The list of times is new or changed. Its past times count as missed, except those that had a tick
            // according to the mark of the previous list.
            other if matches!(times, Times::At { .. }) => {
                let ticked = other.map(|earlier| ticked_of_earlier(&times, &earlier)).unwrap_or_default();
                (BEFORE_ALL, ticked, Vec::new())
            }
            _ => (now, Ticked::default(), Vec::new()),
        };
        Self {
            times,
            schedule,
            timezone,
            missed: config.missed,
            overlap: config.overlap,
            start_deadline: config.start_deadline,
            is_new,
            last,
            ticked,
            skipped,
            running_since: now,
            next: Some(now),
            rejected: false,
            last_check: (now, Instant::now()),
        }
    }

    /// Compares the wall clock and the monotonic clock with their values at the last check, to detect jumps of the wall
    /// clock.
    fn check_clocks(&mut self, wall: UnixMs, monotonic: Instant) {
        let before = std::mem::replace(&mut self.last_check, (wall, monotonic));
        let jumped_ms = jump_ms(before, (wall, monotonic));
        let passed_ms = wall.saturating_sub(before.0).saturating_sub(jumped_ms);
        if jumped_ms > JUMP_MIN_MS {
            tracing::warn!("the wall clock jumped forward by {jumped_ms} ms: ticks in this time are missed");
            self.running_since = wall.saturating_sub(passed_ms);
            self.next = Some(wall);
        } else if jumped_ms < -JUMP_MIN_MS {
            tracing::warn!("the wall clock jumped back by {} ms: ticks are not repeated", -jumped_ms);
            self.running_since = self.running_since.min(wall);
            self.next = Some(wall);
        }
        if self.last.saturating_sub(wall) > JUMP_MIN_MS {
            self.last = self.ticked.processed_at(wall);
            self.running_since = wall;
            self.next = Some(wall);
        }
    }

    /// Submits one batch of the ticks that are due at `now`. `clock` returns the current time, also during retries.
    /// Returns false if the source was stopped.
    async fn tick(&mut self, ctx: &Context, now: UnixMs, clock: &impl Fn() -> UnixMs) -> bool {
        let due = due(&self.times, self.last, self.running_since, now, self.missed, BATCH_MAX);
        let mut ticks = due.ticks.clone();
        ticks.retain(|tick| !self.ticked.contains(tick.scheduled));
        let mut skipped = Vec::new();
        ticks.retain(|tick| !self.is_late(tick, now) || self.skip(&mut skipped, tick, Skip::Late));
        if self.overlap == Overlap::Skip && !ticks.is_empty() {
            match self.is_running(ctx).await {
                Ok(is_running) => {
                    // Of several due ticks, only the newest one is stored: they would overlap with each other.
                    let kept = if is_running { None } else { ticks.pop() };
                    for tick in ticks.drain(..) {
                        self.skip(&mut skipped, &tick, Skip::Overlap);
                    }
                    ticks.extend(kept);
                }
                Err(error) => {
                    ctx.health
                        .degraded(format!("cannot find out whether deliveries of the last tick are pending: {error}"));
                    return tokio::time::timeout(RETRY, ctx.stop.cancelled()).await.is_err();
                }
            }
        }
        let mut ticked = self.ticked.clone();
        match skipped.is_empty() {
            true => ticked.add(&self.times, &due.ticks),
            // There may be skipped instants between the ticks, so each tick is added as a span of its own.
            false => ticks.iter().for_each(|tick| ticked.add(&self.times, &[*tick])),
        }
        if !ticks.is_empty() || !skipped.is_empty() {
            let at = due.ticks.last().map_or(self.last, |tick| tick.scheduled);
            let all_skipped = self.with_skipped(&skipped);
            let offer = self.offer(ctx, &ticks, at, ticked.clone(), all_skipped.clone());
            let give_up = || ticks.first().is_some_and(|tick| self.is_late(tick, clock()));
            match submit_until(ctx, &offer, give_up).await {
                Ok(true) => {
                    if self.rejected {
                        ctx.health.recovered();
                    }
                    self.skipped = all_skipped;
                }
                // `give_up` returned true: the `start_deadline` of the oldest tick has passed. The next call of `tick`
                // skips this tick.
                Ok(false) => return true,
                Err(SubmitError::Stopped) => return false,
                Err(rejected) => {
                    // All ticks have the same form, so the bus rejects the retries, too. Report this only once.
                    if !std::mem::replace(&mut self.rejected, true) {
                        let why = match rejected {
                            SubmitError::Invalid(_, why) => why,
                            SubmitError::TooLarge(_) | SubmitError::Stopped => "the event is too large".to_owned(),
                        };
                        ctx.health.degraded(format!("the bus rejects the ticks of this timer: {why}"));
                    }
                    return tokio::time::timeout(RETRY, ctx.stop.cancelled()).await.is_err();
                }
            }
        }
        self.rejected = false;
        self.ticked = ticked;
        self.last = due.processed;
        self.next = due.next;
        true
    }

    fn is_late(&self, tick: &Tick, now: UnixMs) -> bool {
        let late_ms = u128::try_from(now.saturating_sub(tick.scheduled)).unwrap_or_default();
        self.start_deadline.is_some_and(|deadline| late_ms > deadline.as_millis())
    }

    /// Records a skipped tick. Always returns false, so that `retain` removes the tick.
    fn skip(&self, skipped: &mut Vec<(UnixMs, Skip)>, tick: &Tick, why: Skip) -> bool {
        let reason = match why {
            Skip::Overlap => "deliveries of the previous tick are pending (`overlap: skip`)",
            Skip::Late => "its `start_deadline` has passed",
        };
        tracing::info!("the timer skips its tick of {}: {reason}", instant(tick.scheduled));
        skipped.push((tick.scheduled, why));
        false
    }

    fn with_skipped(&self, new: &[(UnixMs, Skip)]) -> Vec<(UnixMs, Skip)> {
        let all = [&self.skipped[..], new].concat();
        let excess = all.len().saturating_sub(SKIPPED_MAX);
        all.into_iter().skip(excess).collect()
    }

    /// Returns true if a delivery of the newest tick is pending.
    async fn is_running(&self, ctx: &Context) -> Result<bool, StoreError> {
        match self.ticked.newest() {
            Some(last) => ctx.bus.is_pending(&ctx.uri, &instant(last)).await,
            None => Ok(false),
        }
    }

    /// Returns how long to sleep from `now` until the next instant, at most [`SLEEP_MAX`].
    fn sleep_time(&self, now: UnixMs) -> Duration {
        let until_next = self.next.map_or(SLEEP_MAX, |next| {
            Duration::from_millis(u64::try_from(next.saturating_sub(now)).unwrap_or_default())
        });
        until_next.min(SLEEP_MAX)
    }

    /// Builds an offer (a request to the bus to store events) with the events of `ticks` and the mark. The mark says
    /// that every instant up to `at` is processed.
    fn offer(&self, ctx: &Context, ticks: &[Tick], at: UnixMs, ticked: Ticked, skipped: Vec<(UnixMs, Skip)>) -> Offer {
        let last = LastMark { v: 1, at, schedule: self.schedule.clone(), ticked, skipped };
        // Serialising numbers and strings cannot fail.
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

#[cfg(test)]
mod tests;
