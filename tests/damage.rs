//! A store with damaged bytes on disk, seen through the commands: damaged rows are named and never passed to a
//! function, all other work continues, and every message says how to repair the store. `faults/bit_flips.rs` and
//! `faults/torn_wal.rs` damage a store at arbitrary places.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use evoke_model::clock::Clock;
use evoke_model::event::{Data, Event};
use evoke_model::{Lineage, NewDelivery, NewEvent, Origin};
use evoke_store::{DeliveryStore, EventStore, Store};
use evoke_store_sqlite::SqliteStore;
use serde_json::{Value, json};

use crate::assert_eventually;
use crate::faults::items::{Items, TYPES, manifest};
use crate::support::Evoke;

/// Stores items directly, each with one ready delivery to the first function.
fn store_items(folder: &Path, items: &Items, count: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(folder, Clock::system()).unwrap();
        let function = store.register(vec!["line/first".into()]).await.unwrap()[0];
        let new = |number| {
            let (id, key) = (Items::id(number), Some(items.key(number)));
            let data = Data::Json(Bytes::from(items.data(number).to_string()));
            let event = Event { id, source: "/items".into(), type_: TYPES[0].into(), data, ..Event::default() };
            let lineage = Lineage { origin: Origin::of("/items"), ..Lineage::default() };
            let deliveries = vec![NewDelivery { function, trigger: "on[0]".into(), order_key: key }];
            NewEvent { event: Arc::new(event), lineage, deliveries }
        };
        store.accept((0..count).map(new).collect(), vec![]).await.unwrap();
        store.close().await.unwrap();
    });
}

/// Flips one bit in every copy of `text` in the file: in its row, and where the row was before SQLite split its page.
fn damage_text(path: &Path, text: &str) {
    let mut file = std::fs::read(path).unwrap();
    let at: Vec<usize> =
        file.windows(text.len()).enumerate().filter(|(_, w)| *w == text.as_bytes()).map(|(at, _)| at).collect();
    assert!(!at.is_empty(), "{text} is not in {}", path.display());
    // The flip makes another letter or digit, so that the damaged text still looks valid.
    at.iter().for_each(|at| file[at + text.len() - 3] ^= 4);
    std::fs::write(path, file).unwrap();
}

