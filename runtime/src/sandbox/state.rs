//! What one attempt does with its state: reads are remembered with the version that they saw, writes are kept aside
//! and read back. The whole is a transaction, which is committed with the attempt's outcome or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::state::{Change, Entry, KEY_BYTES_MAX, Keys, Quota, Touched, Transaction, Usage, Version};

/// What one attempt may read: it is all held in memory until the attempt ends, and read again when it is committed.
pub(super) const READS_MAX: usize = 10_000;
pub(super) const READ_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What one attempt may write: it all goes into one commit, which others wait for.
pub(super) const WRITES_MAX: usize = 4_096;
pub(super) const WRITE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Keys in a page of a list; of the longest, 256 KiB.
pub(super) const PAGE_MAX: usize = 500;
/// Refusals that are remembered.
const REFUSALS_MAX: usize = 16;
/// Pages of lists that an attempt may go on from.
const CURSORS_MAX: usize = 10_000;

/// Where an attempt's state is read from.
pub trait StateSource: Send + Sync + 'static {
    /// The value of a key. An error says why it cannot be read now.
    fn get(&self, bucket: &str, key: &str) -> BoxFuture<'static, Result<Option<Entry>, String>>;

    /// The first `limit` keys behind `after`, in their order.
    fn keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> BoxFuture<'static, Result<Keys, String>>;

    /// What a bucket holds.
    fn usage(&self, bucket: &str) -> Usage;
}

/// What a function may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateGrant {
    /// Whether it has the bucket that the app's functions share.
    pub shared: bool,
    /// The largest value, in bytes.
    pub value_bytes_max: u64,
    /// What each bucket may hold.
    pub quota: Quota,
}

/// The buckets that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// The function's own.
    Own,
    /// The app's.
    Shared,
}

/// Why the guest is refused something of its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It goes past what any attempt may: another attempt would too.
    Bound(String),
    /// A bucket is full.
    Quota(String),
    /// The store does not answer.
    Store(String),
}

impl Refusal {
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Bound(message) | Self::Quota(message) | Self::Store(message) => message,
        }
    }
}

type Result<T, E = Refusal> = std::result::Result<T, E>;

/// The state of one attempt. Costs nothing until it is used.
pub(super) struct Session {
    source: Option<Arc<dyn StateSource>>,
    grant: StateGrant,
    own: Option<Bucket>,
    shared: Option<Bucket>,
    reads: usize,
    read_bytes: usize,
    writes: usize,
    write_bytes: usize,
    /// What was refused, for when the function fails for it.
    refused: Vec<Refusal>,
}

struct Bucket {
    name: Arc<str>,
    cells: BTreeMap<Arc<str>, Cell>,
    /// Of its keys, when they were listed.
    list: Option<Version>,
    /// Where pages ended; a cursor is an index.
    pages: Vec<String>,
}

/// A key that was touched.
#[derive(Default)]
struct Cell {
    seen: Option<Seen>,
    change: Option<Change>,
    /// Size of the value in the store, when only that was asked for.
    stored: Option<Option<usize>>,
}

struct Seen {
    version: Version,
    value: Option<Bytes>,
}

impl Session {
    pub(super) fn new(source: Option<Arc<dyn StateSource>>, grant: Option<StateGrant>) -> Self {
        let none = StateGrant { shared: false, value_bytes_max: 0, quota: Quota::NONE };
        Self {
            source: source.filter(|_| grant.is_some()),
            grant: grant.unwrap_or(none),
            own: None,
            shared: None,
            reads: 0,
            read_bytes: 0,
            writes: 0,
            write_bytes: 0,
            refused: Vec::new(),
        }
    }

    /// The bucket of this name; `None` where the function has none.
    pub(super) fn open(&mut self, function: &Arc<str>, name: &str) -> Option<Name> {
        self.source.as_ref()?;
        match name {
            "" | "default" => {
                self.own.get_or_insert_with(|| Bucket::new(function.clone()));
                Some(Name::Own)
            }
            "app" if self.grant.shared => {
                let app = || function.split_once('/').map_or(&**function, |(app, _)| app).into();
                self.shared.get_or_insert_with(|| Bucket::new(app()));
                Some(Name::Shared)
            }
            _ => None,
        }
    }

    pub(super) async fn get(&mut self, name: Name, key: &str) -> Result<Option<Bytes>> {
        let read = self.read(name, key).await;
        self.noting(read)
    }

    pub(super) async fn set(&mut self, name: Name, key: &str, value: Vec<u8>) -> Result<()> {
        let written = self.write(name, key, Change::Set(value.into())).await;
        self.noting(written)
    }

    pub(super) async fn delete(&mut self, name: Name, key: &str) -> Result<()> {
        let written = self.write(name, key, Change::Delete).await;
        self.noting(written)
    }

