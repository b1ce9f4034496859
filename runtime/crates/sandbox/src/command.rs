//! Commands: programs that are not written for Evoke. A command reads the event as JSON from stdin. Each line on stdout
//! is an event to publish. The exit code decides the outcome; if the command fails, its last line on stderr is the
//! message.

use wasmtime::Store;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::CommandPre;

use super::context::{HostContext, Task};
use super::outcome;
use evoke_model::outcome::Outcome;

/// A command that exits with this code (EX_DATAERR of sysexits.h) rejects its event, so the event is not tried again.
const REJECT_CODE: i32 = 65;
/// The exit code of a Go program that panics.
const GO_PANIC_CODE: i32 = 2;

/// Runs the command to its end. Returns an error if the command traps, or prints a line that is refused.
pub(super) async fn run(pre: &CommandPre<HostContext>, store: &mut Store<HostContext>) -> wasmtime::Result<Outcome> {
    let command = pre.instantiate_async(&mut *store).await?;
    let code = match command.wasi_cli_run().call_run(&mut *store).await {
        Ok(Ok(())) => 0,
        Ok(Err(())) => 1,
        Err(error) => error.downcast::<I32Exit>()?.0,
    };
    let context = store.data();
    // The last line of each stream may lack a newline.
    context.invocation.log().finish();
    if code == 0
        && let Task::Command(stdout) = &context.task
    {
        stdout.finish()?;
    }
    Ok(exit_outcome(code, context))
}

/// Returns the outcome of a command that exited. If the command failed, the message is its last line on stderr.
fn exit_outcome(code: i32, context: &HostContext) -> Outcome {
    if code == 0 {
        return Outcome::Done;
    }
    let (log, redactor) = (context.invocation.log(), context.invocation.redactor());
    // After a panic in Go, the last line belongs to a stack trace, so the line with the panic is the message.
    let panic = (code == GO_PANIC_CODE).then(|| log.panic()).flatten();
    let message = panic.or_else(|| log.last_on_stderr()).map(|line| outcome::sanitize(redactor, &line));
    let message = message.unwrap_or_else(|| format!("exited with code {code}"));
    if code == REJECT_CODE {
        return Outcome::Reject { message };
    }
    outcome::limit_outcome(context, &message).unwrap_or(Outcome::Retry { message, after: None })
}
