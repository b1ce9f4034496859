//! The log of one attempt: splits text into lines and enforces the limits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::line::{Level, LogLine, LogSink, escape_controls};
use crate::secrets::Redactor;
use evoke_model::clock::Clock;
use evoke_model::text::{count, fitting};

/// Limits on the log of one attempt, in bytes (after control characters are escaped) and in lines. Lines past a limit
/// are counted and dropped, and a last line reports their number. With these limits, the logs of 16 concurrent attempts
/// have at most 1 MiB.
pub(super) const BYTES_MAX: usize = 64 * 1024;
const LINES_MAX: u32 = 1_000;
/// Length limit of a line, in bytes; longer lines are split.
pub(super) const LINE_BYTES_MAX: usize = 4 * 1024;
/// Only this many bytes of a message are searched for secrets. The rest would be dropped in any case: a message of this
/// length exceeds [`BYTES_MAX`] or [`LINES_MAX`], even if each of its lines has a line break of two bytes.
const MESSAGE_BYTES_MAX: usize = BYTES_MAX + 2 * LINES_MAX as usize + 1;
/// Length limit of the context of a message, in bytes. Each line of the message starts with the context.
const CONTEXT_BYTES_MAX: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// The log of one attempt. Borrows its fields from the `Invocation`.
#[derive(Clone, Copy)]
pub(crate) struct AttemptLog<'a> {
    pub(crate) function: &'a Arc<str>,
    pub(crate) delivery_id: &'a Arc<str>,
    /// Number of the attempt, counted from 1.
    pub(crate) attempt: u32,
    pub(crate) clock: &'a Clock,
    pub(crate) sink: &'a LogSink,
    pub(crate) buffer: &'a Mutex<LogBuffer>,
    /// Replaces the values of secrets. A message is redacted before it is split into lines. A stream is redacted line
    /// by line, and a long line is not cut within a value.
    pub(crate) redactor: &'a Redactor,
}

/// The log buffers and remaining limits of one attempt.
pub(crate) struct LogBuffer {
    bytes_left: usize,
    lines_left: u32,
    lines_dropped: u64,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The last line on stderr that is not blank.
    last_on_stderr: Vec<u8>,
    panic: Panic,
    /// The held lines, which go to the sink when the attempt ends; `None` if each line goes to the sink immediately.
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

/// The panic message of a guest, as far as it was logged. A Rust guest logs its panic message before it traps: in one
/// log line if it uses the SDK, otherwise in two lines on stderr. A Go guest prints its message on stderr, in one line
/// before the stacks of its goroutines, and exits.
enum Panic {
    None,
    Location(String),
    Message(String),
}

const PANIC: &str = "panicked at ";
/// The start of the message that Go prints for a panic, and for an error that no function can recover from.
const GO_PANICS: [&str; 2] = ["panic: ", "fatal error: "];

impl AttemptLog<'_> {
    /// Logs a message, one log line for each of its lines.
    pub(crate) fn message(&self, level: Level, context: &str, message: &str) {
        {
            let mut log = self.lock();
            if log.is_full() && level != Level::Error {
                log.lines_dropped += count_lines(message);
                return;
            }
        }
        let (context, _) = self.redactor.redact_start(context, CONTEXT_BYTES_MAX);
        let (message, not_redacted) = self.redactor.redact_start(message, MESSAGE_BYTES_MAX);
        let mut log = self.lock();
        if level == Level::Error
            && let Some(panic) = message.find(PANIC).and_then(|at| message.get(at..))
        {
            log.panic = Panic::Message(start_of(panic, LINE_BYTES_MAX).to_owned());
        }
        let context = start_of(&context, CONTEXT_BYTES_MAX);
        let mut rest = &*message;
        while !rest.is_empty() {
            if log.is_full() {
                log.lines_dropped += count_lines(rest);
                break;
            }
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            let line = line.strip_suffix('\r').unwrap_or(line);
            rest = after;
            if context.is_empty() {
                log.log_line(self, level, line.as_bytes());
            } else {
                // The value of a secret may begin in the context and end in the message.
                let line = format!("{context}: {line}");
                log.log_line(self, level, self.redactor.redact_text(&line).as_bytes());
            }
        }
        log.lines_dropped += count_lines(not_redacted);
    }

