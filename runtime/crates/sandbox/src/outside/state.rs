//! Stored state that is recorded while an attempt reads it.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::Recorder;
use crate::keyvalue::StateSource;
use evoke_model::recording::{BucketReads, Content, Reads};
use evoke_model::state::{Entry, Keys, Usage};

/// A source of state that records all that is read from it.
#[derive(Clone)]
pub(super) struct Recorded {
    source: Arc<dyn StateSource>,
    recorder: Recorder,
    /// Name of the function. Its own bucket has the same name.
    function: Arc<str>,
}

impl Recorded {
    pub(super) fn new(source: Arc<dyn StateSource>, recorder: Recorder, function: Arc<str>) -> Self {
        Self { source, recorder, function }
    }

    /// Returns the part of the recording for a bucket.
    fn part(&self, bucket: &str) -> fn(&mut Reads) -> &mut BucketReads {
        if bucket == &*self.function { |reads| &mut reads.state } else { |reads| &mut reads.shared_state }
    }
}

impl StateSource for Recorded {
    fn get(&self, bucket: &str, key: &str) -> BoxFuture<'static, Result<Option<Entry>, String>> {
        let (read, recorder) = (self.source.get(bucket, key), self.recorder.clone());
        let (part, key) = (self.part(bucket), key.to_owned());
        let recorded = async move {
            let result = read.await;
            match &result {
                Ok(entry) => recorder.value(part, key, entry.as_ref().map(|entry| Content(entry.value.to_vec()))),
                Err(error) => recorder.refuse(format!("stored state could not be read: {error}")),
            }
            result
        };
        recorded.boxed()
    }

    /// Records the value, because a recording has no sizes without values. A value that is too large for the recording
    /// is not read.
    fn size(&self, bucket: &str, key: &str) -> BoxFuture<'static, Result<Option<usize>, String>> {
        let (size, recorded) = (self.source.size(bucket, key), self.clone());
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        let size = async move {
            let size = size.await.inspect_err(|error| {
                recorded.recorder.refuse(format!("stored state could not be read: {error}"));
            })?;
            if !recorded.recorder.has_room(size.unwrap_or_default()) {
                return Ok(size);
            }
            Ok(recorded.get(&bucket, &key).await?.map(|entry| entry.value.len()))
        };
        size.boxed()
    }

    fn keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> BoxFuture<'static, Result<Keys, String>> {
        let (read, recorder) = (self.source.keys(bucket, after, limit), self.recorder.clone());
        let part = self.part(bucket);
        let recorded = async move {
            let result = read.await;
            match &result {
                Ok(Keys { keys, .. }) => {
                    let bytes = keys.iter().map(|key| key.len() + 4).sum();
                    recorder.add(bytes, |reads| part(reads).keys.extend(keys.iter().cloned()));
                }
                Err(error) => recorder.refuse(format!("a list of stored keys could not be read: {error}")),
            }
            result
        };
        recorded.boxed()
    }

    fn usage(&self, bucket: &str) -> Usage {
        let usage = self.source.usage(bucket);
        let part = self.part(bucket);
        self.recorder.add(0, |reads| *part(reads).usage.get_or_insert((usage.keys, usage.bytes)));
        usage
    }
}
