//! Claims of producers: no http source accepts a source or a type of an app or of the runtime, in any mode and
//! spelling, and no id can be used up for another source.

use serde_json::{Value, json};

use crate::assert_eventually;
use crate::support::{Evoke, Response};

/// `hook` accepts only its own events, `open` whatever it can.
const SHOP: &str = r#"
evoke: 1
app: shop
sources:
  hook:
    http: { path: /hook, type: hook.called }
  open:
    http: { path: /open, type: open.called, accept: { types: ["*"], sources: ["*"] } }
functions:
  charge:
    component: $FUNCTIONS/echo.wasm
    on:
      - events: { type: [payment.due] }
    allow: { publish: [echo] }
  victim:
    component: $FUNCTIONS/echo.wasm
    on:
      - events: { source: [/shop/charge, /depot/nightly, /evoke] }
      - events: { type: [payment.taken, evoke.timer.tick, evoke.delivery.dead], source: [{ wildcard: "*/shop*" }] }
    allow: { publish: [echo] }
"#;

const DEPOT: &str = r#"
evoke: 1
app: depot
sources:
  nightly:
    timer: { every: 24h }
"#;

/// Sends an event in each mode: structured, batch and binary.
fn send(evoke: &Evoke, path: &str, id: &str, type_: &str, source: &str) -> [Response; 3] {
    let event = json!({ "specversion": "1.0", "id": id, "type": type_, "source": source, "data": 1 });
    let header = |text: &str| -> String {
        // Binary mode percent-encodes what a header cannot have, and the percent sign itself.
        text.bytes()
            .map(|b| {
                if b.is_ascii_graphic() && b != b'%' && b != b'"' { char::from(b).into() } else { format!("%{b:02X}") }
            })
            .collect()
    };
    let (id, type_, source) = (header(id), header(type_), header(source));
    let binary = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", id.as_str()),
        ("ce-type", type_.as_str()),
        ("ce-source", source.as_str()),
    ];
    [
        evoke.post_with(path, &[("content-type", "application/cloudevents+json")], &event.to_string()),
        evoke.post_with(path, &[("content-type", "application/cloudevents-batch+json")], &json!([event]).to_string()),
        evoke.post_with(path, &binary, "1"),
    ]
}

fn envelopes(evoke: &Evoke, arguments: &[&str]) -> Vec<Value> {
    evoke.json_lines(&[&["events", "--after", "0", "--envelope"], arguments].concat())
}