    /// Buffers bytes of a stream. Each line is logged when its newline arrives.
    pub(crate) fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut log = self.lock();
        let mut partial = log.take_partial(stream);
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                partial.pop();
                log.stream_line(self, stream, &partial);
                partial.clear();
            }
            while partial.len() > self.unfinished_bytes_max() {
                let rest = partial.split_off(self.cut_unfinished(&partial));
                log.stream_line(self, stream, &partial);
                partial = rest;
            }
        }
        log.put_partial(stream, partial);
    }

    /// Returns the limit on the length of an unfinished line in the buffer. If a line is longer, pieces of it are
    /// logged although its newline has not arrived. The part that stays in the buffer then has at most about twice the
    /// length of the longest text to redact ([`Redactor::lookahead`]). So this part is searched for secrets again only
    /// when about `LINE_BYTES_MAX` more bytes have arrived.
    fn unfinished_bytes_max(&self) -> usize {
        LINE_BYTES_MAX + 2 * self.redactor.lookahead()
    }

    /// Returns the length of the first piece of an unfinished line. The piece does not end within the value of a
    /// secret.
    fn cut_unfinished(&self, line: &[u8]) -> usize {
        if self.redactor.is_active() { self.redactor.cut(line) } else { cut(line) }
    }

    /// Ends the log: logs unfinished lines and the number of dropped lines, and sends the held lines to the sink.
    pub(crate) fn finish(&self) {
        let mut log = self.lock();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let partial = log.take_partial(stream);
            if !partial.is_empty() {
                log.stream_line(self, stream, &partial);
            }
        }
        let dropped = std::mem::take(&mut log.lines_dropped);
        if dropped > 0 {
            let text = format!(
                "{} {} dropped: an attempt may log {LINES_MAX} lines and {} KiB",
                count(dropped, "more line"),
                fitting(dropped, "was", "were"),
                BYTES_MAX / 1024
            );
            log.emit(self, Level::Warn, text);
        }
        drop(log);
        self.release();
    }

    /// Holds all later log lines until the attempt ends.
    pub(crate) fn hold(&self) {
        self.lock().held = Some(Vec::new());
    }

    /// Sends the held lines to the sink. Later lines go to the sink immediately.
    fn release(&self) {
        let held = self.lock().held.take();
        held.into_iter().flatten().for_each(|line| (self.sink)(line));
    }

    /// Returns the guest's panic message, if it panicked: at most two texts of [`LINE_BYTES_MAX`], in which control
    /// characters are not escaped.
    pub(crate) fn panic(&self) -> Option<String> {
        match &self.lock().panic {
            Panic::Message(text) => Some(text.clone()),
            Panic::None | Panic::Location(_) => None,
        }
    }

    /// Returns the last line on stderr that is not blank, with control characters escaped.
    pub(crate) fn last_on_stderr(&self) -> Option<String> {
        let log = self.lock();
        (!log.last_on_stderr.is_empty()).then(|| escape_controls(&log.last_on_stderr))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LogBuffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Splits a line on stderr into its level and its text. A program can set the level with a syslog level number before
/// the text, as in `<6>text` (sd-daemon(3)). Other lines are warnings.
fn split_level(line: &[u8]) -> (Level, &[u8]) {
    match line {
        [b'<', b'0'..=b'3', b'>', text @ ..] => (Level::Error, text),
        [b'<', b'4', b'>', text @ ..] => (Level::Warn, text),
        [b'<', b'5' | b'6', b'>', text @ ..] => (Level::Info, text),
        [b'<', b'7', b'>', text @ ..] => (Level::Debug, text),
        text => (Level::Warn, text),
    }
}

impl LogBuffer {
    #[cfg(test)]
    pub(super) fn stdout_len(&self) -> usize {
        self.stdout.len()
    }

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

    fn stream_line(&mut self, log: &AttemptLog<'_>, stream: Stream, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // A line that is only counted as dropped is not shown, so it need not be searched for secrets.
        let is_counted_only = stream == Stream::Stdout && self.is_full();
        let line = if is_counted_only { line.into() } else { log.redactor.redact(line) };
        let line = &*line;
        if stream == Stream::Stdout {
            return self.log_line(log, Level::Info, line);
        }
        let (level, line) = split_level(line);
        if !line.trim_ascii().is_empty() {
            self.last_on_stderr.clear();
            self.last_on_stderr.extend_from_slice(line);
        }
        match &self.panic {
            Panic::None => {
                let text = String::from_utf8_lossy(line);
                if let Some(panic) = text.find(PANIC).and_then(|at| text.get(at..)) {
                    self.panic = Panic::Location(start_of(panic, LINE_BYTES_MAX).to_owned());
                } else if GO_PANICS.iter().any(|start| text.starts_with(start)) {
                    self.panic = Panic::Message(start_of(&text, LINE_BYTES_MAX).to_owned());
                }
            }
            Panic::Location(location) => {
                let text = String::from_utf8_lossy(line);
                self.panic = Panic::Message(format!("{location} {}", start_of(&text, LINE_BYTES_MAX)));
            }
            Panic::Message(_) => {}
        }
        self.log_line(log, level, line);
    }

    /// Returns true if all further lines are dropped.
    fn is_full(&self) -> bool {
        self.lines_left == 0
    }

    fn log_line(&mut self, log: &AttemptLog<'_>, level: Level, mut line: &[u8]) {
        loop {
            let (now, rest) = line.split_at(cut(line));
            let text = if self.is_full() { String::new() } else { escape_controls(now) };
            // After the first dropped line, all later lines are dropped too: lines after a gap would mislead the
            // reader.
            if self.is_full() || self.bytes_left < text.len() {
                self.lines_left = 0;
                self.lines_dropped += 1;
                return;
            }
            self.lines_left -= 1;
            self.bytes_left -= text.len();
            self.emit(log, level, text);
            if rest.is_empty() {
                return;
            }
            line = rest;
        }
    }

    fn emit(&mut self, log: &AttemptLog<'_>, level: Level, text: String) {
        let line = LogLine {
            level,
            function: log.function.clone(),
            delivery_id: log.delivery_id.clone(),
            attempt: log.attempt,
            text,
            at_ms: log.clock.now_ms(),
        };
        match &mut self.held {
            Some(held) => held.push(line),
            None => (log.sink)(line),
        }
    }
}

/// Returns the number of lines; the last one may lack a newline.
fn count_lines(text: &str) -> u64 {
    let newlines = text.bytes().filter(|byte| *byte == b'\n').count();
    newlines as u64 + u64::from(!text.is_empty() && !text.ends_with('\n'))
}

/// Returns the start of a text, at most `bytes_max` bytes.
fn start_of(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

/// Returns the length of the first piece of a line: the whole line, or the part before the character that crosses the
/// limit.
fn cut(line: &[u8]) -> usize {
    if line.len() <= LINE_BYTES_MAX {
        return line.len();
    }
    let is_start = |at: &usize| line.get(*at).is_none_or(|b| b & 0xC0 != 0x80);
    (LINE_BYTES_MAX - 3..=LINE_BYTES_MAX).rev().find(is_start).unwrap_or(LINE_BYTES_MAX)
}
