//! Lets the sandbox read state from the store.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use evoke_manifest as manifest;
use evoke_model::state::{Entry, Keys, Quota, Usage};
use evoke_sandbox::{StateGrant, StateSource};
use evoke_store::{StateStore, StoreError};

/// The store, as the source from which an attempt reads state.
pub(crate) struct StoredState(pub(crate) Arc<dyn StateStore>);

impl StateSource for StoredState {
    fn get(&self, bucket: &str, key: &str) -> BoxFuture<'static, Result<Option<Entry>, String>> {
        self.0.state_with_staged(bucket, key).map(message).boxed()
    }

    fn size(&self, bucket: &str, key: &str) -> BoxFuture<'static, Result<Option<usize>, String>> {
        self.0.state_size_with_staged(bucket, key).map(message).boxed()
    }

    fn keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> BoxFuture<'static, Result<Keys, String>> {
        self.0.state_keys(bucket, after, limit).map(message).boxed()
    }

    fn usage(&self, bucket: &str) -> Usage {
        self.0.state_usage(bucket)
    }
}

fn message<T>(result: Result<T, StoreError>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// Converts the `state:` grant of a manifest.
pub(super) fn grant(state: manifest::StateLimits) -> StateGrant {
    let manifest::StateLimits { shared, max_keys, max_value, max_total } = state;
    let quota = Quota { keys: u64::from(max_keys), bytes: max_total.0 };
    StateGrant { shared, value_bytes_max: max_value.0, quota }
}
