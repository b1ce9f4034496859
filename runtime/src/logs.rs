//! What functions log: JSON lines in `DATA/logs`, in files that are bounded and rotate.
//!
//! `functions.jsonl` is written to; at [`FILE_BYTES_MAX`] it becomes `functions.1.jsonl` and the one before it is
//! gone. A line is `{"at", "level", "function", "delivery", "attempt", "text"}`. Logs are no part of an outcome: a
//! failed attempt's lines are kept, and when lines come faster than the disk takes them, some are left out, and a
//! line says how many.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, oneshot};

use crate::clock::rfc3339;
use crate::sandbox::{Level, LogLine, LogSink};

/// One file's size; two of them hold about 200,000 lines.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Lines that wait for the disk: some megabytes at the most usual sizes.
const WAITING_MAX: usize = 4096;

/// Lines that a follower may be behind before it misses some.
const FOLLOW_MAX: usize = 1024;

/// A line as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, RFC 3339.
    pub at: String,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// `app/function`.
    pub function: String,
    /// The delivery that it was working on.
    pub delivery: i64,
    /// Which try, from 1.
    pub attempt: u32,
    /// What it said.
    pub text: String,
}

/// Which lines are meant.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this function.
    pub function: Option<String>,
    /// Of this delivery.
    pub delivery: Option<i64>,
}

impl Filter {
    /// Whether it means this line.
    pub fn takes(&self, record: &Record) -> bool {
        self.function.as_ref().is_none_or(|f| *f == record.function)
            && self.delivery.is_none_or(|d| d == record.delivery)
    }
}

/// A handle to the logs; cheap to clone.
#[derive(Clone)]
pub struct LogBook {
    folder: PathBuf,
    messages: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    follow: broadcast::Sender<Arc<Record>>,
}

enum Message {
    Line(LogLine),
    /// Answered when everything before it is in the file.
    Flush(oneshot::Sender<()>),
}

impl LogBook {
    /// Opens the logs of a data folder.
    pub fn open(data: &Path) -> anyhow::Result<Self> {
        let folder = data.join("logs");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (messages, queue) = sync_channel(WAITING_MAX);
        let (follow, _) = broadcast::channel(FOLLOW_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer { file: RotatingFile::open(&folder)?, dropped: dropped.clone(), follow: follow.clone() };
        std::thread::Builder::new().name("logs".into()).spawn(move || writer.run(&queue))?;
        Ok(Self { folder, messages, dropped, follow })
    }

    /// Where functions put their lines.
    pub fn sink(&self) -> LogSink {
        let (messages, dropped) = (self.messages.clone(), self.dropped.clone());
        Arc::new(move |line| {
            if let Err(TrySendError::Full(_)) = messages.try_send(Message::Line(line)) {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// The newest `limit` lines that the filter means, oldest first.
    pub async fn read(&self, filter: Filter, limit: usize) -> anyhow::Result<Vec<Record>> {
        self.flush().await;
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || newest(&folder, &filter, limit)).await?
    }

    /// Lines as they come, from now on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Record>> {
        self.follow.subscribe()
    }

    /// Waits until everything that was logged is in the file.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let messages = self.messages.clone();
        // The queue may be full: waiting for room is the thread's that can.
        let sent = tokio::task::spawn_blocking(move || messages.send(Message::Flush(done)).is_ok()).await;
        if sent.unwrap_or(false) {
            let _ = flushed.await;
        }
    }
}

fn newest(folder: &Path, filter: &Filter, limit: usize) -> anyhow::Result<Vec<Record>> {
    let mut lines = VecDeque::new();
    for path in [previous(folder), current(folder)] {
        let Ok(file) = File::open(&path) else { continue };
        for line in BufReader::new(file).lines() {
            // A line that a crash cut short is no line.
            let Ok(record) = serde_json::from_str::<Record>(&line?) else { continue };
            if filter.takes(&record) {
                if lines.len() >= limit {
                    lines.pop_front();
                }
                lines.push_back(record);
            }
        }
    }
    Ok(lines.into())
}

fn current(folder: &Path) -> PathBuf {
    folder.join("functions.jsonl")
}

fn previous(folder: &Path) -> PathBuf {
    folder.join("functions.1.jsonl")
}

struct Writer {
    file: RotatingFile,
    dropped: Arc<AtomicU64>,
    follow: broadcast::Sender<Arc<Record>>,
}

impl Writer {
    /// Writes until every handle is gone.
    fn run(mut self, queue: &Receiver<Message>) {
        while let Ok(first) = queue.recv() {
            let mut next = Some(first);
            while let Some(message) = next {
                self.take(message);
                next = queue.try_recv().ok();
            }
            self.file.flush();
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Line(line) => {
                let dropped = self.dropped.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    let text = format!("{dropped} lines of this and other functions were left out: they came too fast");
                    self.put(record(LogLine { text, level: Level::Warn, ..line.clone() }));
                }
                self.put(record(line));
            }
            Message::Flush(done) => {
                self.file.flush();
                let _ = done.send(());
            }
        }
    }

    fn put(&mut self, record: Record) {
        self.file.write(&record);
        // Nobody may be following.
        let _ = self.follow.send(Arc::new(record));
    }
}

fn record(line: LogLine) -> Record {
    let level = match line.level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    // A delivery's id is the store's name and its number.
    let number = line.delivery_id.rsplit('-').next().and_then(|number| number.parse().ok());
    Record {
        at: rfc3339(line.at_ms),
        level: level.to_owned(),
        function: line.function.to_string(),
        delivery: number.unwrap_or_default(),
        attempt: line.attempt,
        text: line.text,
    }
}

struct RotatingFile {
    folder: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    /// Said once, not with every line.
    failing: bool,
}

impl RotatingFile {
    fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = current(folder);
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let bytes = file.metadata()?.len();
        Ok(Self { folder: folder.to_owned(), file: BufWriter::new(file), bytes, failing: false })
    }

