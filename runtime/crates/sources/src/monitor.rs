//! Monitors: sources that read something at an interval, and send an event when its state changes.
//!
//! # Events
//! ```json
//! { "type": "evoke.monitor.changed", "source": "/host/disks", "subject": "/mnt/a", "time": "2026-01-31T01:00:00.123Z",
//!   "id": "2026-01-31T01:00:00.123Z /mnt/a",
//!   "data": { "monitor": "disk", "state": "warning", "previous": "ok", "value": 85.2, "unit": "%", "threshold": "80%",
//!             "since": "2026-01-31T00:59:30.120Z", "lasted_ms": 86400000, "missed": false,
//!             "readings": [{ "time": "…", "value": 84.9 }, { "time": "…", "value": 85.2 }] } }
//! ```
//! The states are `ok`, `warning`, `critical` and `unknown`; `unknown` means that there is no reading. `since` is the
//! time of the first reading with the state. `lasted_ms` is the duration of the previous state. `detail` is the text of
//! the reading, if it has one. `missed` is true if the state changed while Evoke did not run. A reminder (`repeat`) has
//! `"reminder": true`. With `flap`, events have `flapping`.
//!
//! # Exactly one event for each change
//! A change and the new state are one commit, so after a restart the monitor continues with the state of the last
//! event. A thing that was never seen before starts as ok. A change that is reversed while Evoke does not run is not
//! reported.
//!
//! # Marks
//! Scope: the source's URI. Key `state/SUBJECT`: [`evoke_threshold::Saved`] as a JSON object with `v` (1). Readings
//! have the format that `minutes.rs` describes; they are written once a minute, for all monitors together. `removed.rs`
//! describes what happens to states and readings when a monitor is removed from its manifest.
//!
//! # Time
//! Waits (`every`, `for`, `repeat`, `flap`) run on the monotonic clock; the times in events are those of the wall
//! clock.

mod config;
mod dbus;
mod event;
mod minutes;
mod monitors;
mod processes;
mod quantity;
mod readings;
mod removed;
mod resources;
mod run;
mod settings;
mod systemd;
#[cfg(test)]
mod tests;
mod watched;

use futures_util::future::BoxFuture;

pub use self::config::MonitorKind;
pub use self::monitors::{Monitors, SubjectStatus};
pub use self::removed::NAMED_MARKS;
pub use self::settings::MonitorSource;
use crate::{Services, TaskKind};
use evoke_core::source::Context;
use evoke_manifest::Settings;

impl TaskKind for MonitorKind {
    fn run(&self, settings: &Settings, ctx: Context, services: &Services) -> Option<BoxFuture<'static, ()>> {
        let config = settings.shared::<MonitorSource>()?;
        Some(Box::pin(run::run(config, ctx, services.monitors.clone())))
    }
}
