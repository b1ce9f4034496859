//! Functions with `was:` take over the data stored under their earlier names.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::assert_eventually;
use crate::support::{Evoke, signal};

/// A function with the events of one shared source.
fn manifest(name: &str, was: &str, component: &str, settings: &str) -> String {
    format!(
        "
evoke: 1
app: lab
sources:
  in: {{ http: {{ path: /in, type: lab.in }} }}
functions:
  {name}:
    component: $FUNCTIONS/{component}.wasm
    {was}
    on: [{{ source: in }}]
    {settings}
"
    )
}

/// A function with state that does what its event asks for.
fn with_state(name: &str, was: &str) -> String {
    manifest(name, was, "state-ops", "retry: { attempts: 1 }\n    allow: { publish: [saw], state: true }")
}

/// A function that publishes the numbers of its events, in the order of `key`.
fn with_order(name: &str, was: &str) -> String {
    manifest(name, was, "witness", "order_by: data.key\n    allow: { publish: [witnessed] }")
}

/// Adds one to the counter `n`, then ends so.
fn count(evoke: &Evoke, end: &str) -> String {
    evoke.post_accepted("/in", &json!({ "do": [{ "increment": ["n", 1] }], "end": end }).to_string())
}

fn post(evoke: &Evoke, key: &str, n: u32, ms: u32) {
    evoke.post_accepted("/in", &json!({ "key": key, "n": n, "ms": ms }).to_string());
}

/// The numbers that were handled, in the order of their commits.
fn witnessed(evoke: &Evoke) -> Vec<u64> {
    evoke.events("witnessed").iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect()
}

/// Writes the manifest and waits until it is active, or refused.
fn reload(evoke: &Evoke, manifest: &str) {
    let ends = || {
        let log = evoke.log();
        log.matches("  reloaded").count() + log.matches("the previous manifests stay active").count()
    };
    let before = ends();
    evoke.write_manifest(manifest);
    signal(evoke.pid(), Signal::HUP);
    assert_eventually!(ends() > before, "{}", evoke.log());
}

/// The functions of all deliveries that a list shows.
fn functions(list: &[Value]) -> BTreeSet<&str> {
    list.iter().map(|one| one["delivery"]["function"].as_str().unwrap()).collect()
}

#[test]
fn a_renamed_function_takes_over_everything_after_a_kill_and_says_so_once() {
    let mut evoke = Evoke::up_with(&with_state("worker", ""));
    let first = count(&evoke, "");
    count(&evoke, "reject");
    evoke.settle();
    evoke.stdout(&["pause", "worker"]);
    (0..3).for_each(|_| drop(count(&evoke, "")));
    evoke.kill();

    evoke.write_manifest(&with_state("job", "was: [worker]"));
    evoke.up();
    let expected =
        "lab/job takes over from lab/worker: 3 pending deliveries, 1 dead letter, 1 key of state; lab/job is paused";
    assert!(evoke.log().contains(expected), "{}", evoke.log());
    assert!(evoke.function_status("lab/job")["paused"].is_string());
    let (pending, dead) = (evoke.json_lines(&["pending", "list"]), evoke.json_lines(&["dead", "list"]));
    assert_eq!((pending.len(), functions(&pending), functions(&dead)), (3, ["lab/job"].into(), ["lab/job"].into()));
    assert_eq!(evoke.json(&["trace", &first])["deliveries"][0]["function"], "lab/job");
    assert_eq!(evoke.events("saw")[0]["source"], "/lab/worker", "an event keeps its source");
    let status = evoke.json(&["status"]);
    assert_eq!(status["functions"].as_array().unwrap().len(), 1, "{status}");

    evoke.stdout(&["resume", "job"]);
    evoke.settle();
    assert_eq!(evoke.stdout(&["state", "get", "lab/job", "n"]).trim(), "4");
    assert_eq!(evoke.events("saw").last().unwrap()["source"], "/lab/job");
    // A dead letter runs as the new function.
    assert_eq!(evoke.json(&["dead", "redrive", "--function", "lab/job"])["count"], 1);
    evoke.settle();
    assert_eq!(evoke.json_lines(&["dead", "list"])[0]["delivery"]["attempts"].as_array().unwrap().len(), 2);

    // The entry may stay, and has nothing more to do.
    reload(&evoke, &with_state("job", "was: [worker]"));
    assert!(evoke.stop().success(), "{}", evoke.log());
    evoke.up();
    assert_eq!(evoke.log().matches("takes over").count(), 1, "{}", evoke.log());
    assert_eq!(count_of(&evoke, "lab/job", "done"), 4);
    assert!(evoke.stop().success());
    let offline = evoke.json(&["status", "--offline", ".evoke"]);
    assert_eq!(offline["functions"][0]["name"], "lab/job", "{offline}");
    assert!(evoke.stdout(&["state", "list", "--offline", ".evoke"]).contains("lab/job"));
    evoke.stdout(&["check"]);

    // Without the entry the earlier name is free for another function, which begins with nothing.
    let both = with_state("job", "") + with_state("worker", "").split_once("functions:\n").unwrap().1;
    evoke.write_manifest(&both);
    evoke.up();
    count(&evoke, "");
    evoke.settle();
    assert_eq!(evoke.stdout(&["state", "get", "lab/job", "n"]).trim(), "5");
    assert_eq!(evoke.stdout(&["state", "get", "lab/worker", "n"]).trim(), "1");
    evoke.stdout(&["check"]);
}

