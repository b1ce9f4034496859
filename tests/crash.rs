//! Stopped under load: nothing that was acknowledged is lost. `campaign.rs` kills.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::orders::ORDERS;
use crate::support::{Evoke, post};

const CLIENTS: usize = 8;

/// Posts up to `count` orders from several clients until the server goes away; answers the ids that were
/// acknowledged. `at` is told of every acknowledgement.
fn post_orders(address: &str, count: usize, at: impl Fn(usize) + Sync) -> HashSet<String> {
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
                        Ok(answer) if answer.status == 202 => {
                            let id = answer.json()["events"][0]["id"].as_str().unwrap().to_owned();
                            let mut all = acknowledged.lock().unwrap();
                            all.insert(id);
                            at(all.len());
                        }
                        // Gone, or going: what it did not acknowledge it does not owe.
                        Ok(answer) if answer.status == 503 => return,
                        Ok(answer) => panic!("{answer:?}"),
                        Err(_) => return,
                    }
                }
            });
        }
    });
    acknowledged.into_inner().unwrap()
}

/// Every acknowledged order went through the whole flow, once.
fn assert_all_handled(evoke: &Evoke, acknowledged: &HashSet<String>) {
    evoke.settle();
    let placed: HashSet<String> =
        evoke.events("order.placed").iter().map(|e| e["id"].as_str().unwrap().to_owned()).collect();
    let lost: Vec<_> = acknowledged.difference(&placed).collect();
    assert!(lost.is_empty(), "{} of {} lost: {:?}…", lost.len(), acknowledged.len(), lost.first());
    // An order may be stored whose acknowledgement did not get through; it is handled like the others.
    for type_ in ["payment.taken", "receipt.issued"] {
        assert_eq!(evoke.events(type_).len(), placed.len(), "{type_}");
    }
    assert_eq!(evoke.deliveries("done"), 3 * placed.len() as u64);
    assert_eq!(evoke.deliveries("dead"), 0);
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
fn a_data_folder_serves_one_evoke_at_a_time() {
    let evoke = Evoke::up_with(ORDERS);
    let second = evoke.run(&["up", "evoke.yaml", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert!(!second.status.success());
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(message.contains(".evoke") && message.contains("in use"), "{message}");
    assert_eq!(evoke.post("/checkout", r#"{"customer":"a","total":1,"items":["x"]}"#).status, 202);
}
