//! Floods of events that are small or valid one by one: they take no more than the share of their source, in the backlog
//! and in memory.

use serde_json::{Value, json};

use crate::assert_eventually;
use crate::support::Evoke;

const MANIFEST: &str = "
evoke: 1
app: lab
sources:
  flood:
    http: { path: /flood, type: lab.flood, accept: { types: [lab.flood] } }
  calm:
    http: { path: /calm, type: lab.calm }
functions:
  slow:
    component: $FUNCTIONS/echo.wasm
    allow: { publish: [echo] }
    order_by: data.key
    on: [{ events: { type: [lab.flood] } }]
  quiet:
    component: $FUNCTIONS/echo.wasm
    allow: { publish: [echo] }
    on: [{ events: { type: [lab.calm] } }]
";

const BATCH: [(&str, &str); 1] = [("content-type", "application/cloudevents-batch+json")];

fn pending(evoke: &Evoke) -> u64 {
    ["ready", "retrying", "blocked"].iter().map(|state| evoke.delivery_count(state)).sum()
}

#[test]
fn events_that_are_due_at_once_keep_no_other_source_out() {
    let mut evoke = Evoke::with(MANIFEST);
    let limits = ["--pending-max", "40"];
    evoke.up_with_arguments(&limits);
    evoke.stdout(&["pause", "lab/slow"]);
    let due = (jiff::Timestamp::now() + jiff::SignedDuration::from_millis(1_500)).to_string();
    let event = |id: u32| json!({ "specversion": "1.0", "id": id.to_string(), "source": "/lab/flood", "type": "lab.flood", "notbefore": due });
    let events: Vec<Value> = (0..200).map(event).collect();
    let response = evoke.post_with("/flood", &BATCH, &Value::from(events).to_string());
    assert_eq!(response.status, 202, "{response:?}");
    assert_eventually!(pending(&evoke) == 200, "{}", evoke.log());
    // Now, and after a restart, which counts the pending deliveries again.
    for _ in 0..2 {
        let refused = evoke.post("/flood", "{}");
        assert_eq!(refused.status, 429, "{refused:?}");
        for _ in 0..10 {
            evoke.post_accepted("/calm", "{}");
        }
        assert_eventually!(pending(&evoke) == 200, "{}", evoke.log());
        assert!(evoke.stop().success(), "{}", evoke.log());
        evoke.up_with_arguments(&limits);
    }
    evoke.stdout(&["resume", "lab/slow"]);
    evoke.settle();
    assert_eq!((evoke.done_count("lab/slow"), evoke.done_count("lab/quiet")), (200, 20));
    evoke.post_accepted("/flood", "{}");
    evoke.stdout(&["check"]);
}

#[test]
fn a_source_whose_events_become_dead_letters_is_refused_until_they_are_purged_and_others_are_not() {
    let manifest = MANIFEST.replace(
        "component: $FUNCTIONS/echo.wasm\n    allow: { publish: [echo] }\n    order_by: data.key",
        "component: $FUNCTIONS/fate-reject.wasm",
    );
    let mut evoke = Evoke::with(&manifest);
    let limits = ["--dead-max", "5"];
    evoke.up_with_arguments(&limits);
    (0..5).for_each(|_| drop(evoke.post_accepted("/flood", "{}")));
    assert_eventually!(evoke.delivery_count("dead") == 5, "{}", evoke.log());
    // Now, and after a restart, which counts the dead letters again.
    for _ in 0..2 {
        let refused = evoke.post("/flood", "{}");
        assert_eq!(refused.status, 429, "{refused:?}");
        assert!(refused.headers.contains_key("retry-after") && refused.body.contains("5 dead letters"), "{refused:?}");
        evoke.post_accepted("/calm", "{}");
        assert!(evoke.stop().success(), "{}", evoke.log());
        evoke.up_with_arguments(&limits);
    }
    evoke.stdout(&["dead", "purge", "--all"]);
    evoke.post_accepted("/flood", "{}");
    assert_eventually!(evoke.delivery_count("dead") == 1, "{}", evoke.log());
    evoke.stdout(&["check"]);
}

#[test]
fn long_order_keys_take_little_memory_and_keep_their_order() {
    let evoke = Evoke::up_with(MANIFEST);
    evoke.stdout(&["pause", "lab/slow"]);
    let key = |n: u32| format!("{}{n}", "k".repeat(900_000));
    let post = |n: u32| evoke.post_accepted("/flood", &json!({ "key": key(n) }).to_string());
    (0..20).for_each(|n| drop(post(n)));
    let before = evoke.rss_kib();
    (20..220).for_each(|n| drop(post(n)));
    let after = evoke.rss_kib();
    println!("memory {before} to {after} KiB");
    assert!(after < before + 64 * 1024, "memory grew from {before} to {after} KiB");
    let disk = std::fs::metadata(evoke.path(".evoke/evoke.db")).unwrap().len();
    let log = std::fs::metadata(evoke.path(".evoke/evoke.db-wal")).map_or(0, |file| file.len());
    println!("{disk} bytes on disk, {log} in the log");
    // A second event of a key waits for the first one.
    post(0);
    assert_eq!(evoke.delivery_count("blocked"), 1);
    evoke.stdout(&["resume", "lab/slow"]);
    evoke.settle();
    assert_eq!(evoke.done_count("lab/slow"), 221);
}

#[test]
fn events_with_many_attributes_are_refused_and_take_little_memory() {
    let evoke = Evoke::up_with(MANIFEST);
    evoke.post_accepted("/calm", "{}");
    evoke.settle();
    let event = |id: usize, extensions: usize| {
        let more: String = (0..extensions).map(|n| format!(r#","a{n:05}":0"#)).collect();
        format!(r#"{{"specversion":"1.0","id":"{id}","source":"/lab/flood","type":"lab.flood"{more}}}"#)
    };
    let structured = [("content-type", "application/cloudevents+json")];
    let before = evoke.rss_kib();
    let bomb = event(0, 95_000);
    std::thread::scope(|scope| {
        // As many as one source may have in memory.
        for _ in 0..8 {
            scope.spawn(|| {
                let refused = evoke.post_with("/flood", &structured, &bomb);
                assert_eq!(refused.status, 400, "{refused:?}");
                assert!(refused.body.contains("more than 100 extension attributes"), "{refused:?}");
            });
        }
    });
    let many: Vec<_> = (0..900).map(|id| event(id, 90)).collect();
    let refused = evoke.post_with("/flood", &BATCH, &format!("[{}]", many.join(",")));
    assert_eq!(refused.status, 413, "{refused:?}");
    assert!(refused.body.contains("more than 10000 extension attributes"), "{refused:?}");
    let after = evoke.rss_kib();
    println!("memory {before} to {after} KiB");
    assert!(after < before + 64 * 1024, "memory grew from {before} to {after} KiB");
    // Nothing was stored.
    assert_eq!(evoke.done_count("lab/slow") + pending(&evoke), 0);
    let accepted = evoke.post_with("/flood", &structured, &event(1, 100));
    assert_eq!(accepted.status, 202, "{accepted:?}");
}
