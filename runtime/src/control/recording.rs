//! Recordings of attempts. The reads and effects of an attempt are stored in the commit of its outcome, with the values
//! of secrets replaced. A recording never changes the attempt: if the recording exceeds a limit or cannot be made, the
//! reason is stored instead.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use evoke_manifest::{ByteSize, Record};
use evoke_model::event::Event;
use evoke_model::outcome::Outcome;
use evoke_model::recording::{
    BucketReads, Content, Exchange, ExchangeAnswer, NewRecording, Reads, Recording, RecordingLimits,
};
use evoke_model::state::Transaction;
use evoke_sandbox::{Attempt, Function, LogSink, Recorder, Secrets};

/// The recording of one attempt while it runs.
pub(super) struct RunningRecording {
    record: Record,
    recorder: Recorder,
    logs: Arc<Mutex<Vec<String>>>,
    /// The input of the attempt.
    recording: Recording,
    event: Arc<Event>,
}

impl RunningRecording {
    pub(super) fn start(record: Record, recording: Recording, event: Arc<Event>) -> Self {
        let recorder = Recorder::new(usize::try_from(record.max_size.0).unwrap_or(usize::MAX));
        Self { record, recorder, logs: Arc::default(), recording, event }
    }

    /// Returns the recorder of the reads of the attempt.
    pub(super) fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Returns a sink that records each line, and passes it to `sink`. The recorded lines are bounded, because the
    /// sandbox limits the lines of an attempt.
    pub(super) fn logs(&self, sink: LogSink) -> LogSink {
        let logs = self.logs.clone();
        Arc::new(move |line| {
            let text = format!("{} {}", line.level.name(), line.text);
            logs.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            sink(line);
        })
    }

    /// Returns the recording of the attempt that has ended.
    pub(super) fn end(self, function: &Function, attempt: &Attempt) -> NewRecording {
        let Self { record, recorder, logs, recording, event } = self;
        let Record { max_size, keep, max_total, max_age } = record;
        let bytes_max = usize::try_from(max_size.0).unwrap_or(usize::MAX);
        let limits = RecordingLimits { count: keep, bytes: max_total.0, age: max_age };
        let head = Recording { outcome: attempt.outcome.kind().to_owned(), ..recording };
        let logs = std::mem::take(&mut *logs.lock().unwrap_or_else(PoisonError::into_inner));
        let is_timed_out = matches!(attempt.outcome, Outcome::Timeout { .. });
        let whole = match (&attempt.outcome, recorder.take(is_timed_out)) {
            (Outcome::Unavailable { message }, _) => Err(format!("the function could not run: {message}")),
            _ if bytes_min(&event, &logs, &attempt.published, &attempt.state) > bytes_max => Err(too_large(max_size)),
            (_, reads) => reads.and_then(|reads| complete(head.clone(), reads, logs, function, &event, attempt)),
        };
        let json = whole.and_then(|recording| to_json(&recording, bytes_max).ok_or_else(|| too_large(max_size)));
        let data = json.unwrap_or_else(|reason| {
            serde_json::to_vec(&Recording { not_recorded: Some(reason), ..head }).unwrap_or_default()
        });
        NewRecording { data: data.into(), limits }
    }
}

fn too_large(max_size: ByteSize) -> String {
    format!("the recording has more bytes than the limit of {max_size}; raise `record: {{ max_size: … }}`")
}

/// Returns the size of the data that a recording has besides the reads of the attempt. The recording is at least this
/// large, apart from replaced values of secrets. The caller compares this size with the limit before it makes the
/// recording: an attempt can publish and write several megabytes, and copying them would take long.
fn bytes_min(event: &Event, logs: &[String], published: &[Event], state: &Transaction) -> usize {
    let published: usize = published.iter().map(Event::size).sum();
    let logs: usize = logs.iter().map(String::len).sum();
    event.size() + published + state.content_size() + logs
}

/// Returns the recording as JSON; `None` if it has more than `bytes_max` bytes.
fn to_json(recording: &impl Serialize, bytes_max: usize) -> Option<Vec<u8>> {
    let mut json = BoundedBuffer { bytes: Vec::new(), bytes_max };
    // The only possible error is that of the buffer: strings, numbers and maps with text as keys always serialise.
    serde_json::to_writer(&mut json, recording).ok()?;
    Some(json.bytes)
}

