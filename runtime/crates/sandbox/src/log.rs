//! The log of a guest: log calls and the lines written to stdout and stderr, bounded, with control characters escaped.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::invocation::Invocation;
use evoke_model::clock::UnixMs;

/// Limits on the log of one attempt. Lines past a limit are counted and dropped, and one line reports the number. 16
/// concurrent attempts of a function can hold 1 MiB.
const BYTES_MAX: usize = 64 * 1024;
const LINES_MAX: u32 = 1_000;
/// Length limit of a line, in bytes; longer lines are split.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// Severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// Details for debugging.
    Debug,
    /// Normal operation; also stdout.
    Info,
    /// A possible problem; also stderr.
    Warn,
    /// A failure; includes the level `critical` of wasi:logging.
    Error,
}

impl Level {
    /// Returns the name used in tables and JSON.
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

/// One line that a function logged, without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Severity of the line.
    pub level: Level,
    /// The function, as `app/function`.
    pub function: Arc<str>,
    /// The delivery that the function was handling.
    pub delivery_id: Arc<str>,
    /// Number of the attempt, counted from 1.
    pub attempt: u32,
    /// The text, at most a few KiB.
    pub text: String,
    /// Time at which the line was logged.
    pub at_ms: UnixMs,
}

/// Receives the log lines. Called on the thread that runs the attempt, so it must not block.
pub type LogSink = Arc<dyn Fn(LogLine) + Send + Sync>;

/// An output stream of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// The log of one attempt. Cheap to clone.
#[derive(Clone)]
pub(super) struct AttemptLog(pub(super) Arc<Invocation>);

/// The log buffers and remaining limits of one attempt.
pub(super) struct LogBuffer {
    bytes_left: usize,
    lines_left: u32,
    lines_dropped: u64,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The last line on stderr that is not blank.
    last_on_stderr: Vec<u8>,
    panic: Panic,
    /// Lines held back until the attempt ends; `None` if lines go to the sink at once.
    held: Option<Vec<LogLine>>,
}

impl Default for LogBuffer {
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

/// A Rust guest logs its panic message before it traps: in one log line through the SDK, else in two lines on stderr.
enum Panic {
    None,
    Location(String),
    Message(String),
}

const PANIC: &str = "panicked at ";

impl AttemptLog {
    /// Logs a message, one log line for each of its lines.
    pub(super) fn message(&self, level: Level, context: &str, message: &str) {
        let mut log = self.lock();
        if let Some(panic) = message.find(PANIC).filter(|_| level == Level::Error).and_then(|at| message.get(at..)) {
            log.panic = Panic::Message(panic.to_owned());
        }
        for line in message.lines() {
            if context.is_empty() {
                log.log_line(&self.0, level, line.as_bytes());
            } else {
                log.log_line(&self.0, level, format!("{context}: {line}").as_bytes());
            }
        }
    }

    /// Buffers bytes of a stream. Each line is logged when its newline arrives.
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

    /// Ends the log: logs unfinished lines and the number of dropped lines, and releases the lines held back.
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

    /// Holds back all log lines from now on.
    pub(super) fn hold(&self) {
        self.lock().held = Some(Vec::new());
    }

    /// Sends the lines held back to the sink, and stops holding back.
    fn release(&self) {
        let held = self.lock().held.take();
        held.into_iter().flatten().for_each(|line| (self.0.logs)(line));
    }

    /// Returns the guest's panic message, if it panicked.
    pub(super) fn panic(&self) -> Option<String> {
        match &self.lock().panic {
            Panic::Message(text) => Some(text.clone()),
            Panic::None | Panic::Location(_) => None,
        }
    }

    /// Returns the last line on stderr that is not blank, with control characters escaped.
    pub(super) fn last_on_stderr(&self) -> Option<String> {
        let log = self.lock();
        (!log.last_on_stderr.is_empty()).then(|| escape_controls(&log.last_on_stderr))
    }

    fn lock(&self) -> MutexGuard<'_, LogBuffer> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogBuffer {
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

