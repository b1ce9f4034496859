//! Sources that run as tasks: files, timers and monitors. Each submits its events to the bus and knows neither
//! functions nor stores. A kind is a folder with its settings, their parser and schema, its run loop and its tests.

pub mod files;
pub mod monitor;
pub mod timer;

use evoke_core::source::Context;
use evoke_manifest::{Settings, SourceKind};
use evoke_model::clock::UnixMs;
use futures_util::future::BoxFuture;

/// A kind whose sources each run as one task.
pub trait TaskKind: SourceKind {
    /// Returns the run loop of a source, for the caller to spawn. The loop ends after `ctx.stop` is cancelled. Returns
    /// `None` if the settings are of another kind.
    fn run(&self, settings: &Settings, ctx: Context, services: &Services) -> Option<BoxFuture<'static, ()>>;

    /// Returns the next times after `after_ms` at which a source with a schedule creates an event, at most `limit`
    /// times.
    fn next_times(&self, _settings: &Settings, _after_ms: UnixMs, _limit: usize) -> Vec<UnixMs> {
        Vec::new()
    }
}

/// Values that the sources of one kind share over the whole process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Services {
    pub monitors: monitor::Monitors,
}
