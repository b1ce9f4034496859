//! Tests of single readings of a monitor.

use evoke_threshold::{Saved, State};

use super::super::forget::KNOWN_MAX;
use super::super::monitors::{changed, write};
use super::super::readings::Found;
use super::super::tests::{Fixture, URI, monitors, settings};
use super::*;

const SIZES: &str = "{ every: 1s, file: { path: \"./*.log\", of: size } }";

impl Fixture {
    async fn monitor(&self, monitor: &str, monitors: &Monitors) -> Monitor {
        let config = settings(self.folder.path(), monitor);
        Monitor::restored(config, self.context(), monitors.clone()).await.unwrap()
    }

    fn subject(&self, name: &str) -> String {
        self.folder.path().join(format!("{name}.log")).display().to_string()
    }

    async fn marks(&self, scope: &str) -> BTreeMap<String, Vec<u8>> {
        self.bus.marks(scope).await.unwrap()
    }
}

impl Monitor {
    /// Processes a reading that found files, and stores the result.
    async fn find(&mut self, files: impl Iterator<Item = String>) {
        let found = || Outcome::Read(Found::value(1.0));
        let (events, marks) = self.process(Ok(files.map(|subject| Finding { subject, outcome: found() }).collect()));
        assert!(self.submit(events, marks).await.is_ok());
    }
}

#[tokio::test]
async fn files_that_get_other_names_again_and_again_are_a_bounded_number_of_subjects() {
    let fixture = Fixture::new();
    let monitors = monitors(false);
    let mut monitor = fixture.monitor(SIZES, &monitors).await;
    let names = |round: i64| (0..SUBJECTS_MAX).map(move |n| format!("{round}-{n:03}"));
    for round in 0..6 {
        monitor.find(names(round).map(|name| fixture.subject(&name))).await;
        write(&fixture.bus, &changed(monitor.now().wall_ms, monitors.running())).await;
        let known: Vec<String> = monitor.running.subjects().keys().cloned().collect();
        // The subjects of this reading, and those that have been gone for the shortest time.
        let expected: Vec<String> =
            (0.max(round - 1)..=round).flat_map(names).map(|name| fixture.subject(&name)).collect();
        assert!(known == expected, "{} subjects", known.len());
        let states = fixture.marks(URI).await;
        assert_eq!(states.len(), known.len());
        // Two hours if the hour changed meanwhile.
        assert!(fixture.marks(&readings_scope(URI)).await.len() <= 2 * known.len());
    }
    // Each of the first 5 names of the files was reported as gone once.
    assert_eq!(fixture.events().await.len(), 1_000, "the fixture returns at most 1,000 events");
    assert_eq!(monitor.trouble, None);
}

#[tokio::test]
async fn a_flood_of_new_names_does_not_prevent_the_report_about_an_old_one() {
    let fixture = Fixture::new();
    let monitors = monitors(false);
    let mut monitor = fixture.monitor("{ every: 1s, for: 1h, file: { path: \"./*.log\" } }", &monitors).await;
    let old = fixture.subject("old");
    monitor.find([old.clone()].into_iter()).await;
    monitor.start -= Duration::from_secs(60);
    for round in 0..4 {
        monitor.find((0..SUBJECTS_MAX).map(|n| fixture.subject(&format!("{round}-{n}")))).await;
        assert!(monitor.running.subjects().len() <= KNOWN_MAX);
    }
    assert!(monitor.running.subjects().contains_key(&old));
}