#[test]
fn no_mode_accepts_a_source_or_type_of_an_app_or_of_the_runtime() {
    let mut evoke = Evoke::with(SHOP);
    std::fs::write(evoke.path("depot.yaml"), DEPOT).unwrap();
    evoke.up_with_arguments(&["depot.yaml"]);
    let claims = [
        ("payment.taken", "/shop/charge", 403, "source"),
        ("payment.taken", "/shop", 403, "source"),
        ("payment.taken", "/shop/charge/", 403, "source"),
        ("payment.taken", "//shop/charge", 403, "source"),
        ("payment.taken", "/shop//charge", 403, "source"),
        ("payment.taken", "/./shop/charge", 403, "source"),
        ("payment.taken", "/x/../shop/charge", 403, "source"),
        ("payment.taken", "shop/charge", 403, "source"),
        ("payment.taken", "/SHOP/charge", 403, "source"),
        ("payment.taken", "/%73hop/charge", 403, "source"),
        ("payment.taken", "/%2573hop/charge", 403, "source"),
        ("payment.taken", "/shop%2Fcharge", 403, "source"),
        ("payment.taken", "/shop/charge?x=1", 403, "source"),
        ("payment.taken", "/shop/charge#x", 403, "source"),
        ("payment.taken", "/shop;x/charge", 403, "source"),
        ("payment.taken", "http://localhost:8080/shop/charge", 403, "source"),
        ("payment.taken", "http://127.0.0.1/shop/charge", 403, "source"),
        ("payment.taken", "https://other.example/shop/charge", 403, "source"),
        ("payment.taken", "file:///shop/charge", 403, "source"),
        ("payment.taken", "http:/shop/charge", 403, "source"),
        ("payment.taken", "/depot/nightly", 403, "source"),
        ("payment.taken", "/evoke", 403, "source"),
        ("payment.taken", "/evoke/emit", 403, "source"),
        ("payment.taken", "/%65voke", 403, "source"),
        ("payment.taken", "/ѕhop/charge", 400, "source"),
        ("payment.taken", "/shop/charge ", 400, "source"),
        ("payment.taken", "/shop/charge\u{a0}", 400, "source"),
        ("payment.taken", "/shop\\charge", 400, "source"),
        ("payment.taken", "/shop/charge\u{0}", 400, "source"),
        ("payment.taken", "/shop/charge\n", 400, "source"),
        ("payment.taken\u{7f}", "/shop/hook", 400, "type"),
        ("evoke.timer.tick", "/shop/hook", 403, "type"),
        ("evoke.delivery.dead", "/elsewhere", 403, "type"),
        ("evoke.anything", "/elsewhere", 403, "type"),
        ("Evoke.Timer.Tick", "/elsewhere", 403, "type"),
        ("evoke%2Etimer.tick", "/elsewhere", 403, "type"),
        ("е\u{76}oke.timer.tick", "/elsewhere", 403, "type"),
        ("payment.taken ", "/elsewhere", 403, "type"),
    ];
    for path in ["/hook", "/open"] {
        for (n, (type_, source, status, attribute)) in claims.into_iter().enumerate() {
            for response in send(&evoke, path, &format!("claim-{n}"), type_, source) {
                let problem = response.json();
                let detail = problem["detail"].as_str().unwrap();
                if path == "/open" {
                    assert_eq!(response.status, status, "{path} {type_:?} {source:?}: {problem}");
                    assert!(
                        detail.contains(&format!("`{attribute}`")) || problem["attribute"] == attribute,
                        "{problem}"
                    );
                } else {
                    // `hook` does not accept the type either.
                    assert!([400, 403].contains(&response.status), "{type_:?} {source:?}: {problem}");
                }
                assert_eq!(response.headers["content-type"], "application/problem+json");
            }
        }
    }
    // One claim refuses its whole batch.
    let batch = json!([
        { "specversion": "1.0", "id": "good", "type": "open.called", "source": "/shop/open" },
        { "specversion": "1.0", "id": "bad", "type": "open.called", "source": "/shop/charge" },
    ]);
    let response =
        evoke.post_with("/open", &[("content-type", "application/cloudevents-batch+json")], &batch.to_string());
    assert_eq!((response.status, &response.json()["event"]), (403, &json!(1)), "{response:?}");
    // A header that is sent twice is ambiguous.
    let twice = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-type", "open.called"),
        ("ce-source", "/elsewhere"),
        ("ce-source", "/shop/charge"),
    ];
    assert_eq!(evoke.post_with("/open", &twice, "").status, 400);
    evoke.settle();
    assert_eq!(evoke.json_lines(&["events", "--after", "0"]), [json!(null); 0]);
}

#[test]
fn an_http_source_accepts_its_own_events_and_those_of_its_globs() {
    let accept = "accept: { types: [\"order.*\"], sources: [\"https://partner.example/*\"] }";
    let evoke = Evoke::up_with(&SHOP.replace("type: hook.called }", &format!("type: hook.called, {accept} }}")));
    let accepted = [
        ("hook.called", "/shop/hook"),
        ("order.placed", "https://partner.example/shop"),
        ("hook.called", "https://partner.example/x"),
    ];
    for (n, (type_, source)) in accepted.into_iter().enumerate() {
        let statuses = send(&evoke, "/hook", &n.to_string(), type_, source).map(|response| response.status);
        assert_eq!(statuses, [202, 200, 200], "{type_} {source}");
    }
    for (type_, source) in [("payment.due", "/shop/hook"), ("order.placed", "https://partner.example"), ("x", "/y")] {
        let statuses = send(&evoke, "/hook", "7", type_, source).map(|response| response.status);
        assert_eq!(statuses, [403; 3], "{type_} {source}");
    }
    let [refused, ..] = send(&evoke, "/hook", "7", "order.placed", "/partner/x");
    let problem = refused.json();
    assert_eq!(problem["attribute"], "source");
    let expected = r#"it accepts `/shop/hook`, `https://partner.example/*`"#;
    assert!(problem["detail"].as_str().unwrap().contains(expected), "{problem}");
    let expected = r#"`accept: { sources: ["/partner/x"] }`"#;
    assert!(problem["detail"].as_str().unwrap().contains(expected), "{problem}");
}

