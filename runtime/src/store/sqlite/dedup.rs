//! Which source and id are known: those that were accepted within the dedup window.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::UnixMs;
use crate::event::Event;
use crate::store::{Lineage, Seq};

const IN_EVENTS: &str = "SELECT seq, accepted_ms FROM events WHERE id = ?1 AND source = ?2 ORDER BY seq DESC LIMIT 1";
const IN_KNOWN: &str = "SELECT seq, accepted_ms FROM known WHERE id = ?1 AND source = ?2 ORDER BY seq DESC LIMIT 1";

pub(super) struct Dedup {
    window_ms: UnixMs,
    /// The store's own name, which ids that are made up begin with.
    instance: String,
    /// Whether retention may have removed events before their window was over: mostly not, and then nobody looks for
    /// them.
    removed: bool,
}

impl Dedup {
    pub(super) fn load(connection: &Connection, window: Duration, instance: String) -> rusqlite::Result<Self> {
        let removed = connection.query_row("SELECT EXISTS (SELECT 1 FROM known)", [], |r| r.get(0))?;
        let window_ms = UnixMs::try_from(window.as_millis()).unwrap_or(UnixMs::MAX);
        Ok(Self { window_ms, instance, removed })
    }

    /// Where an event with this source and id was accepted within the window before `now_ms`.
    pub(super) fn known(
        &self,
        tx: &Connection,
        event: &Event,
        lineage: Lineage,
        now_ms: UnixMs,
    ) -> rusqlite::Result<Option<Seq>> {
        if self.is_made_up(event, lineage) {
            return Ok(None);
        }
        let since_ms = now_ms.saturating_sub(self.window_ms);
        // The newest of this id: those before it were accepted before it.
        let newest = |sql: &str| {
            tx.prepare_cached(sql)?
                .query_row(params![event.id, event.source], |r| Ok((r.get::<_, Seq>(0)?, r.get::<_, UnixMs>(1)?)))
                .optional()
        };
        let mut found = newest(IN_EVENTS)?;
        if found.is_none() && self.removed {
            found = newest(IN_KNOWN)?;
        }
        Ok(found.filter(|(_, accepted_ms)| *accepted_ms > since_ms).map(|(seq, _)| seq))
    }

    /// Goes on knowing an event that is removed, as long as its window lasts.
    pub(super) fn keep(
        &mut self,
        tx: &Connection,
        seq: Seq,
        (id, source): (&str, &str),
        accepted_ms: UnixMs,
        now_ms: UnixMs,
    ) -> rusqlite::Result<()> {
        if accepted_ms > now_ms.saturating_sub(self.window_ms) {
            tx.prepare_cached(
                "INSERT INTO known (seq, id, source, accepted_ms, sum) VALUES (?1, ?2, ?3, ?4, sum_of(?1, ?2, ?3, ?4))",
            )?
            .execute(params![seq, id, source, accepted_ms])?;
            self.removed = true;
        }
        Ok(())
    }

    /// A transaction was rolled back, and with it perhaps that ids were forgotten.
    pub(super) fn rolled_back(&mut self) {
        self.removed = true;
    }

    /// Forgets the first `limit` of those whose window is over; answers how many.
    pub(super) fn forget(&mut self, tx: &Connection, limit: usize, now_ms: UnixMs) -> rusqlite::Result<usize> {
        if !self.removed {
            return Ok(0);
        }
        let until_ms = now_ms.saturating_sub(self.window_ms);
        // In the order in which they were accepted: the first that is known still ends the search.
        let forgotten = tx
            .prepare_cached(
                "DELETE FROM known WHERE seq IN (SELECT seq FROM known ORDER BY seq LIMIT ?1) AND accepted_ms <= ?2",
            )?
            .execute(params![i64::try_from(limit).unwrap_or(i64::MAX), until_ms])?;
        self.removed = tx.query_row("SELECT EXISTS (SELECT 1 FROM known)", [], |r| r.get(0))?;
        Ok(forgotten)
    }

    /// Whether an id was made up for what a delivery published, `<instance>-<delivery>-<ordinal>`: a delivery is done
    /// once, so there is none before it, and nobody has to look.
    fn is_made_up(&self, event: &Event, lineage: Lineage) -> bool {
        let made_up = || {
            let (delivery, ordinal) = event.id.strip_prefix(&self.instance)?.strip_prefix('-')?.split_once('-')?;
            Some(delivery.parse() == Ok(lineage.cause?) && ordinal.bytes().all(|b| b.is_ascii_digit()))
        };
        made_up() == Some(true)
    }
}
