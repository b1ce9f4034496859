//! Deduplication: within the dedup window, events of one source with the same `source` and id are accepted once, also across restarts
//! and kills.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::faults::random::is_long_form;
use crate::support::{Evoke, post, signal};
use crate::{assert_eventually, webhooks};

const MANIFEST: &str = r#"
evoke: 1
app: lab
sources:
  in:
    http: { path: /in, max_body: 4MiB, accept: { types: [lab.in], sources: [/producer] } }
functions:
  fate-done:
    component: $FUNCTIONS/fate-done.wasm
    on:
      - events: { type: [lab.in] }
"#;

const BATCH: &[(&str, &str)] = &[("content-type", "application/cloudevents-batch+json")];
const CLIENTS: usize = 4;

fn batch(ids: &[usize]) -> String {
    let event =
        |id: &usize| json!({ "specversion": "1.0", "id": format!("e{id}"), "source": "/producer", "type": "lab.in" });
    Value::from(ids.iter().map(event).collect::<Vec<_>>()).to_string()
}

/// Every id 2 to 5 times, shuffled, in batches.
fn shuffled_batches(ids: usize, batch_size: usize) -> VecDeque<Vec<usize>> {
    let mut all: Vec<usize> = (0..ids).flat_map(|id| std::iter::repeat_n(id, 2 + id % 4)).collect();
    // A Fisher-Yates shuffle with a fixed seed for xorshift.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..all.len()).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        all.swap(last, usize::try_from(random % (last as u64 + 1)).unwrap());
    }
    all.chunks(batch_size).map(<[usize]>::to_vec).collect()
}

/// Sends batches from several clients until `count` of them are acknowledged or the server shuts down. A batch without
/// a response goes back into the queue. Adds to `fresh` how often each id was reported as new, and calls
/// `on_acknowledged` with the number of acknowledged batches after each one.
fn send(
    address: &str,
    batches: &Mutex<VecDeque<Vec<usize>>>,
    count: usize,
    fresh: &Mutex<HashMap<String, usize>>,
    on_acknowledged: &(impl Fn(usize) + Sync),
) {
    let acknowledged = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while *acknowledged.lock().unwrap() < count {
                    let Some(ids) = batches.lock().unwrap().pop_front() else { return };
                    match post(address, "/in", BATCH, &batch(&ids)) {
                        Ok(response) if [200, 202].contains(&response.status) => {
                            let receipt = response.json();
                            let mut fresh = fresh.lock().unwrap();
                            for event in
                                receipt["events"].as_array().unwrap().iter().filter(|e| e["duplicate"] == false)
                            {
                                *fresh.entry(event["id"].as_str().unwrap().to_owned()).or_default() += 1;
                            }
                            assert_eq!(response.status == 200, receipt["accepted"] == 0, "{receipt}");
                            let mut acknowledged = acknowledged.lock().unwrap();
                            *acknowledged += 1;
                            on_acknowledged(*acknowledged);
                        }
                        // A producer without a response sends again: here after the next start.
                        Ok(response) if response.status == 503 => return batches.lock().unwrap().push_back(ids),
                        Ok(response) => panic!("{response:?}"),
                        Err(_) => return batches.lock().unwrap().push_back(ids),
                    }
                }
            });
        }
    });
}

/// The long form sends 100,000 events: `EVOKE_CAMPAIGN=long cargo test -p evoke --test blackbox dedup`.
#[test]
fn events_sent_two_to_five_times_across_restarts_and_kills_are_stored_and_handled_once() {
    let (ids, batch_size, restarts) = if is_long_form() { (100_000, 500, 12) } else { (3_000, 100, 4) };
    let batches = Mutex::new(shuffled_batches(ids, batch_size));
    let batches_per_run = batches.lock().unwrap().len() / (restarts + 1);
    let fresh = Mutex::default();
    let mut evoke = Evoke::with(MANIFEST);
    for restart in 0..restarts {
        evoke.up();
        let address = evoke.http().to_owned();
        if restart % 2 == 0 {
            send(&address, &batches, batches_per_run, &fresh, &|_| {});
            assert!(evoke.stop().success());
        } else {
            let to_kill = Mutex::new(Some(&mut evoke));
            send(&address, &batches, batches_per_run, &fresh, &|count| {
                if count == batches_per_run / 2
                    && let Some(evoke) = to_kill.lock().unwrap().take()
                {
                    evoke.kill();
                }
            });
        }
    }
    evoke.up();
    send(evoke.http(), &batches, usize::MAX, &fresh, &|_| {});
    assert!(batches.lock().unwrap().is_empty());

    // If the first response was lost, an id is never reported as new; no id is reported as new twice.
    let fresh = fresh.into_inner().unwrap();
    assert!(fresh.values().all(|times| *times == 1), "an id was reported as new more than once");
    evoke.settle();
    let mut stored: Vec<String> =
        evoke.events("lab.in").iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    stored.sort();
    let mut sent: Vec<String> = (0..ids).map(|id| format!("e{id}")).collect();
    sent.sort();
    assert!(stored == sent, "{} stored, {} sent", stored.len(), sent.len());
    assert_eq!(evoke.delivery_count("done"), ids as u64);
}

