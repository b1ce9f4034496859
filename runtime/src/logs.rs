//! The log of functions. It is stored in files that are limited in size and rotated. Lines can be read back by filter
//! and followed live.
//!
//! `DATA/logs/evoke.jsonl` has one JSON object per line, a [`Line`]. At [`FILE_BYTES_MAX`] the file becomes
//! `evoke.jsonl.1`, the former `evoke.jsonl.1` becomes `evoke.jsonl.2`, and the former `evoke.jsonl.2` is deleted.
//! Lines are for diagnostics and not durable: a background thread writes them and does not sync the files. When lines
//! arrive faster than they can be written, some are dropped. A line in their place reports how many.

mod files;
mod reader;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, oneshot};

use self::files::Files;
pub use self::reader::Reader;
use evoke_model::DeliveryId;
use evoke_model::clock;
use evoke_sandbox::{LogLine, LogSink};

/// The size at which a file is rotated, in bytes. With the two older files, at most 48 MiB are stored.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The maximum number of lines that wait to be written. Lines of 100 bytes take about 1 MB in total, lines of the
/// maximum length (4 KiB) take 32 MiB.
const QUEUED_MAX: usize = 8 * 1024;
/// The maximum number of lines that a follower may lag behind. A follower that lags further misses lines. The limit
/// allows for the lines of a few attempts at once.
const LAG_MAX: usize = 4 * 1024;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The time, RFC 3339.
    pub at: String,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// `app/function`; absent for Evoke's own lines about the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Arc<str>>,
    /// The delivery that the function was processing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryId>,
    /// The number of the attempt, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The message, without control characters.
    pub text: String,
}

/// Selects lines.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only lines of this function, by full name.
    pub function: Option<String>,
    /// Only lines of this delivery.
    pub delivery: Option<DeliveryId>,
}

/// A handle to the log of all functions; cheap to clone.
#[derive(Clone)]
pub struct FunctionLogs {
    messages: mpsc::Sender<Message>,
    dropped: Arc<AtomicU64>,
}

/// The log at one moment: the lines in the files, and a receiver of all later lines. Each line is in exactly one of the
/// two.
pub struct Snapshot {
    /// The lines in the files.
    pub stored: StoredLines,
    /// Receives the lines logged after the snapshot.
    pub new_lines: broadcast::Receiver<Arc<Line>>,
}

/// The lines in the files at one moment.
pub struct StoredLines {
    /// The files, oldest first, each with the number of bytes that belong to the snapshot.
    files: Vec<(File, u64)>,
}

enum Message {
    Line(LogLine),
    Snapshot(oneshot::Sender<Snapshot>),
}

impl FunctionLogs {
    /// Opens the log in a data folder; creates the folder `logs` when it is missing.
    pub fn open(data: &Path) -> io::Result<Self> {
        Self::open_with(data, FILE_BYTES_MAX)
    }