#[tokio::test]
async fn a_store_with_too_many_subjects_is_reduced_at_the_start() {
    let fixture = Fixture::new();
    let start_ms = fixture.context().clock.now_ms() - 60_000;
    let state = |name: &str, state, since: i64| {
        let since_ms = start_ms + since;
        let saved = Saved { state, since_ms, told_ms: since_ms, told: state, flapping: false, changes_ms: Vec::new() };
        let value = serde_json::to_vec(&StateMark { v: 1, saved }).ok();
        Mark { scope: URI.into(), key: format!("state/{}", fixture.subject(name)), value }
    };
    let gone = (0..3_000).map(|n| state(&format!("gone-{n}"), State::Unknown, n));
    let marks: Vec<Mark> = gone.chain((0..100).map(|n| state(&format!("kept-{n}"), State::Ok, n))).collect();
    fixture.bus.accept(Offer { marks, ..Offer::default() }).await.unwrap();
    let monitors = monitors(false);
    let mut monitor = fixture.monitor(SIZES, &monitors).await;
    assert!(monitor.unwritten.len() <= MARKS_MAX);
    monitor.find(std::iter::once(fixture.subject("kept-0"))).await;
    let states = fixture.marks(URI).await;
    assert_eq!((states.len(), monitor.running.subjects().len()), (KNOWN_MAX, KNOWN_MAX));
    let kept = |name: &str| states.contains_key(&format!("state/{}", fixture.subject(name)));
    assert!((0..100).all(|n| kept(&format!("kept-{n}"))));
    assert!(kept("gone-2999") && !kept("gone-0"));
}

#[tokio::test]
async fn readings_that_are_stored_after_their_subject_was_forgotten_are_removed_again() {
    let fixture = Fixture::new();
    let monitors = monitors(false);
    let mut monitor = fixture.monitor(SIZES, &monitors).await;
    monitor.find(["a", "b"].into_iter().map(|name| fixture.subject(name))).await;
    let changed = changed(monitor.now().wall_ms, monitors.running());
    monitor.running.subjects().remove(&fixture.subject("a"));
    write(&fixture.bus, &changed).await;
    let stored = fixture.marks(&readings_scope(URI)).await;
    let of = |name: &str| stored.keys().filter(|key| key.starts_with(&fixture.subject(name))).count();
    assert!(of("a") == 0 && of("b") > 0, "{:?}", stored.keys());
}

/// Longer than the limit on every reading.
const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(start_paused = true)]
async fn a_reading_that_cannot_start_is_unknown() {
    let fixture = Fixture::new();
    let monitors = monitors(true);
    let resources = monitors.resources().clone();
    let mut permits = Vec::new();
    while let Ok(permit) = timeout(Duration::from_secs(1), resources.blocking_permit()).await {
        permits.push(permit);
    }
    let _commands = resources.commands.acquire_many(8).await.unwrap();
    for (settings, limit) in [(SIZES, "10s"), ("{ every: 1s, command: { run: [\"true\"], timeout: 5s } }", "65s")] {
        let mut monitor = fixture.monitor(settings, &monitors).await;
        let reading = timeout(HOUR, monitor.read()).await.expect("the reading must end");
        assert_eq!(reading, Err(format!("the reading did not end within {limit}")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_scan_of_processes_that_hangs_makes_its_monitors_unknown_and_holds_no_permits_of_others() {
    let fixture = Fixture::new();
    let monitors = monitors(false);
    let resources = monitors.resources().clone();
    let scan = resources.processes.permit().await.unwrap();
    let settings = "{ every: 1s, process: { name: sshd } }";
    let (mut first, mut second) =
        (fixture.monitor(settings, &monitors).await, fixture.monitor(settings, &monitors).await);
    let others = async {
        let mut permits = Vec::new();
        while let Ok(permit) = timeout(Duration::from_secs(1), resources.blocking_permit()).await {
            permits.push(permit);
        }
        permits.len()
    };
    let both = async { tokio::join!(first.read(), second.read(), others) };
    let (one, two, permits) = timeout(HOUR, both).await.expect("the readings must end");
    let unknown = Err("the reading did not end within 10s".to_owned());
    assert_eq!((one, two, permits), (unknown.clone(), unknown, 16));
    // The next scan makes the monitors known again.
    drop(scan);
    assert!(first.read().await.is_ok() && second.read().await.is_ok());
}
