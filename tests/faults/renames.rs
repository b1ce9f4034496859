//! Kills at every write and sync of a start that renames a function: it has either name, never a part of each.

use std::path::Path;

use serde_json::{Value, json};

use super::shim::Shim;
use crate::assert_eventually;
use crate::support::{Evoke, shell};

fn manifest(name: &str, was: &str) -> String {
    format!(
        "
evoke: 1
app: lab
functions:
  {name}:
    component: $FUNCTIONS/state-ops.wasm
    {was}
    on: [{{ http: {{ path: /in, type: lab.in }} }}]
    retry: {{ attempts: 1 }}
    allow: {{ publish: [saw], state: true }}
"
    )
}

/// Leaves a store with a done delivery, a dead letter, state, a record of grants, a pause and pending deliveries of
/// `lab/worker`.
fn prepare() -> Evoke {
    let mut evoke = Evoke::up_with(&manifest("worker", ""));
    let count = |evoke: &Evoke, end: &str| {
        evoke.post_accepted("/in", &json!({ "do": [{ "increment": ["n", 1] }], "end": end }).to_string());
    };
    count(&evoke, "");
    count(&evoke, "reject");
    evoke.settle();
    let stored = || evoke.run(&["grants", "worker", "--offline", ".evoke"]).stdout;
    assert_eventually!(String::from_utf8_lossy(&stored()).contains("publish saw"), "{:?}", stored());
    evoke.stdout(&["pause", "worker"]);
    (0..3).for_each(|_| count(&evoke, ""));
    evoke.kill();
    evoke
}

/// Everything in a stopped store that has the name of a function.
fn names(evoke: &Evoke) -> Value {
    let offline = |command: &[&str]| evoke.json_lines(&[command, &["--offline", ".evoke"]].concat());
    let of = |list: Vec<Value>, key: &str| list.into_iter().map(|one| one[key].clone()).collect::<Vec<_>>();
    let functions =
        |list: Vec<Value>| list.into_iter().map(|one| one["delivery"]["function"].clone()).collect::<Vec<_>>();
    let totals = evoke.json(&["check"]);
    let store = rusqlite::Connection::open(evoke.path(".evoke/evoke.db")).unwrap();
    let text = |query: &str| {
        let mut statement = store.prepare(query).unwrap();
        statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    json!({
        "pending": functions(offline(&["pending", "list"])),
        "dead": functions(offline(&["dead", "list"])),
        "state": of(offline(&["state", "list"]), "bucket"),
        "totals": totals["functions"],
        "pauses": text("SELECT key FROM marks WHERE scope = '/evoke/paused'"),
        "grants": text("SELECT key FROM marks WHERE scope = '/evoke/grants'"),
        "origins": text("SELECT uri FROM origins WHERE uri LIKE '/lab/%'"),
    })
}

/// Copies a stopped store with its compiled components.
fn copy(from: &Path, to: &Evoke) {
    shell(&to.path("."), &format!("cp -a '{}' .evoke", from.display()));
}

#[test]
fn a_kill_at_any_call_of_a_start_leaves_one_name_and_the_next_start_completes_the_rename() {
    let prepared = prepare();
    let before = names(&prepared);
    let after: Value = serde_json::from_str(&before.to_string().replace("lab/worker", "lab/job")).unwrap();
    let record = prepared.json(&["grants", "worker", "--offline", ".evoke"]);
    let data = prepared.path(".evoke");
    let (mut kills, mut renamed) = (0, 0);
    for class in ["write@evoke.db-wal", "fsync@evoke.db-wal"] {
        for n in 1.. {
            let mut evoke = Evoke::with(&manifest("job", "was: [worker]"));
            copy(&data, &evoke);
            let fault = format!("{class}:{n}:KILL");
            let fired = evoke.path("fired");
            let shim = Shim::for_data_of(&evoke).failing(&fault, fired.clone());
            if evoke.try_up(&[], shim.environment()).is_ok() {
                evoke.kill();
            }
            let found = names(&evoke);
            assert!(found == before || found == after, "{fault}: {found:#}\n{}", evoke.log());
            let is_killed = std::fs::read_to_string(&fired).is_ok_and(|text| !text.is_empty());
            if !is_killed {
                assert_eq!(found, after, "{}", evoke.log());
                break;
            }
            kills += 1;
            renamed += usize::from(found == after);
            evoke.up();
            evoke.stdout(&["resume", "job"]);
            evoke.settle();
            assert_eq!(evoke.stdout(&["state", "get", "lab/job", "n"]).trim(), "4", "{fault}");
            assert_eq!(evoke.events("saw").len(), 4, "{fault}");
            let grants = evoke.json(&["grants", "job"]);
            // At least one for each of the three deliveries that waited; one that read a changed value ran again.
            let attempts = |record: &Value| record["attempts"].as_u64().unwrap();
            let is_continued = grants["since"] == record["since"] && attempts(&grants) >= attempts(&record) + 3;
            assert!(is_continued, "{fault}: {grants}, before {record}");
            assert!(evoke.stop().success(), "{fault}: {}", evoke.log());
            evoke.stdout(&["check"]);
        }
    }
    println!("{kills} kills, {renamed} of them after the rename");
    assert!(kills > 3 && renamed > 0 && renamed < kills, "{kills} {renamed}");
}
