//! Records what an attempt reads. Bounded: beyond the limit nothing is kept, and the attempt continues without it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evoke_model::clock::{Clock, UnixMs};
use evoke_model::recording::{BucketReads, Content, Reads, Seed};

/// Estimate of the size of a reading of a clock in a recording, in bytes.
const READING_BYTES: usize = 24;

/// Records what one attempt reads from outside. Cheap to clone; all clones record into one place.
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

struct Shared {
    bytes_max: usize,
    recorded: Mutex<Recorded>,
}

#[derive(Default)]
struct Recorded {
    reads: Reads,
    bytes: usize,
    /// Why nothing is recorded any more.
    refused: Option<String>,
}

impl Recorder {
    /// Records at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Shared { bytes_max, recorded: Mutex::default() }))
    }

    /// Returns all that was read, or why it is not complete.
    pub fn take(&self) -> Result<Reads, String> {
        let Recorded { reads, refused, .. } = std::mem::take(&mut *self.lock());
        refused.map_or(Ok(reads), Err)
    }

    /// Gives up the recording. The first reason is kept.
    pub fn refuse(&self, reason: String) {
        let mut recorded = self.lock();
        recorded.reads = Reads::default();
        recorded.refused.get_or_insert(reason);
    }

    pub(super) fn reset(&self) {
        *self.lock() = Recorded::default();
    }

    /// Records something of this size, unless it exceeds the limit.
    pub(super) fn add<T>(&self, bytes: usize, record: impl FnOnce(&mut Reads) -> T) -> Option<T> {
        let mut recorded = self.lock();
        if recorded.refused.is_some() {
            return None;
        }
        recorded.bytes = recorded.bytes.saturating_add(bytes);
        if recorded.bytes > self.0.bytes_max {
            let max = self.0.bytes_max;
            recorded.reads = Reads::default();
            recorded.refused =
                Some(format!("the attempt read more than {max} bytes; raise `record: {{ max_size: … }}`"));
            return None;
        }
        Some(record(&mut recorded.reads))
    }

    pub(super) fn wall(&self, now_ns: u64) {
        self.add(READING_BYTES, |reads| reads.wall_ns.push(now_ns));
    }

    pub(super) fn monotonic(&self, now_ns: u64) {
        self.add(READING_BYTES, |reads| reads.monotonic_ns.push(now_ns));
    }

    pub(super) fn publish_ms(&self, clock: &Clock) -> UnixMs {
        let now_ms = clock.now_ms();
        self.add(READING_BYTES, |reads| reads.published_ms.push(now_ms));
        now_ms
    }

    pub(super) fn poll(&self, ready: &[u32]) {
        self.add(READING_BYTES + 4 * ready.len(), |reads| reads.polls.push(ready.to_vec()));
    }

    /// Returns a new seed for random numbers; `None` if the machine has none.
    pub(super) fn seed(&self) -> Option<Seed> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).ok()?;
        self.add(2 * seed.len(), |reads| reads.random = Some(Seed(seed)));
        Some(Seed(seed))
    }

    /// Records the value of a key of stored state. A key that is read again keeps its first value.
    pub(super) fn value(&self, bucket: fn(&mut Reads) -> &mut BucketReads, key: String, value: Option<Content>) {
        let bytes = key.len() + value.as_ref().map_or(0, |value| value.0.len()) + READING_BYTES;
        self.add(bytes, |reads| {
            bucket(reads).values.entry(key).or_insert(value);
        });
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_its_limit_a_recorder_keeps_only_the_reason() {
        let recorder = Recorder::new(3 * READING_BYTES);
        (0..3).for_each(|now_ns| recorder.wall(now_ns));
        assert_eq!(recorder.take().unwrap().wall_ns, [0, 1, 2]);
        (0..4).for_each(|now_ns| recorder.wall(now_ns));
        recorder.monotonic(1);
        recorder.refuse("another reason".to_owned());
        let reason = recorder.take().unwrap_err();
        assert!(reason.contains("more than 72 bytes") && reason.contains("max_size"), "{reason}");
        recorder.refuse("trailers".to_owned());
        recorder.monotonic(1);
        assert_eq!(recorder.take(), Err("trailers".to_owned()));
    }

    #[test]
    fn an_attempt_that_runs_again_is_recorded_from_its_start() {
        let recorder = Recorder::new(1_000);
        recorder.refuse("lost".to_owned());
        recorder.wall(1);
        recorder.reset();
        recorder.wall(2);
        recorder.value(|reads| &mut reads.state, "k".to_owned(), None);
        recorder.value(|reads| &mut reads.state, "k".to_owned(), Some(Content(b"later".to_vec())));
        let reads = recorder.take().unwrap();
        assert_eq!((&reads.wall_ns[..], &reads.state.values["k"]), (&[2][..], &None));
    }
}