#[test]
fn a_trigger_on_a_source_takes_what_entered_through_it_whatever_the_event_claims() {
    let manifest = r#"
evoke: 1
app: shop
sources:
  hook:
    http: { path: /hook, type: hook.called, accept: { sources: ["https://partner.example/*"] } }
  other:
    http: { path: /other, type: hook.called }
functions:
  echo:
    component: $FUNCTIONS/echo.wasm
    on: [{ source: hook }]
    allow: { publish: [echo] }
  witness:
    component: $FUNCTIONS/witness.wasm
    on: [{ source: hook, events: { type: [hook.called], subject: [{ exists: false }] } }]
    allow: { publish: [witnessed] }
"#;
    let evoke = Evoke::up_with(manifest);
    let event = json!({ "specversion": "1.0", "id": "1", "type": "hook.called", "source": "https://partner.example/a",
                        "data": {} });
    let structured = [("content-type", "application/cloudevents+json")];
    assert_eq!(evoke.post_with("/hook", &structured, &event.to_string()).status, 202);
    evoke.post_accepted("/hook", "{}");
    evoke.post_accepted("/other", "{}");
    // An operator may claim the source; that does not make the event one of the source.
    evoke.stdout(&["emit", "--type", "hook.called", "--source", "/shop/hook", "--id", "operator", "--data", "{}"]);
    evoke.settle();
    assert_eq!((evoke.done_count("shop/echo"), evoke.done_count("shop/witness")), (2, 2));
    // A published event has the origin of its chain, and did not enter through it.
    let origins: Vec<Value> =
        envelopes(&evoke, &[]).iter().map(|found| json!([found["event"]["type"], found["origin"]])).collect();
    assert_eq!(origins.iter().filter(|origin| **origin == json!(["echo", "/shop/hook"])).count(), 2, "{origins:?}");
    assert!(origins.contains(&json!(["hook.called", "/evoke/emit"])), "{origins:?}");
    assert_eq!(evoke.json(&["trace", "1"])["origin"], "/shop/hook");
    assert!(evoke.stdout(&["trace", "1"]).contains("from https://partner.example/a through /shop/hook"));
    let explained = evoke.json(&["explain", "operator", "--function", "shop/echo"]);
    assert_eq!(explained[0]["matched"], false);
    assert!(explained[0]["text"].as_str().unwrap().contains("/evoke/emit"), "{explained}");
    assert_eq!(evoke.json(&["explain", "1", "--function", "shop/echo"])[0]["matched"], true);
    // A replay selects the same events.
    evoke.stdout(&["replay", "--function", "shop/echo", "--wait"]);
    assert_eq!(evoke.done_count("shop/echo"), 4);
}

