//! A delivery that ends the process is given up after the second time; others continue. The library `faults/shim.c` ends
//! the process when a function logs a text, which no component can do by itself.

use std::os::unix::process::ExitStatusExt as _;

use serde_json::{Value, json};

use crate::assert_eventually;
use crate::faults::shim::Shim;
use crate::support::{Evoke, post};

/// At this text in the log the process aborts.
const MARK: &str = "abort-the-process";

/// A command that logs its event and then sleeps for an hour, so that it runs when its log line is written.
const LOG_AND_SLEEP: &str = r#"
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 64) "\n")
  (func (export "_start")
    (local $length i32)
    (block $end
      (loop $more
        (i32.store (i32.const 0) (i32.add (i32.const 1024) (local.get $length)))
        (i32.store (i32.const 4) (i32.const 4096))
        (br_if $end (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (br_if $end (i32.eqz (i32.load (i32.const 8))))
        (local.set $length (i32.add (local.get $length) (i32.load (i32.const 8))))
        (br $more)))
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 1))
    (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
    ;; A subscription to the monotonic clock: 3,600 seconds.
    (i32.store (i32.const 144) (i32.const 1))
    (i64.store (i32.const 152) (i64.const 3600000000000))
    (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 320)))))
"#;

const MANIFEST: &str = "
evoke: 1
app: lab
sources:
  work:
    http: { path: /work, type: lab.work }
  kill:
    http: { path: /kill, type: lab.kill }
functions:
  killer:
    component: killer.wat
    on:
      - events: { type: [lab.kill] }
    timeout: 1h
  worker:
    component: $FUNCTIONS/witness.wasm
    on:
      - events: { type: [lab.work] }
  watcher:
    component: $FUNCTIONS/echo.wasm
    allow: { publish: [echo] }
    on:
      - events: { type: [evoke.delivery.dead] }
";

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn new() -> Evoke {
    let manifest = MANIFEST.replace(
        "component: $FUNCTIONS/witness.wasm",
        "component: $FUNCTIONS/witness.wasm\n    allow: { publish: [witnessed] }",
    );
    let evoke = Evoke::with(&manifest);
    std::fs::write(evoke.path("killer.wat"), LOG_AND_SLEEP).unwrap();
    evoke
}

/// Starts Evoke until it does not end by itself any more. Returns the number of starts that ended with SIGABRT.
fn start_until_stable(evoke: &mut Evoke, is_over: impl Fn(&Evoke) -> bool) -> usize {
    for aborts in 0..20 {
        let shim = Shim::for_data_of(evoke).aborting_at(MARK);
        let status = match evoke.try_up(&[], shim.environment()) {
            Err(status) => status,
            Ok(()) => {
                assert_eventually!(evoke.has_ended() || is_over(evoke), "stuck: {}", evoke.log());
                if !evoke.has_ended() {
                    return aborts;
                }
                evoke.wait()
            }
        };
        assert_eq!(status.signal(), Some(rustix::process::Signal::ABORT.as_raw()), "{}", evoke.log());
    }
    panic!("the process still ends: {}", evoke.log());
}

fn dead(evoke: &Evoke) -> Vec<Value> {
    evoke.json_lines(&["dead", "list"])
}

