//! Records which grants each function uses, so that unused ones can be removed from its manifest.
//!
//! The sandbox notes each use in memory ([`GrantUse`]). Every few seconds, the uses and their times are added to the
//! records here. Then the records with changes are stored as marks, which are small values in the store. A record in
//! which only the number of attempts has changed is stored only once a minute. A clean stop stores all records. An
//! end without a clean stop loses the uses of the last seconds. To show this, the next start stores the time of the
//! start in each record.
//!
//! A renamed function takes over the record of its earlier name, unless its new name already has a record.
//!
//! # Format
//! One mark for each function. Scope: `/evoke/grants`. Key: `app/function`. Value: [`Record`] as JSON, with `v` (1).

mod declared;
mod propose;
mod record;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) use self::declared::{Declared, declared};
pub use self::propose::{line, propose};
pub use self::record::{GrantRecord, Record, RefusedRecord};
use super::Control;
use evoke_model::clock::UnixMs;
use evoke_model::{Mark, MarkNames, TakeOver};
use evoke_sandbox::GrantUse;
use evoke_store::StoreError;

/// The scope of the marks.
const SCOPE: &str = "/evoke/grants";
/// The keys of these marks are names of functions. The store renames the keys when it renames the functions.
pub(super) const NAMED_MARKS: MarkNames = MarkNames { scope: SCOPE, prefix: "" };
/// Maximum number of marks in a commit.
const MARKS_MAX: usize = 100;
/// Time between two writes of a record in which only the number of attempts changes.
const ATTEMPTS_INTERVAL_MS: i64 = 60_000;

/// The records of all functions, including functions that no manifest has any more. Clones of [`Control`] share them.
#[derive(Default)]
pub(super) struct GrantRecords {
    tables: Mutex<Tables>,
    /// Locked while records are stored or renamed, so that no record is stored under an earlier name after the store
    /// renamed the records.
    storing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Tables {
    records: BTreeMap<String, Tracked>,
    /// The functions whose records are to be removed from the store.
    removed: Vec<String>,
}

/// The record of a function, and the objects that collect its further uses.
struct Tracked {
    record: Record,
    /// The uses by the loaded version of the function (the last entry), and by replaced versions whose attempts still
    /// run.
    grant_uses: Vec<Arc<GrantUse>>,
    /// The secrets that are inserted into the headers of requests, by origin.
    inserted: BTreeMap<String, Vec<String>>,
    /// True if the record differs from the stored one in more than the number of attempts.
    is_changed: bool,
    stored_attempts: u64,
    stored_ms: UnixMs,
}

impl Tracked {
    fn new(record: Record) -> Self {
        let (stored_attempts, stored_ms) = (record.attempts, record.since_ms);
        Self {
            record,
            grant_uses: Vec::new(),
            inserted: BTreeMap::new(),
            is_changed: false,
            stored_attempts,
            stored_ms,
        }
    }

    fn collect(&mut self, now_ms: UnixMs) {
        let mut earlier = self.grant_uses.len().saturating_sub(1);
        self.grant_uses.retain(|grant_use| {
            // A replaced version of the function holds a reference to its `GrantUse` until its last attempt has ended.
            let is_over = earlier > 0 && Arc::strong_count(grant_use) == 1;
            earlier = earlier.saturating_sub(1);
            self.is_changed |= self.record.add(grant_use.take(), &self.inserted, now_ms);
            !is_over
        });
    }

    fn is_due(&self, now_ms: UnixMs, all: bool) -> bool {
        let waited = now_ms < self.stored_ms || now_ms - self.stored_ms >= ATTEMPTS_INTERVAL_MS;
        self.is_changed || (self.record.attempts != self.stored_attempts && (all || waited))
    }
}

impl GrantRecords {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no record is being stored. Until the result is dropped, no record is stored.
    pub(super) async fn pause_storing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.storing.lock().await
    }

    /// Renames the records in the same way as the store has renamed their marks. The caller must have called
    /// [`Self::pause_storing`] before the store renamed them, and must still hold the result.
    pub(super) fn rename(&self, renamed: &[TakeOver]) {
        let records = &mut self.lock().records;
        for TakeOver { from, to } in renamed {
            let Some(tracked) = records.remove(from) else { continue };
            // The record in memory may have more uses than the stored record.
            records.entry(to.clone()).or_insert(Tracked { is_changed: true, ..tracked });
        }
    }

    /// Reads the stored records. If the previous process ended without a clean stop, `unclean_ms` is the present time,
    /// and each record stores this time.
    fn restore(&self, marks: BTreeMap<String, Vec<u8>>, unclean_ms: Option<UnixMs>) {
        let mut tables = self.lock();
        for (name, value) in marks {
            // A record of an unknown version is ignored, and later replaced.
            let Some(mut record) = Record::from_mark(&value) else { continue };
            let is_changed = unclean_ms.is_some();
            record.unclean_ms = unclean_ms.or(record.unclean_ms);
            tables.records.insert(name, Tracked { is_changed, ..Tracked::new(record) });
        }
    }

