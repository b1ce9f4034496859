//! Recordings, with the behaviour of `store-sqlite/src/recordings.rs`.

use super::{Inner, MemoryStore, ready};
use crate::{RecordingStore, StoreFuture};
use evoke_model::clock::UnixMs;
use evoke_model::recording::{NewRecording, RecordingLimits, RecordingNumber, StoredRecording};
use evoke_model::{Completion, DeliveryId};

/// A recording, and the store time at which it expires.
pub(super) struct Kept {
    stored: StoredRecording,
    expires_ms: UnixMs,
}

impl Kept {
    fn bytes(&self) -> u64 {
        self.stored.data.as_ref().map_or(0, |data| data.len() as u64)
    }
}

impl Inner {
    /// Stores the recording of a completion, if it has one. Removes the oldest recordings of its function that exceed
    /// the limits.
    pub(super) fn put_recording(&mut self, completion: &Completion) {
        let Some(NewRecording { data, limits: RecordingLimits { count, bytes, age } }) = &completion.recording else {
            return;
        };
        let Completion { function, delivery, record, .. } = completion;
        let of_function = |kept: &&Kept| kept.stored.function == *function;
        let newest = self.recordings.iter().rev().find(of_function).map_or(0, |kept| kept.stored.number);
        let stored = StoredRecording {
            function: *function,
            number: newest + 1,
            delivery: *delivery,
            attempt: record.attempt,
            data: Ok(data.clone()),
        };
        let age_ms = UnixMs::try_from(age.as_millis()).unwrap_or(UnixMs::MAX);
        let expires_ms = self.clock.store_ms().saturating_add(age_ms);
        let first = stored.number.saturating_sub(RecordingNumber::from(*count)) + 1;
        let newest = stored.number;
        self.recordings.push(Kept { stored, expires_ms });
        let mut total: u64 = self.recordings.iter().filter(of_function).map(Kept::bytes).sum();
        self.recordings.retain(|kept| {
            let is_over = kept.stored.number < newest && (kept.stored.number < first || total > *bytes);
            if kept.stored.function != *function || !is_over {
                return true;
            }
            total -= kept.bytes();
            false
        });
    }

    pub(super) fn expire_recordings(&mut self) {
        let now_ms = self.clock.store_ms();
        self.recordings.retain(|kept| kept.expires_ms > now_ms);
    }

    pub(super) fn remove_recordings(&mut self, delivery: DeliveryId) {
        self.recordings.retain(|kept| kept.stored.delivery != delivery);
    }
}

impl RecordingStore for MemoryStore {
    fn recordings_of(&self, delivery: DeliveryId, after: u32, limit: usize) -> StoreFuture<Vec<StoredRecording>> {
        let inner = self.lock();
        let stored = inner.recordings.iter().map(|kept| &kept.stored);
        let of_delivery = stored.filter(|stored| stored.delivery == delivery && stored.attempt > after);
        ready(of_delivery.take(limit).cloned().collect())
    }

    fn newest_recordings(
        &self,
        function: String,
        before: RecordingNumber,
        limit: usize,
    ) -> StoreFuture<Vec<StoredRecording>> {
        let inner = self.lock();
        let name = |stored: &StoredRecording| inner.functions.get(super::index(stored.function.0));
        let stored = inner.recordings.iter().rev().map(|kept| &kept.stored);
        let of_function = stored.filter(|stored| name(stored) == Some(&function) && stored.number < before);
        ready(of_function.take(limit).cloned().collect())
    }
}
