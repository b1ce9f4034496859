//! The kinds of sources that run as tasks: files, timers and monitors. A source submits its events to the bus, and does
//! not use functions or stores directly. Each kind has a folder with its settings, the parser and schema of these
//! settings, the run loop and the tests.

pub mod files;
pub mod monitor;
pub mod timer;

use evoke_core::source::Context;
use evoke_manifest::{Settings, SourceKind};
use evoke_model::clock::UnixMs;
use futures_util::future::BoxFuture;

/// A kind of source. Each source of this kind runs as one task.
pub trait TaskKind: SourceKind {
    /// Returns the run loop of a source. The caller spawns it. The loop ends after `ctx.stop` is cancelled. Returns
    /// `None` if the settings belong to another kind.
    fn run(&self, settings: &Settings, ctx: Context, services: &Services) -> Option<BoxFuture<'static, ()>>;

    /// Returns the next times after `after_ms` at which a source with a schedule will create an event, at most `limit`
    /// of them. For a kind without schedules, returns no times.
    fn next_times(&self, _settings: &Settings, _after_ms: UnixMs, _limit: usize) -> Vec<UnixMs> {
        Vec::new()
    }
}

/// Values that all sources of a kind in this process share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Services {
    pub monitors: monitor::Monitors,
}