#[test]
fn an_id_is_accepted_again_after_the_dedup_window() {
    let mut evoke = Evoke::with(MANIFEST);
    evoke.up_with_arguments(&["--dedup-window", "1s"]);
    let send = || post(evoke.http(), "/in", BATCH, &batch(&[1])).unwrap();
    assert_eq!(send().status, 202);
    let started = std::time::Instant::now();
    let again = send();
    // On a slow machine the second event may arrive after the window.
    if started.elapsed().as_millis() < 900 {
        assert_eq!((again.status, &again.json()["duplicates"]), (200, &json!(1)));
    }
    assert_eventually!(send().status == 202, "the id is still a duplicate");
}

#[test]
fn a_user_is_told_that_another_one_has_used_the_id_of_its_event() {
    let users = "{ ada: { env: ADA }, bob: { env: BOB } }";
    let source = format!("http: {{ path: /in, type: lab.in, auth: {{ basic: {{ users: {users} }} }} }}");
    let mut evoke = Evoke::with(&format!("evoke: 1\napp: lab\nsources:\n  in:\n    {source}\n"));
    evoke.set_environment(&[("ADA", "secret-a"), ("BOB", "secret-b")]);
    evoke.up();
    // `ada:secret-a` and `bob:secret-b`.
    let (ada, bob) = ("Basic YWRhOnNlY3JldC1h", "Basic Ym9iOnNlY3JldC1i");
    let send = |sender: &str, id: &str| {
        let headers = [("authorization", sender), ("idempotency-key", id), ("content-type", "application/json")];
        evoke.post_with("/in", &headers, "{}")
    };
    assert_eq!(send(ada, "order-1").status, 202);
    assert_eq!(send(ada, "order-1").json()["duplicates"], 1);
    let refused = send(bob, "order-1");
    assert_eq!((refused.status, &refused.json()["attribute"]), (422, &json!("id")), "{refused:?}");
    assert_eq!(send(bob, "order-2").status, 202);
    assert_eq!(evoke.events("lab.in").len(), 2);
}

#[test]
fn a_dedup_window_in_which_a_signature_outlives_its_id_is_refused() {
    let mut evoke = webhooks::up();
    assert!(evoke.stop().success());
    let window = |window| ["--dedup-window", window];
    let check = evoke.run(&[&["up", "evoke.yaml", "--check"][..], &window("9m")].concat());
    assert!(evoke.try_up(&window("9m"), &[]).is_err());
    for text in [String::from_utf8_lossy(&check.stderr).into_owned(), evoke.log()] {
        for source in ["billing", "stripe", "slack", "dated"] {
            let expected = format!("/hooks/{source} accepts a signed request for 10m, but the dedup window is only 9m");
            assert!(text.contains(&expected), "{expected}: {text}");
        }
        assert!(text.contains("start Evoke with `--dedup-window 10m` or longer"), "{text}");
        assert!(text.contains("or lower `tolerance` to 270s"), "{text}");
        assert_eq!(text.matches("the dedup window is only").count(), 4, "the others sign no time: {text}");
    }
    evoke.up_with_arguments(&window("10m"));
    // A reload is refused, too, and changes nothing.
    evoke.write_manifest(&webhooks::MANIFEST.replace("{ header: X-Time }", "{ header: X-Time, tolerance: 6m }"));
    signal(evoke.pid(), Signal::HUP);
    let refused = || evoke.log().contains("/hooks/dated accepts a signed request for 12m");
    assert_eventually!(refused() && evoke.log().contains("the previous manifests stay active"), "{}", evoke.log());
}
