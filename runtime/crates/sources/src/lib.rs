//! Sources that run as tasks: files and timers. Each submits its events to the bus and knows neither functions nor
//! stores. A kind is a folder with its settings, their parser and schema, its run loop and its tests.

pub mod files;
pub mod timer;

use evoke_core::source::Context;
use evoke_manifest::{Settings, SourceKind};
use tokio::task::JoinHandle;

/// A kind whose sources each run as one task.
pub trait TaskKind: SourceKind {
    /// Starts a source. Its task ends after `ctx.stop` is cancelled. Returns `None` if the settings are of another
    /// kind.
    fn start(&self, settings: &Settings, ctx: Context) -> Option<JoinHandle<()>>;
}
