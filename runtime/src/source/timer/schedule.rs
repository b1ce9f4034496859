//! When a timer ticks: instants from a schedule, and which of them are due. No clock is read here.

use std::collections::VecDeque;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::clock::UnixMs;
use crate::manifest::{Missed, Schedule};

/// A schedule, ready to be asked for its instants.
pub(super) enum Times {
    /// The instants at which the wall clock of `zone` shows what `cron` says.
    Cron { cron: Box<Cron>, zone: TimeZone },
    /// The multiples of `period_ms` since the Unix epoch.
    Every { period_ms: i64 },
}

impl Times {
    /// The instants of `schedule`; an error says what is wrong with it. A checked manifest has none.
    pub(super) fn new(schedule: &Schedule) -> Result<Self, String> {
        match schedule {
            Schedule::Cron { expr, timezone } => {
                let cron = CronParser::builder().seconds(Seconds::Optional).build().parse(expr);
                let cron = Box::new(cron.map_err(|e| format!("cron `{expr}`: {e}"))?);
                let zone = TimeZone::get(timezone).map_err(|e| format!("timezone `{timezone}`: {e}"))?;
                Ok(Self::Cron { cron, zone })
            }
            Schedule::Every { every } => match i64::try_from(every.as_millis()) {
                Ok(period_ms) if period_ms > 0 => Ok(Self::Every { period_ms }),
                _ => Err(format!("every `{every:?}`: use at least a millisecond")),
            },
        }
    }

    /// The first instant after `at`; `None` when there is none any more.
    pub(super) fn after(&self, at: UnixMs) -> Option<UnixMs> {
        match self {
            Self::Every { period_ms } => at.div_euclid(*period_ms).checked_add(1)?.checked_mul(*period_ms),
            Self::Cron { cron, zone } => {
                let from = Timestamp::from_millisecond(at).ok()?;
                let found = match cron.find_next_occurrence(&from.to_zoned(zone.clone()), false) {
                    Ok(found) => found,
                    // croner gives up at a gap that is longer than two hours: go on behind it.
                    Err(_) => {
                        let behind = after_long_gap(zone, from)?.to_zoned(zone.clone());
                        cron.find_next_occurrence(&behind, true).ok()?
                    }
                };
                Some(found.timestamp().as_millisecond()).filter(|found| *found > at)
            }
        }
    }

    /// The newest `limit` instants in `(after, until]`, in order.
    fn newest(&self, after: UnixMs, until: UnixMs, limit: usize) -> Vec<UnixMs> {
        // Looks back in widening windows: walking all of a long absence tick by tick would be slow, and walking
        // backwards would trust that a time zone's gaps look the same from both sides.
        let mut window_ms: i64 = match self {
            Self::Every { period_ms } => period_ms.saturating_mul(i64::try_from(limit).unwrap_or(i64::MAX)),
            Self::Cron { .. } => 60_000,
        };
        loop {
            let start = until.saturating_sub(window_ms).max(after);
            let mut found = VecDeque::new();
            let mut at = start;
            while let Some(next) = self.after(at).filter(|next| *next <= until) {
                if found.len() == limit {
                    found.pop_front();
                }
                found.push_back(next);
                at = next;
            }
            if found.len() >= limit || start <= after {
                return found.into();
            }
            window_ms = window_ms.saturating_mul(2);
        }
    }
}

/// The end of the next gap in `zone`'s wall clock that is longer than two hours, such as a date that is left out. Looks
/// at 64 changes of the clock, which are 32 years or more.
fn after_long_gap(zone: &TimeZone, from: Timestamp) -> Option<Timestamp> {
    let mut offset_before = zone.to_offset(from).seconds();
    for change in zone.following(from).take(64) {
        let offset = change.offset().seconds();
        if offset - offset_before > 2 * 60 * 60 {
            return Some(change.timestamp());
        }
        offset_before = offset;
    }
    None
}

/// One instant at which the timer ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tick {
    /// When.
    pub(super) scheduled: UnixMs,
    /// Whether it is made up for: it came due while nobody was there to see.
    pub(super) missed: bool,
}

/// What is to be done at a moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// The ticks to hand over, in order.
    pub(super) ticks: Vec<Tick>,
    /// With these, every instant up to this one is dealt with.
    pub(super) seen: UnixMs,
    /// When to look again: not after `now` when more is due than `ticks` holds.
    pub(super) next: Option<UnixMs>,
}

/// What is due at `now` of the instants after `last`, at most `limit` ticks. Of the instants up to `live_since` as
/// many are due as the policy `missed` makes up for; of the later ones, all.
pub(super) fn due(times: &Times, last: UnixMs, live_since: UnixMs, now: UnixMs, missed: Missed, limit: usize) -> Due {
    let absent_until = live_since.min(now);
    let make_up = match missed {
        Missed::None => 0,
        Missed::Last => 1,
        Missed::All(max) => usize::try_from(max).unwrap_or(usize::MAX),
    };
    let mut ticks = Vec::new();
    if last < absent_until && make_up > 0 {
        let made_up = times.newest(last, absent_until, make_up);
        ticks.extend(made_up.into_iter().map(|scheduled| Tick { scheduled, missed: true }));
    }
    let mut next = times.after(last.max(absent_until));
    while let Some(scheduled) = next.filter(|next| *next <= now && ticks.len() <= limit) {
        ticks.push(Tick { scheduled, missed: false });
        next = times.after(scheduled);
    }
    if let Some(cut) = ticks.get(limit).copied() {
        ticks.truncate(limit);
        let seen = ticks.last().map_or(last, |tick| tick.scheduled);
        return Due { ticks, seen, next: Some(cut.scheduled) };
    }
    Due { ticks, seen: last.max(now), next }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
