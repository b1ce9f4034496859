//! Monitors: sources that take a reading of something at an interval, and send an event when the state of that thing
//! changes.
//!
//! # Events
//! ```json
//! { "type": "evoke.monitor.changed", "source": "/host/disks", "subject": "/mnt/a", "time": "2026-01-31T01:00:00.123Z",
//!   "id": "2026-01-31T01:00:00.123Z /mnt/a",
//!   "data": { "monitor": "disk", "state": "warning", "previous": "ok", "value": 85.2, "unit": "%", "threshold": "80%",
//!             "since": "2026-01-31T00:59:30.120Z", "lasted_ms": 86400000, "missed": false,
//!             "readings": [{ "time": "…", "value": 84.9 }, { "time": "…", "value": 85.2 }] } }
//! ```
//! The states are `ok`, `warning`, `critical` and `unknown`; `unknown` means that the thing could not be read. `since`
//! is the time of the first reading with the state. `lasted_ms` is the duration of the previous state. `detail` is a
//! text that explains the reading, such as why the state is unknown; not every reading has one. `missed` is true if the
//! state changed while Evoke did not run. A reminder (`repeat`) has `"reminder": true`. With the option `flap`, events
//! have `flapping`, which is true while the state changes too often.
//!
//! # Exactly one event for each change
//! The event of a change and the new state are stored in one commit. So after a restart, the monitor continues with the
//! state of the last event. A thing that was never read before starts as ok. If a state changes and changes back while
//! Evoke does not run, this is not reported.
//!
//! # Marks
//! A monitor stores its data as marks (values that are committed together with events). The scope (namespace) of the
//! marks with its states is the source's URI. The mark with the key `state/SUBJECT` is [`evoke_threshold::Saved`] as a
//! JSON object with `v` (1). `minutes.rs` describes the format of the readings; the readings of all monitors are
//! written together, once a minute. `removed.rs` describes what happens to states and readings when a monitor is
//! removed from its manifest.
//!
//! # Time
//! The options `every`, `for`, `repeat` and `flap` are measured on the monotonic clock. The times in events are times
//! of the wall clock.

mod config;
mod dbus;
mod event;
mod forget;
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