    /// Adds to the number that stands at the key in decimal digits.
    pub(super) async fn increment(&mut self, name: Name, key: &str, delta: u64) -> Result<u64> {
        let sum = match self.get(name, key).await? {
            None => delta,
            Some(value) => {
                let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse::<u64>().ok());
                let is_none = || Refusal::Bound(format!("the value at {key} is no number, so nothing can be added"));
                let number = number.ok_or_else(is_none)?;
                let too_large = || Refusal::Bound(format!("{number} + {delta} at {key} is more than 64 bits hold"));
                number.checked_add(delta).ok_or_else(too_large)?
            }
        };
        self.set(name, key, sum.to_string().into_bytes()).await?;
        Ok(sum)
    }

    /// A page of the keys in their order, and where the next one starts. What the attempt wrote is among them.
    pub(super) async fn list(&mut self, name: Name, cursor: Option<u64>) -> Result<(Vec<String>, Option<u64>)> {
        let listed = self.page(name, cursor).await;
        self.noting(listed)
    }

    /// The refusal that a function's message tells of.
    pub(super) fn refused(&self, message: &str) -> Option<&Refusal> {
        self.refused.iter().find(|refusal| message.contains(refusal.message()))
    }

    /// All that the attempt did.
    pub(super) fn finish(&mut self) -> Transaction {
        let mut transaction = Transaction { quota: self.grant.quota, ..Transaction::default() };
        for bucket in [self.own.take(), self.shared.take()].into_iter().flatten() {
            transaction.lists.extend(bucket.list.map(|version| (bucket.name.clone(), version)));
            transaction.keys.extend(bucket.cells.into_iter().map(|(key, cell)| Touched {
                bucket: bucket.name.clone(),
                key,
                seen: cell.seen.map(|seen| seen.version),
                change: cell.change,
            }));
        }
        transaction
    }

    fn noting<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(refusal) = &result
            && self.refused.len() < REFUSALS_MAX
            && !self.refused.contains(refusal)
        {
            self.refused.push(refusal.clone());
        }
        result
    }

    fn bucket(&mut self, name: Name) -> Result<(&mut Bucket, &Arc<dyn StateSource>)> {
        let bucket = match name {
            Name::Own => self.own.as_mut(),
            Name::Shared => self.shared.as_mut(),
        };
        bucket.zip(self.source.as_ref()).ok_or_else(|| Refusal::Store("this bucket was not opened".into()))
    }

    async fn read(&mut self, name: Name, key: &str) -> Result<Option<Bytes>> {
        check_key(key)?;
        let (bucket, source) = self.bucket(name)?;
        match bucket.cells.get(key) {
            Some(Cell { change: Some(change), .. }) => return Ok(change.value().cloned()),
            Some(Cell { seen: Some(seen), .. }) => return Ok(seen.value.clone()),
            _ => {}
        }
        let entry = source.get(&bucket.name, key).await.map_err(Refusal::Store)?;
        let (version, value) = entry.map_or((0, None), |entry| (entry.version, Some(entry.value)));
        let size = key.len() + value.as_ref().map_or(0, Bytes::len);
        if self.reads >= READS_MAX {
            return Err(Refusal::Bound(format!("one attempt may read {READS_MAX} keys, and this is one more")));
        }
        if self.read_bytes + size > READ_BYTES_MAX {
            let message = format!("one attempt may read {READ_BYTES_MAX} bytes of state in all, and this goes beyond");
            return Err(Refusal::Bound(message));
        }
        self.reads += 1;
        self.read_bytes += size;
        let (bucket, _) = self.bucket(name)?;
        bucket.touch(key, |cell| cell.seen = Some(Seen { version, value: value.clone() }));
        Ok(value)
    }

    async fn write(&mut self, name: Name, key: &str, change: Change) -> Result<()> {
        check_key(key)?;
        let max = self.grant.value_bytes_max;
        if let Some(value) = change.value()
            && value.len() as u64 > max
        {
            return Err(Refusal::Bound(format!(
                "the value for {key} has {} bytes, and {max} are the most; raise it with \
                 `allow: {{ state: {{ max_value: … }} }}`",
                value.len()
            )));
        }
        let size =
            |change: Option<&Change>| change.map_or(0, |change| key.len() + change.value().map_or(0, Bytes::len));
        let (bucket, _) = self.bucket(name)?;
        let before = bucket.cells.get(key).and_then(|cell| cell.change.as_ref());
        let (is_new, before) = (before.is_none(), size(before));
        if is_new && self.writes >= WRITES_MAX {
            return Err(Refusal::Bound(format!("one attempt may write {WRITES_MAX} keys, and this is one more")));
        }
        let write_bytes = (self.write_bytes + size(Some(&change))).saturating_sub(before);
        if write_bytes > WRITE_BYTES_MAX {
            let message =
                format!("one attempt may write {WRITE_BYTES_MAX} bytes of state in all, and this goes beyond");
            return Err(Refusal::Bound(message));
        }
        if let Change::Set(value) = &change {
            self.fits(name, key, value.len()).await?;
        }
        self.writes += usize::from(is_new);
        self.write_bytes = write_bytes;
        let (bucket, _) = self.bucket(name)?;
        bucket.touch(key, |cell| cell.change = Some(change));
        Ok(())
    }

    /// Whether the bucket would have room for all that is written, as far as can be said before the commit.
    async fn fits(&mut self, name: Name, key: &str, size: usize) -> Result<()> {
        let (quota, writes, write_bytes) = (self.grant.quota, self.writes as u64, self.write_bytes as u64);
        let (bucket, source) = self.bucket(name)?;
        let held = source.usage(&bucket.name);
        // At the very most, as if every write made a key more: then there is nothing to look up.
        let most = Usage { keys: held.keys + writes + 1, bytes: held.bytes + write_bytes + (key.len() + size) as u64 };
        if most.keys <= quota.keys && most.bytes <= quota.bytes {
            return Ok(());
        }
        bucket.touch(key, |_| ());
        let mut after = held;
        for (at, cell) in &mut bucket.cells {
            let new = match &cell.change {
                _ if **at == *key => Some(size),
                None => continue,
                Some(change) => change.value().map(Bytes::len),
            };
            let old = match (&cell.seen, cell.stored) {
                (Some(seen), _) => seen.value.as_ref().map(Bytes::len),
                (None, Some(stored)) => stored,
                (None, None) => {
                    let entry = source.get(&bucket.name, at).await.map_err(Refusal::Store)?;
                    *cell.stored.insert(entry.map(|entry| entry.value.len()))
                }
            };
            after = after.after(at, old, new);
        }
        let Some(refusal) = after.quota_error(held, &bucket.name, quota) else { return Ok(()) };
        // What is refused is not held either.
        if bucket.cells.get(key).is_some_and(|cell| cell.seen.is_none() && cell.change.is_none()) {
            bucket.cells.remove(key);
        }
        Err(Refusal::Quota(refusal))
    }

    async fn page(&mut self, name: Name, cursor: Option<u64>) -> Result<(Vec<String>, Option<u64>)> {
        let (bucket, source) = self.bucket(name)?;
        let after = match cursor {
            None => None,
            Some(cursor) => {
                let page = usize::try_from(cursor).ok().and_then(|cursor| bucket.pages.get(cursor));
                let unknown = || Refusal::Bound(format!("{cursor} is no cursor that a list of keys gave"));
                Some(page.ok_or_else(unknown)?.clone())
            }
        };
        let Keys { keys, version } =
            source.keys(&bucket.name, after.as_deref(), PAGE_MAX).await.map_err(Refusal::Store)?;
        bucket.list.get_or_insert(version);
        let last = (keys.len() >= PAGE_MAX).then(|| keys.last().cloned()).flatten();
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let to = last.as_deref().map_or(Bound::Unbounded, Bound::Included);
        let mut keys: BTreeSet<String> = keys.into_iter().collect();
        for (key, cell) in bucket.cells.range::<str, _>((from, to)) {
            match &cell.change {
                Some(Change::Set(_)) => drop(keys.insert(key.to_string())),
                Some(Change::Delete) => drop(keys.remove(&**key)),
                None => {}
            }
        }
        let cursor = last.map(|last| bucket.cursor(last)).transpose()?;
        Ok((keys.into_iter().collect(), cursor))
    }
}

