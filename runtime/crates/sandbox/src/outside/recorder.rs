//! Records the values that an attempt reads from outside. The size of a recording is limited. If a recording exceeds
//! the limit, it is dropped, and the attempt continues.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evoke_model::clock::{Clock, UnixMs};
use evoke_model::recording::{BucketReads, Content, ExchangeAnswer, Reads, Seed};

/// Estimated size of one clock reading in a recording, in bytes.
const READING_BYTES: usize = 24;

/// Records the values that one attempt reads from outside. Cheap to clone; all clones record into the same recording.
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
    /// The positions (in `reads.http`) of the requests that the deadline of the attempt ended.
    past_deadline: Vec<usize>,
    /// The reason for which the recording was dropped; `None` if it was not dropped. Nothing is recorded after it was
    /// dropped.
    refused: Option<String>,
}

impl Recorder {
    /// Records at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Shared { bytes_max, recorded: Mutex::default() }))
    }

    /// Returns all recorded values, or the reason why the recording is not complete. `is_timed_out` is true if the
    /// attempt reached its deadline. Then the requests that the deadline ended are changed to requests that never end,
    /// because the attempt waited for them until its end, and a test must wait in the same way.
    pub fn take(&self, is_timed_out: bool) -> Result<Reads, String> {
        let Recorded { mut reads, past_deadline, refused, .. } = std::mem::take(&mut *self.lock());
        for index in past_deadline.into_iter().filter(|_| is_timed_out) {
            let Some(exchange) = reads.http.get_mut(index) else { continue };
            match &mut exchange.answer {
                Some(ExchangeAnswer::Response { error, is_stalled, .. }) => (*error, *is_stalled) = (None, true),
                answer => *answer = None,
            }
        }
        refused.map_or(Ok(reads), Err)
    }

    /// Records that the deadline of the attempt ended a request.
    pub(super) fn past_deadline(&self, index: usize) {
        self.lock().past_deadline.push(index);
    }

    /// Drops the recording; nothing is recorded after that. If this is called several times, [`Self::take`] returns the
    /// first reason.
    pub fn refuse(&self, reason: String) {
        let mut recorded = self.lock();
        recorded.reads = Reads::default();
        recorded.refused.get_or_insert(reason);
    }

    pub(super) fn reset(&self) {
        *self.lock() = Recorded::default();
    }

    /// Calls `record` to record a value of `bytes` bytes. Returns `None` if the recording was dropped, or is dropped
    /// now because the value exceeds the limit.
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

    /// Returns true if a value of `bytes` bytes fits into the recording. If it does not fit, drops the recording.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let used = self.lock().bytes;
        let fits = used.saturating_add(bytes) <= self.0.bytes_max;
        if !fits {
            self.add(bytes, |_| ());
        }
        fits && self.lock().refused.is_none()
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

    /// Returns a new seed for random numbers, and records it; `None` if the operating system provides no random
    /// numbers.
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
    use evoke_model::recording::{Exchange, RequestError};

    #[test]
    fn beyond_its_limit_a_recorder_keeps_only_the_reason() {
        let recorder = Recorder::new(3 * READING_BYTES);
        (0..3).for_each(|now_ns| recorder.wall(now_ns));
        assert_eq!(recorder.take(false).unwrap().wall_ns, [0, 1, 2]);
        (0..4).for_each(|now_ns| recorder.wall(now_ns));
        recorder.monotonic(1);
        recorder.refuse("another reason".to_owned());
        let reason = recorder.take(false).unwrap_err();
        assert!(reason.contains("more than 72 bytes") && reason.contains("max_size"), "{reason}");
        recorder.refuse("trailers".to_owned());
        recorder.monotonic(1);
        assert_eq!(recorder.take(false), Err("trailers".to_owned()));
        assert!(recorder.has_room(3 * READING_BYTES) && recorder.take(false).is_ok());
        assert!(!recorder.has_room(3 * READING_BYTES + 1) && recorder.take(false).is_err());
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
        let reads = recorder.take(false).unwrap();
        assert_eq!((&reads.wall_ns[..], &reads.state.values["k"]), (&[2][..], &None));
    }

    #[test]
    fn requests_that_the_deadline_ended_have_no_end_if_the_attempt_timed_out() {
        let recorder = Recorder::new(1_000);
        let exchange = |answer| Exchange {
            method: "GET".into(),
            url: "http://a/".into(),
            body: Content::default(),
            is_sent: true,
            answer,
        };
        let timeout = Some(RequestError::Timeout);
        let failed = || Some(ExchangeAnswer::Error { kind: RequestError::Timeout, refusal: None });
        let (headers, body, parts) = Default::default();
        let cut = ExchangeAnswer::Response { status: 200, headers, body, parts, error: timeout, is_stalled: false };
        let http = vec![exchange(failed()), exchange(failed()), exchange(Some(cut))];
        for is_timed_out in [true, false] {
            recorder.add(0, |reads| reads.http = http.clone());
            [1, 2].iter().for_each(|index| recorder.past_deadline(*index));
            let found = recorder.take(is_timed_out).unwrap().http;
            assert_eq!((&found[0], found[1].answer.is_none()), (&http[0], is_timed_out));
            let Some(ExchangeAnswer::Response { error, is_stalled, .. }) = &found[2].answer else {
                panic!("{found:?}")
            };
            assert_eq!((error.is_none(), *is_stalled), (is_timed_out, is_timed_out));
        }
    }
}
