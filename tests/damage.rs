//! A store that is damaged on disk, as a user meets it: what is damaged is named and never handed to a function, the rest
//! goes on, and everything says what to do. `faults/flips.rs` and `faults/torn.rs` damage a store anywhere.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use evoke::clock::Clock;
use evoke::event::{Data, Event};
use evoke::store::sqlite::SqliteStore;
use evoke::store::{Lineage, NewDelivery, NewEvent, Origin, Store};
use serde_json::{Value, json};

use crate::assert_eventually;
use crate::faults::items::{Items, TYPES, manifest};
use crate::support::Evoke;

/// Items that nobody handled yet: the first function is owed each.
fn offer(folder: &Path, items: &Items, count: usize) {
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

/// Flips a bit wherever in the file `text` stands: in its row, and where the row was before its page was divided.
fn damage(path: &Path, text: &str) {
    let mut file = std::fs::read(path).unwrap();
    let at: Vec<usize> =
        file.windows(text.len()).enumerate().filter(|(_, w)| *w == text.as_bytes()).map(|(at, _)| at).collect();
    assert!(!at.is_empty(), "{text} stands in {}", path.display());
    // Another letter or digit: what stands there then could be meant.
    at.iter().for_each(|at| file[at + text.len() - 3] ^= 4);
    std::fs::write(path, file).unwrap();
}

fn count(evoke: &Evoke, function: &str, state: &str) -> u64 {
    let status = evoke.json(&["status"]);
    let functions = status["functions"].as_array().unwrap();
    functions.iter().find(|f| f["name"] == function).map_or(0, |f| f[state].as_u64().unwrap())
}

/// Runs what must fail, with these words on standard error; answers what it printed.
fn fails(evoke: &Evoke, arguments: &[&str], words: &[&str]) -> String {
    let output = evoke.run(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(words.iter().all(|words| errors.contains(words)), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_damaged_event_is_a_dead_letter_and_everything_else_goes_on() {
    const COUNT: usize = 40;
    const DAMAGED: usize = 7;
    let items = Items { pad_min: 50, ..Items::plain(3, 4, 200) };
    let mut evoke = Evoke::with(&manifest());
    offer(&evoke.path(".evoke"), &items, COUNT);
    let file = evoke.path(".evoke/evoke.db");
    let name = file.to_str().unwrap().to_owned();
    let data = items.data(DAMAGED);
    damage(&file, &format!(r#""n":{DAMAGED},"pad":"{}"#, &data["pad"].as_str().unwrap()[..16]));
    let is_behind = |number: &usize| *number > DAMAGED && items.key(*number) == items.key(DAMAGED);
    let behind = (0..COUNT).filter(is_behind).count() as u64;
    assert!(behind > 0);

    evoke.up();
    let through = COUNT as u64 - 1 - behind;
    assert_eventually!(count(&evoke, "line/third", "done") == through, "not all got through: {}", evoke.log());
    assert_eq!((count(&evoke, "line/first", "dead"), count(&evoke, "line/first", "blocked")), (1, behind));
    let dead = evoke.json_lines(&["dead", "list"]);
    assert_eq!((dead.len(), &dead[0]["event"]["event"]), (1, &Value::Null), "{dead:#?}");
    let cause = dead[0]["delivery"]["cause"].as_str().unwrap();
    let seq = DAMAGED + 1;
    for words in [&format!("damaged: event {seq} in"), &name, "restore the file from a backup", "purge"] {
        assert!(cause.contains(words), "{cause}");
    }
    let id = dead[0]["delivery"]["id"].to_string();
    assert!(evoke.stdout(&["dead", "show", &id]).contains("is damaged"));

    // A list has everything else, and names it.
    let listed = fails(&evoke, &["events", "--after", "0", "--json"], &[&format!("event {seq} in"), &name]);
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let all: BTreeSet<usize> = (0..COUNT).filter(|number| *number != DAMAGED).collect();
    let there = items.verify(&all, listed.iter().map(|event| (event["type"].as_str().unwrap(), &event["data"])));
    assert_eq!((there["item"].len(), there["item.three"].len() as u64), (COUNT - 1, through));
    assert!(!fails(&evoke, &["events", "--after", "0"], &["is damaged"]).is_empty());
    let trace = evoke.json(&["trace", &seq.to_string()]);
    assert_eq!((&trace["event"], &trace["deliveries"][0]["state"]), (&Value::Null, &json!("dead")), "{trace:#}");
    assert!(trace["damaged"].as_str().unwrap().contains("is damaged"), "{trace:#}");
    assert!(evoke.stdout(&["trace", &seq.to_string()]).contains("is damaged"));
    fails(&evoke, &["explain", &seq.to_string()], &["is damaged"]);
    let plan = evoke.json(&["replay", "--function", "line/first", "--type", "item", "--dry-run"]);
    assert_eq!(plan["events"], COUNT - 1, "{plan}");

    // Conservation is exact: there is this problem, and what to do.
    let check: Value = serde_json::from_str(&fails(&evoke, &["check", "--json"], &[])).unwrap();
    let problems: Vec<&str> = check["problems"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].contains(&name) && problems[0].contains(&format!("table events, row {seq}:")), "{problems:#?}");
    assert!(problems[1].contains("backup"), "{problems:#?}");
    fails(&evoke, &["backup", "copy.db"], &["no backup", "table events, row 8"]);
    assert!(!evoke.path("copy.db").exists());

    // It is given up once more when a person asks, and let go.
    evoke.stdout(&["dead", "redrive", &id]);
    let attempts = || evoke.json(&["trace", &seq.to_string()])["deliveries"][0]["attempts"].as_array().unwrap().len();
    assert_eventually!(attempts() == 2, "{}", evoke.log());
    evoke.stdout(&["dead", "purge", &id]);
    let all_but_one = COUNT as u64 - 1;
    assert_eventually!(count(&evoke, "line/third", "done") == all_but_one, "they wait still: {}", evoke.log());
    assert!(evoke.stop().success());
    let log = evoke.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_damaged_value_of_state_fails_the_attempt_that_reads_it_until_it_is_set_again() {
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
    damage(&evoke.path(".evoke/evoke.db"), "a value that is kept");
    evoke.up();
    let run = |wanted: Value| {
        let id = evoke.accepted("/in", &wanted.to_string());
        let delivery = || evoke.json(&["trace", &id])["deliveries"][0].clone();
        assert_eventually!(!delivery()["attempts"].as_array().unwrap().is_empty(), "{}", evoke.log());
        delivery()
    };
    let words = ["evoke.db is damaged: the key k of the bucket lab/state-ops", "evoke state set"];
    let failed = run(json!({ "do": [{ "increment": ["other", 1] }, { "get": "k" }] }));
    assert_eq!(failed["state"], "dead", "{failed}");
    assert!(words.iter().all(|words| failed["attempts"][0]["message"].as_str().unwrap().contains(words)), "{failed}");
    fails(&evoke, &["state", "get", "lab/state-ops", "k"], &words);
    assert!(fails(&evoke, &["check"], &[]).contains("table state, row lab/state-ops k"));
    // Nothing of the attempt stands, and who does not need it goes on.
    assert_eq!(run(json!({ "do": [{ "increment": ["other", 1] }] }))["state"], "done");
    assert_eq!(evoke.stdout(&["state", "get", "lab/state-ops", "other"]).trim(), "2");
    evoke.stdout(&["state", "set", "lab/state-ops", "k", "\"again\""]);
    evoke.stdout(&["check"]);
    assert_eq!(run(json!({ "do": [{ "get": "k" }] }))["state"], "done");
    assert_eq!(evoke.events("saw").pop().unwrap()["data"], json!(["again"]));
}

#[test]
fn a_log_that_was_torn_is_taken_up_and_one_that_is_damaged_ends_the_start() {
    const COUNT: usize = 12;
    let items = Items { pad_min: 300, ..Items::plain(5, 3, 600) };
    let mut evoke = Evoke::up_with(&manifest());
    for number in 0..COUNT {
        assert_eq!(items.send(evoke.http(), &[number]).unwrap().status, 202);
    }
    evoke.settle();
    evoke.kill();
    let (file, log) = (evoke.path(".evoke/evoke.db"), evoke.path(".evoke/evoke.db-wal"));
    let (whole_file, whole_log) = (std::fs::read(&file).unwrap(), std::fs::read(&log).unwrap());
    let restore = |bytes: &[u8]| {
        std::fs::write(&file, &whole_file).unwrap();
        std::fs::write(&log, bytes).unwrap();
    };
    // What was torn was not acknowledged, but for an end that is done again.
    for cut in [1, 4000, 4120, 5000] {
        restore(&whole_log[..whole_log.len() - cut]);
        evoke.up();
        evoke.settle();
        let there = evoke.verify(&items, &(0..COUNT).collect());
        assert_eq!(there[TYPES[3]].len(), COUNT, "cut by {cut}");
        evoke.stdout(&["check"]);
        evoke.kill();
    }
    let mut damaged = whole_log.clone();
    damaged[whole_log.len() / 2] ^= 1;
    restore(&damaged);
    let words = ["evoke.db-wal is damaged", "put a backup in place of", "truncate -s"];
    assert!(!evoke.try_up(&[], &[]).expect_err("it started").success());
    assert!(words.iter().all(|words| evoke.log().contains(words)), "{}", evoke.log());
    let checked = fails(&evoke, &["check"], &[]);
    assert!(words.iter().all(|words| checked.contains(words)), "{checked}");
    fails(&evoke, &["backup", "copy.db"], &words);
    // Nothing was done to it.
    assert!(std::fs::read(&log).unwrap() == damaged && std::fs::read(&file).unwrap() == whole_file);
}

#[test]
fn a_file_that_is_no_store_any_more_ends_the_start_with_its_name() {
    let mut evoke = Evoke::with(&manifest());
    offer(&evoke.path(".evoke"), &Items::plain(1, 5, 100), 30);
    let file = evoke.path(".evoke/evoke.db");
    let whole = std::fs::read(&file).unwrap();
    // The name of the format; the size of a page; the root of the schema; the page where the deliveries begin.
    for at in [3, 16, 101, 4096 * 5] {
        let mut damaged = whole.clone();
        damaged[at..at + 4].copy_from_slice(b"oops");
        std::fs::write(&file, &damaged).unwrap();
        let output = evoke.run(&["check"]);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{at}: {said}");
        assert!(said.contains("evoke.db") && said.contains("backup") && !said.contains("panicked"), "{at}: {said}");
    }
    for at in [3, 16, 101] {
        let mut damaged = whole.clone();
        damaged[at..at + 4].copy_from_slice(b"oops");
        std::fs::write(&file, &damaged).unwrap();
        let status = evoke.try_up(&[], &[]).expect_err("it started");
        let log = evoke.log();
        assert!(status.code() == Some(1) && log.contains("evoke.db") && log.contains("backup"), "{at}: {status} {log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}
