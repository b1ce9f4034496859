//! An operator pauses functions and apps, and cancels pending deliveries.

use serde_json::json;

use crate::assert_eventually;
use crate::support::Evoke;

const MANIFEST: &str = "
evoke: 1
app: lab
sources:
  in:
    http: { path: /in, type: lab.in }
functions:
  worker:
    component: $FUNCTIONS/witness.wasm
    allow: { publish: [witnessed] }
    order_by: data.key
    on:
      - events: { type: [lab.in] }
  echo:
    component: $FUNCTIONS/echo.wasm
    allow: { publish: [echo] }
    on:
      - events: { type: [evoke.function.paused, evoke.function.resumed] }
  page:
    component: $FUNCTIONS/http-hello.wasm
    on:
      - http: { path: /page, methods: [GET] }
";

fn post(evoke: &Evoke, key: &str, n: u32) {
    evoke.post_accepted("/in", &json!({ "key": key, "n": n }).to_string());
}

#[test]
fn a_pause_holds_across_a_kill_and_a_restart_and_a_resume_loses_nothing() {
    let mut evoke = Evoke::up_with(MANIFEST);
    assert!(evoke.stdout(&["pause", "lab/worker"]).contains("lab/worker paused"));
    assert!(evoke.stdout(&["pause", "lab/worker"]).contains("was already paused"));
    for n in 0..20 {
        post(&evoke, &format!("k{}", n % 5), n);
    }
    evoke.kill();
    evoke.up();
    post(&evoke, "k0", 20);
    assert!(evoke.function_status("lab/worker")["paused"].is_string());
    assert!(evoke.function_status("lab/echo")["paused"].is_null());
    assert!(evoke.stdout(&["status"]).contains("lab/worker is paused since"));
    // The other function handles the event of the pause, and one of another pause.
    evoke.stdout(&["pause", "lab"]);
    evoke.stdout(&["resume", "lab"]);
    assert_eventually!(evoke.events("echo").len() == 3, "{}", evoke.log());
    let status = evoke.json(&["status"]);
    assert_eq!((&status["pending"], evoke.events("witnessed").len()), (&json!(21), 0));
    assert!(evoke.stop().success(), "{}", evoke.log());
    evoke.stdout(&["check"]);

    evoke.up();
    assert_eq!(evoke.function_status("lab/worker")["ready"], 5);
    assert!(evoke.stdout(&["resume", "lab/worker"]).contains("lab/worker resumed"));
    evoke.settle();
    assert_eq!(evoke.events("witnessed").len(), 21);
    let reports = evoke.events("evoke.function.*");
    let subjects: Vec<_> = reports.iter().map(|event| (&event["type"], &event["subject"])).collect();
    let (paused, resumed) = (json!("evoke.function.paused"), json!("evoke.function.resumed"));
    let (worker, app) = (json!("lab/worker"), json!("lab"));
    assert_eq!(subjects, [(&paused, &worker), (&paused, &app), (&resumed, &app), (&resumed, &worker)]);
    assert_eq!(reports[0]["data"]["function"], "lab/worker");
    evoke.stdout(&["check"]);
}

#[test]
fn a_paused_app_stops_all_of_its_functions_until_the_app_is_resumed() {
    let evoke = Evoke::up_with(MANIFEST);
    evoke.stdout(&["pause", "lab"]);
    post(&evoke, "k", 1);
    let refused = evoke.run(&["resume", "lab/worker"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("`evoke resume lab`"), "{refused:?}");
    assert_eq!(evoke.json(&["status"])["pending"], 2, "the event and the report of the pause");
    // Requests have no deliveries.
    assert_eq!(crate::support::request("GET", evoke.http(), "/page", &[], "").unwrap().status, 200);
    evoke.stdout(&["resume", "lab"]);
    evoke.settle();
    assert_eq!(evoke.events("witnessed").len(), 1);
}

#[test]
fn unknown_names_are_errors_with_a_suggestion() {
    let evoke = Evoke::up_with(MANIFEST);
    for (arguments, code, expected) in [
        (&["pause", "lab/wroker"][..], 4, "did you mean `lab/worker`?"),
        (&["pause", "lap"], 4, "did you mean `lab`?"),
        (&["resume", "lab/echoo"], 4, "did you mean `lab/echo`?"),
        (&["pause", "lab/page"], 1, "has no deliveries"),
        (&["pending", "cancel", "--function", "lab/wroker"], 4, "did you mean `lab/worker`?"),
        (&["pending", "list", "--function", "lab/wroker"], 4, "did you mean `lab/worker`?"),
        (&["pending", "cancel", "--root", "999"], 4, "there is no event 999"),
        (&["pending", "cancel", "999"], 4, "there is no delivery 999"),
        (&["pending", "cancel"], 2, "required"),
    ] {
        let output = evoke.run(arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
    assert!(evoke.stdout(&["resume", "lab/worker"]).contains("was not paused"));
}

#[test]
fn pending_deliveries_are_cancelled_by_number_root_and_function_and_can_be_redriven() {
    let mut evoke = Evoke::up_with(MANIFEST);
    evoke.stdout(&["pause", "lab/worker"]);
    // Its report is handled first, so that only the worker's deliveries are pending.
    assert_eventually!(evoke.events("echo").len() == 1, "{}", evoke.log());
    for n in 0..6 {
        post(&evoke, &format!("k{}", n / 2), n);
    }
    let pending = evoke.json_lines(&["pending", "list"]);
    assert_eq!(pending.len(), 6);
    let states: Vec<_> = pending.iter().map(|one| one["delivery"]["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["ready", "blocked", "ready", "blocked", "ready", "blocked"]);
    assert!(evoke.stdout(&["pending", "list"]).contains("lab/worker"));

    let id = pending[1]["delivery"]["id"].to_string();
    assert_eq!(evoke.stdout(&["pending", "cancel", &id]).trim(), "1 delivery cancelled");
    assert_eq!(evoke.run(&["pending", "cancel", &id]).status.code(), Some(4));
    let root = pending[2]["delivery"]["event"].to_string();
    assert_eq!(evoke.json(&["pending", "cancel", "--root", &root])["count"], 1);
    assert_eq!(evoke.json(&["pending", "cancel", "--function", "lab/worker"])["count"], 4);
    assert_eq!((evoke.delivery_count("dead"), evoke.json(&["status"])["pending"].as_u64()), (6, Some(0)));
    let letters = evoke.json_lines(&["dead", "list"]);
    assert!(letters.iter().all(|one| one["delivery"]["cause"].as_str().unwrap().starts_with("cancelled")));
    evoke.stdout(&["check"]);
    evoke.kill();
    evoke.up();
    evoke.stdout(&["check"]);
    evoke.stdout(&["resume", "lab/worker"]);
    assert_eq!(evoke.events("witnessed").len(), 0);

    // Redriven deliveries of a key run in their order.
    assert_eq!(evoke.json(&["dead", "redrive", "--all"])["count"], 6);
    evoke.settle();
    let numbers: Vec<_> = evoke.events("witnessed").iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers.len(), 6);
    for key in 0..3 {
        let of_key: Vec<_> = numbers.iter().filter(|n| **n / 2 == key).copied().collect();
        assert_eq!(of_key, [2 * key, 2 * key + 1], "{numbers:?}");
    }
    evoke.stdout(&["check"]);
}
