//! The log of a guest: the messages of `wasi:logging`, and the lines on stdout and stderr. The size of the log is
//! limited, and control characters are escaped.

use wasmtime::component::HasData;

mod buffer;
mod line;
#[cfg(test)]
mod tests;

mod bindings {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    wasmtime::component::bindgen!({
        path: "../../../sdk/wit",
        inline: "package evoke:log-host; world guest { import wasi:logging/logging@0.1.0-draft; }",
    });
}
pub(super) use bindings::wasi::logging::logging::add_to_linker;
use bindings::wasi::logging::logging::{Host, Level as GuestLevel};
pub(super) use buffer::{AttemptLog, LogBuffer, Stream};
pub(super) use line::escape_controls;
pub use line::{Level, LogLine, LogSink};

/// Connects the generated bindings of `wasi:logging` to [`AttemptLog`].
pub(super) struct LogHost;

impl HasData for LogHost {
    type Data<'a> = AttemptLog<'a>;
}

impl Host for AttemptLog<'_> {
    fn log(&mut self, level: GuestLevel, context: String, message: String) {
        let level = match level {
            GuestLevel::Trace => Level::Trace,
            GuestLevel::Debug => Level::Debug,
            GuestLevel::Info => Level::Info,
            GuestLevel::Warn => Level::Warn,
            GuestLevel::Error | GuestLevel::Critical => Level::Error,
        };
        self.message(level, &context, &message);
    }
}
