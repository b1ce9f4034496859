//! A stop under load loses no acknowledged event, and a data folder is locked. `campaign.rs` tests kills.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::orders::ORDERS;
use crate::support::{Evoke, post};

const CLIENTS: usize = 8;

/// Posts up to `count` orders from several clients until the server shuts down. Returns the acknowledged ids. Calls
/// `on_acknowledged` with the number of acknowledgements so far after each one.
fn post_orders(address: &str, count: usize, on_acknowledged: impl Fn(usize) + Sync) -> HashSet<String> {
    let (next, acknowledged) = (AtomicUsize::new(0), Mutex::new(HashSet::new()));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let body = format!(r#"{{"customer":"c{}","total":{},"items":["x"]}}"#, n % 100, n + 1);
                    let headers = [("content-type", "application/json")];
                    match post(address, "/checkout", &headers, &body) {
                        Ok(response) if response.status == 202 => {
                            let id = response.json()["events"][0]["id"].as_str().unwrap().to_owned();
                            let mut all = acknowledged.lock().unwrap();
                            all.insert(id);
                            on_acknowledged(all.len());
                        }
                        // The server has stopped or is draining: this order was not acknowledged.
                        Ok(response) if response.status == 503 => return,
                        Ok(response) => panic!("{response:?}"),
                        Err(_) => return,
                    }
                }
            });
        }
    });
    acknowledged.into_inner().unwrap()
}

/// Asserts that every acknowledged order passed through all three functions once.
fn assert_all_handled(evoke: &Evoke, acknowledged: &HashSet<String>) {
    evoke.settle();
    let placed: HashSet<String> =
        evoke.events("order.placed").iter().map(|e| e["id"].as_str().unwrap().to_owned()).collect();
    let lost: Vec<_> = acknowledged.difference(&placed).collect();
    assert!(lost.is_empty(), "{} of {} lost: {:?}…", lost.len(), acknowledged.len(), lost.first());
    // An order may be stored although its acknowledgement was lost; it is handled like the others.
    for type_ in ["payment.taken", "receipt.issued"] {
        assert_eq!(evoke.events(type_).len(), placed.len(), "{type_}");
    }
    assert_eq!(evoke.delivery_count("done"), 3 * placed.len() as u64);
    assert_eq!(evoke.delivery_count("dead"), 0);
}

#[test]
fn a_stop_under_load_drains_and_loses_nothing() {
    let mut evoke = Evoke::up_with(ORDERS);
    let address = evoke.http().to_owned();
    let acknowledged = post_orders(&address, 3_000, |count| {
        if count == 1_000 {
            evoke.terminate();
        }
    });
    assert!(evoke.wait().success(), "{}", evoke.log());
    assert!(!evoke.path(".evoke/listen.json").exists());
    evoke.stdout(&["check"]);
    evoke.up();
    assert_all_handled(&evoke, &acknowledged);
}

#[test]
fn a_data_folder_is_locked_by_one_process() {
    let evoke = Evoke::up_with(ORDERS);
    let second = evoke.run(&["up", "evoke.yaml", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert!(!second.status.success());
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(message.contains(".evoke") && message.contains("in use"), "{message}");
    assert_eq!(evoke.post("/checkout", r#"{"customer":"a","total":1,"items":["x"]}"#).status, 202);
}