impl Bucket {
    fn new(name: Arc<str>) -> Self {
        Self { name, cells: BTreeMap::new(), list: None, pages: Vec::new() }
    }

    fn touch(&mut self, key: &str, change: impl FnOnce(&mut Cell)) {
        match self.cells.get_mut(key) {
            Some(cell) => change(cell),
            None => {
                let mut cell = Cell::default();
                change(&mut cell);
                self.cells.insert(key.into(), cell);
            }
        }
    }

    /// A cursor for the page behind this key.
    fn cursor(&mut self, last: String) -> Result<u64> {
        let at = match self.pages.iter().position(|page| *page == last) {
            Some(at) => at,
            None if self.pages.len() < CURSORS_MAX => {
                self.pages.push(last);
                self.pages.len() - 1
            }
            None => return Err(Refusal::Bound(format!("one attempt may list {CURSORS_MAX} pages of keys"))),
        };
        Ok(at as u64)
    }
}

fn check_key(key: &str) -> Result<()> {
    match key.len() {
        1..=KEY_BYTES_MAX => Ok(()),
        0 => Err(Refusal::Bound("a key cannot be empty".into())),
        n => Err(Refusal::Bound(format!("a key has {n} bytes, and {KEY_BYTES_MAX} are the most"))),
    }
}

#[cfg(test)]
mod tests;
