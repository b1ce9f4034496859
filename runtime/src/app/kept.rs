//! The store's state, as the sandbox reads it.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::manifest;
use crate::sandbox::{StateGrant, StateSource};
use crate::state::{Entry, Keys, Quota, Usage};
use crate::store::{Store, StoreError};

/// A store of which an attempt reads.
pub(super) struct Kept(pub(super) Arc<dyn Store>);

impl StateSource for Kept {
    fn get(&self, bucket: &str, key: &str) -> BoxFuture<'static, Result<Option<Entry>, String>> {
        self.0.state_ahead(bucket, key).map(told).boxed()
    }

    fn keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> BoxFuture<'static, Result<Keys, String>> {
        self.0.state_keys(bucket, after, limit).map(told).boxed()
    }

    fn usage(&self, bucket: &str) -> Usage {
        self.0.state_usage(bucket)
    }
}

fn told<T>(result: Result<T, StoreError>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// What the manifest grants.
pub(super) fn grant(state: manifest::StateLimits) -> StateGrant {
    let manifest::StateLimits { shared, max_keys, max_value, max_total } = state;
    let quota = Quota { keys: u64::from(max_keys), bytes: max_total.0 };
    StateGrant { shared, value_bytes_max: max_value.0, quota }
}
