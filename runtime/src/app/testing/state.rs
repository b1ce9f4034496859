//! Stored state of a test: the values that the test gives, and the recorded sizes and keys of buckets.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::app::invoke::seed;
use crate::control::state_source::StoredState;
use evoke_manifest::test_file::Spanned;
use evoke_model::clock::Clock;
use evoke_model::recording::BucketReads;
use evoke_model::state::{Entry, Keys, Usage};
use evoke_sandbox::StateSource;
use evoke_store::StateStore;
use evoke_store::memory::MemoryStore;

/// The state of a test, from which an attempt reads.
pub(super) struct GivenState {
    stored: StoredState,
    /// The recorded sizes of buckets, which quotas limit. The sizes cannot be computed, because a recording has only
    /// some of the values.
    usages: BTreeMap<String, Usage>,
}

/// The state that a test gives for a bucket (one function's or one app's state): values as JSON, and further reads
/// from a recording.
pub(super) struct GivenBucket {
    pub(super) name: Arc<str>,
    pub(super) values: Option<Spanned<BTreeMap<String, Value>>>,
    pub(super) recorded: BucketReads,
}

impl GivenState {
    /// Stores the values of all buckets.
    pub(super) async fn new(buckets: [GivenBucket; 2], clock: Clock) -> anyhow::Result<Self> {
        let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new(clock));
        let mut usages = BTreeMap::new();
        for GivenBucket { name, values, recorded } in buckets {
            let BucketReads { values: raw, keys, usage } = recorded;
            // A key that was only listed, and not read, gets an empty value.
            let mut all: BTreeMap<String, Vec<u8>> = keys.into_iter().map(|key| (key, Vec::new())).collect();
            // The SDKs store values as JSON.
            let values = values.map(|given| given.value).unwrap_or_default();
            all.extend(values.into_iter().map(|(key, value)| (key, value.to_string().into_bytes())));
            all.extend(raw.into_iter().filter_map(|(key, content)| Some((key, content?.0))));
            seed(&*store, &name, all.into_iter().collect()).await?;
            if let Some((keys, bytes)) = usage {
                usages.insert(name.to_string(), Usage { keys, bytes });
            }
        }
        Ok(Self { stored: StoredState(store), usages })
    }
}

impl StateSource for GivenState {
    fn get(&self, bucket: &str, key: &str) -> BoxFuture<'static, Result<Option<Entry>, String>> {
        self.stored.get(bucket, key)
    }

    fn size(&self, bucket: &str, key: &str) -> BoxFuture<'static, Result<Option<usize>, String>> {
        self.stored.size(bucket, key)
    }

    fn keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> BoxFuture<'static, Result<Keys, String>> {
        self.stored.keys(bucket, after, limit)
    }

    fn usage(&self, bucket: &str) -> Usage {
        self.usages.get(bucket).copied().unwrap_or_else(|| self.stored.usage(bucket))
    }
}
