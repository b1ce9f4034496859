//! Signals: a reload by SIGHUP, the end of a terminal, a second stop signal, and signals that change nothing. Also what
//! happens when standard error cannot be written.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::assert_eventually;
use crate::support::{Evoke, get, post, signal};

const LAB: &str = r#"
evoke: 1
app: lab
sources:
  in:
    http: { path: /in, methods: [POST], type: order.placed }
functions:
  witness:
    component: $FUNCTIONS/witness.wasm
    timeout: 10m
    on: [{ events: { type: [order.placed] } }]
    allow: { publish: [witnessed] }
"#;

#[test]
fn a_hangup_reloads_the_manifests_and_other_signals_change_nothing() {
    let mut evoke = Evoke::up_with(LAB);
    evoke.write_manifest(&LAB.replace("/in", "/new"));
    signal(evoke.pid(), Signal::HUP);
    assert_eventually!(evoke.log().contains("reloaded"), "{}", evoke.log());
    assert!(evoke.log().contains("SIGHUP was received"), "{}", evoke.log());
    evoke.post_accepted("/new", "{}");

    evoke.write_manifest("evoke: 1\napp: lab\nsource: {}\n");
    signal(evoke.pid(), Signal::HUP);
    assert_eventually!(evoke.log().contains("the previous manifests stay active"), "{}", evoke.log());
    for ignored in [Signal::USR1, Signal::USR2, Signal::PIPE] {
        signal(evoke.pid(), ignored);
    }
    // A stopped process continues.
    signal(evoke.pid(), Signal::TSTP);
    signal(evoke.pid(), Signal::CONT);
    evoke.post_accepted("/new", "{}");
    evoke.settle();
    assert!(evoke.stop().success(), "{}", evoke.log());
}

#[test]
fn a_second_stop_signal_ends_the_drain_at_once_and_the_running_delivery_stays_pending() {
    for second in [Signal::TERM, Signal::INT] {
        let mut evoke = Evoke::up_with(LAB);
        evoke.post_accepted("/in", r#"{"ms":500000}"#);
        let running = || evoke.json(&["status"])["functions"][0]["running"] == 1;
        assert_eventually!(running(), "{}", evoke.log());
        evoke.terminate();
        assert_eventually!(evoke.log().contains("draining"), "{}", evoke.log());
        signal(evoke.pid(), second);
        assert_eq!(evoke.wait().code(), Some(1), "{}", evoke.log());
        assert!(evoke.log().contains("1 delivery was running and stays pending: it runs again"), "{}", evoke.log());
        assert_eq!(evoke.delivery_count("ready"), 1);
        assert!(!evoke.path(".evoke/listen.json").exists());
        // The operator ended the delivery; it did not end the process.
        evoke.up();
        assert!(evoke.json(&["status"])["unclean_exit"].is_null(), "{}", evoke.log());
        assert!(!evoke.log().contains("without a clean stop"), "{}", evoke.log());
    }
}

/// Returns a description of each process that runs in a folder: its signals, and its standard input, output and error.
fn processes_in(folder: &Path) -> Vec<String> {
    let folder = folder.canonicalize().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let in_folder = processes.filter(|process| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == folder));
    in_folder
        .map(|process| {
            let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
            let kept = ["Name", "State", "PPid", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"];
            let status: Vec<_> =
                status.lines().filter(|line| kept.iter().any(|name| line.starts_with(&format!("{name}:")))).collect();
            let descriptors = [0, 1, 2].map(|number| std::fs::read_link(process.join(format!("fd/{number}"))).ok());
            let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
            format!("{status:?}, {descriptors:?}, {stat}")
        })
        .collect()
}

#[test]
fn a_terminal_that_closes_stops_evoke_and_loses_nothing() {
    let mut evoke = Evoke::with(LAB);
    let up = evoke.command(&["up", "evoke.yaml", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let words = std::iter::once(up.get_program()).chain(up.get_args()).map(|word| word.to_str().unwrap());
    // `script` runs a shell with the program in a terminal of its own, and writes the output to a file. `-q` turns its
    // messages off. When the terminal closes, the shell gets SIGHUP and ends, and only then does the program get it. If
    // the tests were started by `nohup`, the shell would ignore SIGHUP without this option of `env`.
    let mut terminal = Command::new("env");
    terminal.args([
        "--default-signal=HUP",
        "script",
        "-q",
        "-f",
        "-e",
        "-c",
        &words.collect::<Vec<_>>().join(" "),
        "terminal",
    ]);
    let mut terminal =
        terminal.current_dir(evoke.path(".")).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let listen = evoke.path(".evoke/listen.json");
    let address = |name: &str| {
        let text = std::fs::read_to_string(&listen).unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(&text).ok().map(|json| json[name].as_str().unwrap().to_owned())
    };
    assert_eventually!(address("http").is_some(), "not up");
    let json = [("content-type", "application/json")];
    assert_eq!(post(&address("http").unwrap(), "/in", &json, "{}").unwrap().status, 202);
    // The system closes the terminal.
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    let status = || evoke.command(&["status"]).output();
    let output = || std::fs::read_to_string(evoke.path("terminal"));
    assert_eventually!(
        !listen.exists(),
        "Evoke did not stop: {:?}, {:?}, {:?}, {:#?}",
        output(),
        status(),
        address("admin").map(|admin| get(&admin, "/readyz")),
        processes_in(&evoke.path("."))
    );
    // The folder is locked until the process has ended.
    assert_eventually!(evoke.try_up(&[], &[]).is_ok(), "{}", evoke.log());
    assert!(!evoke.log().contains("without a clean stop"), "{}", evoke.log());
    evoke.settle();
    assert_eq!(evoke.events("witnessed").len(), 1);
}

#[test]
fn a_standard_error_that_cannot_be_written_ends_nothing() {
    let mut evoke = Evoke::with(LAB);
    let mut up = evoke.command(&["up", "evoke.yaml", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut process = up.env("EVOKE_LOG", "debug").stdout(full()).stderr(full()).spawn().unwrap();
    let listen = evoke.path(".evoke/listen.json");
    assert_eventually!(listen.exists(), "not up: {:?}", process.try_wait());
    signal(process.id(), Signal::TERM);
    assert!(process.wait().unwrap().success());
    evoke.up();
    assert!(!evoke.log().contains("without a clean stop"), "{}", evoke.log());
    // The exit code is right even if the error message cannot be printed.
    let failing = evoke.command(&["validate", "missing.yaml"]).stderr(full()).status().unwrap();
    assert_eq!(failing.code(), Some(1));
}
