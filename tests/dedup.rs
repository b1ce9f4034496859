//! A source and id are accepted once within the dedup window, however often they are sent and whatever happens
//! meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::assert_eventually;
use crate::faults::random::long;
use crate::support::{Evoke, post};

const MANIFEST: &str = r#"
evoke: 1
app: lab
sources:
  in:
    http: { path: /in, max_body: 4MiB }
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

/// Every id, 2 to 5 times, in an order without order, in batches.
fn sends(ids: usize, batch_size: usize) -> VecDeque<Vec<usize>> {
    let mut all: Vec<usize> = (0..ids).flat_map(|id| std::iter::repeat_n(id, 2 + id % 4)).collect();
    // A fixed shuffle: xorshift, then Fisher and Yates.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..all.len()).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        all.swap(last, usize::try_from(random % (last as u64 + 1)).unwrap());
    }
    all.chunks(batch_size).map(<[usize]>::to_vec).collect()
}

/// Sends `count` batches from several clients, or until the server goes away; what got no answer is sent again
/// later. `at` is told how many were answered; answers how often each id was answered as new.
fn send(
    address: &str,
    batches: &Mutex<VecDeque<Vec<usize>>>,
    count: usize,
    fresh: &Mutex<HashMap<String, usize>>,
    at: &(impl Fn(usize) + Sync),
) {
    let answered = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while *answered.lock().unwrap() < count {
                    let Some(ids) = batches.lock().unwrap().pop_front() else { return };
                    match post(address, "/in", BATCH, &batch(&ids)) {
                        Ok(answer) if [200, 202].contains(&answer.status) => {
                            let receipt = answer.json();
                            let mut fresh = fresh.lock().unwrap();
                            for event in
                                receipt["events"].as_array().unwrap().iter().filter(|e| e["duplicate"] == false)
                            {
                                *fresh.entry(event["id"].as_str().unwrap().to_owned()).or_default() += 1;
                            }
                            assert_eq!(answer.status == 200, receipt["accepted"] == 0, "{receipt}");
                            let mut answered = answered.lock().unwrap();
                            *answered += 1;
                            at(*answered);
                        }
                        // A producer that got no answer sends again: here when the server is back.
                        Ok(answer) if answer.status == 503 => return batches.lock().unwrap().push_back(ids),
                        Ok(answer) => panic!("{answer:?}"),
                        Err(_) => return batches.lock().unwrap().push_back(ids),
                    }
                }
            });
        }
    });
}

/// Promise 6. The long form sends 100,000 events: `EVOKE_CAMPAIGN=long cargo test -p evoke --test blackbox dedup`.
#[test]
fn what_is_sent_two_to_five_times_across_restarts_and_kills_is_stored_and_handled_once() {
    let (ids, batch_size, restarts) = if long() { (100_000, 500, 12) } else { (3_000, 100, 4) };
    let batches = Mutex::new(sends(ids, batch_size));
    let phase = batches.lock().unwrap().len() / (restarts + 1);
    let fresh = Mutex::default();
    let mut evoke = Evoke::with(MANIFEST);
    for restart in 0..restarts {
        evoke.up();
        let address = evoke.http().to_owned();
        if restart % 2 == 0 {
            send(&address, &batches, phase, &fresh, &|_| {});
            assert!(evoke.stop().success());
        } else {
            let victim = Mutex::new(Some(&mut evoke));
            send(&address, &batches, phase, &fresh, &|count| {
                if count == phase / 2
                    && let Some(evoke) = victim.lock().unwrap().take()
                {
                    evoke.kill();
                }
            });
        }
    }
    evoke.up();
    send(evoke.http(), &batches, usize::MAX, &fresh, &|_| {});
    assert!(batches.lock().unwrap().is_empty());

    // Whoever got no answer may have been the first; nobody was twice.
    let fresh = fresh.into_inner().unwrap();
    assert!(fresh.values().all(|times| *times == 1), "answered as new more than once");
    evoke.settle();
    let mut stored: Vec<String> =
        evoke.events("lab.in").iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    stored.sort();
    let mut sent: Vec<String> = (0..ids).map(|id| format!("e{id}")).collect();
    sent.sort();
    assert!(stored == sent, "{} stored, {} sent", stored.len(), sent.len());
    assert_eq!(evoke.deliveries("done"), ids as u64);
}

#[test]
fn an_id_is_new_again_after_the_dedup_window() {
    let mut evoke = Evoke::with(MANIFEST);
    evoke.up_and(&["--dedup-window", "1s"]);
    let send = || post(evoke.http(), "/in", BATCH, &batch(&[1])).unwrap();
    assert_eq!(send().status, 202);
    let started = std::time::Instant::now();
    let again = send();
    // Only what surely came within the window is surely a duplicate.
    if started.elapsed().as_millis() < 900 {
        assert_eq!((again.status, &again.json()["duplicates"]), (200, &json!(1)));
    }
    assert_eventually!(send().status == 202, "it never is new again");
}
