//! Tests of the run loop with a store in memory and real files.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evoke_core::bus::{Bus, Limits, Target};
use evoke_core::router::Router;
use evoke_core::source::Health;
use evoke_manifest::{Checked, Registry, load_str};
use evoke_model::clock::{Clock, UnixMs};
use evoke_model::{EventFilter, Seq, StoredEvent};
use evoke_store::memory::MemoryStore;
use evoke_store::{EventStore as _, InspectionStore as _};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::run::run;
use super::*;

const START: UnixMs = 1_743_249_600_000;
pub(super) const URI: &str = "/host/size";
const HOUR: UnixMs = 3_600_000;

pub(super) struct Fixture {
    pub(super) store: Arc<MemoryStore>,
    pub(super) bus: Bus,
    pub(super) folder: tempfile::TempDir,
}

/// Parses the settings of a monitor as the value of `monitor` in a manifest.
pub(super) fn settings(folder: &Path, monitor: &str) -> Arc<MonitorSource> {
    let text = format!("evoke: 1\napp: host\nsources:\n  size:\n    monitor: {monitor}\n");
    let registry = Registry::new([&MonitorKind as &'static dyn evoke_manifest::SourceKind]);
    let Checked { manifest, .. } = load_str(&text, &folder.join("evoke.yaml"), &registry).unwrap();
    manifest.sources[0].settings.shared().unwrap()
}

pub(super) fn monitors(allow_commands: bool) -> Monitors {
    let client = evoke_egress::Client::new(tokio::runtime::Handle::current(), Arc::default());
    Monitors::new(client, allow_commands, Arc::default())
}

impl Fixture {
    pub(super) fn new() -> Self {
        let store = Arc::new(MemoryStore::new(Clock::system()));
        let bus = Bus::new(store.clone(), Router::default(), Limits::default());
        Self { store, bus, folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, size: usize) {
        std::fs::write(self.folder.path().join(name), vec![b'x'; size]).unwrap();
    }

    pub(super) fn context(&self) -> Context {
        Context {
            bus: self.bus.clone(),
            uri: URI.into(),
            origin: evoke_model::Origin(1),
            target: Target::Matching,
            clock: Clock::system(),
            stop: CancellationToken::new(),
            health: Health::default(),
        }
    }

    fn start(&self, monitor: &str) -> Running {
        let (monitors, ctx) = (monitors(false), self.context());
        let (stop, health) = (ctx.stop.clone(), ctx.health.clone());
        let task = tokio::spawn(run(settings(self.folder.path(), monitor), ctx, monitors.clone()));
        Running { monitors, stop, health, task }
    }

    /// Returns for each event: its subject, the previous state, the new state, and whether the change was missed.
    async fn changes(&self) -> Vec<(String, String, String, bool)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let prefix = format!("{}/", self.folder.path().display());
        let change = |stored: StoredEvent| {
            let subject = stored.event.subject.clone().unwrap().replace(&prefix, "");
            let evoke_model::event::Data::Json(data) = &stored.event.data else { panic!("{stored:?}") };
            let data: Value = serde_json::from_slice(data).unwrap();
            (subject, text(&data["previous"]), text(&data["state"]), data["missed"].as_bool().unwrap())
        };
        self.events().await.into_iter().map(change).collect()
    }

    pub(super) async fn events(&self) -> Vec<StoredEvent> {
        let filter = EventFilter { after: Some(Seq(0)), limit: 1_000, ..EventFilter::default() };
        self.store.events(filter).await.unwrap().into_iter().flatten().collect()
    }

    async fn await_changes(&self, expected: &[(&str, &str, &str, bool)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(subject, from, to, missed)| ((*subject).into(), (*from).into(), (*to).into(), *missed))
            .collect();
        let is_there = async {
            while self.changes().await != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), is_there).await.is_err() {
            panic!("expected {expected:?}, found {:?}", self.changes().await);
        }
    }
}

struct Running {
    monitors: Monitors,
    stop: CancellationToken,
    health: Health,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Waits until the monitor has taken a few more readings.
    async fn read_again(&self) {
        let readings = || self.monitors.metrics().readings.get();
        let before = readings();
        while readings() < before + 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

const SIZE: &str = "{ every: 100ms, file: { path: ./watched, of: size }, warning: 80B, critical: 90B, clear: 5B }";

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_one_event_with_its_readings() {
    let fixture = Fixture::new();
    fixture.write("watched", 10);
    let running = fixture.start(SIZE);
    running.read_again().await;
    fixture.write("watched", 85);
    fixture.await_changes(&[("watched", "ok", "warning", false)]).await;
    fixture.write("watched", 76);
    running.read_again().await;
    fixture.write("watched", 95);
    let expected = [("watched", "ok", "warning", false), ("watched", "warning", "critical", false)];
    fixture.await_changes(&expected).await;
    let events = fixture.events().await;
    let evoke_model::event::Data::Json(data) = &events[1].event.data else { panic!() };
    let data: Value = serde_json::from_slice(data).unwrap();
    assert_eq!((&data["value"], &data["unit"], &data["threshold"]), (&json!(95.0), &json!("B"), &json!("90B")));
    let readings: Vec<_> =
        data["readings"].as_array().unwrap().iter().map(|one| one["value"].as_f64().unwrap()).collect();
    assert_eq!(readings.last(), Some(&95.0));
    assert!(readings.contains(&76.0) && readings.len() <= 10, "{readings:?}");
    assert_eq!(events[1].event.source, URI);
    let shown = running.monitors.list(START);
    assert_eq!((shown.len(), shown[0].state, shown[0].value), (1, Some(evoke_threshold::State::Critical), Some(95.0)));
    assert_eq!(shown[0].shown.as_deref(), Some("95B"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_tells_only_what_changed_meanwhile() {
    let fixture = Fixture::new();
    fixture.write("watched", 85);
    let running = fixture.start(SIZE);
    let warning = ("watched", "ok", "warning", false);
    fixture.await_changes(&[warning]).await;
    running.stop().await;
    // 77 is within the hysteresis: below the threshold of 80, but not below 75.
    fixture.write("watched", 77);
    let running = fixture.start(SIZE);
    running.read_again().await;
    fixture.await_changes(&[warning]).await;
    running.stop().await;
    fixture.write("watched", 95);
    let running = fixture.start(SIZE);
    fixture.await_changes(&[warning, ("watched", "warning", "critical", true)]).await;
    running.stop().await;
    // With other thresholds, the same size is ok.
    let running = fixture.start("{ every: 100ms, file: { path: ./watched, of: size }, critical: 200B }");
    let expected = [warning, ("watched", "warning", "critical", true), ("watched", "critical", "ok", true)];
    fixture.await_changes(&expected).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_monitor_watches_everything_that_matches_and_reports_what_is_gone() {
    let fixture = Fixture::new();
    fixture.write("a.log", 10);
    fixture.write("b.log", 10);
    let running = fixture.start("{ every: 100ms, file: { path: \"./*.log\", of: size }, critical: 90B }");
    running.read_again().await;
    fixture.write("b.log", 100);
    fixture.await_changes(&[("b.log", "ok", "critical", false)]).await;
    std::fs::remove_file(fixture.folder.path().join("a.log")).unwrap();
    let expected = [("b.log", "ok", "critical", false), ("a.log", "ok", "unknown", false)];
    fixture.await_changes(&expected).await;
    std::fs::remove_file(fixture.folder.path().join("b.log")).unwrap();
    let gone = [expected[0], expected[1], ("b.log", "critical", "unknown", false)];
    fixture.await_changes(&gone).await;
    assert!(running.health.trouble().unwrap().contains("nothing matches"));
    running.stop().await;
    // Another pattern does not cover the old subjects. They are removed without an event.
    fixture.write("c.txt", 10);
    let running = fixture.start("{ every: 100ms, file: { path: \"./*.txt\", of: size }, critical: 90B }");
    running.read_again().await;
    fixture.await_changes(&gone).await;
    let marks = fixture.store.marks(URI.into()).await.unwrap();
    assert_eq!(marks.len(), 1, "{:?}", marks.keys());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_outlive_a_stop() {
    let fixture = Fixture::new();
    fixture.write("watched", 42);
    let running = fixture.start(SIZE);
    running.read_again().await;
    running.stop().await;
    let running = fixture.start(SIZE);
    running.read_again().await;
    let now = Clock::system().now_ms();
    let shown = running.monitors.list(now);
    assert_eq!(shown[0].last_hour.iter().flatten().last(), Some(&42.0));
    let stored = fixture.store.marks(monitors::readings_scope(URI)).await.unwrap();
    assert!(stored.values().all(|block| block.len() == 240) && !stored.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_removed_monitor_leaves_is_kept_while_it_may_return_and_then_removed() {
    let fixture = Fixture::new();
    fixture.write("watched", 85);
    let keys = async |scope: &str| fixture.store.marks(scope.to_owned()).await.unwrap().into_keys().collect::<Vec<_>>();
    let warning = ("watched", "ok", "warning", false);
    let running = fixture.start(SIZE);
    fixture.await_changes(&[warning]).await;
    let monitors = running.monitors.clone();
    running.stop().await;
    assert_eq!(keys("/evoke#monitors").await, [URI]);
    let readings = monitors::readings_scope(URI);
    assert!(!keys(&readings).await.is_empty());
    let now = Clock::system().now_ms();
    monitors.remove_gone(&fixture.bus, now).await;
    monitors.remove_gone(&fixture.bus, now + 23 * HOUR).await;
    assert_eq!(keys(URI).await, [format!("state/{}", fixture.folder.path().join("watched").display())]);
    // The monitor returns and continues with its state. From then on, the time until the removal starts again.
    let running = fixture.start(SIZE);
    running.read_again().await;
    running.monitors.remove_gone(&fixture.bus, now + 23 * HOUR).await;
    fixture.await_changes(&[warning]).await;
    running.stop().await;
    // A source of another kind has the URI now. Its mark is not the state of a monitor and must stay.
    let other = evoke_model::Mark { scope: URI.into(), key: "state/other".into(), value: Some(b"{}".to_vec()) };
    fixture.bus.accept(evoke_core::bus::Offer { marks: vec![other], ..Default::default() }).await.unwrap();
    monitors.remove_gone(&fixture.bus, now + 25 * HOUR).await;
    monitors.remove_gone(&fixture.bus, now + 48 * HOUR).await;
    assert!(!keys(URI).await.is_empty() && !keys(&readings).await.is_empty());
    monitors.remove_gone(&fixture.bus, now + 49 * HOUR).await;
    assert_eq!(keys(URI).await, ["state/other"]);
    assert_eq!((keys(&readings).await.len(), keys("/evoke#monitors").await.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_of_an_older_version_is_known_from_its_first_minute_on() {
    let fixture = Fixture::new();
    fixture.write("watched", 85);
    let running = fixture.start(SIZE);
    fixture.await_changes(&[("watched", "ok", "warning", false)]).await;
    let known = evoke_model::Mark { scope: "/evoke#monitors".into(), key: URI.into(), value: None };
    fixture.bus.accept(evoke_core::bus::Offer { marks: vec![known], ..Default::default() }).await.unwrap();
    running.monitors.remove_gone(&fixture.bus, START).await;
    assert_eq!(fixture.store.marks("/evoke#monitors".into()).await.unwrap().len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_needs_the_permission_of_the_operator() {
    let fixture = Fixture::new();
    let running = fixture.start("{ every: 100ms, command: { run: [\"true\"] } }");
    fixture.await_changes(&[("true", "ok", "unknown", false)]).await;
    assert!(running.monitors.list(START)[0].detail.as_deref().unwrap().contains("--allow-commands"));
    running.stop().await;
}