    fn write(&mut self, record: &Record) {
        let mut line = serde_json::to_vec(record).unwrap_or_default();
        line.push(b'\n');
        if self.bytes + line.len() as u64 > FILE_BYTES_MAX {
            self.rotate();
        }
        self.bytes += line.len() as u64;
        let written = self.file.write_all(&line);
        self.note(written.as_ref().err());
    }

    fn flush(&mut self) {
        let flushed = self.file.flush();
        self.note(flushed.as_ref().err());
    }

    fn rotate(&mut self) {
        self.flush();
        let moved = std::fs::rename(current(&self.folder), previous(&self.folder));
        match moved.map_err(anyhow::Error::from).and_then(|()| Self::open(&self.folder)) {
            Ok(fresh) => *self = fresh,
            Err(error) => tracing::warn!("the log file cannot be rotated: {error}"),
        }
    }

    fn note(&mut self, error: Option<&std::io::Error>) {
        if let (Some(error), false) = (error, self.failing) {
            tracing::warn!("log lines are lost: {error}");
        }
        self.failing = error.is_some();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn line(function: &str, delivery: u32, text: &str) -> LogLine {
        LogLine {
            level: Level::Info,
            function: function.into(),
            delivery_id: format!("abc-{delivery}").into(),
            attempt: 1,
            text: text.into(),
            at_ms: 0,
        }
    }

    #[tokio::test]
    async fn lines_are_read_back_by_function_and_delivery_newest_last() {
        let data = tempfile::tempdir().unwrap();
        let book = LogBook::open(data.path()).unwrap();
        let sink = book.sink();
        for n in 0..10 {
            sink(line(if n % 2 == 0 { "shop/a" } else { "shop/b" }, n, &format!("line {n}")));
        }
        let texts = async |filter, limit| -> Vec<String> {
            book.read(filter, limit).await.unwrap().into_iter().map(|r| r.text).collect()
        };
        let of_a = Filter { function: Some("shop/a".into()), delivery: None };
        assert_eq!(texts(of_a, 2).await, ["line 6", "line 8"]);
        assert_eq!(texts(Filter { function: None, delivery: Some(3) }, 9).await, ["line 3"]);
        drop(book);
        let book = LogBook::open(data.path()).unwrap();
        assert_eq!(book.read(Filter::default(), 100).await.unwrap().len(), 10);
    }

    #[tokio::test]
    async fn a_file_that_is_full_becomes_the_previous_one() {
        let data = tempfile::tempdir().unwrap();
        let book = LogBook::open(data.path()).unwrap();
        let long = "x".repeat(1024 * 1024);
        for n in 0..40 {
            book.sink()(line("shop/a", n, &long));
            book.flush().await;
        }
        let size: u64 =
            std::fs::read_dir(data.path().join("logs")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(size <= 2 * FILE_BYTES_MAX, "{size}");
        assert_eq!(book.read(Filter::default(), 1).await.unwrap()[0].delivery, 39);
    }
}
