//! The reads and writes of one attempt in a bucket of stored state.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use evoke_model::state::{Change, Version};

/// The name by which functions open the bucket that the functions of an app share.
pub(super) const SHARED_BUCKET: &str = "app";
/// Limit on the cursors that an attempt creates when it lists keys. The host keeps a key in memory for each cursor.
const CURSORS_MAX: usize = 10_000;

/// The buckets of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(unreachable_pub, reason = "the generated bindings export it, from a private module")]
pub enum BucketName {
    /// The function's own bucket.
    Own,
    /// The bucket shared by the functions of the app.
    Shared,
}

/// Why a state operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum StateError {
    /// A limit that is the same for every attempt was exceeded, so a retry would fail too.
    #[error("{0}")]
    Limit(String),
    /// The bucket's quota is exhausted.
    #[error("{0}")]
    Quota(String),
    /// The store failed, or the stored value does not allow the operation. A retry may succeed.
    #[error("{0}")]
    Failed(String),
}

pub(super) struct Bucket {
    pub(super) name: Arc<str>,
    pub(super) accesses: BTreeMap<Arc<str>, KeyAccess>,
    /// Version of the bucket's list of keys; `None` if the attempt has not listed the keys.
    pub(super) list: Option<Version>,
    /// The last key of each page of keys that was returned to the guest. A cursor is an index into this vector.
    pub(super) page_ends: Vec<String>,
}

#[derive(Default)]
pub(super) struct KeyAccess {
    pub(super) seen: Option<Seen>,
    pub(super) change: Option<Change>,
    /// Size of the stored value in bytes, if only this size was read, to check the quota. `Some(None)` if no value is
    /// stored.
    pub(super) stored: Option<Option<usize>>,
}

pub(super) struct Seen {
    pub(super) version: Version,
    pub(super) value: Option<Bytes>,
}

impl Bucket {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, accesses: BTreeMap::new(), list: None, page_ends: Vec::new() }
    }

    pub(super) fn touch(&mut self, key: &str, change: impl FnOnce(&mut KeyAccess)) {
        match self.accesses.get_mut(key) {
            Some(access) => change(access),
            None => {
                let mut access = KeyAccess::default();
                change(&mut access);
                self.accesses.insert(key.into(), access);
            }
        }
    }

    /// Returns a cursor for the page after this key.
    pub(super) fn cursor(&mut self, last: String) -> Result<u64, StateError> {
        let at = match self.page_ends.iter().position(|page| *page == last) {
            Some(at) => at,
            None if self.page_ends.len() < CURSORS_MAX => {
                self.page_ends.push(last);
                self.page_ends.len() - 1
            }
            None => return Err(StateError::Limit(format!("an attempt may list at most {CURSORS_MAX} pages of keys"))),
        };
        Ok(at as u64)
    }
}
