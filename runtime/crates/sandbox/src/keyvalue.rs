//! Stored state: the host's side of `wasi:keyvalue`. Its operations use the [`Session`] of the attempt.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

use super::grant_use::{GrantUse, StateOperation};
use super::refusal::{Refusal, Refusals};
use evoke_model::state::{Entry, Keys, Quota, Usage};

mod bindings;
mod bucket;
mod session;
#[cfg(test)]
mod tests;

use bindings::wasi::keyvalue::store::{self, Error, KeyResponse};
use bindings::wasi::keyvalue::{atomics, batch};
use bucket::{BucketName, SHARED_BUCKET, StateError};
pub(super) use session::Session;

/// The source that an attempt reads its stored state from.
pub trait StateSource: Send + Sync + 'static {
    /// Returns the value of a key. An error explains why the value cannot be read now.
    fn get(&self, bucket: &str, key: &str) -> BoxFuture<'static, Result<Option<Entry>, String>>;

    /// Returns the size of the value of a key in bytes. Does not read the value, so many sizes can be read quickly.
    fn size(&self, bucket: &str, key: &str) -> BoxFuture<'static, Result<Option<usize>, String>>;

    /// Returns at most `limit` keys of a bucket in key order. If `after` is set, starts after this key. There can be
    /// fewer keys if their values are large, because a store also reads the values, to verify their checksums.
    /// [`Keys::is_last`] is true if no further keys follow.
    fn keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> BoxFuture<'static, Result<Keys, String>>;

    /// Returns the number of keys and bytes in a bucket.
    fn usage(&self, bucket: &str) -> Usage;
}

/// The state that a function may store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateGrant {
    /// True if the function has access to the bucket shared by the app's functions.
    pub shared: bool,
    /// Size limit of a value, in bytes.
    pub value_bytes_max: u64,
    /// Quota of each bucket.
    pub quota: Quota,
}

/// The host's side of `wasi:keyvalue`. Borrows its fields from the `HostContext`.
pub(super) struct KeyValue<'a> {
    /// The function, as `app/function`.
    pub(super) function: &'a Arc<str>,
    pub(super) grant_use: &'a GrantUse,
    pub(super) session: &'a mut Session,
    pub(super) resources: &'a mut ResourceTable,
    pub(super) refusals: &'a mut Refusals,
}

/// Connects the generated bindings of `wasi:keyvalue` to [`KeyValue`].
pub(super) struct KeyValueHost;

impl HasData for KeyValueHost {
    type Data<'a> = KeyValue<'a>;
}

pub(super) fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> KeyValue<'_>,
) -> wasmtime::Result<()> {
    store::add_to_linker::<T, KeyValueHost>(linker, view)?;
    atomics::add_to_linker::<T, KeyValueHost>(linker, view)?;
    batch::add_to_linker::<T, KeyValueHost>(linker, view)
}

/// Limit on the bytes that one `get-many` returns. Equal to the limit on the bytes of state that an attempt reads.
const GET_MANY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Number of keys after which a call with a list of keys (such as `set-many`) yields to other tasks. Without this, one
/// call could block them for long: its list can have 100,000 keys, and if a bucket is almost full, each write checks
/// all keys that the attempt has used.
const KEYS_A_TURN: usize = 8;

type HostResult<T> = Result<T, Error>;

/// Yields to other tasks after every [`KEYS_A_TURN`] keys of a list. While this function waits, the deadline can end
/// the attempt.
async fn pause_after(index: usize) {
    if index % KEYS_A_TURN == KEYS_A_TURN - 1 {
        tokio::task::yield_now().await;
    }
}

impl KeyValue<'_> {
    /// Returns the bucket of a handle, and records the operation on it.
    fn bucket(&self, bucket: &Resource<BucketName>, operation: StateOperation) -> HostResult<BucketName> {
        let bucket = self.resources.get(bucket).map_err(|error| Error::Other(error.to_string()))?;
        self.grant_use.state(operation);
        Ok(*bucket)
    }

    /// Records whether the operation was refused, and converts its result for the guest.
    fn record<T>(&mut self, result: Result<T, StateError>) -> HostResult<T> {
        let refusal = match &result {
            Err(StateError::Limit(message)) => Some(Refusal::Denied(message.clone())),
            Err(StateError::Quota(message)) => Some(Refusal::Quota(message.clone())),
            // Not a refusal, because another attempt may succeed.
            Err(StateError::Failed(_)) | Ok(_) => None,
        };
        self.refusals.record_state(refusal);
        result.map_err(|error| Error::Other(error.to_string()))
    }
}

