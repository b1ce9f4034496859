//! Deliveries to an endpoint that records, while Evoke is killed at random moments and the endpoint is down for a time.
//!
//! The long form, with 20 rounds of up to 12 kills and an outage of a minute, is
//! `EVOKE_CAMPAIGN=long cargo test --release -p evoke --test blackbox deliver::campaign -- --nocapture`.
//! `EVOKE_SEED=…` repeats the random choices of an earlier run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::endpoint::Endpoint;
use super::{numbers_by_key, send, up};
use crate::assert_eventually;
use crate::faults::random::{Random, size};
use crate::support::Evoke;

const EVENTS: u64 = 1_000;
const KEYS: u64 = 50;

/// Posts the events while the function is paused, so that all are pending when it resumes.
fn post_all(evoke: &Evoke) {
    evoke.stdout(&["pause", "lab/send"]);
    for n in 0..EVENTS {
        evoke.post_accepted("/in", &json!({ "key": n % KEYS, "n": n }).to_string());
    }
    evoke.stdout(&["resume", "lab/send"]);
}

/// Checks that the endpoint took each event, under one key, and the events of each order key in their order.
fn check(evoke: &Evoke, endpoint: &Endpoint) {
    let received = endpoint.received();
    let taken = received.iter().filter(|request| request.status == 204);
    let mut events: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for request in taken {
        events.entry(request.key()).or_default().insert(request.json()["id"].as_str().unwrap().to_owned());
    }
    // A receiver that handles each key once handles each event once.
    assert_eq!(events.len() as u64, EVENTS, "{} requests", received.len());
    assert!(events.values().all(|ids| ids.len() == 1));
    assert_eq!(events.values().flatten().collect::<BTreeSet<_>>().len() as u64, EVENTS);
    for (key, numbers) in numbers_by_key(&received) {
        assert_eq!(numbers, (0..EVENTS / KEYS).map(|n| n * KEYS + key).collect::<Vec<_>>(), "key {key}");
    }
    let function = send(evoke);
    assert_eq!((&function["done"], &function["dead"]), (&json!(EVENTS), &json!(0)));
    evoke.stdout(&["check"]);
}

#[test]
fn kills_during_a_thousand_deliveries_lose_none_and_each_keeps_its_key() {
    let mut random = Random::new(Random::seed("deliver::campaign"));
    let (rounds, kills_max) = (size(1, 20), size(6, 12));
    let (mut kills, mut requests) = (0, 0);
    for _ in 0..rounds {
        let endpoint = Endpoint::start(|_| {
            // So that every kill finds requests in progress.
            std::thread::sleep(Duration::from_millis(4));
            (204, Vec::new(), String::new())
        });
        let mut evoke = up(&endpoint.url("/"), "", "    order_by: data.key\n    concurrency: 8");
        post_all(&evoke);
        for _ in 0..kills_max {
            let more = random.below(2 * EVENTS as usize / kills_max);
            let at = endpoint.count() + more;
            assert_eventually!(endpoint.count() >= at || send(&evoke)["done"] == EVENTS, "{}", evoke.log());
            evoke.kill();
            kills += 1;
            evoke.up();
            if send(&evoke)["done"] == EVENTS {
                break;
            }
        }
        evoke.settle();
        check(&evoke, &endpoint);
        requests += endpoint.count();
    }
    println!("{rounds} rounds of {EVENTS} deliveries: {kills} kills, {requests} requests, 0 lost");
}

#[test]
fn kills_during_an_outage_lose_nothing_and_keep_the_order_of_each_key() {
    let mut random = Random::new(Random::seed("deliver::campaign, outage"));
    let is_down = Arc::new(AtomicBool::new(false));
    let down = is_down.clone();
    let endpoint = Endpoint::start(move |_| {
        std::thread::sleep(Duration::from_millis(2));
        (if down.load(Ordering::SeqCst) { 503 } else { 204 }, Vec::new(), String::new())
    });
    let mut evoke = up(&endpoint.url("/"), "", "    order_by: data.key\n    concurrency: 8");
    post_all(&evoke);
    assert_eventually!(endpoint.count() > 200, "{}", evoke.log());
    is_down.store(true, Ordering::SeqCst);
    let outage = Duration::from_secs(size(3, 60) as u64);
    let (began, mut kills) = (Instant::now(), 0);
    while began.elapsed() < outage {
        // The next failed request, which is a probe when the circuit is open.
        let before = endpoint.count();
        assert_eventually!(endpoint.count() > before || began.elapsed() >= outage, "{}", evoke.log());
        if random.percent(30) {
            evoke.kill();
            kills += 1;
            evoke.up();
        }
    }
    is_down.store(false, Ordering::SeqCst);
    evoke.settle();
    check(&evoke, &endpoint);
    println!("an outage of {outage:?}: {kills} kills, {} requests, 0 lost", endpoint.count());
}