fn count_of(evoke: &Evoke, function: &str, state: &str) -> u64 {
    evoke.function_status(function)[state].as_u64().unwrap()
}

#[test]
fn a_reload_waits_for_running_attempts_and_each_delivery_runs_once_in_order() {
    let evoke = Evoke::up_with(&with_order("worker", ""));
    post(&evoke, "a", 1, 3_000);
    post(&evoke, "b", 2, 3_000);
    assert_eventually!(evoke.function_status("lab/worker")["running"] == 2, "{}", evoke.log());
    (3..20).for_each(|n| post(&evoke, if n % 2 == 0 { "b" } else { "a" }, n, 0));
    reload(&evoke, &with_order("job", "was: [worker]"));
    let log = evoke.log();
    assert!(log.contains("lab/job takes over from lab/worker: 17 pending deliveries"), "{log}");
    assert!(log.contains("until 2 attempts of renamed functions end"), "{log}");
    assert!(!log.contains("no active manifest has this function"), "{log}");
    (20..30).for_each(|n| post(&evoke, if n % 2 == 0 { "b" } else { "a" }, n, 0));
    evoke.settle();
    let all = witnessed(&evoke);
    let of_key = |rest: u64| all.iter().copied().filter(|n| n % 2 == rest).collect::<Vec<_>>();
    assert_eq!((of_key(1), of_key(0)), ((1..30).step_by(2).collect(), (2..30).step_by(2).collect()));
    let sources = evoke.events("witnessed");
    assert_eq!((&sources[0]["source"], &sources[28]["source"]), (&json!("/lab/worker"), &json!("/lab/job")));
    assert_eq!(count_of(&evoke, "lab/job", "done"), 29);
    evoke.stdout(&["check"]);
}

