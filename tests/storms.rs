//! Functions that publish to each other without end are stopped, and everything else continues.

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
