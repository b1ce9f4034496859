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
    /// Whether retention removed events before their window was over: mostly not, and then nobody looks for them.
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
