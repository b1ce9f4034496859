//! The store of recorded attempts.

use crate::StoreFuture;
use evoke_model::DeliveryId;
use evoke_model::recording::{RecordingNumber, StoredRecording};

/// Reads recordings of attempts. A recording is stored in the commit of its attempt's outcome
/// ([`evoke_model::Completion::recording`]). It is removed when newer recordings of its function exceed the limits,
/// when it has reached its maximum age, and with the event of its delivery; [`crate::Store::retain`] does the last two.
pub trait RecordingStore: Send + Sync + 'static {
    /// Returns the recordings of those attempts at a delivery that have a number above `after`, in order, at most
    /// `limit`.
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
