//! Functions that compute or wait without end do not slow down or lock out their neighbours, and leave no memory behind.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::assert_eventually;
use crate::hostile::{hostile, http_component};
use crate::support::{Evoke, OnDrop, descriptors, request};
use crate::telemetry::scrape;

const SPIN: &str = "(loop (br 0)) unreachable";
const SLEEP: &str = "(call $block (call $in (i64.const -1))) (i32.const 1024)";
/// Computes for about half a millisecond, waits for a millisecond, and so on.
const ALTERNATE: &str = "(local $n i32) (loop
    (local.set $n (i32.const 500000))
    (loop (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (call $block (call $in (i64.const 1000000))) (br 0)) unreachable";
/// Computes for some milliseconds and ends.
const SOME_MILLISECONDS: &str = "(local $n i32) (local.set $n (i32.const 5000000))
    (loop (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1))))) (i32.const 1024)";
/// Writes 12 MB of memory.
const LARGE: &str =
    "(drop (memory.grow (i32.const 200))) (memory.fill (i32.const 65536) (i32.const 1) (i32.const 12000000))
    (call $block (call $in (i64.const 1000000))) (i32.const 1024)";

/// Writes almost 1 MB of its memory.
const WARM: &str = "(memory.fill (i32.const 65536) (i32.const 1) (i32.const 900000)) (i32.const 1024)";
/// Pages of the memory of functions that are named `warm`, and the bytes of its data: enough for warm instances.
const WARM_PAGES: u32 = 48;
const WARM_DATA_BYTES: usize = 256 * 1024;

/// Attempts of each hostile function.
const HOSTILE: usize = 64;
/// Deliveries of each neighbour of which one follows after the other is done, all within the time limit of the hostile
/// attempts. If the neighbours starve, they are not done by then.
const ONE_AFTER_THE_OTHER: u64 = 30;
/// Measurements of each latency.
const SAMPLES: usize = 60;

fn handler(name: &str, body: &str) -> String {
    let handler = hostile("", body, ("", ""));
    let wat = if name == "warm" {
        let data = format!(r#"(data (i32.const 1048576) "{}") (global $next"#, "x".repeat(WARM_DATA_BYTES));
        handler.with_pages(WARM_PAGES).wat().replacen("(global $next", &data, 1)
    } else {
        handler.wat()
    };
    // Without imports that may wait, the first try of an attempt is direct.
    let waits = body.contains("$block");
    wat.lines().filter(|line| waits || !line.ends_with(";; wasi")).collect::<Vec<_>>().join("\n")
}

/// A manifest with a neighbour that publishes the time of its entry, an HTTP neighbour, and these functions: handlers
/// by name and body, and an HTTP component that spins.
fn up(handlers: &[(&str, &str)], limits: &str, arguments: &[&str]) -> Evoke {
    let mut manifest = "
evoke: 1
app: lab
functions:
  neighbour:
    component: $FUNCTIONS/entry-time.wasm
    on: [{ http: { path: /neighbour, type: lab.neighbour } }]
    allow: { publish: [entered] }
  web:
    component: $FUNCTIONS/http-hello.wasm
    on: [{ http: { path: /web, methods: [GET] } }]
"
    .to_owned();
    for (name, _) in handlers {
        manifest += &format!(
            "  {name}:\n    component: {name}.wat\n    on: [{{ http: {{ path: /{name}, type: lab.{name} }} }}]\n    \
             concurrency: {HOSTILE}\n    retry: {{ attempts: 1 }}\n    {limits}\n"
        );
    }
    manifest += &format!(
        "  web-spin:\n    component: web-spin.wat\n    on: [{{ http: {{ path: /web-spin, methods: [GET] }} }}]\n    \
         concurrency: {HOSTILE}\n    {limits}\n"
    );
    let mut evoke = Evoke::with(&manifest);
    for (name, body) in handlers {
        std::fs::write(evoke.path(&format!("{name}.wat")), handler(name, body)).unwrap();
    }
    std::fs::write(evoke.path("web-spin.wat"), http_component("(loop (br 0))")).unwrap();
    evoke.up_with_arguments(arguments);
    evoke
}

/// Requests the spinning HTTP component from threads of their own, which end with Evoke.
fn spin_in_requests(evoke: &Evoke, requests: usize) {
    for _ in 0..requests {
        let address = evoke.http().to_owned();
        std::thread::spawn(move || drop(request("GET", &address, "/web-spin", &[], "")));
    }
}

/// The number of instances that run.
fn instances(evoke: &Evoke) -> f64 {
    scrape(evoke).value("evoke_sandbox_instances", &[])
}

fn running(evoke: &Evoke, function: &str) -> u64 {
    evoke.function_status(function)["running"].as_u64().unwrap()
}

/// The latencies of the neighbours.
#[derive(Debug, Default)]
struct Latencies {
    /// From the POST to its 202.
    acknowledged: Vec<Duration>,
    /// From the POST to the entry of the handler.
    handled: Vec<Duration>,
    /// From the GET to the response of the HTTP component.
    responded: Vec<Duration>,
}

impl Latencies {
    /// Measures the latencies. Calls `during` before each sample.
    fn measure(evoke: &Evoke, mut during: impl FnMut()) -> Self {
        let (mut latencies, mut sent) = (Self::default(), Vec::new());
        for _ in 0..SAMPLES {
            during();
            let (at, started) = (SystemTime::now(), Instant::now());
            sent.push((evoke.post_accepted("/neighbour", "{}"), at));
            latencies.acknowledged.push(started.elapsed());
            let started = Instant::now();
            let response = request("GET", evoke.http(), "/web", &[], "").unwrap();
            latencies.responded.push(started.elapsed());
            assert_eq!(response.status, 200, "{response:?}");
        }
        let mut entries = HashMap::new();
        let mut are_handled = || {
            let entry = |event: &Value| Some((event["data"][0].as_str()?.to_owned(), event["data"][1].as_u64()?));
            entries = evoke.events("entered").iter().filter_map(entry).collect();
            sent.iter().all(|(id, _)| entries.contains_key(id))
        };
        assert_eventually!(are_handled(), "not all events of the neighbour are handled");
        for (id, at) in &sent {
            let at = at.duration_since(UNIX_EPOCH).unwrap();
            latencies.handled.push(Duration::from_micros(entries[id]).saturating_sub(at));
        }
        latencies
    }

    /// The latencies that nine of ten samples do not exceed.
    fn p90(&self) -> [Duration; 3] {
        [&self.acknowledged, &self.handled, &self.responded].map(|latencies| {
            let mut latencies = latencies.clone();
            latencies.sort();
            latencies[latencies.len() * 9 / 10]
        })
    }
}

/// Keeps all processors busy with threads of the test while it works.
fn beside_busy_threads<T>(work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = OnDrop(|| stop.store(true, Ordering::Relaxed));
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        work()
    })
}

