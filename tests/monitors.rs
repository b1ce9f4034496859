//! Monitors: each change of state is one event, whatever is watched, across kills and restarts.

mod commands;
mod disks;
mod kills;
mod many;
mod network;
mod units;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::assert_eventually;
use crate::support::Evoke;

/// Returns a manifest with one source `watched`.
fn manifest(monitor: &str) -> String {
    format!("evoke: 1\napp: host\nsources:\n  watched:\n    monitor: {monitor}\n")
}

/// The changes of a subject: previous state and state.
fn changes(evoke: &Evoke, subject: &str) -> Vec<(String, String)> {
    let events = evoke.events("evoke.monitor.changed").into_iter().filter(|event| event["subject"] == subject);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    events.map(|event| (text(&event["data"]["previous"]), text(&event["data"]["state"]))).collect()
}

/// Waits until the subject has exactly these states, one after another, after `ok`.
fn await_states(evoke: &Evoke, subject: &str, states: &[&str]) {
    let from = ["ok"].iter().chain(states).zip(states);
    let expected: Vec<_> = from.map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    assert_eventually!(
        changes(evoke, subject).len() >= expected.len(),
        "expected {expected:?}: {:?}\n{}",
        evoke.events("evoke.monitor.changed"),
        evoke.log()
    );
    assert_eq!(changes(evoke, subject), expected);
}

/// Returns what `evoke monitors --json` says of the only subject.
fn shown(evoke: &Evoke) -> Value {
    evoke.json_lines(&["monitors"]).pop().unwrap_or_default()
}

/// Waits for some readings of everything from now on.
fn read_again(evoke: &Evoke) {
    let readings = || {
        let metrics = evoke.get_admin("/metrics", &[]).body;
        let line = metrics.lines().find_map(|line| line.strip_prefix("evoke_monitor_readings_total "));
        line.and_then(|count| count.parse::<u64>().ok()).unwrap_or_default()
    };
    let watched = evoke.json_lines(&["monitors"]).len().max(1) as u64;
    let before = readings();
    assert_eventually!(readings() >= before + 3 * watched, "no readings: {}", evoke.log());
}

/// A process that is killed when dropped.
struct Sleep(Child);

impl Sleep {
    fn start(seconds: &str) -> Self {
        Self(Command::new("sleep").arg(seconds).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_process_that_is_killed_and_restarted_is_reported_both_times() {
    // No other process has this argument.
    let seconds = format!("1{:09}", std::process::id());
    let sleep = Sleep::start(&seconds);
    let monitor = format!("{{ every: 200ms, process: {{ command: \"sleep {seconds}\" }} }}");
    let evoke = Evoke::up_with(&manifest(&monitor));
    let subject = format!("sleep {seconds}");
    assert_eventually!(shown(&evoke)["state"] == "ok", "{}", shown(&evoke));
    assert_eq!(shown(&evoke)["value"], json!(1.0));
    drop(sleep);
    await_states(&evoke, &subject, &["critical"]);
    let _again = Sleep::start(&seconds);
    await_states(&evoke, &subject, &["critical", "ok"]);
}

#[test]
fn monitors_shows_each_watched_thing_with_its_value_and_metrics_have_gauges() {
    let manifest = "evoke: 1\napp: host\nsources:
  memory: { monitor: { every: 100ms, memory: {}, critical: 100% } }
  load: { monitor: { every: 100ms, load: {}, warning: \"> 100000\" } }
  cpu: { monitor: { every: 100ms, cpu: {}, warning: \"> 100%\" } }
  network: { monitor: { every: 100ms, network: { interface: lo, of: received }, warning: 100GiB/s } }
  disk: { monitor: { every: 100ms, disk: { path: / }, critical: \"> 100%\" } }
  file: { monitor: { every: 100ms, file: { path: ./evoke.yaml, of: age }, warning: 1d } }
";
    let evoke = Evoke::up_with(manifest);
    let has_values = || {
        let all = evoke.json_lines(&["monitors"]);
        all.len() == 6 && all.iter().all(|one| one["value"].is_number() && one["state"] == "ok")
    };
    assert_eventually!(has_values(), "{:?}", evoke.json_lines(&["monitors"]));
    let table = evoke.stdout(&["monitors"]);
    for text in ["monitor", "/host/memory", "B/s", "%", "ok", "last hour"] {
        assert!(table.contains(text), "{text}: {table}");
    }
    let metrics = evoke.get_admin("/metrics", &[]).body;
    assert!(metrics.contains(r#"evoke_monitor_state{monitor="/host/memory",subject="memory"} 0"#), "{metrics}");
    assert!(metrics.contains(r#"evoke_monitor_value{monitor="/host/disk",subject="/",unit="%"}"#), "{metrics}");
    assert!(metrics.contains("evoke_monitor_lateness_seconds_count"), "{metrics}");
    assert!(evoke.events("evoke.monitor.changed").is_empty());
}

#[test]
fn a_name_that_no_attribute_can_have_hides_no_change() {
    let monitor = "{ every: 100ms, file: { path: \"./logs/*\", of: size }, critical: 10B }";
    let evoke = Evoke::up_with(&manifest(monitor));
    let logs = evoke.path("logs");
    std::fs::create_dir(&logs).unwrap();
    // Of the last two, a lossy conversion would make one name.
    let names = ["a\u{fffe}".as_bytes(), b"b", b"c\xfe", b"c\xff"].map(|name| logs.join(OsStr::from_bytes(name)));
    names.iter().for_each(|name| std::fs::write(name, "x").unwrap());
    let watched = || evoke.json_lines(&["monitors"]);
    assert_eventually!(watched().len() == names.len(), "{:?}", watched());
    read_again(&evoke);
    // All in one reading: the folder is hidden while they grow.
    let hidden = evoke.path("hidden");
    std::fs::rename(&logs, &hidden).unwrap();
    names[..3].iter().for_each(|name| std::fs::write(hidden.join(name.file_name().unwrap()), "x".repeat(100)).unwrap());
    std::fs::rename(&hidden, &logs).unwrap();
    let shown = ["a\u{fffd}EF\u{fffd}BF\u{fffd}BE", "b", "c\u{fffd}FE", "c\u{fffd}FF"];
    let subject = |name: &str| logs.join(name).display().to_string();
    let last = |name: &str| changes(&evoke, &subject(name)).pop().map(|(_, state)| state);
    for name in &shown[..3] {
        assert_eventually!(last(name).as_deref() == Some("critical"), "{name}: {}", evoke.log());
    }
    read_again(&evoke);
    assert_ne!(last(shown[3]).as_deref(), Some("critical"));
}

#[test]
fn a_reminder_comes_while_a_state_lasts() {
    let monitor = "{ every: 100ms, file: { path: ./missing }, repeat: 1s }";
    let evoke = Evoke::up_with(&manifest(monitor));
    let reminders = || {
        let events = evoke.events("evoke.monitor.changed");
        events.into_iter().filter(|event| event["data"]["reminder"] == true).collect::<Vec<_>>()
    };
    assert_eventually!(reminders().len() >= 2, "no reminders: {:?}", evoke.events("evoke.monitor.changed"));
    let data = &reminders()[0]["data"];
    assert_eq!((&data["state"], &data["previous"]), (&json!("critical"), &json!("critical")));
    assert!(data["lasted_ms"].as_i64().unwrap() >= 1_000, "{data}");
    let others: Vec<_> =
        evoke.events("evoke.monitor.changed").into_iter().filter(|e| e["data"]["reminder"] != true).collect();
    assert_eq!(others.len(), 1, "{others:?}");
}
