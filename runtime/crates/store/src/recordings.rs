//! The store of recorded attempts.

use crate::StoreFuture;
use evoke_model::DeliveryId;
use evoke_model::recording::{RecordingNumber, StoredRecording};

/// Reads recordings of attempts. A recording is stored in the same commit as the outcome of its attempt
/// ([`evoke_model::Completion::recording`]). The commit of a recording removes older recordings of the same function
/// that exceed the limits. [`crate::Store::retain`] removes recordings that have reached their maximum age, and
/// recordings of removed events.
pub trait RecordingStore: Send + Sync + 'static {
    /// Returns recordings of a delivery's attempts in the order of the attempts: the first `limit` whose attempt
    /// numbers are greater than `after`.
    fn recordings_of(&self, delivery: DeliveryId, after: u32, limit: usize) -> StoreFuture<Vec<StoredRecording>>;

    /// Returns recordings of the function with this full name, newest first: the `limit` newest whose numbers are less
    /// than `before`.
    fn newest_recordings(
        &self,
        function: String,
        before: RecordingNumber,
        limit: usize,
    ) -> StoreFuture<Vec<StoredRecording>>;
}
