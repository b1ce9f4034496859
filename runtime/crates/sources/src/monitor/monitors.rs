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

use super::minutes::Write;
use super::quantity::Quantity;
use super::resources::Resources;
use super::settings::MonitorSource;
use super::watched::{Watched, rounded};

/// How often the readings of all monitors are stored. If the process is killed, the readings of the last minute are
/// lost.
const STORE_INTERVAL: Duration = Duration::from_secs(60);
/// The most marks in one commit: 240 bytes each.
pub(super) const MARKS_MAX: usize = 1_000;
/// How often the store is searched for data of removed monitors, in store intervals. The first search is after one
/// interval.
const SEARCH_EVERY: u32 = 10;

/// The monitors of the process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Monitors(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    resources: Arc<Resources>,
    metrics: Arc<MonitorMetrics>,
    /// By the URI of the source.
    running: Mutex<BTreeMap<Arc<str>, Arc<Running>>>,
}

/// A monitor that runs. Its run loop writes, everybody else reads.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) config: Arc<MonitorSource>,
    pub(super) quantity: Quantity,
    subjects: Mutex<Subjects>,
}

/// The watched things of a monitor, by subject.
type Subjects = BTreeMap<String, Box<Watched>>;

impl Running {
    pub(super) fn new(config: Arc<MonitorSource>) -> Self {
        Self { quantity: config.quantity(), config, subjects: Mutex::default() }
    }

    /// Locks the watched things. The caller must not wait for anything while it holds the lock.
    pub(super) fn subjects(&self) -> MutexGuard<'_, Subjects> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self, monitor: &Arc<str>, subject: &str, watched: &Watched, now_ms: UnixMs) -> SubjectStatus {
        let value = watched.value.filter(|_| watched.is_read);
        SubjectStatus {
            monitor: monitor.clone(),
            kind: self.config.check.key(),
            subject: subject.to_owned(),
            state: watched.is_read.then(|| watched.state()),
            since_ms: watched.machine.since().wall_ms,
            value: value.map(rounded),
            unit: self.quantity.symbol(),
            shown: value.map(|value| Quantity { value, ..self.quantity }.to_string()),
            warning: self.config.warning.map(|threshold| threshold.to_string()),
            critical: self.config.critical.map(|threshold| threshold.to_string()),
            detail: watched.detail.clone(),
            flapping: watched.machine.is_flapping(),
            last_hour: watched.minutes.last_hour(now_ms),
        }
    }
}

/// The status of a watched thing.
#[derive(Debug, Clone, PartialEq)]
pub struct SubjectStatus {
    /// The URI of the source.
    pub monitor: Arc<str>,
    /// The key of the reading, such as `disk`.
    pub kind: &'static str,
    /// The name of the watched thing.
    pub subject: String,
    /// The state; `None` before the first reading.
    pub state: Option<State>,
    /// The time of the first reading with this state.
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
    /// Network checks use `client`. Checks that start programs run only with `allow_commands`.
    pub fn new(client: Client, allow_commands: bool, metrics: Arc<MonitorMetrics>) -> Self {
        let resources = Arc::new(Resources::new(client, allow_commands));
        Self(Arc::new(Shared { resources, metrics, running: Mutex::default() }))
    }

    /// Returns true if monitors may start programs.
    pub fn allow_commands(&self) -> bool {
        self.0.resources.allow_commands
    }

    /// Returns every watched thing, by monitor and subject.
    pub fn list(&self, now_ms: UnixMs) -> Vec<SubjectStatus> {
        let mut all = Vec::new();
        for (monitor, running) in self.running() {
            let subjects = running.subjects();
            all.extend(subjects.iter().map(|(subject, watched)| running.status(&monitor, subject, watched, now_ms)));
        }
        all
    }

    /// Stores the readings of all monitors once a minute, in few commits, and removes the data of removed monitors.
    pub async fn store_readings(self, bus: Bus, clock: Clock, stop: CancellationToken) {
        let mut minutes = (0..SEARCH_EVERY).cycle();
        while stop.run_until_cancelled(tokio::time::sleep(STORE_INTERVAL)).await.is_some() {
            self.store(&bus, clock.now_ms(), self.running()).await;
            if minutes.next() == Some(0) {
                self.remove_gone(&bus, clock.now_ms()).await;
            }
        }
    }

    /// Returns the monitors that run, by the URI of their source.
    pub(super) fn running(&self) -> BTreeMap<Arc<str>, Arc<Running>> {
        self.lock().clone()
    }

    pub(super) fn resources(&self) -> &Arc<Resources> {
        &self.0.resources
    }

    pub(super) fn metrics(&self) -> &MonitorMetrics {
        &self.0.metrics
    }

    /// Adds a monitor that starts to the list of running monitors.
    pub(super) fn started(&self, uri: &Arc<str>, running: &Arc<Running>) {
        self.lock().insert(uri.clone(), running.clone());
    }

    /// Stores the readings of a monitor that stops, and forgets it.
    pub(super) async fn stopped(&self, bus: &Bus, uri: &Arc<str>, now_ms: UnixMs) {
        let running = self.lock().get(uri).cloned();
        self.store(bus, now_ms, running.map(|running| (uri.clone(), running))).await;
        self.lock().remove(uri);
    }

    /// Stores changed readings. Readings that cannot be stored now are stored later; no caller waits for them.
    async fn store(&self, bus: &Bus, now_ms: UnixMs, monitors: impl IntoIterator<Item = (Arc<str>, Arc<Running>)>) {
        let mut writes = Vec::new();
        for (monitor, running) in monitors {
            let keep_hours = running.config.keep_hours();
            for (subject, watched) in running.subjects().iter_mut() {
                let changed = watched.minutes.take_writes(now_ms, keep_hours);
                if !changed.is_empty() {
                    writes.push(Changed {
                        monitor: monitor.clone(),
                        running: running.clone(),
                        subject: subject.clone(),
                        blocks: changed,
                    });
                }
            }
        }
        for batch in writes.chunks(MARKS_MAX) {
            let marks = batch.iter().flat_map(|Changed { monitor, subject, blocks, .. }| {
                blocks.iter().map(|(hour, value)| readings_mark(monitor, subject, *hour, value.clone()))
            });
            let offer = Offer { marks: marks.collect(), ..Offer::default() };
            if let Err(refused) = bus.accept(offer).await {
                tracing::debug!("the readings of monitors are not stored now: {refused}");
                for Changed { running, subject, blocks, .. } in batch {
                    if let Some(watched) = running.subjects().get_mut(subject) {
                        watched.minutes.put_back(blocks);
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Running>>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The changed readings of one watched thing.
struct Changed {
    monitor: Arc<str>,
    running: Arc<Running>,
    subject: String,
    blocks: Vec<Write>,
}

/// Returns the scope of the readings of a source.
pub(super) fn readings_scope(uri: &str) -> String {
    format!("{uri}#readings")
}

/// Returns the mark of one hour of readings. Without a value, the mark removes the stored readings.
pub(super) fn readings_mark(uri: &str, subject: &str, hour: i64, value: Option<Vec<u8>>) -> Mark {
    Mark { scope: readings_scope(uri), key: format!("{subject}@{hour}"), value }
}