/// Refuses to grow beyond its limit, so that serialising a large value ends there.
struct BoundedBuffer {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl io::Write for BoundedBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.bytes_max - self.bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the complete recording, without the values of secrets, or the reason why it cannot be stored.
fn complete(
    head: Recording,
    reads: Reads,
    logs: Vec<String>,
    function: &Function,
    event: &Event,
    attempt: &Attempt,
) -> Result<Recording, String> {
    let secrets = function.secrets();
    let app = function.name().split_once('/').map_or(&**function.name(), |(app, _)| app);
    let json = |event: &Event, what: &str| {
        let text = plain_text(secrets, &event.to_json());
        match Event::from_json(text.as_bytes(), |_| {}) {
            Ok(_) => Ok(text),
            // The event can be invalid without a secret, too: an earlier version of Evoke may have stored an attribute
            // that is too long now.
            Err(error) => Err(format!(
                "{what} has a secret's value where it cannot be replaced, such as in a number, or is not valid: {error}"
            )),
        }
    };
    let published = attempt.published.iter().map(|event| json(event, "a published event"));
    let config = function.config().iter();
    Ok(Recording {
        event: json(event, "the event")?,
        config: config.map(|(name, value)| (name.clone(), plain_text(secrets, value))).collect(),
        secrets: secrets.names().map(str::to_owned).collect(),
        reads: plain_reads(secrets, reads),
        message: attempt.outcome.message(),
        published: published.collect::<Result<_, _>>()?,
        state: changes(secrets, &attempt.state, function.name()),
        shared_state: changes(secrets, &attempt.state, app),
        logs,
        ..head
    })
}

fn changes(
    secrets: &Secrets,
    state: &Transaction,
    bucket: &str,
) -> std::collections::BTreeMap<String, Option<Content>> {
    let touched = state.keys.iter().filter(|touched| &*touched.bucket == bucket);
    let changed = touched.filter_map(|touched| {
        let value = touched.change.as_ref()?.value();
        let value = value.map(|value| Content(secrets.replace_for_tests(value).into_owned()));
        Some((plain_text(secrets, &touched.key), value))
    });
    changed.collect()
}

fn plain_reads(secrets: &Secrets, reads: Reads) -> Reads {
    let bucket = |reads: BucketReads| BucketReads {
        values: reads
            .values
            .into_iter()
            .map(|(key, value)| (plain_text(secrets, &key), value.map(|value| plain(secrets, value))))
            .collect(),
        keys: reads.keys.into_iter().map(|key| plain_text(secrets, &key)).collect(),
        usage: reads.usage,
    };
    Reads {
        state: bucket(reads.state),
        shared_state: bucket(reads.shared_state),
        http: reads.http.into_iter().map(|exchange| plain_exchange(secrets, exchange)).collect(),
        ..reads
    }
}

fn plain_exchange(secrets: &Secrets, exchange: Exchange) -> Exchange {
    let answer = exchange.answer.map(|answer| match answer {
        ExchangeAnswer::Response { status, headers, body, parts, error, is_stalled } => {
            let plain_header = |(name, value): (String, String)| (name, plain_text(secrets, &value));
            let headers = headers.into_iter().map(plain_header).collect();
            let bytes = body.0.len();
            let body = plain(secrets, body);
            let parts = resized(parts, bytes, body.0.len());
            ExchangeAnswer::Response { status, headers, body, parts, error, is_stalled }
        }
        // The sandbox has already redacted the secrets in the reason.
        error @ ExchangeAnswer::Error { .. } => error,
    });
    let (method, url) = (plain_text(secrets, &exchange.method), plain_text(secrets, &exchange.url));
    Exchange { method, url, body: plain(secrets, exchange.body), answer, ..exchange }
}

/// Adapts the sizes of the parts of a body, whose total size changed from `before` to `after` when the values of
/// secrets were replaced. The number of parts stays the same, because the function waits for each part.
fn resized(parts: Vec<u32>, before: usize, after: usize) -> Vec<u32> {
    if before == after {
        return parts;
    }
    let (mut at, mut taken) = (0, 0);
    let resize = |size: u32| {
        at += u128::from(size);
        let end = at * (after as u128) / (before.max(1) as u128);
        let size = u32::try_from(end - taken).unwrap_or(u32::MAX);
        taken = end;
        size
    };
    parts.into_iter().map(resize).collect()
}

fn plain(secrets: &Secrets, Content(bytes): Content) -> Content {
    Content(secrets.replace_for_tests(&bytes).into_owned())
}

fn plain_text(secrets: &Secrets, text: &str) -> String {
    let plain = secrets.replace_for_tests(text.as_bytes());
    // Replaced values begin and end at the boundary of a character, so the result is still valid UTF-8.
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use evoke_model::state::{Change, Touched};

    /// A list of a million numbers that counts how many of them were serialised.
    struct Counted(Cell<usize>);

    impl Serialize for Counted {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq((0..1_000_000).inspect(|_| self.0.set(self.0.get() + 1)))
        }
    }

    #[test]
    fn a_recording_that_is_too_large_is_serialised_up_to_its_limit_only() {
        let text = "x".repeat(98);
        assert_eq!(to_json(&text, 100).map(|json| json.len()), Some(100));
        assert_eq!(to_json(&text, 99), None);
        let numbers = Counted(Cell::new(0));
        assert_eq!(to_json(&numbers, 100), None);
        assert!(numbers.0.get() <= 100, "{}", numbers.0.get());
    }

    #[test]
    fn all_that_an_attempt_made_counts_before_it_is_copied() {
        let event = Event::from_json(br#"{"id":"1","source":"/a","type":"t","data":{"n":1}}"#, |_| {}).unwrap();
        let touched = |key: &str| Touched {
            bucket: "a/f".into(),
            key: key.into(),
            seen: None,
            change: Some(Change::Set(vec![0; 1_000].into())),
        };
        let state = Transaction { keys: vec![touched("a"), touched("b")], ..Transaction::default() };
        let size = event.size();
        let published = vec![event.clone(); 3];
        assert_eq!(bytes_min(&event, &["1234".to_owned()], &published, &state), 4 * size + 2 * 1_001 + 4);
    }
}
