//! All monitors of the process: their shared resources, their status for users, and their readings in the store.

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

/// The time between two commits of the readings of all monitors. If the process is killed, the readings since the last
/// commit are lost.
const STORE_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of marks in one commit. A mark of readings has 240 bytes.
pub(super) const MARKS_MAX: usize = 1_000;
/// Evoke searches for data of removed monitors once in this number of [`STORE_INTERVAL`]s. The first search is after
/// one interval.
const SEARCH_EVERY: u32 = 10;

/// The monitors of the process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Monitors(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    resources: Arc<Resources>,
    metrics: Arc<MonitorMetrics>,
    /// The running monitors, by the URI of their source.
    running: Mutex<BTreeMap<Arc<str>, Arc<Running>>>,
}

/// A running monitor. Only the run loop of this monitor adds and removes subjects.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) config: Arc<MonitorSource>,
    pub(super) quantity: Quantity,
    subjects: Mutex<Subjects>,
}

/// The watched things of a monitor, by subject.
pub(super) type Subjects = BTreeMap<String, Box<Watched>>;

impl Running {
    pub(super) fn new(config: Arc<MonitorSource>) -> Self {
        Self { quantity: config.quantity(), config, subjects: Mutex::default() }
    }

    /// Locks the watched things. The caller must not wait or do I/O while it holds the lock.
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
    /// The key of the check in the manifest, such as `disk`.
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
    /// The value with its unit, as text for users.
    pub shown: Option<String>,
    /// The threshold of the state `warning`, as text.
    pub warning: Option<String>,
    /// The threshold of the state `critical`, as text.
    pub critical: Option<String>,
    /// The text of the last reading, such as the reason why there is no value.
    pub detail: Option<String>,
    /// True while the state changes so often that changes are not reported.
    pub flapping: bool,
    /// The averages of the last 60 minutes, oldest first; `None` for a minute without a reading.
    pub last_hour: Vec<Option<f32>>,
}

impl Monitors {
    /// Creates the shared part of all monitors. Network checks use `client`. Checks that start programs run only if
    /// `allow_commands` is true.
    pub fn new(client: Client, allow_commands: bool, metrics: Arc<MonitorMetrics>) -> Self {
        let resources = Arc::new(Resources::new(client, allow_commands));
        Self(Arc::new(Shared { resources, metrics, running: Mutex::default() }))
    }

    /// Returns true if monitors may start programs.
    pub fn allow_commands(&self) -> bool {
        self.0.resources.allow_commands
    }

    /// Returns the status of every watched thing, sorted by monitor and subject.
    pub fn list(&self, now_ms: UnixMs) -> Vec<SubjectStatus> {
        let mut all = Vec::new();
        for (monitor, running) in self.running() {
            let subjects = running.subjects();
            all.extend(subjects.iter().map(|(subject, watched)| running.status(&monitor, subject, watched, now_ms)));
        }
        all
    }

    /// Runs until `stop` is cancelled: stores the readings of all monitors once a minute, in few commits, and removes
    /// the data of removed monitors.
    pub async fn store_readings(self, bus: Bus, clock: Clock, stop: CancellationToken) {
        let mut minutes = (0..SEARCH_EVERY).cycle();
        while stop.run_until_cancelled(tokio::time::sleep(STORE_INTERVAL)).await.is_some() {
            write(&bus, &changed(clock.now_ms(), self.running())).await;
            if minutes.next() == Some(0) {
                self.remove_gone(&bus, clock.now_ms()).await;
            }
        }
    }

    /// Returns the running monitors, by the URI of their source.
    pub(super) fn running(&self) -> BTreeMap<Arc<str>, Arc<Running>> {
        self.lock().clone()
    }

    pub(super) fn resources(&self) -> &Arc<Resources> {
        &self.0.resources
    }

    pub(super) fn metrics(&self) -> &MonitorMetrics {
        &self.0.metrics
    }

    /// Adds a monitor to the list of running monitors.
    pub(super) fn started(&self, uri: &Arc<str>, running: &Arc<Running>) {
        self.lock().insert(uri.clone(), running.clone());
    }

    /// Stores the readings of a monitor that stops, and removes it from the list of running monitors.
    pub(super) async fn stopped(&self, bus: &Bus, uri: &Arc<str>, now_ms: UnixMs) {
        let running = self.lock().get(uri).cloned();
        write(bus, &changed(now_ms, running.map(|running| (uri.clone(), running)))).await;
        self.lock().remove(uri);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Running>>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the changed readings of these monitors. The readings then count as stored.
pub(super) fn changed(now_ms: UnixMs, monitors: impl IntoIterator<Item = (Arc<str>, Arc<Running>)>) -> Vec<Changed> {
    let mut changed = Vec::new();
    for (monitor, running) in monitors {
        let keep_hours = running.config.keep_hours();
        for (subject, watched) in running.subjects().iter_mut() {
            let blocks = watched.minutes.take_writes(now_ms, keep_hours);
            if !blocks.is_empty() {
                let (monitor, running, subject) = (monitor.clone(), running.clone(), subject.clone());
                changed.push(Changed { monitor, running, subject, blocks });
            }
        }
    }
    changed
}

/// Stores changed readings. If that fails, they count as changed again, and the next call tries again.
pub(super) async fn write(bus: &Bus, changed: &[Changed]) {
    for batch in changed.chunks(MARKS_MAX) {
        let marks = batch.iter().flat_map(|one| one.marks(Clone::clone));
        if let Err(refused) = bus.accept(Offer { marks: marks.collect(), ..Offer::default() }).await {
            tracing::debug!("cannot store the readings of monitors now, the next try is in a minute: {refused}");
            for Changed { running, subject, blocks, .. } in batch {
                if let Some(watched) = running.subjects().get_mut(subject) {
                    watched.minutes.put_back(blocks);
                }
            }
            continue;
        }
        // A monitor may have forgotten a subject meanwhile, and removed its readings before they were written here.
        // Then remove them again.
        let forgotten = batch.iter().filter(|one| !one.running.subjects().contains_key(&one.subject));
        let marks: Vec<Mark> = forgotten.flat_map(|one| one.marks(|_| None)).collect();
        if !marks.is_empty()
            && let Err(refused) = bus.accept(Offer { marks, ..Offer::default() }).await
        {
            tracing::debug!("readings of forgotten subjects stay in the store until the next start: {refused}");
        }
    }
}

/// The changed readings of one watched thing.
pub(super) struct Changed {
    monitor: Arc<str>,
    running: Arc<Running>,
    subject: String,
    blocks: Vec<Write>,
}

impl Changed {
    /// Returns one mark for each block. `value` returns the value of the mark.
    fn marks(&self, value: impl Fn(&Option<Vec<u8>>) -> Option<Vec<u8>>) -> impl Iterator<Item = Mark> {
        self.blocks.iter().map(move |(hour, block)| readings_mark(&self.monitor, &self.subject, *hour, value(block)))
    }
}

/// Returns the scope of the marks with the readings of a source.
pub(super) fn readings_scope(uri: &str) -> String {
    format!("{uri}#readings")
}

/// Returns the mark for the readings of one hour. With the value `None`, the mark removes the stored readings.
pub(super) fn readings_mark(uri: &str, subject: &str, hour: i64, value: Option<Vec<u8>>) -> Mark {
    Mark { scope: readings_scope(uri), key: format!("{subject}@{hour}"), value }
}
