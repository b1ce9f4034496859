//! What functions log: kept in bounded, rotating files, read back by filter, followed as it comes.
//!
//! `DATA/logs/evoke.jsonl` has one JSON object a line, as [`Line`] says. At [`FILE_BYTES_MAX`] it becomes
//! `evoke.jsonl.1`, and what was that becomes `evoke.jsonl.2`, and what was that is gone. Lines are for people: they
//! are written behind, not synced, and when they come faster than the disk takes them some are dropped, counted, and a
//! line in their place says how many.

mod files;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, oneshot};

use self::files::Files;
use crate::clock;
use crate::sandbox::{LogLine, LogSink};
use crate::store::DeliveryId;

/// When a file is full, in bytes. With the two before it, at most 48 MiB are kept.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Lines on their way to the file: of 100 bytes they hold a megabyte, of the longest (4 KiB) 32 MiB.
const WAITING_MAX: usize = 8 * 1024;
/// Lines that a follower may be behind before it misses some: as much as a burst of a few attempts.
const FOLLOWING_MAX: usize = 4 * 1024;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When, RFC 3339.
    pub at: String,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// `app/function`; absent when Evoke itself says something about the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Arc<str>>,
    /// The delivery that it was working on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryId>,
    /// Which attempt at it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// What it said, without control characters.
    pub text: String,
}

/// Which lines are meant.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only lines of this function, by full name.
    pub function: Option<String>,
    /// Only lines of this delivery.
    pub delivery: Option<DeliveryId>,
}

/// A handle to the log; cheap to clone.
#[derive(Clone)]
pub struct LogBook {
    messages: mpsc::Sender<Message>,
    dropped: Arc<AtomicU64>,
}

/// The log at one moment: what is in the files, and what comes after that, without gap or overlap.
pub struct Snapshot {
    /// The files, oldest first, each with the bytes that count.
    files: Vec<(File, u64)>,
    /// What comes.
    pub coming: broadcast::Receiver<Arc<Line>>,
}

enum Message {
    Line(LogLine),
    Snapshot(oneshot::Sender<Snapshot>),
}

impl LogBook {
    /// The log in a data folder; the folder `logs` is made when it is not there.
    pub fn open(data: &Path) -> io::Result<Self> {
        Self::open_with(data, FILE_BYTES_MAX)
    }

