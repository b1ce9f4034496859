//! Commands that only look read the store of a stopped Evoke, and a backup.

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::json;

use crate::orders::ORDERS;
use crate::support::{Evoke, request, signal};

/// The files of a folder with their sizes, except for SQLite's index of the log.
fn files(folder: &std::path::Path) -> Vec<(String, u64)> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .filter(|(name, _)| !name.ends_with("-shm") && !name.ends_with("-wal"))
        .collect();
    found.sort();
    found
}

#[test]
fn a_stopped_store_and_a_backup_are_read_like_a_running_evoke() {
    let mut evoke = Evoke::up_with(ORDERS);
    let id = evoke.post_accepted("/checkout", r#"{"customer":"ada","total":42,"items":["book"]}"#);
    evoke.post_accepted("/checkout", r#"{"customer":"bob","total":0,"items":["book"]}"#);
    evoke.settle();
    let letter = evoke.json_lines(&["dead", "list"])[0]["delivery"]["id"].to_string();
    let commands: &[&[&str]] = &[
        &["events", "--json"],
        &["events", "--pattern", r#"{"type":[{"prefix":"payment."}]}"#, "--json"],
        &["trace", &id],
        &["trace", &id, "--json"],
        &["dead", "list"],
        &["dead", "list", "--group", "--json"],
        &["dead", "show", &letter, "--json"],
        &["pending", "list"],
        &["logs", "--json"],
        &["state", "list"],
        &["replay", "list"],
    ];
    let running: Vec<String> = commands.iter().map(|command| evoke.stdout(command)).collect();
    evoke.stdout(&["backup", "copy/"]);
    assert!(evoke.stop().success());
    let before = files(&evoke.path(".evoke"));
    for (command, expected) in commands.iter().zip(&running) {
        assert_eq!(evoke.stdout(&[command, &["--offline", ".evoke"][..]].concat()), *expected, "{command:?}");
        // A backup has no log.
        if command[0] != "logs" {
            assert_eq!(evoke.stdout(&[command, &["--offline", "copy"][..]].concat()), *expected, "{command:?}");
        }
    }
    assert_eq!(files(&evoke.path(".evoke")), before, "nothing was written");
    let status = evoke.json(&["status", "--offline", "copy"]);
    assert_eq!((&status["events"], &status["functions"][0]["in_force"]), (&json!(5), &json!(false)), "{status}");
    assert!(evoke.stdout(&["check", "--offline", "copy"]).contains("complete and undamaged"));

    for (command, code, expected) in [
        (&["dead", "redrive", "--all"][..], 2, "--offline only reads"),
        (&["emit", "--type", "t"], 2, "--offline only reads"),
        (&["events", "--follow"], 2, "leave out --follow"),
        (&["event", "999"], 4, "no event has the number or id 999"),
    ] {
        let output = evoke.run(&[&["--offline", "copy"], command].concat());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{command:?}: {message}");
        assert!(message.contains(expected), "{command:?}: {message}");
    }
    let missing = evoke.run(&["events", "--offline", "nowhere"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is no store at nowhere/evoke.db"), "{missing:?}");
}

#[test]
fn a_stopped_store_in_a_folder_that_cannot_be_written_is_read() {
    let mut evoke = Evoke::up_with(ORDERS);
    evoke.post_accepted("/checkout", r#"{"customer":"ada","total":42,"items":["book"]}"#);
    evoke.settle();
    let events = evoke.stdout(&["events", "--json"]);
    assert!(evoke.stop().success());
    std::fs::rename(evoke.path(".evoke"), evoke.path("50% off?#")).unwrap();
    evoke.respect_permissions();
    let permit = |mode| std::fs::set_permissions(evoke.path("50% off?#"), Permissions::from_mode(mode)).unwrap();
    permit(0o500);
    assert_eq!(evoke.stdout(&["events", "--json", "--offline", "50% off?#"]), events);
    assert!(evoke.stdout(&["check", "--offline", "50% off?#"]).contains("complete and undamaged"));
    permit(0o700);
}

#[test]
fn a_running_store_is_read_offline_too() {
    let evoke = Evoke::up_with(ORDERS);
    evoke.post_accepted("/checkout", r#"{"customer":"ada","total":42,"items":["book"]}"#);
    evoke.settle();
    assert_eq!(evoke.stdout(&["events", "--offline", ".evoke"]), evoke.stdout(&["events"]));
    evoke.post_accepted("/checkout", r#"{"customer":"bob","total":42,"items":["book"]}"#);
    evoke.settle();
    evoke.stdout(&["check"]);
}

#[test]
fn the_console_shows_a_backup_and_can_change_nothing() {
    let evoke = Evoke::up_with(ORDERS);
    evoke.post_accepted("/checkout", r#"{"customer":"bob","total":0,"items":["book"]}"#);
    evoke.settle();
    evoke.stdout(&["backup", "copy/"]);
    let before = files(&evoke.path("copy"));
    let mut command = evoke.command(&["console", "--offline", "copy", "--no-open"]);
    let mut console = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut link = String::new();
    let mut output = BufReader::new(console.stdout.take().unwrap());
    output.read_line(&mut link).unwrap();
    let (address, code) = link.trim().strip_prefix("http://").unwrap().split_once("/#code=").unwrap();
    let json_type = ("content-type", "application/json");
    let code = json!({ "code": code }).to_string();
    let opened = request("POST", address, "/api/v1/console/session", &[json_type], &code).unwrap();
    assert_eq!((opened.status, &opened.json()["role"]), (201, &json!("viewer")), "{opened:?}");
    let cookie = opened.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let key = opened.json()["key"].as_str().unwrap().to_owned();
    let headers = [json_type, ("cookie", cookie.as_str()), ("x-evoke-console", key.as_str())];
    let send = |method, path, body| request(method, address, path, &headers, body).unwrap();
    let page = send("GET", "/api/v1/console/events?state=failed", "").json();
    assert_eq!(page["rows"][0]["deliveries"]["dead"], 1, "{page}");
    for path in ["/api/v1/dead/redrive", "/api/v1/events", "/api/v1/pause"] {
        assert_eq!(send("POST", path, r#"{"all":true}"#).status, 403, "{path}");
    }
    // A request without the session is refused.
    assert_eq!(request("GET", address, "/api/v1/status", &[], "").unwrap().status, 401);
    signal(console.id(), Signal::TERM);
    assert!(console.wait().unwrap().success());
    assert_eq!(files(&evoke.path("copy")), before, "nothing was written");
}
