//! All monitors of the process: what they share, what they show, and their readings in the store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evoke_core::bus::{Bus, Offer};
use evoke_egress::Client;
use evoke_model::Mark;
use evoke_model::clock::{Clock, UnixMs};
use evoke_telemetry::MonitorMetrics;
use evoke_threshold::State;
use tokio_util::sync::CancellationToken;

use super::minutes::{Minutes, Write};
use super::world::World;

/// How often the readings of all monitors are stored. A kill loses those of the last minute.
const STORE_INTERVAL: Duration = Duration::from_secs(60);
/// The most marks in one commit: 240 bytes each.
pub(super) const MARKS_MAX: usize = 1_000;
/// How often the store is searched for what removed monitors left, in store intervals; the first time after one of them.
const SEARCH_EVERY: u32 = 10;

/// The monitors of the process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Monitors(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    world: Arc<World>,
    metrics: Arc<MonitorMetrics>,
    shown: Mutex<BTreeMap<Key, Entry>>,
}

/// The URI of the source, and the subject.
type Key = (Arc<str>, String);

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) status: SubjectStatus,
    pub(super) minutes: Minutes,
    pub(super) keep_hours: i64,
}

/// A watched thing.
#[derive(Debug, Clone, PartialEq)]
pub struct SubjectStatus {
    /// The URI of the source.
    pub monitor: Arc<str>,
    /// The key of the reading, such as `disk`.
    pub kind: &'static str,
    /// The watched thing.
    pub subject: String,
    /// The state; `None` before the first reading.
    pub state: Option<State>,
    /// The first reading with the state.
    pub since_ms: UnixMs,
    /// The value of the last reading.
    pub value: Option<f64>,
    /// The unit of the value, such as `%` or `B/s`.
    pub unit: String,
    /// The value and its unit, as text.
    pub shown: Option<String>,
    /// The threshold of a warning, as in the manifest.
    pub warning: Option<String>,
    /// The threshold of the critical state, as in the manifest.
    pub critical: Option<String>,
    /// The text of the last reading, such as why there is no value.
    pub detail: Option<String>,
    /// Whether the state changes all the time.
    pub flapping: bool,
    /// The average of each of the last 60 minutes, oldest first.
    pub last_hour: Vec<Option<f32>>,
}

impl Monitors {
    /// Network checks use `client`, and start programs only with `allow_commands`.
    pub fn new(client: Client, allow_commands: bool, metrics: Arc<MonitorMetrics>) -> Self {
        let world = Arc::new(World::new(client, allow_commands));
        Self(Arc::new(Shared { world, metrics, shown: Mutex::default() }))
    }

    /// Returns true if monitors may start programs.
    pub fn allow_commands(&self) -> bool {
        self.0.world.allow_commands
    }

    /// Returns every watched thing, by monitor and subject.
    pub fn list(&self, now_ms: UnixMs) -> Vec<SubjectStatus> {
        let shown = self.shown();
        let with_readings =
            |entry: &Entry| SubjectStatus { last_hour: entry.minutes.last_hour(now_ms), ..entry.status.clone() };
        shown.values().map(with_readings).collect()
    }

    /// Stores the readings of all monitors once a minute, in few commits, and removes what removed monitors left.
    pub async fn store_readings(self, bus: Bus, clock: Clock, stop: CancellationToken) {
        let mut minutes = (0..SEARCH_EVERY).cycle();
        while stop.run_until_cancelled(tokio::time::sleep(STORE_INTERVAL)).await.is_some() {
            self.store(&bus, clock.now_ms(), |_| true).await;
            if minutes.next() == Some(0) {
                self.remove_gone(&bus, clock.now_ms()).await;
            }
        }
    }

    /// Returns the monitors that run, each with the time for which its readings are kept, in hours.
    pub(super) fn running(&self) -> BTreeMap<Arc<str>, i64> {
        self.shown().iter().map(|((monitor, _), entry)| (monitor.clone(), entry.keep_hours)).collect()
    }

    pub(super) fn world(&self) -> &Arc<World> {
        &self.0.world
    }

    pub(super) fn metrics(&self) -> &MonitorMetrics {
        &self.0.metrics
    }

    /// Adds a watched thing, or changes one.
    pub(super) fn update(
        &self,
        uri: &Arc<str>,
        subject: &str,
        new: impl FnOnce() -> Entry,
        change: impl FnOnce(&mut Entry),
    ) {
        change(self.shown().entry((uri.clone(), subject.to_owned())).or_insert_with(new));
    }

    /// Removes a watched thing. Returns the hours of its stored readings.
    pub(super) fn remove(&self, uri: &Arc<str>, subject: &str) -> Vec<i64> {
        let removed = self.shown().remove(&(uri.clone(), subject.to_owned()));
        removed.map(|entry| entry.minutes.all_stored().collect()).unwrap_or_default()
    }

    /// Stores the readings of a source that stops, and forgets it.
    pub(super) async fn stopped(&self, bus: &Bus, uri: &Arc<str>, now_ms: UnixMs) {
        self.store(bus, now_ms, |monitor| monitor == uri).await;
        self.shown().retain(|(monitor, _), _| monitor != uri);
    }

    /// Stores changed readings. Those that cannot be stored now are stored later; no caller waits for them.
    async fn store(&self, bus: &Bus, now_ms: UnixMs, of: impl Fn(&Arc<str>) -> bool) {
        let mut writes: Vec<(Key, Vec<Write>)> = Vec::new();
        for (key, entry) in self.shown().iter_mut().filter(|((monitor, _), _)| of(monitor)) {
            let changed = entry.minutes.take_writes(now_ms, entry.keep_hours);
            if !changed.is_empty() {
                writes.push((key.clone(), changed));
            }
        }
        for batch in writes.chunks(MARKS_MAX) {
            let marks = batch.iter().flat_map(|((monitor, subject), blocks)| {
                blocks.iter().map(|(hour, value)| readings_mark(monitor, subject, *hour, value.clone()))
            });
            let offer = Offer { marks: marks.collect(), ..Offer::default() };
            if let Err(refused) = bus.accept(offer).await {
                tracing::debug!("the readings of monitors are not stored now: {refused}");
                for (key, blocks) in batch {
                    if let Some(entry) = self.shown().get_mut(key) {
                        entry.minutes.put_back(blocks);
                    }
                }
            }
        }
    }

    fn shown(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.0.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the scope of the readings of a source.
pub(super) fn readings_scope(uri: &str) -> String {
    format!("{uri}#readings")
}

/// Returns the mark of one hour of readings; without a value, one that removes it.
pub(super) fn readings_mark(uri: &str, subject: &str, hour: i64, value: Option<Vec<u8>>) -> Mark {
    Mark { scope: readings_scope(uri), key: format!("{subject}@{hour}"), value }
}
