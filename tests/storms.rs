//! Functions that publish to each other without end are stopped, and everything else continues.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::assert_eventually;
use crate::support::Evoke;

/// A command that publishes two events of type `storm` for each event that it gets.
const DOUBLE: &str = r#"
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "{\"type\":\"storm\",\"data\":1}\n{\"type\":\"storm\",\"data\":2}\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 52))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
"#;

const MANIFEST: &str = "
evoke: 1
app: lab
sources:
  in:
    http: { path: /in, type: lab.in }
  other:
    http: { path: /other, type: lab.other }
functions:
  first:
    component: double.wat
    allow: { publish: [storm] }
    on:
      - events: { type: [lab.in] }
  second:
    component: double.wat
    allow: { publish: [storm] }
    on:
      - events: { type: [storm] }
  quiet:
    component: $FUNCTIONS/echo.wasm
    allow: { publish: [echo] }
    on:
      - events: { type: [lab.other] }
";

fn new() -> Evoke {
    let evoke = Evoke::with(MANIFEST);
    std::fs::write(evoke.path("double.wat"), DOUBLE).unwrap();
    evoke
}

fn dead(evoke: &Evoke) -> Vec<Value> {
    evoke.json_lines(&["dead", "list", "--limit", "10000"])
}

#[test]
fn a_storm_ends_at_the_limit_of_its_event_and_sources_accept_events_at_once() {
    let mut evoke = new();
    evoke.up_with_arguments(&["--pending-max", "12000"]);
    evoke.post_accepted("/in", "{}");
    evoke.settle();
    assert_eq!(evoke.events("storm").len(), 10_000);
    let letters = dead(&evoke);
    // Each of the 10,000 deliveries published two events or was given up.
    assert_eq!(letters.len(), 10_001 - 5_000);
    let delivery = &letters[0]["delivery"];
    let cause = delivery["cause"].as_str().unwrap();
    assert!(cause.starts_with("loop: event 1 caused 10000 events"), "{cause}");
    assert!(cause.contains("lab/first → lab/second → lab/second"), "{cause}");
    assert_eq!(delivery["attempts"][0]["outcome"], "loop");
    evoke.post_accepted("/other", "{}");
    evoke.settle();
    assert_eq!(evoke.events("echo").len(), 1);
    evoke.stdout(&["check"]);
    assert!(evoke.stop().success(), "{}", evoke.log());
}

#[test]
fn the_limit_holds_across_kills_and_another_event_has_a_limit_of_its_own() {
    let mut evoke = new();
    let limits = ["--descendants-max", "2000"];
    for round in 0..3 {
        evoke.up_with_arguments(&limits);
        if round == 0 {
            evoke.post_accepted("/in", "{}");
        }
        let before = evoke.events("storm").len();
        assert_eventually!(evoke.events("storm").len() > before || evoke.is_settled(), "stuck: {}", evoke.log());
        evoke.kill();
    }
    evoke.up_with_arguments(&limits);
    evoke.settle();
    assert_eq!(evoke.events("storm").len(), 2_000);
    let number = evoke.post("/in", "{}").json()["events"][0]["seq"].clone();
    evoke.settle();
    assert_eq!(evoke.events("storm").len(), 4_000, "{number}");
    let letters = dead(&evoke);
    // A delivery that ran at two of the kills is given up too.
    let cause = |letter: &Value| letter["delivery"]["cause"].as_str().unwrap().to_owned();
    let is_expected = |cause: String| cause.starts_with("loop: event ") || cause.starts_with("crashed: ");
    assert!(letters.iter().map(cause).all(is_expected), "{letters:#?}");
    evoke.stdout(&["check"]);
}

#[test]
fn the_size_of_the_events_is_limited_too_and_the_report_of_a_loop_is_stored() {
    let mut evoke = new();
    evoke.up_with_arguments(&["--descendants-bytes-max", "20KiB"]);
    evoke.post_accepted("/in", "{}");
    evoke.settle();
    let storm = evoke.events("storm").len();
    assert!((20..400).contains(&storm), "{storm} events");
    let letters = dead(&evoke);
    assert_eq!(letters.len(), storm + 1 - storm / 2);
    let reports = evoke.events("evoke.delivery.dead");
    assert_eq!(reports.len(), letters.len());
    assert_eq!(reports[0]["data"]["outcome"], json!("loop"));
    evoke.stdout(&["check"]);
}

