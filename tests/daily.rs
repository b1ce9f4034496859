//! The daily work of an operator: finding events, deliveries and dead letters, and changing them.

use serde_json::{Value, json};

use crate::assert_eventually;
use crate::orders::ORDERS;
use crate::support::Evoke;

/// Two orders that succeed, then three that are rejected.
fn with_orders() -> Evoke {
    let evoke = Evoke::up_with(ORDERS);
    for customer in ["ada", "bob"] {
        evoke.post_accepted("/checkout", &order(customer, 42));
    }
    for total in 1..=3 {
        evoke.post_accepted("/checkout", &format!(r#"{{"customer":"eve","total":-{total},"items":["book"]}}"#));
    }
    evoke.settle();
    evoke
}

fn order(customer: &str, total: u32) -> String {
    json!({ "customer": customer, "total": total, "items": ["book"] }).to_string()
}

fn seqs(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

fn ids(letters: &[Value]) -> Vec<u64> {
    letters.iter().map(|letter| letter["delivery"]["id"].as_u64().unwrap()).collect()
}

/// Runs a command that must fail. Returns its exit code and message.
fn failure(evoke: &Evoke, arguments: &[&str]) -> (Option<i32>, String) {
    let output = evoke.run(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn events_are_found_by_function_time_pattern_and_text() {
    let evoke = with_orders();
    let list = |arguments: &[&str]| evoke.json_lines(&[&["events", "-n", "100"], arguments].concat());
    let orders = seqs(&list(&["--type", "order.placed"]));
    assert_eq!(orders.len(), 5);
    assert_eq!(seqs(&list(&["--function", "shop/charge"])), orders);
    assert_eq!(seqs(&list(&["--function", "charge"])), orders, "a unique short name");
    assert_eq!(list(&["--function", "receipt"]).len(), 2);
    let pattern = r#"{"type":["order.placed"],"data":{"customer":["ada"]}}"#;
    assert_eq!(seqs(&list(&["--pattern", pattern])), orders[..1]);
    assert_eq!(seqs(&list(&["--text", r#""eve""#, "--type", "order.placed"])), orders[2..]);
    let newest_first: Vec<_> = orders.iter().rev().copied().collect();
    assert_eq!(seqs(&list(&["--type", "order.placed", "--newest-first"])), newest_first);
    assert_eq!(
        seqs(&evoke.json_lines(&["events", "--type", "order.placed", "--newest-first", "-n", "2"])),
        newest_first[..2]
    );
    let before = orders[2].to_string();
    assert_eq!(seqs(&list(&["--type", "order.placed", "--before", &before])), orders[..2]);

    // The times of the envelopes bound the lists.
    let envelopes = list(&["--envelope", "--type", "order.placed"]);
    let accepted = envelopes[2]["accepted"].as_str().unwrap();
    let since = seqs(&list(&["--since", accepted, "--type", "order.placed"]));
    let until = seqs(&list(&["--until", accepted, "--type", "order.placed"]));
    assert_eq!([until, since.clone()].concat(), orders);
    assert!(since.contains(&orders[2]));
    assert_eq!(list(&["--since", "1h"]).len(), list(&[]).len());

    assert_eq!(evoke.stdout(&["events", "--source", "/nowhere"]), "");
    for (arguments, code, expected) in [
        (&["events", "--function", "shop/chrage"][..], 4, "did you mean `shop/charge`?"),
        (&["events", "--pattern", "{"], 1, "--pattern is not JSON"),
        (&["events", "--pattern", r#"{"type":"x"}"#], 1, "the pattern is not valid"),
        (&["events", "--since", "yesterday"], 2, "2026-01-31T12:00:00Z"),
        (&["events", "--follow", "--newest-first"], 2, "cannot be used"),
    ] {
        let (actual, message) = failure(&evoke, arguments);
        assert_eq!(actual, Some(code), "{arguments:?}: {message}");
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
}

#[test]
fn a_list_of_events_that_finds_nothing_reads_the_whole_range_and_ends() {
    let evoke = Evoke::up_with(ORDERS);
    let batch: Vec<Value> = (0..1_000).map(|n| json!({ "type": "noise", "data": { "n": n } })).collect();
    std::fs::write(evoke.path("batch.json"), serde_json::to_string(&batch).unwrap()).unwrap();
    for _ in 0..20 {
        evoke.stdout(&["emit", "--event", "@batch.json"]);
    }
    evoke.stdout(&["emit", "--type", "signal", "--data", "{}"]);
    assert_eq!(seqs(&evoke.json_lines(&["events", "--type", "signal", "-n", "5"])), [20_001]);
    assert_eq!(
        seqs(&evoke.json_lines(&["events", "--pattern", r#"{"data":{"n":[19]}}"#, "-n", "2"])),
        [18_020, 19_020]
    );
    assert_eq!(evoke.json_lines(&["events", "--pattern", r#"{"data":{"n":[-1]}}"#]).len(), 0);
    let progress =
        evoke.get_admin("/api/v1/events?pattern=%7B%22data%22%3A%7B%22n%22%3A%5B-1%5D%7D%7D&progress=true", &[]);
    assert!(progress.body.lines().all(|line| line.starts_with(r#"{"searched":"#)), "{}", progress.body);
}

#[test]
fn an_event_is_shown_with_who_received_it_and_who_did_not() {
    let evoke = with_orders();
    let seq = seqs(&evoke.json_lines(&["events", "--type", "order.placed", "--after", "0"]))[2].to_string();
    let whole = evoke.json(&["event", &seq]);
    assert_eq!((&whole["event"]["seq"].to_string(), &whole["deliveries"][0]["state"]), (&seq, &json!("dead")));
    let text = evoke.stdout(&["event", &seq]);
    let parts =
        ["\"customer\": \"eve\"", "delivered to", "shop/charge dead", "reject", "not delivered to", "shop/notify"];
    let places = parts.map(|part| text.find(part).unwrap_or_else(|| panic!("no {part} in {text}")));
    assert!(places.is_sorted(), "{text}");
    assert_eq!(failure(&evoke, &["event", "no-such-id"]).0, Some(4));
}

#[test]
fn dead_letters_are_listed_newest_first_selected_and_grouped() {
    let evoke = with_orders();
    let list = |arguments: &[&str]| ids(&evoke.json_lines(&[&["dead", "list"], arguments].concat()));
    let all = list(&[]);
    assert!(all.len() == 3 && all.is_sorted_by(|a, b| a > b), "{all:?}");
    assert_eq!(list(&["-n", "2"]), all[..2]);
    assert_eq!(list(&["--before", &all[1].to_string()]), all[2..]);
    assert_eq!((list(&["--cause", "reject"]), list(&["--cause", "timeout"])), (all.clone(), vec![]));
    assert_eq!((list(&["--type", "order.*"]), list(&["--type", "payment.taken"])), (all.clone(), vec![]));
    assert_eq!((list(&["--since", "1h"]), list(&["--until", "1h"])), (all.clone(), vec![]));
    assert_eq!(list(&["--function", "charge"]), all);

    let text = evoke.stdout(&["dead", "list", "-n", "2"]);
    assert!(text.contains("… and older ones") && text.contains(&format!("--before {}", all[1])), "{text}");
    let groups = evoke.json_lines(&["dead", "list", "--group"]);
    assert_eq!(groups.iter().map(|group| group["count"].as_u64().unwrap()).sum::<u64>(), 3);
    assert_eq!(groups[0]["function"], "shop/charge");
    assert!(groups[0]["first"].as_str().unwrap() <= groups[0]["last"].as_str().unwrap());

    // A dry run changes nothing.
    let text = evoke.stdout(&["dead", "purge", "--cause", "reject", "--dry-run"]);
    assert_eq!((text.trim(), list(&[]).len()), ("3 dead letters would be purged", 3));
    assert_eq!(evoke.json(&["dead", "redrive", "--all", "--dry-run"])["count"], 3);
    assert_eq!(evoke.json(&["dead", "purge", "--type", "payment.*"])["count"], 0);
    assert_eq!(evoke.json(&["dead", "purge", "--cause", "reject", "--since", "1h"])["count"], 3);
    assert_eq!(evoke.stdout(&["dead", "list"]).trim(), "no dead letters");
    for arguments in
        [&["dead", "purge"][..], &["dead", "purge", "--all", "--cause", "x"], &["dead", "purge", "1", "--all"]]
    {
        assert_eq!(failure(&evoke, arguments).0, Some(2), "{arguments:?}");
    }
    evoke.stdout(&["check"]);
}

#[test]
fn a_dead_letter_is_edited_and_delivered_to_its_function_only() {
    let mut evoke = with_orders();
    let letter = ids(&evoke.json_lines(&["dead", "list"]))[0].to_string();
    let root = evoke.json(&["dead", "show", &letter])["event"]["seq"].to_string();
    let dry = evoke.stdout(&["dead", "edit", &letter, "--data", &order("eve", 9), "--dry-run"]);
    assert!(dry.contains("\"total\": 9"), "{dry}");
    assert_eq!(evoke.json_lines(&["dead", "list"]).len(), 3);

    let edited = evoke.json(&["dead", "edit", &letter, "--data", &order("eve", 9)]);
    evoke.settle();
    let trace = evoke.json(&["trace", &root]);
    let delivery = &trace["deliveries"][0];
    let published = delivery["published"].as_array().unwrap();
    let again = published.iter().find(|event| event["seq"] == edited["seq"]).unwrap();
    assert_eq!((&delivery["state"], &again["deliveries"][0]["state"]), (&json!("purged"), &json!("done")), "{trace:#}");
    assert_eq!((&again["event"]["data"]["total"], &trace["event"]["data"]["total"]), (&json!(9), &json!(-3)));
    assert_eq!(
        (&again["event"]["source"], &again["event"]["type"]),
        (&json!("/shop/checkout"), &json!("order.placed"))
    );
    assert_eq!(again["deliveries"].as_array().unwrap().len(), 1);

    let (code, message) = failure(&evoke, &["dead", "edit", &letter, "--data", "{}"]);
    assert!(code == Some(1) && message.contains("not a dead letter: its state is purged"), "{message}");
    let next = ids(&evoke.json_lines(&["dead", "list"]))[0].to_string();
    let (_, message) = failure(&evoke, &["dead", "edit", &next, "--data", "{"]);
    assert!(message.contains("not JSON") && message.contains("nothing was changed"), "{message}");
    assert_eq!(failure(&evoke, &["dead", "edit", "999", "--data", "{}"]).0, Some(4));

    // The editor receives the present data.
    evoke.set_environment(&[("EDITOR", "sed -i s/-2/7/")]);
    evoke.stdout(&["dead", "edit", &next]);
    evoke.set_environment(&[("EDITOR", "true")]);
    let last = ids(&evoke.json_lines(&["dead", "list"]))[0].to_string();
    let (_, message) = failure(&evoke, &["dead", "edit", &last]);
    assert!(message.contains("the data was not changed"), "{message}");
    evoke.settle();
    assert_eq!(evoke.events("payment.taken").len(), 4);
    evoke.stdout(&["check"]);
}

const PENDING: &str = "
evoke: 1
app: lab
sources:
  in:
    http: { path: /in, type: lab.in }
functions:
  later:
    component: $FUNCTIONS/fate-retry.wasm
    order_by: data.key
    retry: { attempts: 3 }
    on:
      - events: { type: [lab.in] }
";

#[test]
fn pending_deliveries_name_what_they_wait_for_and_are_retried_at_once() {
    let evoke = Evoke::up_with(PENDING);
    for key in ["a", "a", "b"] {
        evoke.post_accepted("/in", &json!({ "key": key, "after_ms": 3_600_000 }).to_string());
    }
    let list = |state: &str| evoke.json_lines(&["pending", "list", "--function", "later", "--state", state]);
    assert_eventually!(list("retrying").len() == 2, "{}", evoke.log());
    let (retrying, blocked) = (list("retrying"), list("blocked"));
    let first = &retrying[0]["delivery"];
    assert_eq!(blocked[0]["blocked_by"], json!({ "delivery": first["id"], "state": "retrying" }));
    let due: jiff::Timestamp = first["due"].as_str().unwrap().parse().unwrap();
    assert!(due > jiff::Timestamp::now(), "{first}");
    let text = evoke.stdout(&["pending", "list"]);
    assert!(text.contains("retry at") && text.contains(&format!("delivery {} (retrying)", first["id"])), "{text}");
    let status = evoke.json(&["status"]);
    let function = &status["functions"][0];
    assert!(function["pending_since"].is_string() && function["p95_us"].is_u64(), "{function}");
    assert_eq!(function["last_error"]["outcome"], "retry");
    assert!(function["rate"].as_f64().unwrap() > 0.0, "{function}");

    assert_eq!(evoke.stdout(&["pending", "retry", "--all", "--dry-run"]).trim(), "2 deliveries would be made ready");
    assert_eq!(evoke.json(&["pending", "retry", "--function", "lab/later"])["count"], 2);
    let attempts = |n: usize| {
        let all = evoke.json_lines(&["pending", "list", "--state", "retrying"]);
        all.len() == 2 && all.iter().all(|one| one["delivery"]["attempts"].as_array().unwrap().len() == n)
    };
    assert_eventually!(attempts(2), "{}", evoke.log());
    let id = first["id"].to_string();
    assert_eq!(evoke.stdout(&["pending", "retry", &id]).trim(), "1 delivery made ready");
    let blocker = || evoke.json_lines(&["pending", "list", "--state", "blocked"]);
    assert_eventually!(
        blocker().iter().any(|one| one["blocked_by"]["state"] == "dead"),
        "the last attempt makes a dead letter, which blocks its key\n{}",
        evoke.log()
    );
    assert!(evoke.stdout(&["pending", "list"]).contains(&format!("dead letter {id}")));
    let (code, message) = failure(&evoke, &["pending", "retry", &id]);
    assert!(code == Some(4) && message.contains("does not wait for a retry"), "{message}");
    assert_eq!(evoke.json(&["pending", "cancel", "--all"])["count"], 2);
    assert_eq!(evoke.stdout(&["pending", "list"]).trim(), "no pending deliveries");
    evoke.stdout(&["check"]);
}

#[test]
fn a_running_delivery_shows_since_when_it_runs() {
    let manifest = PENDING.replace("fate-retry", "fate-sleep");
    let evoke = Evoke::up_with(&manifest);
    evoke.post_accepted("/in", r#"{"key":"a"}"#);
    let running = || evoke.json_lines(&["pending", "list"]).iter().any(|one| one["running_since"].is_string());
    assert_eventually!(running(), "{}", evoke.log());
}