/// Runs a command that must fail with exit code 1 and these texts on standard error. Returns its standard output.
fn assert_fails(evoke: &Evoke, arguments: &[&str], expected: &[&str]) -> String {
    let output = evoke.run(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(expected.iter().all(|text| errors.contains(text)), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_damaged_event_becomes_a_dead_letter_and_other_events_are_handled() {
    const COUNT: usize = 40;
    const DAMAGED: usize = 7;
    let items = Items { pad_min: 50, ..Items::plain(3, 4, 200) };
    let mut evoke = Evoke::with(&manifest());
    store_items(&evoke.path(".evoke"), &items, COUNT);
    let file = evoke.path(".evoke/evoke.db");
    let name = file.to_str().unwrap().to_owned();
    let data = items.data(DAMAGED);
    damage_text(&file, &format!(r#""n":{DAMAGED},"pad":"{}"#, &data["pad"].as_str().unwrap()[..16]));
    let is_blocked = |number: &usize| *number > DAMAGED && items.key(*number) == items.key(DAMAGED);
    let blocked = (0..COUNT).filter(is_blocked).count() as u64;
    assert!(blocked > 0);

    evoke.up();
    let passed = COUNT as u64 - 1 - blocked;
    assert_eventually!(evoke.done_count("line/third") == passed, "not all items passed: {}", evoke.log());
    let first = evoke.function_status("line/first");
    assert_eq!((&first["dead"], &first["blocked"]), (&json!(1), &json!(blocked)));
    let dead = evoke.json_lines(&["dead", "list"]);
    assert_eq!((dead.len(), &dead[0]["event"]["event"]), (1, &Value::Null), "{dead:#?}");
    let cause = dead[0]["delivery"]["cause"].as_str().unwrap();
    let seq = DAMAGED + 1;
    for words in [&format!("damaged: event {seq} in"), &name, "restore the file from a backup", "purge"] {
        assert!(cause.contains(words), "{cause}");
    }
    let id = dead[0]["delivery"]["id"].to_string();
    assert!(evoke.stdout(&["dead", "show", &id]).contains("is damaged"));

    // The list has all other events, and names the damaged one on standard error.
    let listed = assert_fails(&evoke, &["events", "--after", "0", "--json"], &[&format!("event {seq} in"), &name]);
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let all: BTreeSet<usize> = (0..COUNT).filter(|number| *number != DAMAGED).collect();
    let stored = items.verify(&all, listed.iter().map(|event| (event["type"].as_str().unwrap(), &event["data"])));
    assert_eq!((stored["item"].len(), stored["item.three"].len() as u64), (COUNT - 1, passed));
    assert!(!assert_fails(&evoke, &["events", "--after", "0"], &["is damaged"]).is_empty());
    let trace = evoke.json(&["trace", &seq.to_string()]);
    assert_eq!((&trace["event"], &trace["deliveries"][0]["state"]), (&Value::Null, &json!("dead")), "{trace:#}");
    assert!(trace["damaged"].as_str().unwrap().contains("is damaged"), "{trace:#}");
    assert!(evoke.stdout(&["trace", &seq.to_string()]).contains("is damaged"));
    assert_fails(&evoke, &["explain", &seq.to_string()], &["is damaged"]);
    let plan = evoke.json(&["replay", "--function", "line/first", "--type", "item", "--dry-run"]);
    assert_eq!(plan["events"], COUNT - 1, "{plan}");

    // The totals are exact: `check` reports only this row, and how to repair it.
    let check: Value = serde_json::from_str(&assert_fails(&evoke, &["check", "--json"], &[])).unwrap();
    let problems: Vec<&str> = check["problems"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].contains(&name) && problems[0].contains(&format!("table events, row {seq}:")), "{problems:#?}");
    assert!(problems[1].contains("backup"), "{problems:#?}");
    assert_fails(&evoke, &["backup", "copy.db"], &["cannot back up", "table events, row 8"]);
    assert!(!evoke.path("copy.db").exists());

    // A redrive fails again. A purge unblocks the events behind it.
    evoke.stdout(&["dead", "redrive", &id]);
    let attempts = || evoke.json(&["trace", &seq.to_string()])["deliveries"][0]["attempts"].as_array().unwrap().len();
    assert_eventually!(attempts() == 2, "{}", evoke.log());
    evoke.stdout(&["dead", "purge", &id]);
    let all_but_one = COUNT as u64 - 1;
    assert_eventually!(evoke.done_count("line/third") == all_but_one, "the blocked events still wait: {}", evoke.log());
    assert!(evoke.stop().success());
    let log = evoke.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_damaged_state_value_fails_attempts_that_read_it_until_it_is_overwritten() {
    let manifest = r#"
evoke: 1
app: lab
sources:
  in:
    http: { path: /in, type: lab.in }
functions:
  state-ops:
    component: $FUNCTIONS/state-ops.wasm
    on:
      - source: in
    retry: { attempts: 1 }
    allow: { publish: ["*"], state: true }
"#;
    let mut evoke = Evoke::up_with(manifest);
    evoke.stdout(&["state", "set", "lab/state-ops", "k", "\"a value that is kept\""]);
    evoke.stdout(&["state", "set", "lab/state-ops", "other", "1"]);
    assert!(evoke.stop().success());
    damage_text(&evoke.path(".evoke/evoke.db"), "a value that is kept");
    evoke.up();
    let run = |wanted: Value| {
        let id = evoke.post_accepted("/in", &wanted.to_string());
        let delivery = || evoke.json(&["trace", &id])["deliveries"][0].clone();
        assert_eventually!(!delivery()["attempts"].as_array().unwrap().is_empty(), "{}", evoke.log());
        delivery()
    };
    let expected = ["evoke.db is damaged: the key k of the bucket lab/state-ops", "evoke state set"];
    let failed = run(json!({ "do": [{ "increment": ["other", 1] }, { "get": "k" }] }));
    assert_eq!(failed["state"], "dead", "{failed}");
    assert!(expected.iter().all(|text| failed["attempts"][0]["message"].as_str().unwrap().contains(text)), "{failed}");
    assert_fails(&evoke, &["state", "get", "lab/state-ops", "k"], &expected);
    assert!(assert_fails(&evoke, &["check"], &[]).contains("table state, row lab/state-ops k"));
    // The failed attempt committed nothing, and attempts that do not read the key succeed.
    assert_eq!(run(json!({ "do": [{ "increment": ["other", 1] }] }))["state"], "done");
    assert_eq!(evoke.stdout(&["state", "get", "lab/state-ops", "other"]).trim(), "2");
    evoke.stdout(&["state", "set", "lab/state-ops", "k", "\"again\""]);
    evoke.stdout(&["check"]);
    assert_eq!(run(json!({ "do": [{ "get": "k" }] }))["state"], "done");
    assert_eq!(evoke.events("saw").pop().unwrap()["data"], json!(["again"]));
}

#[test]
fn a_torn_wal_is_recovered_and_a_damaged_wal_prevents_the_start() {
    const COUNT: usize = 12;
    let items = Items { pad_min: 300, ..Items::plain(5, 3, 600) };
    let mut evoke = Evoke::up_with(&manifest());
    for number in 0..COUNT {
        assert_eq!(items.send(evoke.http(), &[number]).unwrap().status, 202);
    }
    evoke.settle();
    evoke.kill();
    let (file, wal) = (evoke.path(".evoke/evoke.db"), evoke.path(".evoke/evoke.db-wal"));
    let (intact_file, intact_wal) = (std::fs::read(&file).unwrap(), std::fs::read(&wal).unwrap());
    let restore = |bytes: &[u8]| {
        std::fs::write(&file, &intact_file).unwrap();
        std::fs::write(&wal, bytes).unwrap();
    };
    // Only the last commit is torn and lost. The lost commit completed a delivery, so the delivery runs again.
    for cut in [1, 4000, 4120, 5000] {
        restore(&intact_wal[..intact_wal.len() - cut]);
        evoke.up();
        evoke.settle();
        let stored = evoke.verify(&items, &(0..COUNT).collect());
        assert_eq!(stored[TYPES[3]].len(), COUNT, "cut by {cut}");
        evoke.stdout(&["check"]);
        evoke.kill();
    }
    let mut damaged = intact_wal.clone();
    damaged[intact_wal.len() / 2] ^= 1;
    restore(&damaged);
    let expected = ["evoke.db-wal is damaged", "evoke.db with a backup", "truncate -s"];
    assert!(!evoke.try_up(&[], &[]).expect_err("evoke started with a damaged store").success());
    assert!(expected.iter().all(|text| evoke.log().contains(text)), "{}", evoke.log());
    let checked = assert_fails(&evoke, &["check"], &[]);
    assert!(expected.iter().all(|text| checked.contains(text)), "{checked}");
    assert_fails(&evoke, &["backup", "copy.db"], &expected);
    // The failed commands did not change the files.
    assert!(std::fs::read(&wal).unwrap() == damaged && std::fs::read(&file).unwrap() == intact_file);
}

#[test]
fn an_unreadable_database_prevents_the_start_and_is_named() {
    let mut evoke = Evoke::with(&manifest());
    store_items(&evoke.path(".evoke"), &Items::plain(1, 5, 100), 30);
    let file = evoke.path(".evoke/evoke.db");
    let intact = std::fs::read(&file).unwrap();
    // The magic string of the format, the page size, the root page of the schema, and the first page of the deliveries.
    for at in [3, 16, 101, 4096 * 5] {
        let mut damaged = intact.clone();
        damaged[at..at + 4].copy_from_slice(b"oops");
        std::fs::write(&file, &damaged).unwrap();
        let output = evoke.run(&["check"]);
        let output_text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{at}: {output_text}");
        assert!(
            output_text.contains("evoke.db") && output_text.contains("backup") && !output_text.contains("panicked"),
            "{at}: {output_text}"
        );
    }
    for at in [3, 16, 101] {
        let mut damaged = intact.clone();
        damaged[at..at + 4].copy_from_slice(b"oops");
        std::fs::write(&file, &damaged).unwrap();
        let status = evoke.try_up(&[], &[]).expect_err("evoke started with a damaged store");
        let log = evoke.log();
        assert!(status.code() == Some(1) && log.contains("evoke.db") && log.contains("backup"), "{at}: {status} {log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}
