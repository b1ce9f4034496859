//! Commands: programs that know nothing of Evoke. The event comes in as JSON on stdin; each line on stdout is an event
//! to publish; the exit code says how it went, and the last line on stderr why.

use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::Store;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::CommandPre;

use super::fate;
use super::host::{State, Task};
use super::publish::Publisher;
use super::stdio::Take;
use crate::outcome::Outcome;

/// The longest line that is taken: as long as the largest event.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Runs it to its end. An error is a trap.
pub(super) async fn run(pre: &CommandPre<State>, store: &mut Store<State>) -> wasmtime::Result<Outcome> {
    let command = pre.instantiate_async(&mut *store).await?;
    let code = match command.wasi_cli_run().call_run(&mut *store).await {
        Ok(Ok(())) => 0,
        Ok(Err(())) => 1,
        Err(error) => error.downcast::<I32Exit>()?.0,
    };
    let state = store.data();
    // Its last lines may have no end.
    state.attempt_log().finish();
    if code == 0
        && let Task::Command(printer) = &state.task
    {
        printer.finish()?;
    }
    Ok(fate::exited(code, state))
}

/// A line on stdout is no event, or none that may be published: the program is ended there, as it would not learn
/// of it otherwise.
#[derive(Debug, thiserror::Error)]
#[error(
    "line {line} on stdout is not published: {reason} (a command prints events to stdout, one a line, and everything \
     else to stderr)"
)]
pub(super) struct LineRefused {
    line: usize,
    reason: String,
}

/// The stdout of a command; cheap to clone.
#[derive(Clone)]
pub(super) struct Printer {
    publisher: Publisher,
    lines: Arc<Mutex<Lines>>,
}

#[derive(Default)]
struct Lines {
    ended: usize,
    /// The line that has not ended.
    partial: Vec<u8>,
}

impl Printer {
    pub(super) fn new(publisher: Publisher) -> Self {
        Self { publisher, lines: Arc::default() }
    }

    /// Takes a last line that has no end.
    fn finish(&self) -> Result<(), LineRefused> {
        self.print(b"\n")
    }

    fn print(&self, bytes: &[u8]) -> Result<(), LineRefused> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            lines.partial.extend_from_slice(piece);
            let taken = if lines.partial.len() > LINE_BYTES_MAX {
                Err(format!("it is longer than {LINE_BYTES_MAX} bytes, the most that a line may have"))
            } else if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut lines.partial);
                self.publish(&line)
            } else {
                return Ok(());
            };
            lines.ended += 1;
            taken.map_err(|reason| LineRefused { line: lines.ended, reason })?;
        }
        Ok(())
    }

    fn publish(&self, line: &[u8]) -> Result<(), String> {
        if line.trim_ascii().is_empty() { Ok(()) } else { self.publisher.json(line).map(drop) }
    }
}

impl Take for Printer {
    fn take(&self, bytes: &[u8]) -> wasmtime::Result<()> {
        Ok(self.print(bytes)?)
    }
}