#[test]
fn ids_of_coming_ticks_cannot_be_used_up() {
    const COMING: i64 = 600;
    let manifest = r#"
evoke: 1
app: clock
sources:
  pulse:
    timer: { every: 100ms }
  open:
    http: { path: /open, accept: { types: ["*"], sources: ["*"] } }
functions:
  heartbeat:
    component: $FUNCTIONS/heartbeat.wasm
    on: [{ source: pulse }]
    allow: { publish: [heartbeat] }
"#;
    let evoke = Evoke::up_with(manifest);
    let newest = || evoke.events("evoke.timer.tick").last().map(|tick| tick["id"].as_str().unwrap().to_owned());
    assert_eventually!(newest().is_some(), "no tick: {}", evoke.log());
    let at: jiff::Timestamp = newest().unwrap().parse().unwrap();
    let coming: Vec<String> = (1..=COMING)
        .map(|n| jiff::Timestamp::from_millisecond(at.as_millisecond() + n * 100).unwrap().to_string())
        .collect();
    let occupied: Vec<Value> = coming
        .iter()
        .map(|id| json!({ "specversion": "1.0", "id": id, "type": "a.b", "source": "/clock/pulse" }))
        .collect();
    // Producers cannot claim the source of the timer at all.
    let batch = Value::from(occupied).to_string();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    assert_eq!(evoke.post_with("/open", &headers, &batch).status, 403);
    // An operator can, and uses up no id of the timer.
    std::fs::write(evoke.path("occupied.json"), &batch).unwrap();
    evoke.stdout(&["emit", "--event", "@occupied.json"]);
    let operators = envelopes(&evoke, &["--type", "a.b"]);
    assert_eq!(operators.len() as i64, COMING);
    let real = || -> Vec<String> {
        let ticks = envelopes(&evoke, &["--type", "evoke.timer.tick"]);
        let of_timer = ticks.iter().filter(|tick| tick["origin"] == "/clock/pulse");
        of_timer.map(|tick| tick["event"]["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eventually!(
        real().iter().filter(|id| coming.contains(id)).count() >= 5,
        "the timer is silent: {}",
        evoke.log()
    );
    // Only the timer's own events are ticks for the functions.
    let of_operator = evoke.json(&["trace", &operators[0]["seq"].to_string()]);
    assert_eq!((&of_operator["origin"], &of_operator["deliveries"]), (&json!("/evoke/emit"), &json!([])));
    evoke.stdout(&["check"]);
}

#[test]
fn each_source_has_its_own_ids_also_after_a_restart() {
    let manifest = r#"
evoke: 1
app: lab
sources:
  one:
    http: { path: /one, type: a.b, accept: { sources: [/partner] } }
  two:
    http: { path: /two, type: a.b, accept: { sources: [/partner] } }
"#;
    let mut evoke = Evoke::up_with(manifest);
    let send = |evoke: &Evoke, path: &str| {
        let event = json!({ "specversion": "1.0", "id": "7", "type": "a.b", "source": "/partner" });
        evoke.post_with(path, &[("content-type", "application/cloudevents+json")], &event.to_string()).status
    };
    assert_eq!((send(&evoke, "/one"), send(&evoke, "/two")), (202, 202));
    assert_eq!((send(&evoke, "/one"), send(&evoke, "/two")), (200, 200));
    evoke.kill();
    evoke.up();
    assert_eq!((send(&evoke, "/one"), send(&evoke, "/two")), (200, 200));
    let origins: Vec<Value> = envelopes(&evoke, &[]).iter().map(|found| found["origin"].clone()).collect();
    assert_eq!(origins, ["/lab/one", "/lab/two"]);
}

#[test]
fn a_source_of_an_app_that_is_declared_later_cannot_be_claimed_from_then_on_and_old_claims_are_not_replayed() {
    let later = r#"
evoke: 1
app: later
functions:
  victim:
    component: $FUNCTIONS/echo.wasm
    on:
      - events: { source: [/later/job] }
    allow: { publish: [echo] }
  job:
    component: $FUNCTIONS/echo.wasm
    on: [{ http: { path: /job, type: job.asked } }]
    allow: { publish: [echo] }
"#;
    let mut evoke = Evoke::with(SHOP);
    std::fs::create_dir(evoke.path("apps")).unwrap();
    std::fs::write(evoke.path("apps/depot.yaml"), DEPOT).unwrap();
    evoke.up_with_arguments(&["--watch", "apps"]);
    let claims = send(&evoke, "/open", "before", "job.done", "/later/job").map(|response| response.status);
    assert_eq!(claims, [202, 200, 200]);
    let functions = crate::support::components().display().to_string();
    std::fs::write(evoke.path("apps/later.yaml"), later.replace("$FUNCTIONS", &functions)).unwrap();
    assert_eventually!(evoke.post("/job", "{}").status == 202, "not reloaded: {}", evoke.log());
    let claims = send(&evoke, "/open", "after", "job.done", "/later/job").map(|response| response.status);
    assert_eq!(claims, [403; 3]);
    evoke.settle();
    let victims = evoke.done_count("later/victim");
    assert!(victims > 0, "the events of the function itself arrive");
    let plan = evoke.json(&["replay", "--function", "later/victim", "--dry-run"]);
    assert_eq!(plan["deliveries"], victims, "only the function's own events: {plan}");
    let examples = plan["examples"].as_array().unwrap();
    assert!(examples.iter().all(|example| example["id"] != "before"), "{plan}");
}

#[test]
fn an_operator_may_claim_a_source_and_it_is_recorded() {
    let evoke = Evoke::up_with(SHOP);
    evoke.stdout(&["emit", "--type", "payment.taken", "--source", "/shop/charge", "--data", "1"]);
    evoke.settle();
    assert_eq!(evoke.done_count("shop/victim"), 1);
    assert_eq!(envelopes(&evoke, &["--type", "payment.taken"])[0]["origin"], "/evoke/emit");
    assert_eq!(envelopes(&evoke, &["--type", "echo"])[0]["origin"], "/evoke/emit");
}
