//! Commands: programs that are not written for Evoke. A command reads the event as JSON from stdin; each line on stdout
//! is an event to publish; the exit code is the result, and the last line on stderr is its message.

use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::Store;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::CommandPre;

use super::fate;
use super::host::{HostContext, Task};
use super::publish::Publisher;
use super::stdio::ByteSink;
use evoke_model::event::EVENT_SIZE_MAX;
use evoke_model::outcome::Outcome;

/// Length limit of a line, in bytes: a line is an event.
const LINE_BYTES_MAX: usize = EVENT_SIZE_MAX;

/// Runs the command to its end. An error is a trap.
pub(super) async fn run(pre: &CommandPre<HostContext>, store: &mut Store<HostContext>) -> wasmtime::Result<Outcome> {
    let command = pre.instantiate_async(&mut *store).await?;
    let code = match command.wasi_cli_run().call_run(&mut *store).await {
        Ok(Ok(())) => 0,
        Ok(Err(())) => 1,
        Err(error) => error.downcast::<I32Exit>()?.0,
    };
    let context = store.data();
    // The last line of each stream may lack a newline.
    context.attempt_log().finish();
    if code == 0
        && let Task::Command(stdout) = &context.task
    {
        stdout.finish()?;
    }
    Ok(fate::exit_outcome(code, context))
}

/// A line on stdout is not an event, or not one that may be published. The program is ended there, because it has no
/// other way to learn of the refusal.
#[derive(Debug, thiserror::Error)]
#[error(
    "line {line} on stdout is not published: {reason} (a command prints events to stdout, one a line, and everything \
     else to stderr)"
)]
pub(super) struct LineRefused {
    line: usize,
    reason: String,
}

/// The stdout of a command: publishes each line as an event. Cheap to clone.
#[derive(Clone)]
pub(super) struct CommandStdout {
    publisher: Publisher,
    lines: Arc<Mutex<LineBuffer>>,
}

#[derive(Default)]
struct LineBuffer {
    ended: usize,
    /// The start of a line whose newline has not arrived yet.
    partial: Vec<u8>,
}

impl CommandStdout {
    pub(super) fn new(publisher: Publisher) -> Self {
        Self { publisher, lines: Arc::default() }
    }

    /// Publishes the last line if it lacks a newline.
    fn finish(&self) -> Result<(), LineRefused> {
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
        if line.trim_ascii().is_empty() { Ok(()) } else { self.publisher.publish_json(line).map(drop) }
    }
}

impl ByteSink for CommandStdout {
    fn write(&self, bytes: &[u8]) -> wasmtime::Result<()> {
        Ok(self.write_bytes(bytes)?)
    }
}
