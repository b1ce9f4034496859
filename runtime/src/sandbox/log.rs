//! What a guest says: log calls and the lines it writes to stdout and stderr, bounded and made harmless.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::work::Work;
use crate::clock::UnixMs;

/// The most that one attempt may log; the rest is counted and dropped with a line that says so. 16 attempts a
/// function at once can hold 1 MiB.
const BYTES_MAX: usize = 64 * 1024;
const LINES_MAX: u32 = 1_000;
/// Longer lines are cut into several.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// For whoever looks for a mistake.
    Debug,
    /// What happened; also stdout.
    Info,
    /// Something to look at; also stderr.
    Warn,
    /// Something failed; `critical` of wasi:logging counts as this.
    Error,
}

impl Level {
    /// The word for it in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// One line that a function logged. The text has no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters.
    pub level: Level,
    /// `app/function`.
    pub function: Arc<str>,
    /// The delivery it was working on.
    pub delivery_id: Arc<str>,
    /// Which try, from 1.
    pub attempt: u32,
    /// What it said, at most a few KiB.
    pub text: String,
    /// When.
    pub at_ms: UnixMs,
}

/// Where lines go. Called on the attempt's own thread: it must not block.
pub type LogSink = Arc<dyn Fn(LogLine) + Send + Sync>;

/// A stream that a guest writes bytes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// The log of one attempt; cheap to clone.
#[derive(Clone)]
pub(super) struct AttemptLog(pub(super) Arc<Work>);

/// What a guest has said, as far as it matters for what it says next.
pub(super) struct Said {
    bytes_left: usize,
    lines_left: u32,
    lines_dropped: u64,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The last line on stderr that is not blank.
    last_on_stderr: Vec<u8>,
    panic: Panic,
    /// Lines that are not to go out yet, when there are such.
    held: Option<Vec<LogLine>>,
}

impl Default for Said {
    fn default() -> Self {
        Self {
            bytes_left: BYTES_MAX,
            lines_left: LINES_MAX,
            lines_dropped: 0,
            stdout: Vec::new(),
            stderr: Vec::new(),
            last_on_stderr: Vec::new(),
            panic: Panic::None,
            held: None,
        }
    }
}

/// A Rust guest says why it panics before it traps: through our SDK in one line of the log, else on stderr in two.
enum Panic {
    None,
    Place(String),
    Told(String),
}

const PANIC: &str = "panicked at ";

impl AttemptLog {
    /// Logs a message, which may have several lines.
    pub(super) fn message(&self, level: Level, context: &str, message: &str) {
        let mut log = self.lock();
        if let Some(told) = message.find(PANIC).filter(|_| level == Level::Error).and_then(|at| message.get(at..)) {
            log.panic = Panic::Told(told.to_owned());
        }
        for line in message.lines() {
            if context.is_empty() {
                log.bytes(&self.0, level, line.as_bytes());
            } else {
                log.bytes(&self.0, level, format!("{context}: {line}").as_bytes());
            }
        }
    }

    /// Takes bytes of a stream; each line is logged when it ends.
    pub(super) fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut log = self.lock();
        let mut partial = log.take_partial(stream);
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                partial.pop();
                log.stream_line(&self.0, stream, &partial);
                partial.clear();
            }
            while partial.len() > LINE_BYTES_MAX {
                let rest = partial.split_off(cut(&partial));
                log.stream_line(&self.0, stream, &partial);
                partial = rest;
            }
        }
        log.put_partial(stream, partial);
    }

    /// Ends the log: unfinished lines, how much was dropped, and what is held back still.
    pub(super) fn finish(&self) {
        let mut log = self.lock();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let partial = log.take_partial(stream);
            if !partial.is_empty() {
                log.stream_line(&self.0, stream, &partial);
            }
        }
        let dropped = std::mem::take(&mut log.lines_dropped);
        if dropped > 0 {
            let text = format!(
                "{dropped} more lines were dropped: an attempt may log {LINES_MAX} lines and {} KiB",
                BYTES_MAX / 1024
            );
            log.emit(&self.0, Level::Warn, text);
        }
        drop(log);
        self.release();
    }

    /// From now on holds back what is logged.
    pub(super) fn hold(&self) {
        self.lock().held = Some(Vec::new());
    }

    /// Lets go what was held back, and holds nothing any more.
    fn release(&self) {
        let held = self.lock().held.take();
        held.into_iter().flatten().for_each(|line| (self.0.logs)(line));
    }

    /// What a panicking guest printed, if it did.
    pub(super) fn panic(&self) -> Option<String> {
        match &self.lock().panic {
            Panic::Told(text) => Some(text.clone()),
            Panic::None | Panic::Place(_) => None,
        }
    }

    /// The last line on stderr that says something, harmless.
    pub(super) fn last_on_stderr(&self) -> Option<String> {
        let log = self.lock();
        (!log.last_on_stderr.is_empty()).then(|| harmless(&log.last_on_stderr))
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    fn take_partial(&mut self, stream: Stream) -> Vec<u8> {
        std::mem::take(match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        })
    }

    fn put_partial(&mut self, stream: Stream, bytes: Vec<u8>) {
        match stream {
            Stream::Stdout => self.stdout = bytes,
            Stream::Stderr => self.stderr = bytes,
        }
    }

    fn stream_line(&mut self, work: &Work, stream: Stream, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if stream == Stream::Stdout {
            return self.bytes(work, Level::Info, line);
        }
        if !line.trim_ascii().is_empty() {
            self.last_on_stderr.clear();
            self.last_on_stderr.extend_from_slice(line);
        }
        match &self.panic {
            Panic::None => {
                let text = String::from_utf8_lossy(line);
                if let Some((_, place)) = text.split_once(PANIC) {
                    self.panic = Panic::Place(format!("{PANIC}{place}"));
                }
            }
            Panic::Place(place) => self.panic = Panic::Told(format!("{place} {}", String::from_utf8_lossy(line))),
            Panic::Told(_) => {}
        }
        self.bytes(work, Level::Warn, line);
    }

    fn bytes(&mut self, work: &Work, level: Level, mut line: &[u8]) {
        loop {
            let (now, rest) = line.split_at(cut(line));
            // After the first line that does not fit nothing more is logged: what follows a gap would mislead.
            if self.lines_left == 0 || self.bytes_left < now.len() {
                self.lines_left = 0;
                self.lines_dropped += 1;
                return;
            }
            self.lines_left -= 1;
            self.bytes_left -= now.len();
            self.emit(work, level, harmless(now));
            if rest.is_empty() {
                return;
            }
            line = rest;
        }
    }

    fn emit(&mut self, work: &Work, level: Level, text: String) {
        let line = LogLine {
            level,
            function: work.identity.name.clone(),
            delivery_id: work.delivery_id.clone(),
            attempt: work.attempt,
            text,
            at_ms: work.clock.now_ms(),
        };
        match &mut self.held {
            Some(held) => held.push(line),
            None => (work.logs)(line),
        }
    }
}