/// Asserts that the latencies beside hostile functions are not much larger than beside one busy thread for each
/// processor. Both are measured in one run, so a slow machine affects both. Without turns (permissions to run a guest
/// until the next tick), deliveries would take seconds and the HTTP component would be refused.
fn assert_neighbours_are_not_slowed_down(evoke: &Evoke, hostile: &str, mut start: impl FnMut(), during: impl FnMut()) {
    Latencies::measure(evoke, || {});
    let rest = Latencies::measure(evoke, || {}).p90();
    let usual = beside_busy_threads(|| Latencies::measure(evoke, || {})).p90();
    start();
    let beside = Latencies::measure(evoke, during).p90();
    println!("p90 at rest {rest:?}, beside busy threads {usual:?}, beside {hostile} {beside:?}");
    for (usual, beside) in usual.into_iter().zip(beside) {
        let most = usual * 4 + Duration::from_millis(100);
        assert!(beside <= most, "{hostile}: {beside:?} beside the guests, {usual:?} beside busy threads");
    }
}

#[test]
fn neighbours_are_not_slowed_down_by_functions_that_compute_or_alternate() {
    for (name, body) in [("spin", SPIN), ("alternate", ALTERNATE)] {
        let evoke = up(&[(name, body)], "timeout: 120s", &[]);
        let start = || (0..HOSTILE).for_each(|_| drop(evoke.post_accepted(&format!("/{name}"), "{}")));
        assert_neighbours_are_not_slowed_down(&evoke, name, start, || {});
        assert!(running(&evoke, &format!("lab/{name}")) >= 32, "{name} ended");
    }
}

#[test]
fn neighbours_are_not_slowed_down_by_http_components_that_compute() {
    let evoke = up(&[], "timeout: 120s", &[]);
    let start = || {
        spin_in_requests(&evoke, HOSTILE);
        assert_eventually!(instances(&evoke) >= 32.0, "the requests do not run");
    };
    assert_neighbours_are_not_slowed_down(&evoke, "HTTP components that spin", start, || {});
}

#[test]
fn neighbours_are_not_slowed_down_by_a_flood_of_attempts_of_some_milliseconds() {
    let evoke = up(&[("some", SOME_MILLISECONDS)], "timeout: 120s", &[]);
    let flood = |count: usize| (0..count).for_each(|_| drop(evoke.post_accepted("/some", "{}")));
    // The flood adds more attempts than can end between two samples.
    assert_neighbours_are_not_slowed_down(&evoke, "a flood", || flood(200), || flood(3));
}