/// The storm is five times as large as the backlog, of which it takes half from the other sources.
#[test]
fn during_a_storm_other_sources_are_accepted_and_after_it_its_own_source_too() {
    let mut evoke = new();
    evoke.up_with_arguments(&["--pending-max", "2000"]);
    evoke.post_accepted("/in", "{}");
    let ended = || {
        let second = evoke.function_status("lab/second");
        let count = |state: &str| second[state].as_u64().unwrap();
        (count("done") + count("dead"), count("ready") + count("retrying"))
    };
    let (mut accepted, mut refused, mut largest) = (0, 0, 0);
    loop {
        for _ in 0..10 {
            evoke.post_accepted("/other", "{}");
            accepted += 1;
        }
        let (done, pending) = ended();
        largest = pending.max(largest);
        if done == 10_000 {
            break;
        }
        // The source of the storm owns more than is free. Near its end, the storm may have shrunk meanwhile.
        if pending > 2_000 {
            match evoke.post("/in", "{}").status {
                429 => refused += 1,
                202 if done > 5_000 => break,
                status => panic!("{status} with {pending} pending deliveries after {done}"),
            }
        }
    }
    let end = Instant::now();
    assert_eventually!(evoke.post("/in", "{}").status == 202, "refused after the storm: {}", evoke.log());
    assert!(end.elapsed() < Duration::from_secs(1), "{:?}", end.elapsed());
    assert!(accepted > 10 && refused > 0 && largest > 2_000, "{accepted} {refused} {largest}");
}

#[test]
fn the_limits_of_an_app_hold_for_chains_through_its_sources_and_change_with_a_reload() {
    let limits = |events: u32| format!("{MANIFEST}limits: {{ descendants: {events}, descendants_bytes: 1MiB }}\n");
    let mut evoke = Evoke::with(&limits(300));
    std::fs::write(evoke.path("double.wat"), DOUBLE).unwrap();
    let other = MANIFEST.replace("app: lab", "app: other").replace("lab.", "other.").replace("path: /", "path: /b-");
    let other = other.replace("storm", "gale").replace("double.wat", "gale.wat");
    let functions = crate::support::components().display().to_string();
    std::fs::write(evoke.path("other.yaml"), other.replace("$FUNCTIONS", &functions)).unwrap();
    std::fs::write(evoke.path("gale.wat"), DOUBLE.replace("storm", "gale").replace("(i32.const 52)", "(i32.const 50)"))
        .unwrap();
    evoke.up_with_arguments(&["other.yaml", "--descendants-max", "100", "--watch"]);
    evoke.post_accepted("/in", "{}");
    evoke.post_accepted("/b-in", "{}");
    evoke.settle();
    assert_eq!((evoke.events("storm").len(), evoke.events("gale").len()), (300, 100));
    let cause = dead(&evoke)[0]["delivery"]["cause"].as_str().unwrap().to_owned();
    assert!(cause.contains("`limits` (`descendants`, `descendants_bytes`)"), "{cause}");
    // The path changes together with the limit, so that the test knows when the manifest is active.
    evoke.write_manifest(&limits(40).replace("path: /in", "path: /new"));
    assert_eventually!(evoke.post("/new", "{}").status == 202, "{}", evoke.log());
    evoke.settle();
    assert_eq!(evoke.events("storm").len(), 340);
    evoke.stdout(&["check"]);
}

#[test]
fn a_chain_that_leaves_through_a_request_and_comes_back_through_a_source_is_stopped() {
    let source = "
evoke: 1
app: lab
sources:
  in: { http: { path: /in, type: lab.in } }
";
    let mut evoke = Evoke::with(source);
    evoke.up_with_arguments(&["--watch"]);
    let url = format!("http://{}/in", evoke.http());
    // Each request has a body of its own, so its event has an id of its own.
    evoke.write_manifest(&format!(
        "{source}
functions:
  again:
    deliver: {{ url: \"{url}\", addresses: [127.0.0.1], body: {{ n: 1 }} }}
    on: [{{ source: in }}]
"
    ));
    assert_eventually!(evoke.log().contains("added lab/again"), "{}", evoke.log());
    evoke.post_accepted("/in", "{}");
    assert_eventually!(!dead(&evoke).is_empty(), "{}", evoke.log());
    evoke.settle();
    let letters = dead(&evoke);
    assert_eq!((letters.len(), evoke.events("lab.in").len()), (1, 65));
    let letter = letters[0].to_string();
    assert!(letter.contains("508 Loop Detected") && letter.contains("more than 64 functions"), "{letter}");

    // A sender cannot lengthen the chains of others, and a number that is none is a mistake.
    for (hops, status) in [("64", 202), ("65", 508), ("-1", 400)] {
        assert_eq!(evoke.post_with("/in", &[("evoke-hops", hops)], "{}").status, status, "{hops}");
    }
    evoke.settle();
    assert_eq!((dead(&evoke).len(), evoke.events("lab.in").len()), (2, 66));
    evoke.stop();
    evoke.stdout(&["check"]);
}