    /// Records that all functions except the `active` ones have been removed from the manifests.
    pub(super) fn remove_others<T>(&self, active: &BTreeMap<String, T>, now_ms: UnixMs) {
        let mut tables = self.lock();
        for (name, tracked) in &mut tables.records {
            if !active.contains_key(name) && tracked.record.gone_ms.is_none() {
                tracked.record.gone_ms = Some(now_ms);
                tracked.is_changed = true;
            }
        }
    }

    /// Records the grants of functions that were loaded, and starts to collect the uses of these grants.
    pub(super) fn declare(&self, functions: Vec<Declared>, now_ms: UnixMs) {
        let mut tables = self.lock();
        for tracked in tables.records.values_mut() {
            tracked.collect(now_ms);
        }
        for function in functions {
            let new = || Tracked { is_changed: true, ..Tracked::new(Record::new(now_ms)) };
            let tracked = tables.records.entry(function.name.clone()).or_insert_with(new);
            tracked.is_changed |= tracked.record.declare(&function, now_ms);
            tracked.grant_uses.push(function.grant_use);
            tracked.inserted = function.inserted;
        }
    }

    /// Returns the marks to write: the changed records, and removals of the expired records. A record in which only the
    /// number of attempts has changed is included once a minute, or if `all` is true.
    fn take_writes(&self, now_ms: UnixMs, keep: Duration, all: bool) -> Vec<Mark> {
        let mut tables = self.lock();
        let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        let Tables { records, removed } = &mut *tables;
        let mut marks = Vec::new();
        records.retain(|name, tracked| {
            tracked.collect(now_ms);
            tracked.is_changed |= tracked.record.expire(now_ms, keep_ms);
            let is_expired = tracked.record.is_expired(now_ms, keep_ms);
            if is_expired {
                removed.push(name.clone());
            } else if tracked.is_due(now_ms, all) {
                tracked.is_changed = false;
                (tracked.stored_attempts, tracked.stored_ms) = (tracked.record.attempts, now_ms);
                marks.push(mark(name, Some(tracked.record.to_mark())));
            }
            !is_expired
        });
        let gone = std::mem::take(removed).into_iter().filter(|name| !records.contains_key(name));
        marks.extend(gone.map(|name| mark(&name, None)));
        marks
    }

    /// Undoes [`Self::take_writes`] for marks that could not be stored.
    fn put_back(&self, marks: &[Mark]) {
        let mut tables = self.lock();
        for mark in marks {
            match (&mark.value, tables.records.get_mut(&mark.key)) {
                (_, Some(tracked)) => tracked.is_changed = true,
                (None, None) => tables.removed.push(mark.key.clone()),
                (Some(_), None) => {}
            }
        }
    }
}

fn mark(name: &str, value: Option<Vec<u8>>) -> Mark {
    Mark { scope: SCOPE.to_owned(), key: name.to_owned(), value }
}

impl Control {
    /// Reads the stored records. Must be called before the first manifests are applied.
    pub(crate) async fn restore_grant_records(&self) -> Result<(), StoreError> {
        let marks = self.0.parts.store.marks(SCOPE.to_owned()).await?;
        let unclean_ms = self.0.parts.interrupted.as_ref().map(|_| self.0.parts.clock.now_ms());
        self.0.grants.restore(marks, unclean_ms);
        Ok(())
    }

    /// Returns the record of each function by name, with all uses until now.
    pub fn grant_records(&self) -> BTreeMap<String, Record> {
        let now_ms = self.0.parts.clock.now_ms();
        let mut tables = self.0.grants.lock();
        let all = tables.records.iter_mut().map(|(name, tracked)| {
            tracked.collect(now_ms);
            (name.clone(), tracked.record.clone())
        });
        all.collect()
    }

    /// Stores the changed records. Removes the records of functions and grants that no manifest has had for `keep`.
    /// With `all`, also stores the records in which only the number of attempts has changed.
    ///
    /// # Errors
    /// The first error of the store; the next call tries again.
    pub(crate) async fn store_grant_records(&self, keep: Duration, all: bool) -> Result<(), StoreError> {
        let _storing = self.0.grants.pause_storing().await;
        let marks = self.0.grants.take_writes(self.0.parts.clock.now_ms(), keep, all);
        for (at, chunk) in marks.chunks(MARKS_MAX).enumerate() {
            if let Err(error) = self.0.parts.store.accept(Vec::new(), chunk.to_vec()).await {
                self.0.grants.put_back(marks.get(at * MARKS_MAX..).unwrap_or_default());
                return Err(error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