/// Where a line is cut: at its end, or before the character that crosses the limit.
fn cut(line: &[u8]) -> usize {
    if line.len() <= LINE_BYTES_MAX {
        return line.len();
    }
    let is_start = |at: &usize| line.get(*at).is_none_or(|b| b & 0xC0 != 0x80);
    (LINE_BYTES_MAX - 3..=LINE_BYTES_MAX).rev().find(is_start).unwrap_or(LINE_BYTES_MAX)
}

/// Text that cannot move the cursor, change colours or reverse what is read after it: control characters and
/// the bidirectional overrides are written out as `\u{1b}`.
pub(super) fn harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let is_harmful =
        |c: char| c.is_control() && c != '\t' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(is_harmful) {
        return text.into_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_harmful(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::sync::Mutex;

    use super::super::function::Identity;
    use super::*;
    use crate::clock::Clock;

    fn log() -> (AttemptLog, Arc<Mutex<Vec<LogLine>>>) {
        let lines: Arc<Mutex<Vec<LogLine>>> = Arc::default();
        let sink = lines.clone();
        let sink: LogSink = Arc::new(move |line| sink.lock().unwrap().push(line));
        let identity = Arc::new(Identity::named("shop/charge"));
        (AttemptLog(Work::new(identity, ("d-1".into(), 2), None, sink, Clock::system())), lines)
    }

    fn texts(lines: &Mutex<Vec<LogLine>>) -> Vec<String> {
        lines.lock().unwrap().iter().map(|l| l.text.clone()).collect()
    }

    #[test]
    fn lines_are_put_together_from_pieces_and_the_last_one_needs_no_end() {
        let (log, lines) = log();
        log.write(Stream::Stdout, b"on");
        log.write(Stream::Stderr, b"other\r\n");
        log.write(Stream::Stdout, b"e\ntwo\n\nthr");
        log.finish();
        assert_eq!(texts(&lines), ["other", "one", "two", "", "thr"]);
        let first = lines.lock().unwrap()[0].clone();
        assert_eq!(
            (first.level, &*first.function, &*first.delivery_id, first.attempt),
            (Level::Warn, "shop/charge", "d-1", 2)
        );
    }

    #[test]
    fn escapes_and_bidirectional_overrides_are_written_out() {
        let (log, lines) = log();
        log.message(Level::Info, "ctx", "\u{1b}[2Jgone\u{202e}\u{9b}\ta\n\u{7f}");
        assert_eq!(texts(&lines), ["ctx: \\u{1b}[2Jgone\\u{202e}\\u{9b}\ta", "ctx: \\u{7f}"]);
    }

    #[test]
    fn a_flood_ends_at_the_budget_and_says_how_much_was_dropped() {
        let (log, lines) = log();
        for _ in 0..1_200 {
            log.write(Stream::Stdout, b"x\n");
        }
        log.finish();
        let texts = texts(&lines);
        assert_eq!(texts.len(), 1_001);
        assert_eq!(texts[1_000], "200 more lines were dropped: an attempt may log 1000 lines and 64 KiB");
    }

    #[test]
    fn a_line_without_end_is_cut_between_characters_and_never_held_in_full() {
        let (log, lines) = log();
        for _ in 0..100 {
            log.write(Stream::Stdout, "aé€".repeat(1_000).as_bytes());
        }
        assert!(log.lock().stdout.len() <= LINE_BYTES_MAX);
        log.finish();
        let texts = texts(&lines);
        assert!(texts.iter().all(|t| t.len() <= LINE_BYTES_MAX + 80 && !t.contains('\u{fffd}')));
        assert!(texts.iter().map(String::len).sum::<usize>() <= BYTES_MAX + 200);
    }

    #[test]
    fn why_a_guest_panicked_is_kept() {
        let expected = Some("panicked at src/lib.rs:7:5: no such item");
        let (log, _lines) = self::log();
        log.write(Stream::Stderr, b"\nthread 'main' (1) panicked at src/lib.rs:7:5:\nno such item\nnote: run with\n");
        assert_eq!(log.panic().as_deref(), expected);
        let (log, _lines) = self::log();
        log.message(Level::Error, "panic", "panicked at src/lib.rs:7:5: no such item");
        assert_eq!(log.panic().as_deref(), expected);
    }
}
