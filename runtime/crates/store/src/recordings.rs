//! The store of recorded attempts.

use crate::StoreFuture;
use evoke_model::DeliveryId;
use evoke_model::recording::{RecordingNumber, StoredRecording};

/// Reads recordings of attempts. A recording is stored in the same commit as the outcome of its attempt
/// ([`evoke_model::Completion::recording`]). The commit of a recording removes older recordings of the same function
/// that exceed the limits. [`crate::Store::retain`] removes recordings that have reached their maximum age, and
/// recordings of removed events.
pub trait RecordingStore: Send + Sync + 'static {
    /// Returns the recordings of a delivery's attempts with a number above `after`, in the order of the attempts, at
    /// most `limit`.
    fn recordings_of(&self, delivery: DeliveryId, after: u32, limit: usize) -> StoreFuture<Vec<StoredRecording>>;

    /// Returns the `limit` newest recordings of a function, given by its full name, with a number below `before`,
    /// newest first.
    fn newest_recordings(
        &self,
        function: String,
        before: RecordingNumber,
        limit: usize,
    ) -> StoreFuture<Vec<StoredRecording>>;
}
