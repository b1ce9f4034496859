//! Finds duplicates: events whose id was accepted within the dedup window. An event from outside is compared with
//! events that have the same attribute `source` and entered through the same origin. An event that a function published
//! is compared with published events that have the same `source`.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::schedule;
use super::statements::Statements;
use evoke_model::clock::UnixMs;
use evoke_model::event::Event;
use evoke_model::{Lineage, Seq, StoredEvent};

/// The queries of the tables `events` and `known` for events that entered through an origin. The origin 0 matches any
/// origin: an event with this origin was stored before the column `origin` existed.
const ENTERED: [&str; 2] = [
    "SELECT seq, ifnull(released_ms, accepted_ms) FROM events WHERE id = ?1 AND source = ?2 AND cause IS NULL
       AND (origin = ?3 OR origin = 0)
     ORDER BY seq DESC LIMIT 1",
    "SELECT seq, accepted_ms FROM known WHERE id = ?1 AND source = ?2 AND (origin = ?3 OR origin = 0)
     ORDER BY seq DESC LIMIT 1",
];
/// The queries of the tables `events` and `known` for events that functions published; `?3` is NULL.
const PUBLISHED: [&str; 2] = [
    "SELECT seq, ifnull(released_ms, accepted_ms) FROM events WHERE id = ?1 AND source = ?2 AND +cause IS NOT ?3
     ORDER BY seq DESC LIMIT 1",
    "SELECT seq, accepted_ms FROM known WHERE id = ?1 AND source = ?2 AND (origin IS ?3 OR origin = 0)
     ORDER BY seq DESC LIMIT 1",
];

pub(super) struct Dedup {
    window_ms: UnixMs,
    /// The store's unique name, with which generated event ids begin.
    instance: String,
    /// True if the table `known` may contain ids of events that retention removed before their dedup window ended.
    /// Retention rarely removes events so early. If false, the table is empty and need not be searched.
    has_removed: bool,
}

impl Dedup {
    pub(super) fn load(connection: &Connection, window: Duration, instance: String) -> rusqlite::Result<Self> {
        let has_removed = connection.query_row("SELECT EXISTS (SELECT 1 FROM known)", [], |r| r.get(0))?;
        let window_ms = UnixMs::try_from(window.as_millis()).unwrap_or(UnixMs::MAX);
        Ok(Self { window_ms, instance, has_removed })
    }

    /// Returns the position of an event with this origin, source and id that was accepted within the window before
    /// `now_ms`. The window of a scheduled event begins when it is released.
    pub(super) fn find_accepted(
        &self,
        tx: &Connection,
        statements: &mut Statements<'_>,
        event: &Event,
        lineage: Lineage,
        now_ms: UnixMs,
    ) -> rusqlite::Result<Option<Seq>> {
        if self.is_generated(event, lineage) {
            return Ok(None);
        }
        let since_ms = now_ms.saturating_sub(self.window_ms);
        let entered = lineage.entered().map(|origin| origin.0);
        let [in_events, in_known] = if entered.is_some() { ENTERED } else { PUBLISHED };
        // Only the newest event with this id is needed: if it is outside the window, so are all earlier ones.
        let mut newest = |sql: &'static str| {
            statements
                .get(sql)?
                .query_row(params![event.id, event.source, entered], |r| Ok((Seq(r.get(0)?), r.get::<_, UnixMs>(1)?)))
                .optional()
        };
        let mut found = newest(in_events)?;
        if found.is_none() && self.has_removed {
            found = newest(in_known)?;
        }
        match found {
            Some((seq, begin_ms)) if begin_ms > since_ms || schedule::contains(tx, seq)? => Ok(Some(seq)),
            _ => Ok(None),
        }
    }

    /// Stores the id of a removed event in the table `known`, if the dedup window that began at `begin_ms` has not
    /// ended.
    pub(super) fn remember(
        &mut self,
        tx: &Connection,
        removed: &StoredEvent,
        begin_ms: UnixMs,
        now_ms: UnixMs,
    ) -> rusqlite::Result<()> {
        let StoredEvent { seq, lineage, event, .. } = removed;
        if begin_ms > now_ms.saturating_sub(self.window_ms) {
            tx.prepare_cached(
                "INSERT INTO known (seq, id, source, accepted_ms, origin, sum)
                 VALUES (?1, ?2, ?3, ?4, ?5, sum_of(?1, ?2, ?3, ?4, ?5))",
            )?
            .execute(params![
                seq.0,
                event.id,
                event.source,
                begin_ms,
                lineage.entered().map(|origin| origin.0)
            ])?;
            self.has_removed = true;
        }
        Ok(())
    }

    /// Must be called after a transaction was rolled back: the rollback may have restored ids that the transaction had
    /// deleted from the table `known`.
    pub(super) fn rolled_back(&mut self) {
        self.has_removed = true;
    }

    /// Deletes ids whose window has ended from the table `known`, at most `limit`, in accept order. Returns the number
    /// of deleted ids.
    pub(super) fn forget(&mut self, tx: &Connection, limit: usize, now_ms: UnixMs) -> rusqlite::Result<usize> {
        if !self.has_removed {
            return Ok(0);
        }
        let until_ms = now_ms.saturating_sub(self.window_ms);
        // The ids are in accept order, so only the first ones are searched.
        let forgotten = tx
            .prepare_cached(
                "DELETE FROM known WHERE seq IN (SELECT seq FROM known ORDER BY seq LIMIT ?1) AND accepted_ms <= ?2",
            )?
            .execute(params![i64::try_from(limit).unwrap_or(i64::MAX), until_ms])?;
        self.has_removed = tx.query_row("SELECT EXISTS (SELECT 1 FROM known)", [], |r| r.get(0))?;
        Ok(forgotten)
    }

    /// Returns true if the runtime generated this id: `<instance>-<delivery>-<ordinal>`, where `delivery` is the
    /// delivery that published the event. Such an id is unique, because a delivery is done only once, so no search is
    /// needed.
    fn is_generated(&self, event: &Event, lineage: Lineage) -> bool {
        let generated = || {
            let (delivery, ordinal) = event.id.strip_prefix(&self.instance)?.strip_prefix('-')?.split_once('-')?;
            Some(delivery.parse() == Ok(lineage.cause?) && ordinal.bytes().all(|b| b.is_ascii_digit()))
        };
        generated() == Some(true)
    }
}
