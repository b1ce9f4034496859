//! Accepts events with their deliveries.

use std::sync::Arc;

use super::deliveries::insert_delivery;
use super::{GroupCommit, Write, schedule};
use crate::rows::{self, LIVE};
use evoke_model::{Accepted, Mark, NewEvent, StoredEvent};

/// Adds events unless they are duplicates, and writes marks.
pub(crate) struct Accept {
    pub(crate) events: Vec<NewEvent>,
    pub(crate) marks: Vec<Mark>,
}

impl Write for Accept {
    type Output = Vec<Accepted>;

    fn size(&self) -> usize {
        self.events.iter().map(|e| e.event.size()).sum()
    }

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<Self::Output> {
        let events = std::mem::take(&mut self.events);
        let accepted = events.into_iter().map(|new| insert_event(commit, new)).collect::<rusqlite::Result<_>>()?;
        for mark in &self.marks {
            rows::put_mark(commit.tx, mark)?;
        }
        Ok(accepted)
    }
}

/// Adds an event with its deliveries, unless the event is a duplicate. An event that is not due yet is scheduled,
/// without its deliveries.
pub(super) fn insert_event(commit: &mut GroupCommit<'_>, new: NewEvent) -> rusqlite::Result<Accepted> {
    let NewEvent { event, lineage, deliveries } = new;
    let now_ms = commit.now_ms;
    if let Some(known) = commit.dedup.find_accepted(commit.tx, &mut commit.statements, &event, lineage, now_ms)? {
        return Ok(Accepted::Duplicate(known));
    }
    commit.counters.add_event();
    let seq = commit.counters.last_seq();
    let first_delivery = commit.counters.last_delivery().next();
    let due_ms = event.not_before_ms().filter(|due_ms| *due_ms > commit.wall_ms);
    let owed = if due_ms.is_some() { 0 } else { deliveries.len() };
    rows::event::insert(&mut commit.statements, seq, &event, lineage, now_ms, first_delivery, owed)?;
    if let Some(due_ms) = due_ms {
        schedule::add(commit, seq, due_ms, &event, lineage)?;
        return Ok(Accepted::New(seq));
    }
    let stored = Arc::new(StoredEvent { seq, accepted_ms: now_ms, lineage, event });
    for delivery in deliveries {
        insert_delivery(commit, LIVE, &stored, delivery)?;
    }
    Ok(Accepted::New(seq))
}
