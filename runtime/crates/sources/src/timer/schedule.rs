//! Computes the instants of a schedule, and which of them are due. This module reads no clock.

use std::collections::VecDeque;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::settings::{Missed, Schedule};
use evoke_model::clock::UnixMs;

/// A schedule in a form that can compute its instants.
pub(super) enum Times {
    /// The instants at which the wall clock of `zone` matches `cron`.
    Cron { cron: Box<Cron>, zone: TimeZone },
    /// The multiples of `period_ms` since the Unix epoch.
    Every { period_ms: i64 },
    /// A sorted list of instants.
    At { at: Vec<UnixMs> },
}

impl Times {
    /// Prepares `schedule` for computing its instants. The error is a message for the user. A schedule from a checked
    /// manifest causes no error.
    pub(super) fn new(schedule: &Schedule) -> Result<Self, String> {
        match schedule {
            Schedule::Cron { expr, timezone } => {
                let cron = CronParser::builder().seconds(Seconds::Optional).build().parse(expr);
                let cron = Box::new(cron.map_err(|e| format!("invalid cron expression `{expr}`: {e}"))?);
                let zone = TimeZone::get(timezone).map_err(|e| format!("invalid time zone `{timezone}`: {e}"))?;
                Ok(Self::Cron { cron, zone })
            }
            Schedule::Every { every } => match i64::try_from(every.as_millis()) {
                Ok(period_ms) if period_ms > 0 => Ok(Self::Every { period_ms }),
                _ => Err(format!("`every` is {every:?}: write an interval of at least one millisecond")),
            },
            Schedule::At { at } => Ok(Self::At { at: at.clone() }),
        }
    }

    /// Returns the compiled cron expression; `None` for an interval or a list.
    pub(super) fn cron(&self) -> Option<&Cron> {
        match self {
            Self::Cron { cron, .. } => Some(cron),
            Self::Every { .. } | Self::At { .. } => None,
        }
    }

    /// Returns the first instant after `at`; `None` if the schedule has no later instant.
    pub(super) fn after(&self, at: UnixMs) -> Option<UnixMs> {
        match self {
            Self::Every { period_ms } => at.div_euclid(*period_ms).checked_add(1)?.checked_mul(*period_ms),
            Self::At { at: instants } => instants.get(instants.partition_point(|instant| *instant <= at)).copied(),
            Self::Cron { cron, zone } => {
                let from = Timestamp::from_millisecond(at).ok()?;
                let found = match cron.find_next_occurrence(&from.to_zoned(zone.clone()), false) {
                    Ok(found) => found,
                    // croner returns an error at a clock change that skips more than two hours: continue after the gap.
                    Err(_) => {
                        let behind = after_long_gap(zone, from)?.to_zoned(zone.clone());
                        cron.find_next_occurrence(&behind, true).ok()?
                    }
                };
                Some(found.timestamp().as_millisecond()).filter(|found| *found > at)
            }
        }
    }

    /// Returns the newest `limit` instants after `after` and until `until`, in order.
    pub(super) fn newest(&self, after: UnixMs, until: UnixMs, limit: usize) -> Vec<UnixMs> {
        // Search a window that ends at `until`, and double the window until it contains enough instants. Visiting every
        // instant of a long downtime would be slow. Within the window, the search goes forward, because only `after`
        // handles the gaps of a time zone.
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

/// Returns the end of the next gap of more than two hours in the wall clock of `zone`, such as a skipped date. Searches
/// the next 64 clock changes: 32 years or more.
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
    /// True if the instant came due while the timer did not run, or if the clock jumped over the instant.
    pub(super) missed: bool,
}

/// The result of [`due`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// The ticks to submit, in order.
    pub(super) ticks: Vec<Tick>,
    /// Once these ticks are submitted, every instant up to and including this time is processed.
    pub(super) processed: UnixMs,
    /// The next instant after these ticks. If more ticks are due than fit into `ticks`, this is the first of the
    /// others.
    pub(super) next: Option<UnixMs>,
}

/// Returns at most `limit` ticks that are due: instants after `last` and until `now`. Instants up to `running_since`
/// are missed. Of these, only the newest ones are due, as many as `missed` allows. All later instants are due.
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
