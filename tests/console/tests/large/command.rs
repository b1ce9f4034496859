//! The commands, on a terminal: a search then shows its progress.

use std::io::Read as _;

use super::fill::Filled;
use super::{Report, Timer};
use crate::support::Evoke;

pub(super) fn measure(evoke: &Evoke, filled: &Filled, report: &mut Report) {
    report.head("commands on a terminal");
    let id = filled.first["event"]["id"].as_str().unwrap().to_owned();
    let (middle, dead) = ((filled.events / 2).to_string(), filled.dead.to_string());
    let pattern = r#"{"type":["alarm.raised"],"data":{"word":["needle"]}}"#;
    // With a word that the output has.
    for (arguments, word) in [
        (vec!["status"], "shop/charge"),
        (vec!["events"], "/shop/"),
        (vec!["events", "--newest-first", "-n", "20"], "/shop/"),
        (vec!["events", "--type", "sensor.pressure"], "sensor.pressure"),
        (vec!["events", "--type", "alarm.*"], "alarm.raised"),
        (vec!["events", "--type", "alarm.raised", "--newest-first"], "alarm.raised"),
        (vec!["events", "--type", "nothing"], "no events"),
        (vec!["events", "--source", "/nowhere"], "no events"),
        (vec!["events", "--function", "shop/receipt"], "payment.taken"),
        (vec!["events", "--function", "shop/idle"], "no events"),
        (vec!["events", "--since", "1s", "-n", "20"], ""),
        (vec!["events", "--since", "30d", "--type", "alarm.raised"], "alarm.raised"),
        (vec!["events", "--pattern", pattern], "needle"),
        (vec!["events", "--text", "zebra"], "no events"),
        (vec!["event", &middle], &middle),
        (vec!["event", &id], &id),
        (vec!["trace", "1"], "evoke.function.paused"),
        (vec!["explain", &middle], ""),
        (vec!["dead", "list"], "shop/"),
        (vec!["dead", "list", "--function", "shop/refuse"], "is not accepted"),
        (vec!["dead", "list", "--function", "shop/idle"], "no dead letters"),
        (vec!["dead", "list", "--cause", "nothing"], "no dead letters"),
        (vec!["dead", "list", "--group"], "shop/refuse"),
        (vec!["dead", "show", &dead], "cause"),
        (vec!["pending", "list"], "shop/"),
        (vec!["pending", "list", "--state", "blocked"], "shop/ledger"),
        (vec!["pending", "list", "--state", "retrying"], "shop/gateway"),
        (vec!["pending", "list", "--function", "shop/audit"], "shop/audit"),
        (vec!["pending", "list", "--root", "1"], ""),
        (vec!["pending", "list", "--scheduled"], ""),
        (vec!["logs"], "shop/"),
        (vec!["logs", "--function", "shop/notify", "-n", "20"], "shop/notify"),
        (vec!["replay", "--type", "alarm.raised", "--dry-run"], ""),
        (vec!["state", "list"], ""),
    ] {
        let mut timer = Timer::start();
        let mut process = evoke.on_terminal(&arguments);
        let mut output = process.stdout.take().unwrap();
        let (mut text, mut buffer) = (Vec::new(), [0; 1 << 14]);
        loop {
            match output.read(&mut buffer).unwrap() {
                0 => break,
                read => text.extend_from_slice(&buffer[..read]),
            }
            timer.part();
        }
        let timing = timer.end();
        let (name, text) = (arguments.join(" "), String::from_utf8_lossy(&text));
        assert!(process.wait().unwrap().success(), "{name}: {text}");
        assert!(text.contains(word), "{name} prints no {word:?}: {text}");
        report.row(&name, timing, text.lines().count() as u64);
    }
}