    fn open_with(data: &Path, file_bytes_max: u64) -> io::Result<Self> {
        let files = Files::open(&data.join("logs"), file_bytes_max)?;
        let (messages, queue) = mpsc::channel(WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer { files, dropped: dropped.clone(), followers: broadcast::channel(FOLLOWING_MAX).0 };
        std::thread::Builder::new().name("logs".into()).spawn(move || writer.run(queue))?;
        Ok(Self { messages, dropped })
    }

    /// Where functions log to. It never blocks: a line for which there is no room is dropped and counted.
    pub fn sink(&self) -> LogSink {
        let Self { messages, dropped } = self.clone();
        Arc::new(move |line| {
            if messages.try_send(Message::Line(line)).is_err() {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// The log as it is now, with every line that was logged before. `None`: its thread is gone.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (reply, answer) = oneshot::channel();
        self.messages.send(Message::Snapshot(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Waits until everything that was logged before is in the file.
    pub async fn flush(&self) {
        let _ = self.snapshot().await;
    }
}

impl Filter {
    /// Whether a line is meant.
    pub fn takes(&self, line: &Line) -> bool {
        self.function.as_deref().is_none_or(|f| line.function.as_deref() == Some(f))
            && self.delivery.is_none_or(|d| line.delivery == Some(d))
    }
}

impl Snapshot {
    /// The last `limit` lines that are meant, oldest first, each as its JSON text. Reads files: not for async tasks.
    pub fn last(&mut self, filter: &Filter, limit: usize) -> io::Result<Vec<String>> {
        let mut found: VecDeque<String> = VecDeque::new();
        if limit == 0 {
            return Ok(Vec::new());
        }
        // Newest file first, as long as more is wanted; within a file from its start.
        for (file, length) in self.files.drain(..).rev() {
            let wanted = limit - found.len();
            let mut of_file: VecDeque<String> = VecDeque::new();
            for line in BufReader::new(file.take(length)).lines() {
                let line = line?;
                // A line that a crash cut in half is no line.
                if serde_json::from_str(&line).is_ok_and(|line| filter.takes(&line)) {
                    of_file.push_back(line);
                    if of_file.len() > wanted {
                        of_file.pop_front();
                    }
                }
            }
            of_file.append(&mut found);
            found = of_file;
            if found.len() >= limit {
                break;
            }
        }
        Ok(found.into())
    }
}

struct Writer {
    files: Files,
    dropped: Arc<AtomicU64>,
    followers: broadcast::Sender<Arc<Line>>,
}

impl Writer {
    /// Writes until every handle is gone.
    fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        while let Some(message) = queue.blocking_recv() {
            match message {
                Message::Line(line) => self.take(line.into()),
                Message::Snapshot(reply) => {
                    self.mention_dropped();
                    let snapshot = Snapshot { files: self.files.readers(), coming: self.followers.subscribe() };
                    let _ = reply.send(snapshot);
                }
            }
            if queue.is_empty() {
                self.mention_dropped();
                self.files.flush();
            }
        }
    }

    fn take(&mut self, line: Line) {
        self.mention_dropped();
        self.write(line);
    }

    fn mention_dropped(&mut self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let text =
                format!("{dropped} lines of functions were dropped: they came faster than they could be written");
            let at = clock::rfc3339(clock::Clock::system().now_ms());
            self.write(Line { at, level: "warn".into(), function: None, delivery: None, attempt: None, text });
        }
    }

    fn write(&mut self, line: Line) {
        // Strings and numbers always serialise.
        let text = serde_json::to_string(&line).unwrap_or_default();
        self.files.write_line(&text);
        // Nobody follows: that is no error.
        let _ = self.followers.send(Arc::new(line));
    }
}

impl From<LogLine> for Line {
    fn from(line: LogLine) -> Self {
        Self {
            at: clock::rfc3339(line.at_ms),
            level: line.level.name().into(),
            function: Some(line.function),
            // Guests know a delivery by the store's name and its number.
            delivery: line.delivery_id.rsplit('-').next().and_then(|number| number.parse().ok()),
            attempt: Some(line.attempt),
            text: line.text,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::sandbox::Level;

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

    fn texts(lines: &[String]) -> Vec<String> {
        lines.iter().map(|line| serde_json::from_str::<Line>(line).unwrap().text).collect()
    }

    async fn last(logs: &LogBook, filter: &Filter, limit: usize) -> Vec<String> {
        texts(&logs.snapshot().await.unwrap().last(filter, limit).unwrap())
    }

    #[tokio::test]
    async fn lines_are_read_back_by_function_and_delivery_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogBook::open(folder.path()).unwrap();
        let sink = logs.sink();
        for (function, delivery, text) in [("a/f", 1, "one"), ("a/g", 2, "two"), ("a/f", 3, "three")] {
            sink(line(function, delivery, text));
        }
        let of_f = Filter { function: Some("a/f".into()), ..Filter::default() };
        assert_eq!(last(&logs, &of_f, 10).await, ["one", "three"]);
        assert_eq!(last(&logs, &of_f, 1).await, ["three"]);
        let of_2 = Filter { delivery: Some(2), ..Filter::default() };
        assert_eq!(last(&logs, &of_2, 10).await, ["two"]);
        drop((logs, sink));
        let logs = LogBook::open(folder.path()).unwrap();
        assert_eq!(last(&logs, &Filter::default(), 10).await, ["one", "two", "three"]);
    }

    #[tokio::test]
    async fn files_rotate_and_the_last_lines_are_found_across_them() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogBook::open_with(folder.path(), 1_000).unwrap();
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
    async fn a_follower_sees_every_line_once_after_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogBook::open(folder.path()).unwrap();
        let sink = logs.sink();
        sink(line("a/f", 1, "before"));
        let mut snapshot = logs.snapshot().await.unwrap();
        sink(line("a/f", 2, "after"));
        assert_eq!(snapshot.coming.recv().await.unwrap().text, "after");
        assert_eq!(texts(&snapshot.last(&Filter::default(), 10).unwrap()), ["before"]);
    }

    #[tokio::test]
    async fn lines_that_were_dropped_are_counted_in_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogBook::open(folder.path()).unwrap();
        logs.dropped.fetch_add(7, Ordering::Relaxed);
        logs.sink()(line("a/f", 1, "kept"));
        let found = last(&logs, &Filter::default(), 10).await;
        assert!(found[0].starts_with("7 lines of functions were dropped"), "{found:?}");
        assert_eq!(found[1], "kept");
    }

    #[tokio::test]
    async fn a_line_that_a_crash_cut_in_half_is_left_out_and_the_next_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        std::fs::write(folder.path().join("logs/evoke.jsonl"), r#"{"at":"2026"#).unwrap();
        let logs = LogBook::open(folder.path()).unwrap();
        logs.sink()(line("a/f", 1, "whole"));
        assert_eq!(last(&logs, &Filter::default(), 10).await, ["whole"]);
    }
}
