//! One log line, and the escaping of text from a guest.

use std::sync::Arc;

use evoke_model::clock::UnixMs;
use evoke_model::text::is_deceptive;

/// Severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// Details for debugging.
    Debug,
    /// Normal operation; also the level of lines on stdout.
    Info,
    /// A possible problem; also the level of lines on stderr.
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
    /// Id of the delivery, or of the HTTP request, that the function was handling.
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

/// Escapes control characters and characters that change the direction of text, for example as `\u{1b}`, so that the
/// text cannot move a terminal's cursor, change its colours or reverse the text that follows.
pub(crate) fn escape_controls(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let is_control = |c: char| c != '\t' && is_deceptive(c);
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