#[test]
fn a_function_that_was_renamed_without_was_takes_over_later_in_the_order_of_its_keys() {
    let evoke = Evoke::up_with(&with_order("worker", ""));
    evoke.stdout(&["pause", "worker"]);
    post(&evoke, "a", 1, 0);
    post(&evoke, "a", 2, 0);
    evoke.post_accepted("/in", r#"{"key":"b","reject":true}"#);
    reload(&evoke, &with_order("job", ""));
    let expected = "3 deliveries of lab/worker wait, but no active manifest has this function: write `was: [worker]`";
    assert!(evoke.log().contains(expected), "{}", evoke.log());
    post(&evoke, "a", 3, 0);
    evoke.settle_function("lab/job");
    evoke.stdout(&["pause", "job"]);
    post(&evoke, "a", 4, 0);
    post(&evoke, "b", 5, 0);

    let changed = with_order("job", "was: [worker]").replace("data.key", "data.n");
    reload(&evoke, &changed);
    assert!(evoke.log().contains("lab/job takes over from lab/worker: 3 pending deliveries"), "{}", evoke.log());
    assert!(evoke.log().contains("5 deliveries of lab/job wait in the order of the old `order_by`"), "{}", evoke.log());
    let blocked = evoke.json_lines(&["pending", "list", "--state", "blocked"]);
    assert_eq!((blocked.len(), functions(&blocked)), (3, ["lab/job"].into()), "{blocked:?}");
    evoke.stdout(&["resume", "job"]);
    assert_eventually!(evoke.json_lines(&["dead", "list"]).len() == 1, "{}", evoke.log());
    assert_eq!(evoke.json(&["dead", "purge", "--all"])["count"], 1);
    evoke.settle();
    let all = witnessed(&evoke);
    let of_a: Vec<_> = all.iter().copied().filter(|n| *n != 5).collect();
    assert_eq!((of_a, all.len()), (vec![3, 1, 2, 4], 5));
    // Moving pending deliveries by hand still works.
    evoke.stdout(&["pause", "job"]);
    post(&evoke, "a", 6, 0);
    reload(&evoke, &with_order("last", ""));
    assert_eq!(evoke.json(&["pending", "move", "lab/job", "lab/last"])["count"], 1);
    evoke.settle();
    assert_eq!(witnessed(&evoke).len(), 6);
    evoke.stdout(&["check"]);
}

#[test]
fn two_names_with_state_are_refused_until_one_is_deleted() {
    let evoke = Evoke::up_with(&with_state("worker", ""));
    count(&evoke, "");
    evoke.settle();
    evoke.stdout(&["pause", "worker"]);
    count(&evoke, "");
    reload(&evoke, &with_state("job", ""));
    count(&evoke, "");
    evoke.settle_function("lab/job");
    reload(&evoke, &with_state("job", "was: [older, worker]"));
    let log = evoke.log();
    for text in [
        "`lab/job` cannot take over the state, because several names have state: lab/job has 1 key, and lab/worker has 1 key",
        "evoke.yaml:9:",
        "evoke state delete lab/worker --all",
        "the previous manifests stay active",
    ] {
        assert!(log.contains(text), "{text}: {log}");
    }
    // Nothing was changed, and the function continues.
    count(&evoke, "");
    evoke.settle_function("lab/job");
    assert_eq!(evoke.stdout(&["state", "get", "lab/job", "n"]).trim(), "2");
    assert_eq!(functions(&evoke.json_lines(&["pending", "list"])), ["lab/worker"].into());
    assert_eq!(evoke.stdout(&["state", "delete", "lab/worker", "--all"]).trim(), "1 key deleted");
    reload(&evoke, &with_state("job", "was: [older, worker]"));
    assert!(
        evoke.log().contains("lab/job takes over from lab/worker: 1 pending delivery; lab/job is paused"),
        "{}",
        evoke.log()
    );
    evoke.stdout(&["resume", "job"]);
    evoke.settle();
    assert_eq!(evoke.stdout(&["state", "get", "lab/job", "n"]).trim(), "3");
    evoke.stdout(&["check"]);
}

/// A function with sources of its own, which echoes their events.
fn with_sources(name: &str, was: &str) -> String {
    format!(
        "
evoke: 1
app: lab
functions:
  {name}:
    component: $FUNCTIONS/echo.wasm
    {was}
    on:
      - http: {{ path: /own, type: lab.own }}
      - files: {{ path: inbox, settle: 20ms }}
      - timer: {{ at: 2020-01-01T00:00:00Z, missed: last }}
    allow: {{ publish: [echo] }}
"
    )
}

#[test]
fn the_sources_of_a_renamed_function_continue_where_they_were() {
    let mut evoke = Evoke::with(&with_sources("worker", ""));
    std::fs::create_dir(evoke.path("inbox")).unwrap();
    evoke.up();
    let post = |evoke: &Evoke| evoke.post_with("/own", &[("idempotency-key", "one")], "{}");
    let handled = |evoke: &Evoke, source: &str| {
        let of_source = evoke.json_lines(&["events", "--source", source, "--after", "0"]).len();
        (of_source, evoke.events("echo").len())
    };
    std::fs::write(evoke.path("inbox/a.csv"), "a").unwrap();
    assert_eq!(post(&evoke).status, 202);
    // The file, the request, and the tick that was missed.
    let worker =
        |kind: &str| evoke.json_lines(&["events", "--source", &format!("/lab/worker/{kind}"), "--after", "0"]).len();
    let before = worker("timer-1");
    assert_eventually!((worker("files-1"), worker("http-1")) == (1, 1), "{}", evoke.log());
    evoke.settle();
    evoke.kill();

    evoke.write_manifest(&with_sources("job", "was: [worker]"));
    evoke.up();
    // Ids belong to the `source` of their events, which has the name of the function.
    assert_eq!(post(&evoke).status, 202);
    std::fs::write(evoke.path("inbox/b.csv"), "b").unwrap();
    assert_eventually!(handled(&evoke, "/lab/job/files-1").0 == 1, "{}", evoke.log());
    evoke.settle();
    assert_eq!(handled(&evoke, "/lab/job/timer-1").0, 0, "no tick comes twice");
    assert_eq!(handled(&evoke, "/lab/job/http-1"), (1, 4 + before));
    // The source is another one while it runs, too.
    reload(&evoke, &with_sources("last", "was: [job, worker]"));
    std::fs::write(evoke.path("inbox/c.csv"), "c").unwrap();
    assert_eventually!(handled(&evoke, "/lab/last/files-1").0 == 1, "{}", evoke.log());
    evoke.settle();
    assert_eq!(evoke.events("echo").len(), 5 + before);
    evoke.stdout(&["check"]);
}

#[test]
fn a_replay_to_a_function_continues_under_its_new_name() {
    let evoke = Evoke::up_with(&with_order("worker", ""));
    (0..40).for_each(|n| post(&evoke, "a", n, 0));
    evoke.settle();
    let id = evoke.json(&["replay", "--function", "lab/worker", "--rate", "40/s", "--detach"])["id"].to_string();
    let done = || evoke.json(&["replay", "show", &id]);
    assert_eventually!(done()["events"].as_u64() > Some(3), "{}", done());
    reload(&evoke, &with_order("job", "was: [worker]"));
    assert_eventually!(done()["state"] == "done", "{}\n{}", done(), evoke.log());
    assert_eq!(done()["events"], 40);
    let replayed = evoke.events("witnessed");
    let numbers: Vec<_> = replayed
        .iter()
        .filter(|event| event["data"]["replay"] == true)
        .map(|event| event["data"]["n"].as_u64())
        .collect();
    assert_eq!(numbers, (0..40).map(Some).collect::<Vec<_>>());
    assert_eq!(replayed.last().unwrap()["source"], "/lab/job");
    evoke.stdout(&["check"]);
}

#[test]
fn a_failing_function_recovers_under_its_new_name_and_is_reported_once() {
    let mut evoke = Evoke::up_with(&with_state("worker", ""));
    (0..5).for_each(|_| drop(count(&evoke, "reject")));
    assert_eventually!(evoke.events("evoke.function.failing").len() == 1, "{}", evoke.log());
    evoke.kill();
    evoke.write_manifest(&with_state("job", "was: [worker]"));
    evoke.up();
    assert!(evoke.function_status("lab/job")["failing"].is_string());
    count(&evoke, "");
    let recovered = || evoke.events("evoke.function.recovered");
    assert_eventually!(recovered().len() == 1, "{}", evoke.log());
    assert_eq!(recovered()[0]["subject"], "lab/job");
    // While it runs, too.
    (0..5).for_each(|_| drop(count(&evoke, "reject")));
    assert_eventually!(evoke.events("evoke.function.failing").len() == 2, "{}", evoke.log());
    reload(&evoke, &with_state("last", "was: [job]"));
    count(&evoke, "");
    assert_eventually!(recovered().len() == 2, "{}", evoke.log());
    assert_eq!(recovered()[1]["subject"], "lab/last");
    assert_eq!(evoke.events("evoke.function.failing").len(), 2);
}
