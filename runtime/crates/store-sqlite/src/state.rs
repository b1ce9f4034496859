//! Reads and writes functions' state, as SQL.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::checksum;
use super::state_cache::{Changed, Changes, StateCache};
use evoke_model::Completion;
use evoke_model::state::{Change, Entry, Transaction, Usage};
use evoke_store::validate::{Bucket, CommittedKey, CommittedState, Valid, Validation, validate};

/// The state changes of one group commit. They are added to the cache after the commit has succeeded.
pub(super) struct Batch<'a> {
    tx: &'a Connection,
    state_cache: &'a StateCache,
    changes: Changes,
}

impl CommittedState for Batch<'_> {
    type Error = rusqlite::Error;

    fn find(&self, bucket: &str, key: &str) -> rusqlite::Result<Option<CommittedKey>> {
        find(self.tx, bucket, key)
    }

    fn bucket(&self, name: &str) -> Bucket {
        self.changes.buckets.get(name).copied().unwrap_or_else(|| self.state_cache.bucket(name))
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(tx: &'a Connection, state_cache: &'a StateCache) -> Self {
        Self { tx, state_cache, changes: Changes::default() }
    }

    pub(super) fn validate(&self, transaction: &Transaction) -> rusqlite::Result<Validation> {
        validate(self, transaction)
    }

    pub(super) fn apply(&mut self, transaction: &Transaction, valid: Valid) -> rusqlite::Result<()> {
        // The transaction wrote nothing.
        if valid.buckets.is_empty() {
            return Ok(());
        }
        let version = if transaction.version == 0 { self.state_cache.next_version() } else { transaction.version };
        let column = i64::try_from(version).unwrap_or(i64::MAX);
        for touched in &transaction.keys {
            let Some(change) = &touched.change else { continue };
            let (bucket, key) = (&touched.bucket, &touched.key);
            let entry = match change {
                Change::Set(value) => {
                    let sum = checksum::of_values([
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
        for (name, usage, members) in valid.buckets {
            let before = self.bucket(&name).members;
            let bucket = Bucket { usage, members: if members { version } else { before } };
            self.changes.buckets.insert(name, bucket);
        }
        Ok(())
    }

    /// Applies an operator's changes. They do not depend on values that were read, and no quota limits them. Returns
    /// the number of changed keys that existed before.
    pub(super) fn write(&mut self, changes: &Transaction) -> rusqlite::Result<u64> {
        let Validation::Valid(valid) = self.validate(changes)? else { return Ok(0) };
        let existed = valid.existed;
        self.apply(changes, valid)?;
        Ok(existed)
    }

    pub(super) fn keys_of(&self, bucket: &str) -> u64 {
        self.bucket(bucket).usage.keys
    }

    /// Moves the keys of the bucket `from` to the bucket `to`, which must have no keys. Returns the number of moved
    /// keys.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> rusqlite::Result<u64> {
        let usage = self.bucket(from).usage;
        if usage.keys == 0 {
            return Ok(0);
        }
        self.tx
            .prepare_cached(
                "UPDATE state SET bucket = ?2,
                   sum = sum - sum_of(bucket, key, value, version) + sum_of(?2, key, value, version)
                 WHERE bucket = ?1",
            )?
            .execute([from, to])?;
        let (from, to): (Arc<str>, Arc<str>) = (from.into(), to.into());
        let members = self.state_cache.next_version();
        self.changes.buckets.insert(from.clone(), Bucket { usage: Usage::default(), members });
        self.changes.buckets.insert(to.clone(), Bucket { usage, members });
        self.changes.renamed.extend([from, to]);
        Ok(usage.keys)
    }

    /// Records that this group commit commits or rejects a completion. After the group commit, the cache drops the
    /// staged writes of the completion. If the completion was committed, the cache then has these writes as committed
    /// values.
    pub(super) fn finish(&mut self, completion: &Arc<Completion>) {
        if completion.state.version != 0 {
            self.changes.finished.push(completion.clone());
        }
    }

    /// Returns the changes of this group commit for [`StateCache::committed`].
    pub(super) fn into_changes(self) -> Changes {
        self.changes
    }
}

/// Loads the usage of all buckets and the last version when the store is opened.
pub(super) fn load(c: &Connection) -> rusqlite::Result<StateCache> {
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
    Ok(StateCache::new(buckets, last))
}

/// The columns in the order in which the checksum covers them, then the checksum.
const COLUMNS: &str = "bucket, key, value, version, sum";

fn named(bucket: &str, key: &str) -> String {
    format!("the key {key} of the bucket {bucket} (`evoke state set` or `evoke state delete` repairs it)")
}

fn verify(row: &Row<'_>, bucket: &str, key: &str) -> rusqlite::Result<()> {
    checksum::verify_with_key(row, &[bucket.into(), key.into()], 4, || named(bucket, key))
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
    checksum::name_damage(found.optional(), || named(bucket, key))
}

/// Returns the version of a key and the size of its value. SQLite finds the size without reading the value.
pub(super) fn find(c: &Connection, bucket: &str, key: &str) -> rusqlite::Result<Option<CommittedKey>> {
    c.prepare_cached("SELECT version, length(value) FROM state WHERE bucket = ?1 AND key = ?2")?
        .query_row([bucket, key], |r| {
            Ok(CommittedKey {
                version: unsigned(r.get(0)?),
                size: usize::try_from(r.get::<_, i64>(1)?).unwrap_or_default(),
            })
        })
        .optional()
}

/// A list of keys ends when their values have at least this many bytes in total. The list is read on the thread of the
/// caller, which can be the thread of a guest, so the read must not take long.
const LISTED_VALUE_BYTES_MAX: usize = 1024 * 1024;

/// Returns the first keys after `after`, at most `limit`, and whether they are the last ones. Also reads the values,
/// because the checksum of each row covers them. So [`LISTED_VALUE_BYTES_MAX`] also limits the list.
pub(super) fn keys(
    c: &Connection,
    bucket: &str,
    after: Option<&str>,
    limit: usize,
) -> rusqlite::Result<(Vec<String>, bool)> {
    let read = || {
        let mut query = c.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM state WHERE bucket = ?1 AND key > ?2 ORDER BY key LIMIT ?3"
        ))?;
        // Every key sorts after the empty string, which is not allowed as a key.
        let after = after.unwrap_or_default();
        let mut rows = query.query(params![bucket, after, i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let (mut keys, mut bytes) = (Vec::new(), 0);
        while bytes < LISTED_VALUE_BYTES_MAX {
            let Some(row) = rows.next()? else {
                let is_last = keys.len() < limit;
                return Ok((keys, is_last));
            };
            let key = row.get_ref(1)?.as_str()?;
            verify(row, bucket, key)?;
            bytes += row.get_ref(2)?.as_bytes()?.len();
            keys.push(key.to_owned());
        }
        Ok((keys, false))
    };
    checksum::name_damage(read(), || format!("a key of the bucket {bucket}"))
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::SqliteStore;
    use evoke_model::Actor;
    use evoke_model::clock::Clock;
    use evoke_model::state::{Change, Touched, Transaction};
    use evoke_store::{StateStore as _, Store as _};

    #[tokio::test]
    async fn a_list_of_keys_with_large_values_has_short_parts() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
        let touched = |key: &str| {
            let change = Some(Change::Set(vec![0; 700_000].into()));
            Touched { bucket: "a/f".into(), key: key.into(), seen: None, change }
        };
        let keys = ["1", "2", "3", "4"].map(touched).to_vec();
        store.state_write(&Actor::Runtime, Transaction { keys, ..Transaction::default() }).await.unwrap();
        let mut after = None;
        for (expected, is_last) in [(&["1", "2"][..], false), (&["3", "4"], false), (&[], true)] {
            let part = store.state_keys("a/f", after.as_deref(), 500).await.unwrap();
            assert!(part.keys == expected && part.is_last == is_last, "{part:?}");
            after = part.keys.last().cloned();
        }
        store.close().await.unwrap();
        drop(store);
        // The sizes are read from the file, because the cache is empty.
        let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
        let size = async |key| store.state_size_with_staged("a/f", key).await.unwrap();
        assert_eq!((size("1").await, size("5").await), (Some(700_000), None));
    }
}
