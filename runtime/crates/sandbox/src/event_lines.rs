//! The stdout of a command: each line is an event to publish.

use std::sync::{Arc, Mutex, PoisonError};

use super::invocation::Invocation;
use super::stdio::ByteSink;

/// Length limit of a line, in bytes. Equal to the size limit of an event.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// A line on stdout is not an event, or is an event that is refused (not granted, reserved, or beyond a limit). The
/// program is ended at this line, because it cannot learn of the refusal in another way.
#[derive(Debug, thiserror::Error)]
#[error(
    "line {line} on stdout is not published: {reason} (a command prints events to stdout, one per line, and \
     everything else to stderr)"
)]
pub(super) struct LineRefused {
    line: usize,
    reason: String,
}

/// Publishes each line as an event. Cheap to clone.
#[derive(Clone)]
pub(super) struct EventLines {
    invocation: Arc<Invocation>,
    lines: Arc<Mutex<LineBuffer>>,
}

#[derive(Default)]
struct LineBuffer {
    ended: usize,
    /// The start of a line whose newline has not arrived yet.
    partial: Vec<u8>,
}

impl EventLines {
    pub(super) fn new(invocation: Arc<Invocation>) -> Self {
        Self { invocation, lines: Arc::default() }
    }

    /// Publishes the last line if it lacks a newline.
    pub(super) fn finish(&self) -> Result<(), LineRefused> {
        self.write_bytes(b"\n")
    }

    fn write_bytes(&self, bytes: &[u8]) -> Result<(), LineRefused> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            lines.partial.extend_from_slice(piece);
            let result = if lines.partial.len() > LINE_BYTES_MAX {
                Err(format!("the line is longer than the limit of {LINE_BYTES_MAX} bytes"))
            } else if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut lines.partial);
                self.publish(&line)
            } else {
                return Ok(());
            };
            lines.ended += 1;
            result.map_err(|reason| LineRefused { line: lines.ended, reason })?;
        }
        Ok(())
    }

    fn publish(&self, line: &[u8]) -> Result<(), String> {
        if line.trim_ascii().is_empty() { Ok(()) } else { self.invocation.publisher().publish_json(line).map(drop) }
    }
}

impl ByteSink for EventLines {
    fn write(&self, bytes: &[u8]) -> wasmtime::Result<()> {
        Ok(self.write_bytes(bytes)?)
    }
}