impl store::Host for KeyValue<'_> {
    fn open(&mut self, identifier: String) -> HostResult<Resource<BucketName>> {
        let Some(name) = self.session.open(self.function, &identifier) else {
            if identifier == SHARED_BUCKET {
                self.grant_use.shared_state_refused();
            }
            return Err(Error::NoSuchStore);
        };
        self.grant_use.state(match name {
            BucketName::Own => StateOperation::Open,
            BucketName::Shared => StateOperation::OpenShared,
        });
        let full =
            |_| Error::Other("the function holds too many handles; close the buckets that it no longer uses".into());
        self.resources.push(name).map_err(full)
    }
}

impl store::HostBucket for KeyValue<'_> {
    async fn get(&mut self, bucket: Resource<BucketName>, key: String) -> HostResult<Option<Vec<u8>>> {
        let name = self.bucket(&bucket, StateOperation::Read)?;
        let value = self.session.get(name, &key).await;
        Ok(self.record(value)?.map(Vec::from))
    }

    async fn set(&mut self, bucket: Resource<BucketName>, key: String, value: Vec<u8>) -> HostResult<()> {
        let name = self.bucket(&bucket, StateOperation::Write)?;
        let written = self.session.set(name, &key, value).await;
        self.record(written)
    }

    async fn delete(&mut self, bucket: Resource<BucketName>, key: String) -> HostResult<()> {
        let name = self.bucket(&bucket, StateOperation::Write)?;
        let deleted = self.session.delete(name, &key).await;
        self.record(deleted)
    }

    async fn exists(&mut self, bucket: Resource<BucketName>, key: String) -> HostResult<bool> {
        let name = self.bucket(&bucket, StateOperation::Read)?;
        let value = self.session.get(name, &key).await;
        Ok(self.record(value)?.is_some())
    }

    async fn list_keys(&mut self, bucket: Resource<BucketName>, cursor: Option<u64>) -> HostResult<KeyResponse> {
        let name = self.bucket(&bucket, StateOperation::Read)?;
        let page = self.session.list(name, cursor).await;
        let (keys, cursor) = self.record(page)?;
        Ok(KeyResponse { keys, cursor })
    }

    fn drop(&mut self, bucket: Resource<BucketName>) -> wasmtime::Result<()> {
        self.resources.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for KeyValue<'_> {
    async fn increment(&mut self, bucket: Resource<BucketName>, key: String, delta: u64) -> HostResult<u64> {
        let name = self.bucket(&bucket, StateOperation::Write)?;
        self.grant_use.state(StateOperation::Read);
        let sum = self.session.increment(name, &key, delta).await;
        self.record(sum)
    }
}

impl batch::Host for KeyValue<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<BucketName>,
        keys: Vec<String>,
    ) -> HostResult<Vec<Option<(String, Vec<u8>)>>> {
        let name = self.bucket(&bucket, StateOperation::Read)?;
        let (mut found, mut bytes) = (Vec::with_capacity(keys.len()), 0);
        for (index, key) in keys.into_iter().enumerate() {
            let value = self.session.get(name, &key).await;
            let value = self.record(value)?;
            // The list can contain a key many times, but the limit on reads counts its value at most once.
            bytes += value.as_ref().map_or(0, Bytes::len);
            if bytes > GET_MANY_BYTES_MAX {
                let message =
                    format!("one `get-many` returns at most {GET_MANY_BYTES_MAX} bytes; read fewer keys in one call");
                return self.record(Err(StateError::Limit(message)));
            }
            found.push(value.map(|value| (key, value.into())));
            pause_after(index).await;
        }
        Ok(found)
    }

    async fn set_many(&mut self, bucket: Resource<BucketName>, values: Vec<(String, Vec<u8>)>) -> HostResult<()> {
        let name = self.bucket(&bucket, StateOperation::Write)?;
        for (index, (key, value)) in values.into_iter().enumerate() {
            let written = self.session.set(name, &key, value).await;
            self.record(written)?;
            pause_after(index).await;
        }
        Ok(())
    }

    async fn delete_many(&mut self, bucket: Resource<BucketName>, keys: Vec<String>) -> HostResult<()> {
        let name = self.bucket(&bucket, StateOperation::Write)?;
        for (index, key) in keys.into_iter().enumerate() {
            let deleted = self.session.delete(name, &key).await;
            self.record(deleted)?;
            pause_after(index).await;
        }
        Ok(())
    }
}