#[test]
fn a_delivery_that_ends_the_process_twice_is_given_up_and_its_neighbours_are_done() {
    let mut evoke = new();
    let shim = Shim::for_data_of(&evoke).aborting_at(MARK);
    evoke.try_up(&[], shim.environment()).unwrap();
    let http = evoke.http().to_owned();
    for n in 0..40 {
        let body = json!({ "n": n, "ms": 300 }).to_string();
        assert_eq!(evoke.post("/work", &body).status, 202);
    }
    // The process may end before its response.
    let _ = post(&http, "/kill", JSON, &json!({ "do": MARK }).to_string());
    assert_eventually!(evoke.has_ended(), "the process goes on: {}", evoke.log());
    evoke.wait();
    let more = start_until_stable(&mut evoke, |evoke| evoke.is_settled());
    assert_eq!(more, 1, "the second end is the last one: {}", evoke.log());

    let letters = dead(&evoke);
    assert_eq!(letters.len(), 1, "{letters:#?}");
    let delivery = &letters[0]["delivery"];
    assert_eq!((&delivery["function"], &delivery["attempts"][0]["outcome"]), (&json!("lab/killer"), &json!("crashed")));
    assert!(delivery["cause"].as_str().unwrap().starts_with("crashed: Evoke ended 2 times"), "{delivery}");
    assert_eq!(evoke.events("witnessed").len(), 40);
    let reports = evoke.events("evoke.delivery.dead");
    assert_eq!((reports.len(), &reports[0]["data"]["outcome"]), (1, &json!("crashed")));
    assert_eq!(evoke.events("echo").len(), 1);

    // The operator sees what ran at the last end, until the next clean stop.
    let status = evoke.json(&["status"]);
    let functions = status["unclean_exit"]["deliveries"].as_array().unwrap();
    assert!(functions.iter().any(|one| one["function"] == "lab/killer"), "{status:#}");
    assert!(
        evoke.stdout(&["status"]).contains("the previous process of Evoke ended without a clean stop"),
        "{status:#}"
    );
    assert!(evoke.stop().success(), "{}", evoke.log());
    evoke.stdout(&["check"]);

    // A redriven delivery may end the process once more.
    evoke.up();
    assert_eq!(evoke.json(&["status"])["unclean_exit"], Value::Null);
    assert!(evoke.stop().success(), "{}", evoke.log());
    let shim = Shim::for_data_of(&evoke).aborting_at(MARK);
    evoke.try_up(&[], shim.environment()).unwrap();
    // The process may end before its response.
    evoke.run(&["dead", "redrive", "--all"]);
    assert_eventually!(evoke.has_ended(), "the process goes on: {}", evoke.log());
    evoke.wait();
    assert_eq!(start_until_stable(&mut evoke, |evoke| evoke.is_settled()), 0);
    assert_eq!(dead(&evoke).len(), 1);
    evoke.stdout(&["check"]);
}

#[test]
fn several_deliveries_that_end_the_process_are_given_up_one_after_another() {
    let mut evoke = new();
    evoke.up();
    // All of them are accepted before one of them ends the process.
    for n in 0..3 {
        evoke.post_accepted("/kill", &json!({ "do": MARK, "n": n }).to_string());
    }
    for n in 0..200 {
        evoke.post_accepted("/work", &json!({ "n": n, "ms": 5 }).to_string());
    }
    evoke.kill();
    start_until_stable(&mut evoke, |evoke| evoke.is_settled());
    let letters = dead(&evoke);
    assert!(letters.iter().all(|letter| letter["delivery"]["function"] == "lab/killer"), "{letters:#?}");
    assert_eq!((letters.len(), evoke.events("witnessed").len()), (3, 200));
    assert!(evoke.stop().success(), "{}", evoke.log());
    evoke.stdout(&["check"]);
}

const PAGE: &str = "
evoke: 1
app: lab
functions:
  page:
    component: $FUNCTIONS/http-answer.wasm
    timeout: 1m
    on:
      - http: { path: /page, methods: [GET] }
";

#[test]
fn status_names_the_function_whose_request_ran_when_the_process_ended() {
    let mut evoke = Evoke::up_with(PAGE);
    let http = evoke.http().to_owned();
    assert_eq!(crate::support::request("GET", &http, "/page", &[], "").unwrap().status, 200);
    let request = std::thread::spawn(move || crate::support::request("GET", &http, "/page?spin", &[], ""));
    let logs = || evoke.stdout(&["logs"]);
    assert_eventually!(logs().contains("spinning"), "{}", evoke.log());
    evoke.kill();
    assert!(request.join().unwrap().is_err());
    evoke.up();
    assert_eq!(evoke.json(&["status"])["unclean_exit"]["requests"], json!(["lab/page"]));
    assert!(evoke.stdout(&["status"]).contains("it was running requests of lab/page"));
    assert!(evoke.log().contains("HTTP requests of [lab/page]"), "{}", evoke.log());
}

#[test]
fn status_names_the_function_that_still_ran_after_its_response_when_the_process_ended() {
    let mut evoke = Evoke::up_with(PAGE);
    let response = crate::support::request("GET", evoke.http(), "/page?linger", &[], "").unwrap();
    assert_eq!(response.status, 200);
    assert_eventually!(evoke.stdout(&["logs"]).contains("lingering"), "{}", evoke.log());
    evoke.kill();
    evoke.up();
    assert_eq!(evoke.json(&["status"])["unclean_exit"]["requests"], json!(["lab/page"]));
}
