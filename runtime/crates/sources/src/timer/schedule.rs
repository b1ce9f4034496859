//! The instants of a schedule, and which of them are due. This module reads no clock.

use std::collections::VecDeque;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::settings::{Missed, Schedule};
use evoke_model::clock::UnixMs;

/// A compiled schedule.
pub(super) enum Times {
    /// The instants at which the wall clock of `zone` matches `cron`.
    Cron { cron: Box<Cron>, zone: TimeZone },
    /// The multiples of `period_ms` since the Unix epoch.
    Every { period_ms: i64 },
    /// A list of instants, in order.
    At { at: Vec<UnixMs> },
}

impl Times {
    /// Compiles `schedule`. The error says what is wrong; a checked manifest causes none.
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
            Schedule::At { at } => Ok(Self::At { at: at.clone() }),
        }
    }

    /// The compiled cron expression; `None` for an interval.
    pub(super) fn cron(&self) -> Option<&Cron> {
        match self {
            Self::Cron { cron, .. } => Some(cron),
            Self::Every { .. } | Self::At { .. } => None,
        }
    }

    /// The first instant after `at`; `None` when the schedule has ended.
    pub(super) fn after(&self, at: UnixMs) -> Option<UnixMs> {
        match self {
            Self::Every { period_ms } => at.div_euclid(*period_ms).checked_add(1)?.checked_mul(*period_ms),
            Self::At { at: instants } => instants.get(instants.partition_point(|instant| *instant <= at)).copied(),
            Self::Cron { cron, zone } => {
                let from = Timestamp::from_millisecond(at).ok()?;
                let found = match cron.find_next_occurrence(&from.to_zoned(zone.clone()), false) {
                    Ok(found) => found,
                    // croner fails at a gap longer than two hours: continue after the gap.
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
    pub(super) fn newest(&self, after: UnixMs, until: UnixMs, limit: usize) -> Vec<UnixMs> {
        // Searches backwards in growing windows: visiting every tick of a long downtime would be slow, and iterating
        // backwards would assume that a time zone's gaps are the same in both directions.
        let mut window_ms: i64 = match self {
            Self::Every { period_ms } => period_ms.saturating_mul(i64::try_from(limit).unwrap_or(i64::MAX)),
            Self::Cron { .. } | Self::At { .. } => 60_000,
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

/// The end of the next gap in `zone`'s wall clock longer than two hours, such as a skipped date. Searches the next 64
/// clock changes, which cover 32 years or more.
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
    pub(super) scheduled: UnixMs,
    /// Whether the instant came due while the timer did not run, so that the tick is late.
    pub(super) missed: bool,
}

/// The due ticks of one moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// The ticks to submit, in order.
    pub(super) ticks: Vec<Tick>,
    /// Once these ticks are submitted, every instant up to this one is processed.
    pub(super) processed: UnixMs,
    /// The next due instant; not after `now` when more ticks are due than `ticks` holds.
    pub(super) next: Option<UnixMs>,
}

/// Returns the ticks due at `now` after `last`, at most `limit`. Of the instants up to `running_since` the policy
/// `missed` selects the newest ones; of the later instants all are due.
pub(super) fn due(
    times: &Times,
    last: UnixMs,
    running_since: UnixMs,
    now: UnixMs,
    missed: Missed,
    limit: usize,
) -> Due {
    let missed_until = running_since.min(now);
    let missed_max = match missed {
        Missed::None => 0,
        Missed::Last => 1,
        Missed::All(max) => usize::try_from(max).unwrap_or(usize::MAX),
    };
    let mut ticks = Vec::new();
    if last < missed_until && missed_max > 0 {
        let newest_missed = times.newest(last, missed_until, missed_max);
        ticks.extend(newest_missed.into_iter().map(|scheduled| Tick { scheduled, missed: true }));
    }
    let mut next = times.after(last.max(missed_until));
    while let Some(scheduled) = next.filter(|next| *next <= now && ticks.len() <= limit) {
        ticks.push(Tick { scheduled, missed: false });
        next = times.after(scheduled);
    }
    if let Some(cut) = ticks.get(limit).copied() {
        ticks.truncate(limit);
        let processed = ticks.last().map_or(last, |tick| tick.scheduled);
        return Due { ticks, processed, next: Some(cut.scheduled) };
    }
    Due { ticks, processed: last.max(now), next }
}

#[cfg(test)]
mod tests;
