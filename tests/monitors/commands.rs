//! Commands with the interface of monitoring plugins, and the real plugins of Debian's `monitoring-plugins`.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use super::{await_states, manifest, shown};
use crate::assert_eventually;
use crate::support::Evoke;

const PLUGINS: &str = "/usr/lib/nagios/plugins";
const ALLOWED: [&str; 1] = ["--allow-commands"];

/// Writes a script into the folder.
fn script(evoke: &Evoke, text: &str) {
    let path = evoke.path("check");
    std::fs::write(evoke.path("check.tmp"), format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(evoke.path("check.tmp"), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::rename(evoke.path("check.tmp"), path).unwrap();
}

#[test]
fn commands_run_only_when_the_operator_allows_them() {
    let mut evoke = Evoke::with(&manifest("{ every: 100ms, command: { run: [./check] } }"));
    script(&evoke, "touch \"$(dirname \"$0\")/ran\"");
    let validated = evoke.run(&["validate", "evoke.yaml"]);
    assert!(validated.status.success());
    let warning = String::from_utf8(validated.stderr).unwrap();
    assert!(warning.contains("warning") && warning.contains("evoke up --allow-commands"), "{warning}");
    let refused = evoke.run_within_timeout(&["up", "evoke.yaml", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && message.contains("evoke up --allow-commands"), "{message}");
    assert!(!evoke.path("ran").exists(), "the program ran");
    evoke.up_with_arguments(&ALLOWED);
    assert_eventually!(evoke.path("ran").exists(), "the program did not run: {}", evoke.log());
}

#[test]
fn exit_codes_are_states_and_performance_data_the_value() {
    let mut evoke = Evoke::with(&manifest("{ every: 200ms, command: { run: [./check], label: used, timeout: 5s } }"));
    script(&evoke, "echo \"FINE | free=1 used=42%;80;90\"");
    evoke.up_with_arguments(&ALLOWED);
    assert_eventually!(shown(&evoke)["value"] == json!(42.0), "{}", shown(&evoke));
    for (code, state) in [(1, "warning"), (2, "critical"), (3, "unknown"), (0, "ok"), (77, "unknown")] {
        script(&evoke, &format!("echo \"state {code} | used=43%\"; exit {code}"));
        assert_eventually!(shown(&evoke)["state"] == state, "{code}: {}", shown(&evoke));
    }
    await_states(&evoke, "check", &["warning", "critical", "unknown", "ok", "unknown"]);
    let events = evoke.events("evoke.monitor.changed");
    assert_eq!(events[0]["data"]["detail"], "state 1");
    assert_eq!(events[0]["data"]["value"], json!(43.0));
}

#[test]
fn a_command_gets_nothing_of_the_environment_and_is_killed_with_its_children() {
    let mut evoke = Evoke::with(&manifest("{ every: 200ms, command: { run: [./check], timeout: 500ms } }"));
    evoke.set_environment(&[("SECRET_TOKEN", "hidden")]);
    script(&evoke, "env > \"$(dirname \"$0\")/env\"; sleep 100000 & echo $! >> \"$(dirname \"$0\")/pids\"; wait");
    evoke.up_with_arguments(&ALLOWED);
    assert_eventually!(shown(&evoke)["state"] == "unknown", "{}", shown(&evoke));
    assert!(shown(&evoke)["detail"].as_str().unwrap().contains("did not end"), "{}", shown(&evoke));
    let environment = std::fs::read_to_string(evoke.path("env")).unwrap();
    assert!(!environment.contains("hidden") && !environment.contains("HOME="), "{environment}");
    evoke.stop();
    let pids = std::fs::read_to_string(evoke.path("pids")).unwrap();
    let runs = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.contains("(sleep)") && !stat.contains(") Z ")
    };
    assert_eventually!(!pids.lines().any(runs), "children still run: {pids}");
}

#[test]
fn endless_output_is_bounded() {
    let mut evoke = Evoke::with(&manifest("{ every: 1s, command: { run: [./check], timeout: 2s } }"));
    script(&evoke, "yes 'x | a=1' | head -c 100000000; exit 1");
    evoke.up_with_arguments(&ALLOWED);
    let before = evoke.rss_kib();
    assert_eventually!(shown(&evoke)["state"] != "waiting", "{}", shown(&evoke));
    assert!(evoke.rss_kib() < before + 16 * 1024, "{} KiB, before {before}", evoke.rss_kib());
}

#[test]
fn plugins_of_debian_run_unchanged() {
    if !Path::new(PLUGINS).join("check_disk").exists() {
        println!("skipped: there are no plugins in {PLUGINS}; install the package monitoring-plugins-basic");
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let monitors = format!(
        "evoke: 1\napp: host\nsources:
  disk: {{ monitor: {{ every: 200ms, command: {{ run: [{PLUGINS}/check_disk, -w, \"0%\", -c, \"0%\", -p, /] }}, critical: 1000TiB }} }}
  load: {{ monitor: {{ every: 200ms, command: {{ run: [{PLUGINS}/check_load, -w, \"9999\", -c, \"9999\"], label: load5 }} }} }}
  port: {{ monitor: {{ every: 200ms, command: {{ run: [{PLUGINS}/check_tcp, -H, 127.0.0.1, -p, \"{port}\"] }} }} }}
"
    );
    let mut evoke = Evoke::with(&monitors.replace("1000TiB", "\"> 1000TiB\""));
    evoke.up_with_arguments(&ALLOWED);
    let of =
        |name: &str| evoke.json_lines(&["monitors"]).into_iter().find(|one| one["subject"] == name).unwrap_or_default();
    for name in ["check_disk", "check_load", "check_tcp"] {
        assert_eventually!(of(name)["state"] == "ok" && of(name)["value"].is_number(), "{name}: {}", of(name));
    }
    assert_eq!((&of("check_disk")["unit"], &of("check_load")["unit"]), (&json!("B"), &json!("")));
    drop(listener);
    await_states(&evoke, "check_tcp", &["critical"]);
}
