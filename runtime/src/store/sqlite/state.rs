//! State, as the SQL that it is.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::known::{Changed, Changes, Known};
use super::sums;
use crate::state::{Change, Entry, Transaction, Usage};
use crate::store::Completion;
use crate::store::judge::{Bucket, Found, Judged, Kept, Stands, judge};

/// The state's part of one group commit: it becomes known when the commit has succeeded.
pub(super) struct Batch<'a> {
    tx: &'a Connection,
    known: &'a Known,
    changes: Changes,
}

impl Kept for Batch<'_> {
    type Error = rusqlite::Error;

    fn find(&self, bucket: &str, key: &str) -> rusqlite::Result<Option<Found>> {
        self.tx
            .prepare_cached("SELECT version, length(value) FROM state WHERE bucket = ?1 AND key = ?2")?
            .query_row([bucket, key], |r| {
                Ok(Found {
                    version: unsigned(r.get(0)?),
                    size: usize::try_from(r.get::<_, i64>(1)?).unwrap_or_default(),
                })
            })
            .optional()
    }

    fn bucket(&self, name: &str) -> Bucket {
        self.changes.buckets.get(name).copied().unwrap_or_else(|| self.known.bucket(name))
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(tx: &'a Connection, known: &'a Known) -> Self {
        Self { tx, known, changes: Changes::default() }
    }

    pub(super) fn judge(&self, transaction: &Transaction) -> rusqlite::Result<Judged> {
        judge(self, transaction)
    }

    pub(super) fn apply(&mut self, transaction: &Transaction, stands: Stands) -> rusqlite::Result<()> {
        // It only read.
        if stands.buckets.is_empty() {
            return Ok(());
        }
        let version = if transaction.version == 0 { self.known.next_version() } else { transaction.version };
        let column = i64::try_from(version).unwrap_or(i64::MAX);
        for touched in &transaction.keys {
            let Some(change) = &touched.change else { continue };
            let (bucket, key) = (&touched.bucket, &touched.key);
            let entry = match change {
                Change::Set(value) => {
                    let sum = sums::sum([
                        (&**bucket).into(),
                        (&**key).into(),
                        ValueRef::Blob(value),
                        ValueRef::Integer(column),
                    ]);
                    self.tx
                        .prepare_cached(
                            "INSERT INTO state (bucket, key, value, version, sum) VALUES (?1, ?2, ?3, ?4, ?5)
                             ON CONFLICT (bucket, key) DO UPDATE
                               SET value = excluded.value, version = excluded.version, sum = excluded.sum",
                        )?
                        .execute(params![&**bucket, &**key, &**value, column, sum])?;
                    Some(Entry { value: value.clone(), version })
                }
                Change::Delete => {
                    self.tx
                        .prepare_cached("DELETE FROM state WHERE bucket = ?1 AND key = ?2")?
                        .execute([&**bucket, &**key])?;
                    None
                }
            };
            self.changes.changed.push(Changed { bucket: bucket.clone(), key: key.clone(), entry });
        }
        for (name, usage, members) in stands.buckets {
            let before = self.bucket(&name).members;
            let bucket = Bucket { usage, members: if members { version } else { before } };
            self.changes.buckets.insert(name, bucket);
        }
        Ok(())
    }

    /// What a person writes: nothing of it was read before, and it has no quota. Answers how many keys were there.
    pub(super) fn write(&mut self, changes: &Transaction) -> rusqlite::Result<u64> {
        let Judged::Stands(stands) = self.judge(changes)? else { return Ok(0) };
        let existed = stands.existed;
        self.apply(changes, stands)?;
        Ok(existed)
    }

    /// A completion was judged: with the commit it is staged no longer.
    pub(super) fn over(&mut self, completion: &Arc<Completion>) {
        if completion.state.version != 0 {
            self.changes.over.push(completion.clone());
        }
    }

    /// What has to become known with the commit.
    pub(super) fn into_changes(self) -> Changes {
        self.changes
    }
}

/// What there is when the store is opened.
pub(super) fn load(c: &Connection) -> rusqlite::Result<Known> {
    let mut rows = c.prepare(
        "SELECT bucket, COUNT(*), SUM(octet_length(key) + length(value)), MAX(version) FROM state GROUP BY bucket",
    )?;
    let mut rows = rows.query([])?;
    let (mut buckets, mut last) = (HashMap::new(), 0);
    while let Some(row) = rows.next()? {
        let usage = Usage { keys: unsigned(row.get(1)?), bytes: unsigned(row.get(2)?) };
        last = last.max(unsigned(row.get(3)?));
        buckets.insert(row.get::<_, String>(0)?.into(), Bucket { usage, members: 0 });
    }
    Ok(Known::new(buckets, last))
}

/// As they are summed, and the sum.
const COLUMNS: &str = "bucket, key, value, version, sum";

fn named(bucket: &str, key: &str) -> String {
    format!("the key {key} of the bucket {bucket}, which `evoke state set` or `delete` mends,")
}

fn verify(row: &Row<'_>, bucket: &str, key: &str) -> rusqlite::Result<()> {
    sums::verify_asked(row, &[bucket.into(), key.into()], 4, || named(bucket, key))
}

pub(super) fn get(c: &Connection, bucket: &str, key: &str) -> rusqlite::Result<Option<Entry>> {
    let found = c.prepare_cached(&format!("SELECT {COLUMNS} FROM state WHERE bucket = ?1 AND key = ?2"))?.query_row(
        [bucket, key],
        |r| {
            verify(r, bucket, key)?;
            let value = Bytes::copy_from_slice(r.get_ref(2)?.as_bytes()?);
            Ok(Entry { value, version: unsigned(r.get(3)?) })
        },
    );
    sums::naming(found.optional(), || named(bucket, key))
}

/// With the values, which are not needed: a key is one only when its whole row is what was written.
pub(super) fn keys(c: &Connection, bucket: &str, after: Option<&str>, limit: usize) -> rusqlite::Result<Vec<String>> {
    // Every key is behind the empty one, which is not taken.
    let keys = c
        .prepare_cached(&format!("SELECT {COLUMNS} FROM state WHERE bucket = ?1 AND key > ?2 ORDER BY key LIMIT ?3"))?
        .query_map(params![bucket, after.unwrap_or_default(), i64::try_from(limit).unwrap_or(i64::MAX)], |r| {
            let key = r.get_ref(1)?.as_str()?;
            verify(r, bucket, key)?;
            Ok(key.to_owned())
        })?
        .collect();
    sums::naming(keys, || format!("some key of the bucket {bucket}"))
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}
