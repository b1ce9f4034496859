//! The log of functions. Each function has files of its own, which are limited in size. Clients can filter the stored
//! lines, and can follow new lines live.
//!
//! **Files.** `DATA/logs/APP.FUNCTION.NUMBER.jsonl` has one JSON object per line: a [`Line`] with the field `seq`
//! before the other fields. `seq` is unique and grows from line to line, over all functions. Its value is the time in
//! microseconds, or the previous `seq` plus one if the time has not grown. `NUMBER` is the `seq` of the first line, or
//! a little less. A line that would exceed the maximum size of a file starts a new file, and the old file is not
//! written any more. Earlier versions wrote `DATA/logs/evoke.jsonl`, `evoke.jsonl.1` and `evoke.jsonl.2` for all
//! functions together. These files are read, but not written; the `seq` of their lines is the time.
//!
//! **Shares.** All files together have at most [`TOTAL_BYTES_MAX`] bytes. When this limit is reached, the oldest file
//! of the function with the most bytes is deleted. So a function can use all free space, and loses it when other
//! functions need space. With N functions, each function always has space for its newest lines: 1/N of the total, minus
//! the size of one file. Files of a function that has logged nothing for [`files::STALE_US`] are deleted first. The
//! functions share the queue of lines that wait to be written in the same way ([`queue`]). Each follower has a queue of
//! its own ([`follower`]).
//!
//! Lines are for diagnostics and not durable: a background thread writes them and does not sync the files. When lines
//! arrive faster than they can be written, some are dropped, and a line in their place reports the number of dropped
//! lines.

mod files;
mod follower;
mod line;
mod queue;
mod reader;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use self::files::{Files, StoredFile};
use self::follower::Sender;
pub use self::follower::{Followed, Follower};
pub use self::line::{Filter, Line};
use self::queue::Queue;
pub use self::reader::Reader;
use evoke_model::text::{count, fitting};
use evoke_sandbox::{LogLine, LogSink};

/// Maximum total size of all files, in bytes.
const TOTAL_BYTES_MAX: u64 = 48 * 1024 * 1024;
/// Maximum number of requests for snapshots in the queue of the writer thread. Further callers wait until there is
/// room.
const SNAPSHOTS_MAX: usize = 16;

/// A handle to the log of all functions; cheap to clone.
#[derive(Clone)]
pub struct FunctionLogs {
    messages: mpsc::Sender<Message>,
    queue: Arc<Queue>,
}

/// The log at one moment: the lines in the files, and a receiver of all later lines. Each line is in exactly one of the
/// two.
pub struct Snapshot {
    /// The lines in the files.
    pub stored: StoredLines,
    /// Receives the lines logged after the snapshot.
    pub new_lines: Follower,
}

/// The lines in the files at one moment.
pub struct StoredLines {
    files: Vec<StoredFile>,
    filter: Filter,
}

enum Message {
    Line(LogLine),
    Snapshot(Filter, oneshot::Sender<Snapshot>),
}

impl FunctionLogs {
    /// Opens the log in a data folder; creates the folder `logs` when it is missing.
    pub fn open(data: &Path) -> io::Result<Self> {
        Self::open_with(data, TOTAL_BYTES_MAX)
    }

    fn open_with(data: &Path, total_bytes_max: u64) -> io::Result<Self> {
        let files = Files::open(&data.join("logs"), total_bytes_max)?;
        let (messages, received) = mpsc::channel(queue::LINES_MAX + SNAPSHOTS_MAX);
        let queue = Arc::<Queue>::default();
        let writer = Writer { files, queue: queue.clone(), followers: Vec::new() };
        std::thread::Builder::new().name("logs".into()).spawn(move || writer.run(received))?;
        Ok(Self { messages, queue })
    }

    /// Returns the sink for the lines of functions. The sink never blocks: a line that does not fit into the queue is
    /// dropped and counted.
    pub fn sink(&self) -> LogSink {
        let Self { messages, queue } = self.clone();
        Arc::new(move |line: LogLine| {
            let function = line.function.clone();
            queue.send(&function, || messages.try_send(Message::Line(line)).is_ok());
        })
    }

    /// Returns a snapshot of the lines that `filter` selects, up to the last line logged before this call; `None` if
    /// the writer thread has ended.
    pub async fn snapshot(&self, filter: Filter) -> Option<Snapshot> {
        let (reply, snapshot) = oneshot::channel();
        self.messages.send(Message::Snapshot(filter, reply)).await.ok()?;
        snapshot.await.ok()
    }

    /// Waits until every line logged so far is in its file.
    pub async fn flush(&self) {
        let _ = self.snapshot(Filter::default()).await;
    }
}

impl StoredLines {
    /// Returns true if no file can have lines of the selected function.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Returns a reader of the last `limit` lines; of all lines for `None`. Blocks on files, so it must not be called in
    /// async tasks.
    pub fn reader(self, limit: Option<usize>) -> io::Result<Reader> {
        Reader::new(self.files, self.filter, limit)
    }
}

struct Writer {
    files: Files,
    queue: Arc<Queue>,
    followers: Vec<Sender>,
}

impl Writer {
    /// Writes lines and returns snapshots until all handles are dropped.
    fn run(mut self, mut received: mpsc::Receiver<Message>) {
        while let Some(message) = received.blocking_recv() {
            match message {
                Message::Line(line) => {
                    let dropped = self.queue.received(&line.function);
                    self.write_dropped_count(line.function.clone(), dropped);
                    self.write(line.into());
                }
                Message::Snapshot(filter, reply) => {
                    self.write_dropped_counts();
                    self.followers.retain(|follower| !follower.is_closed());
                    let files = self.files.readers(filter.function.as_deref());
                    let (sender, new_lines) = follower::channel(filter.clone());
                    let stored = StoredLines { files, filter };
                    if reply.send(Snapshot { stored, new_lines }).is_ok() {
                        self.followers.push(sender);
                    }
                }
            }
            if received.is_empty() {
                self.write_dropped_counts();
                self.files.flush();
            }
        }
    }

    fn write_dropped_counts(&mut self) {
        for (function, dropped) in self.queue.take_dropped() {
            self.write_dropped_count(function, dropped);
        }
    }

    fn write_dropped_count(&mut self, function: Arc<str>, dropped: u64) {
        if dropped > 0 {
            let (lines, were) = (count(dropped, "line"), fitting(dropped, "was", "were"));
            let text = format!("{lines} of this function {were} dropped: more arrived than could be written");
            self.write(Line::notice(Some(function), text));
        }
    }

    fn write(&mut self, line: Line) {
        self.files.write(&line);
        let line = Arc::new(line);
        self.followers.retain(|follower| follower.send(&line));
    }
}