    fn stream_line(&mut self, invocation: &Invocation, stream: Stream, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if stream == Stream::Stdout {
            return self.log_line(invocation, Level::Info, line);
        }
        if !line.trim_ascii().is_empty() {
            self.last_on_stderr.clear();
            self.last_on_stderr.extend_from_slice(line);
        }
        match &self.panic {
            Panic::None => {
                let text = String::from_utf8_lossy(line);
                if let Some((_, location)) = text.split_once(PANIC) {
                    self.panic = Panic::Location(format!("{PANIC}{location}"));
                }
            }
            Panic::Location(location) => {
                self.panic = Panic::Message(format!("{location} {}", String::from_utf8_lossy(line)));
            }
            Panic::Message(_) => {}
        }
        self.log_line(invocation, Level::Warn, line);
    }

    fn log_line(&mut self, invocation: &Invocation, level: Level, mut line: &[u8]) {
        loop {
            let (now, rest) = line.split_at(cut(line));
            // After the first dropped line, all later lines are dropped too: lines after a gap would mislead the
            // reader.
            if self.lines_left == 0 || self.bytes_left < now.len() {
                self.lines_left = 0;
                self.lines_dropped += 1;
                return;
            }
            self.lines_left -= 1;
            self.bytes_left -= now.len();
            self.emit(invocation, level, escape_controls(now));
            if rest.is_empty() {
                return;
            }
            line = rest;
        }
    }

    fn emit(&mut self, invocation: &Invocation, level: Level, text: String) {
        let line = LogLine {
            level,
            function: invocation.identity.name.clone(),
            delivery_id: invocation.delivery_id.clone(),
            attempt: invocation.attempt,
            text,
            at_ms: invocation.clock.now_ms(),
        };
        match &mut self.held {
            Some(held) => held.push(line),
            None => (invocation.logs)(line),
        }
    }
}

/// Returns the length of the first piece of a line: all of it, or up to the character that crosses the limit.
fn cut(line: &[u8]) -> usize {
    if line.len() <= LINE_BYTES_MAX {
        return line.len();
    }
    let is_start = |at: &usize| line.get(*at).is_none_or(|b| b & 0xC0 != 0x80);
    (LINE_BYTES_MAX - 3..=LINE_BYTES_MAX).rev().find(is_start).unwrap_or(LINE_BYTES_MAX)
}

/// Escapes control characters and the bidirectional overrides, for example as `\u{1b}`, so that the text cannot move a
/// terminal's cursor, change its colours or reverse the text that follows.
pub(super) fn escape_controls(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let is_control =
        |c: char| c.is_control() && c != '\t' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(is_control) {
        return text.into_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_control(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::function::Identity;
    use super::*;
    use evoke_model::clock::Clock;

    fn log() -> (AttemptLog, Arc<Mutex<Vec<LogLine>>>) {
        let lines: Arc<Mutex<Vec<LogLine>>> = Arc::default();
        let sink = lines.clone();
        let sink: LogSink = Arc::new(move |line| sink.lock().unwrap().push(line));
        let identity = Arc::new(Identity::named("shop/charge"));
        (AttemptLog(Invocation::new(identity, ("d-1".into(), 2), None, sink, Clock::system())), lines)
    }

    fn texts(lines: &Mutex<Vec<LogLine>>) -> Vec<String> {
        lines.lock().unwrap().iter().map(|l| l.text.clone()).collect()
    }

    #[test]
    fn lines_are_joined_from_pieces_and_the_last_one_needs_no_newline() {
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
    fn control_characters_and_bidirectional_overrides_are_escaped() {
        let (log, lines) = log();
        log.message(Level::Info, "ctx", "\u{1b}[2Jgone\u{202e}\u{9b}\ta\n\u{7f}");
        assert_eq!(texts(&lines), ["ctx: \\u{1b}[2Jgone\\u{202e}\\u{9b}\ta", "ctx: \\u{7f}"]);
    }

    #[test]
    fn a_log_flood_ends_at_the_limit_and_reports_the_dropped_lines() {
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
    fn a_line_without_newline_is_split_between_characters_and_never_held_in_full() {
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
    fn the_panic_message_of_a_guest_is_recorded() {
        let expected = Some("panicked at src/lib.rs:7:5: no such item");
        let (log, _lines) = self::log();
        log.write(Stream::Stderr, b"\nthread 'main' (1) panicked at src/lib.rs:7:5:\nno such item\nnote: run with\n");
        assert_eq!(log.panic().as_deref(), expected);
        let (log, _lines) = self::log();
        log.message(Level::Error, "panic", "panicked at src/lib.rs:7:5: no such item");
        assert_eq!(log.panic().as_deref(), expected);
    }
}