    fn open_with(data: &Path, file_bytes_max: u64) -> io::Result<Self> {
        let files = Files::open(&data.join("logs"), file_bytes_max)?;
        let (messages, queue) = mpsc::channel(QUEUED_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer { files, dropped: dropped.clone(), followers: broadcast::channel(LAG_MAX).0 };
        std::thread::Builder::new().name("logs".into()).spawn(move || writer.run(queue))?;
        Ok(Self { messages, dropped })
    }

    /// Returns the sink for the lines of functions. The sink never blocks: a line that does not fit into the queue is
    /// dropped and counted.
    pub fn sink(&self) -> LogSink {
        let Self { messages, dropped } = self.clone();
        Arc::new(move |line| {
            if messages.try_send(Message::Line(line)).is_err() {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// Returns a snapshot with every line logged so far, or `None` when the writer thread has ended.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (reply, snapshot) = oneshot::channel();
        self.messages.send(Message::Snapshot(reply)).await.ok()?;
        snapshot.await.ok()
    }

    /// Waits until every line logged so far is in the file.
    pub async fn flush(&self) {
        let _ = self.snapshot().await;
    }
}

impl Filter {
    /// Whether a line is selected.
    pub fn matches(&self, line: &Line) -> bool {
        self.function.as_deref().is_none_or(|f| line.function.as_deref() == Some(f))
            && self.delivery.is_none_or(|d| line.delivery == Some(d))
    }
}

impl StoredLines {
    /// Returns a reader of the last `limit` selected lines. Blocks on files: not for async tasks.
    pub fn reader(self, filter: Filter, limit: usize) -> io::Result<Reader> {
        Reader::new(self.files, filter, limit)
    }
}

struct Writer {
    files: Files,
    dropped: Arc<AtomicU64>,
    followers: broadcast::Sender<Arc<Line>>,
}

impl Writer {
    /// Writes lines until all handles are dropped.
    fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        while let Some(message) = queue.blocking_recv() {
            match message {
                Message::Line(line) => self.append(line.into()),
                Message::Snapshot(reply) => {
                    self.write_dropped_count();
                    let stored = StoredLines { files: self.files.readers() };
                    let snapshot = Snapshot { stored, new_lines: self.followers.subscribe() };
                    let _ = reply.send(snapshot);
                }
            }
            if queue.is_empty() {
                self.write_dropped_count();
                self.files.flush();
            }
        }
    }

    fn append(&mut self, line: Line) {
        self.write_dropped_count();
        self.write(line);
    }

    fn write_dropped_count(&mut self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let text =
                format!("{dropped} lines of functions were dropped: they arrived faster than they could be written");
            let at = clock::rfc3339(clock::Clock::system().now_ms());
            self.write(Line { at, level: "warn".into(), function: None, delivery: None, attempt: None, text });
        }
    }

    fn write(&mut self, line: Line) {
        // Strings and numbers always serialise.
        let text = serde_json::to_string(&line).unwrap_or_default();
        self.files.write_line(&text);
        // An error only means that there is no follower.
        let _ = self.followers.send(Arc::new(line));
    }
}

impl From<LogLine> for Line {
    fn from(line: LogLine) -> Self {
        Self {
            at: clock::rfc3339(line.at_ms),
            level: line.level.name().into(),
            function: Some(line.function),
            // Guests know a delivery by the store's id and the delivery's number.
            delivery: line.delivery_id.rsplit('-').next().and_then(|number| number.parse().ok()),
            attempt: Some(line.attempt),
            text: line.text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evoke_sandbox::Level;

    fn line(function: &str, delivery: i64, text: &str) -> LogLine {
        LogLine {
            level: Level::Info,
            function: function.into(),
            delivery_id: format!("0a1b2c-{delivery}").into(),
            attempt: 1,
            text: text.into(),
            at_ms: 0,
        }
    }

    /// Reads all lines, in small pages.
    fn read(stored: StoredLines, filter: &Filter, limit: usize) -> Vec<String> {
        let mut reader = stored.reader(filter.clone(), limit).unwrap();
        let pages = std::iter::from_fn(|| Some(reader.page(200).unwrap()).filter(|page| !page.is_empty()));
        pages.flatten().map(|line| serde_json::from_str::<Line>(&line).unwrap().text).collect()
    }

    async fn last(logs: &FunctionLogs, filter: &Filter, limit: usize) -> Vec<String> {
        read(logs.snapshot().await.unwrap().stored, filter, limit)
    }

    #[tokio::test]
    async fn lines_are_read_back_by_function_and_delivery_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let logs = FunctionLogs::open(folder.path()).unwrap();
        let sink = logs.sink();
        for (function, delivery, text) in [("a/f", 1, "one"), ("a/g", 2, "two"), ("a/f", 3, "three")] {
            sink(line(function, delivery, text));
        }
        let of_f = Filter { function: Some("a/f".into()), ..Filter::default() };
        assert_eq!(last(&logs, &of_f, 10).await, ["one", "three"]);
        assert_eq!(last(&logs, &of_f, 1).await, ["three"]);
        let of_2 = Filter { delivery: Some(DeliveryId(2)), ..Filter::default() };
        assert_eq!(last(&logs, &of_2, 10).await, ["two"]);
        drop((logs, sink));
        let logs = FunctionLogs::open(folder.path()).unwrap();
        assert_eq!(last(&logs, &Filter::default(), 10).await, ["one", "two", "three"]);
    }

    #[tokio::test]
    async fn files_rotate_and_the_last_lines_are_found_across_them() {
        let folder = tempfile::tempdir().unwrap();
        let logs = FunctionLogs::open_with(folder.path(), 1_000).unwrap();
        let sink = logs.sink();
        for n in 0..100 {
            sink(line("a/f", n, &n.to_string()));
        }
        let found = last(&logs, &Filter::default(), 1_000).await;
        assert_eq!(found.last().unwrap(), "99");
        assert!((10..40).contains(&found.len()), "{}", found.len());
        assert_eq!(last(&logs, &Filter::default(), 12).await, found[found.len() - 12..]);
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path().join("logs")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["evoke.jsonl", "evoke.jsonl.1", "evoke.jsonl.2"]);
    }

    #[tokio::test]
    async fn a_follower_gets_every_later_line_once() {
        let folder = tempfile::tempdir().unwrap();
        let logs = FunctionLogs::open(folder.path()).unwrap();
        let sink = logs.sink();
        sink(line("a/f", 1, "before"));
        let mut snapshot = logs.snapshot().await.unwrap();
        sink(line("a/f", 2, "after"));
        assert_eq!(snapshot.new_lines.recv().await.unwrap().text, "after");
        assert_eq!(read(snapshot.stored, &Filter::default(), 10), ["before"]);
    }

    #[tokio::test]
    async fn the_number_of_dropped_lines_is_logged() {
        let folder = tempfile::tempdir().unwrap();
        let logs = FunctionLogs::open(folder.path()).unwrap();
        logs.dropped.fetch_add(7, Ordering::Relaxed);
        logs.sink()(line("a/f", 1, "kept"));
        let found = last(&logs, &Filter::default(), 10).await;
        assert!(found[0].starts_with("7 lines of functions were dropped"), "{found:?}");
        assert_eq!(found[1], "kept");
    }

    #[tokio::test]
    async fn a_line_that_a_crash_cut_in_half_is_skipped_and_the_next_one_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        // The second cut is within the two bytes of `ü`.
        for cut in [r#"{"at":"2026"#.as_bytes(), b"{\"text\":\"\xc3"] {
            std::fs::write(folder.path().join("logs/evoke.jsonl"), cut).unwrap();
            let logs = FunctionLogs::open(folder.path()).unwrap();
            logs.sink()(line("a/f", 1, "whole"));
            assert_eq!(last(&logs, &Filter::default(), 10).await, ["whole"]);
        }
    }
}