#[test]
fn neighbours_are_done_one_after_the_other_while_others_compute_without_end_on_a_busy_machine() {
    let evoke = up(&[("spin", SPIN), ("some", SOME_MILLISECONDS)], "timeout: 120s", &[]);
    (0..HOSTILE).for_each(|_| drop(evoke.post_accepted("/spin", "{}")));
    assert_eventually!(running(&evoke, "lab/spin") >= 32, "the hostile attempts do not run");
    beside_busy_threads(|| {
        for done in 1..=ONE_AFTER_THE_OTHER {
            for (path, function) in [("/neighbour", "lab/neighbour"), ("/some", "lab/some")] {
                evoke.post_accepted(path, "{}");
                assert_eventually!(evoke.done_count(function) == done, "delivery {done} of {function} is not done");
            }
        }
    });
    assert_eq!(evoke.delivery_count("dead"), 0, "the hostile attempts have reached their time limit before");
    assert!(running(&evoke, "lab/spin") >= 32);
}

#[test]
fn no_function_takes_all_places_and_requests_and_deliveries_do_not_take_those_of_each_other() {
    let evoke = up(&[("sleep", SLEEP), ("sleep-too", SLEEP)], "timeout: 120s", &["--concurrency", "8"]);
    let post = |name: &str| drop(evoke.post_accepted(&format!("/{name}"), "{}"));
    let neighbours_run = |done: u64| {
        post("neighbour");
        assert_eventually!(evoke.done_count("lab/neighbour") == done, "the neighbour does not run");
        assert_eq!(request("GET", evoke.http(), "/web", &[], "").unwrap().status, 200);
    };
    (0..20).for_each(|_| post("sleep"));
    assert_eventually!(running(&evoke, "lab/sleep") == 7, "{} of 7 run", running(&evoke, "lab/sleep"));
    neighbours_run(1);
    assert_eq!(running(&evoke, "lab/sleep"), 7, "the last place is for functions that run nothing");
    // Requests have instances of their own, and the last one is also reserved for functions that run nothing.
    spin_in_requests(&evoke, 20);
    assert_eventually!(instances(&evoke) >= 14.0, "the requests do not run");
    neighbours_run(2);
    assert_eventually!(instances(&evoke) == 14.0, "requests took the last instance");
    // A function that runs nothing gets the last place for a delivery.
    post("sleep-too");
    assert_eventually!(running(&evoke, "lab/sleep-too") == 1, "the last place is not given");
}

#[test]
fn an_attempt_that_sleeps_ends_at_its_timeout_beside_functions_that_compute() {
    let evoke = up(&[("spin", SPIN), ("sleep", SLEEP)], "timeout: 1s", &[]);
    (0..HOSTILE).for_each(|_| drop(evoke.post_accepted("/spin", "{}")));
    let id = evoke.post_accepted("/sleep", "{}");
    evoke.settle();
    let attempt = &evoke.json(&["trace", &id])["deliveries"][0]["attempts"][0];
    assert_eq!(attempt["outcome"], "timeout", "{attempt}");
    // The limit is 1 s; the rest is for a busy machine.
    assert!((900_000..2_500_000).contains(&attempt["duration_us"].as_u64().unwrap()), "{attempt}");
}

#[test]
fn memory_and_descriptors_return_to_their_values_before_a_flood() {
    let evoke = up(&[("spin", SPIN), ("large", LARGE), ("warm", WARM)], "timeout: 1s\n    memory: 64MiB", &[]);
    let descriptors = || descriptors(evoke.pid());
    // Ordinary events, and each kind of outcome once.
    for path in ["/spin", "/large", "/neighbour"] {
        (0..3).for_each(|_| drop(evoke.post_accepted(path, "{}")));
    }
    for _ in 0..200 {
        evoke.post_accepted("/neighbour", "{}");
        assert_eq!(request("GET", evoke.http(), "/web", &[], "").unwrap().status, 200);
    }
    assert_eq!(request("GET", evoke.http(), "/web-spin", &[], "").unwrap().status, 504);
    evoke.settle();
    let status = std::fs::read_to_string(format!("/proc/{}/status", evoke.pid())).unwrap();
    assert!(status.contains("THP_enabled:\t0"), "huge pages: {status}");
    let before = (evoke.rss_kib(), descriptors());

    let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(900_000));
    for _ in 0..HOSTILE {
        evoke.post_accepted("/spin", "{}");
        evoke.post_accepted("/large", "{}");
        evoke.post_accepted("/warm", "{}");
        evoke.post_accepted("/neighbour", &body);
    }
    evoke.settle();
    let after = || (evoke.rss_kib(), descriptors());
    // Warm instances have not run before, so what they keep until the process is idle would show here.
    // Within a twentieth on a quiet machine; on a busy one, other threads of the pools ran and keep memory.
    assert_eventually!(after().0 <= before.0 + before.0 / 10, "{before:?} KiB and descriptors, then {:?}", after());
    assert_eventually!(after().1 <= before.1 + before.1 / 20, "{before:?} KiB and descriptors, then {:?}", after());
}
