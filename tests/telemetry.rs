//! Telemetry: metrics as Prometheus scrapes them, health endpoints, and spans as an OpenTelemetry collector gets them.

pub(crate) mod collector;
mod exposition;
mod traces;

use std::collections::BTreeMap;

use crate::assert_eventually;
use crate::orders::ORDERS;
use crate::support::{Evoke, get, request, root};
use exposition::Scrape;

/// Two functions: `slow` runs longer than any test waits, `quick` is done at once.
const SLOW: &str = r#"
evoke: 1
app: lab
sources:
  in: { http: { path: /in, type: lab.in } }
  soon: { http: { path: /quick, type: lab.quick } }
functions:
  slow:
    component: $FUNCTIONS/fate-sleep.wasm
    on: [{ events: { type: [lab.in] } }]
    timeout: 2m
  quick:
    component: $FUNCTIONS/fate-done.wasm
    on: [{ events: { type: [lab.quick] } }]
"#;

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

pub(crate) fn scrape(evoke: &Evoke) -> Scrape {
    let response = evoke.get_admin("/metrics", &[("accept", OPEN_METRICS)]);
    assert_eq!(response.status, 200);
    assert_eq!(response.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    Scrape::read(&response.body, true)
}

fn counts<const N: usize>(pairs: [(&str, u64); N]) -> BTreeMap<String, u64> {
    pairs.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

/// A manifest with an HTTP component.
const WEB: &str = r#"
evoke: 1
app: lab
functions:
  web:
    component: $FUNCTIONS/http-answer.wasm
    on: [{ http: { path: /web, methods: [GET] } }]
    timeout: 2s
"#;

#[test]
fn requests_to_http_components_are_counted_by_outcome() {
    let evoke = Evoke::up_with(WEB);
    let statuses =
        ["/web", "/web?created", "/web?trap", "/web?silent", "/web?spin"].map(|at| get(evoke.http(), at).status);
    assert_eq!(statuses, [200, 201, 502, 502, 504]);
    let now = scrape(&evoke);
    assert_eq!(
        now.by("evoke_requests_total", ("function", "lab/web"), "outcome"),
        counts([("answered", 2), ("failed", 2), ("late", 1)])
    );
    assert_eq!(now.count("evoke_request_duration_seconds", &[("function", "lab/web")]), 2);
}

#[test]
fn metrics_match_the_handled_events_exactly() {
    let mut evoke = Evoke::up_with(ORDERS);
    let post = |headers: &[(&str, &str)], body: &str| {
        evoke.post_with("/checkout", &[headers, &[("content-type", "application/json")]].concat(), body).status
    };
    let order = r#"{"customer":"ada","total":42,"items":["book"]}"#;
    assert_eq!(post(&[("idempotency-key", "one")], order), 202);
    assert_eq!(post(&[("idempotency-key", "one")], order), 200);
    assert_eq!(post(&[], r#"{"customer":"bob","total":0,"items":["book"]}"#), 202);
    assert_eq!(post(&[], r#"{"customer":"eve","total":7,"items":["pen"],"gateway_failures":1}"#), 202);
    assert_eq!(post(&[], "{"), 400);
    assert_eq!(post(&[], &format!(r#""{}""#, "x".repeat(1024 * 1024))), 413);
    evoke.stdout(&["emit", "--type", "order.placed", "--data", order]);
    evoke.settle();
    // Counters are incremented shortly after the commit.
    let notified = [("function", "shop/notify"), ("outcome", "done")];
    assert_eventually!(scrape(&evoke).value("evoke_deliveries_total", &notified) == 3.0, "{:#?}", scrape(&evoke));

    let now = scrape(&evoke);
    let by_function = |name: &str, function: &str| now.by(name, ("function", function), "outcome");
    assert_eq!(
        now.by("evoke_events_accepted_total", ("source", "http"), "outcome"),
        counts([("new", 3), ("duplicate", 1)])
    );
    assert_eq!(now.by("evoke_events_accepted_total", ("source", "api"), "outcome"), counts([("new", 1)]));
    assert_eq!(
        now.by("evoke_events_refused_total", ("source", "http"), "reason"),
        counts([("invalid", 1), ("too-large", 1)])
    );
    assert_eq!(by_function("evoke_attempts_total", "shop/charge"), counts([("done", 3), ("reject", 1), ("retry", 1)]));
    assert_eq!(by_function("evoke_deliveries_total", "shop/charge"), counts([("done", 3), ("dead", 1), ("retry", 1)]));
    assert_eq!(by_function("evoke_deliveries_total", "shop/receipt"), counts([("done", 3)]));
    assert_eq!(now.value("evoke_deliveries_matched_total", &[]), 10.0);
    assert_eq!(now.value("evoke_events_stored_total", &[]), 11.0, "including the event that reports the dead letter");
    for (function, published, dead) in
        [("shop/charge", 3.0, 1.0), ("shop/receipt", 3.0, 0.0), ("shop/notify", 0.0, 0.0)]
    {
        let of = [("function", function)];
        assert_eq!(now.value("evoke_events_published_total", &of), published, "{function}");
        assert_eq!(now.value("evoke_dead_letters", &of), dead, "{function}");
        for queue in ["ready", "retrying", "blocked", "held", "running"] {
            assert_eq!(now.value(&format!("evoke_deliveries_{queue}"), &of), 0.0, "{function} {queue}");
        }
    }
    assert_eq!(now.value("evoke_deliveries_pending", &[]), 0.0);
    assert_eq!(now.value("evoke_deliveries_pending_size_bytes", &[]), 0.0);
    let charge = [("function", "shop/charge")];
    assert_eq!(now.count("evoke_attempt_duration_seconds", &charge), 5);
    assert_eq!(now.count("evoke_delivery_wait_seconds", &charge), 4);
    assert_eq!(now.count("evoke_delivery_latency_seconds", &charge), 3);
    // 1 write counts ends of the process, 1 registers the sources and 1 the functions, 5 accept events (one is a
    // duplicate), and 11 complete attempts.
    assert_eq!(now.value("evoke_commit_writes_sum", &[]), 3.0 + 5.0 + 11.0);
    assert_eq!(now.count("evoke_commit_writes", &[]), now.count("evoke_commit_duration_seconds", &[]));
    let on_disk = std::fs::metadata(evoke.path(".evoke/evoke.db")).unwrap().len() as f64;
    assert!(now.value("evoke_store_size_bytes", &[]) >= on_disk);
    assert_eq!(now.value("evoke_source_degraded", &[("source", "/shop/checkout")]), 0.0);
    assert_eq!(now.value("evoke_sandbox_instances", &[]), 0.0);
    assert_eq!(now.value("evoke_sandbox_instances_max", &[]), 64.0);
    let loads = |now: &Scrape, result| now.value("evoke_compiled_cache_loads_total", &[("result", result)]);
    assert_eq!((loads(&now, "hit"), loads(&now, "miss")), (0.0, 3.0));
    assert_eq!(now.value("evoke_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    let age = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
        - now.value("process_start_time_seconds", &[]);
    assert!((0.0..600.0).contains(&age), "{age}");

    // Counters start at 0 after a restart. Gauges that are read from the store keep their values.
    evoke.stop();
    evoke.up();
    let now = scrape(&evoke);
    assert_eq!((loads(&now, "hit"), loads(&now, "miss")), (3.0, 0.0));
    assert_eq!(now.value("evoke_dead_letters", &charge), 1.0);
    assert_eq!(now.value("evoke_events_stored_total", &[]), 11.0);
    assert_eq!(now.by("evoke_attempts_total", charge[0], "outcome"), counts([]));
}

#[test]
fn gauges_show_running_and_waiting_deliveries() {
    let retrying = "fate-retry.wasm\n    order_by: data.key";
    let evoke = Evoke::up_with(
        &SLOW.replace("timeout: 2m", "timeout: 2m\n    concurrency: 1").replace("fate-done.wasm", retrying),
    );
    (0..3).for_each(|_| drop(evoke.post_accepted("/in", "{}")));
    (0..2).for_each(|_| drop(evoke.post_accepted("/quick", r#"{"key":"k","after_ms":3600000}"#)));
    let (slow, quick) = ([("function", "lab/slow")], [("function", "lab/quick")]);
    let settled = |now: &Scrape| {
        (now.value("evoke_deliveries_running", &slow), now.get("evoke_deliveries_retrying", &quick)) == (1.0, Some(1.0))
    };
    assert_eventually!(settled(&scrape(&evoke)), "{:#?}", scrape(&evoke));
    let now = scrape(&evoke);
    assert_eq!(now.value("evoke_deliveries_held", &slow), 2.0);
    assert_eq!(now.value("evoke_deliveries_ready", &slow), 3.0);
    assert_eq!(now.value("evoke_deliveries_blocked", &quick), 1.0);
    assert_eq!(now.value("evoke_deliveries_pending", &[]), 5.0);
    assert!(now.value("evoke_deliveries_pending_size_bytes", &[]) > 0.0);
    assert_eq!(now.value("evoke_sandbox_instances", &[]), 1.0);
}

#[test]
fn the_prometheus_text_format_has_the_same_samples_and_is_the_default() {
    let evoke = Evoke::up_with(ORDERS);
    evoke.post_accepted("/checkout", r#"{"customer":"ada","total":42,"items":["book"]}"#);
    evoke.settle();
    for accept in ["*/*", "text/plain", "application/openmetrics-text;q=0, text/plain"] {
        let response = evoke.get_admin("/metrics", &[("accept", accept)]);
        assert_eq!(response.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8", "{accept}");
        let older = Scrape::read(&response.body, false);
        assert_eq!(older.types["evoke_events_accepted_total"], "counter");
        assert_eq!(older.types["evoke_build_info"], "gauge");
        assert_eq!(older.value("evoke_events_accepted_total", &[("source", "http"), ("outcome", "new")]), 1.0);
        assert_eq!(older.count("evoke_delivery_wait_seconds", &[("function", "shop/charge")]), 1);
    }
}

#[test]
fn the_documented_metrics_equal_the_exported_metrics() {
    let evoke = Evoke::up_with(ORDERS);
    let now = scrape(&evoke);
    let text = std::fs::read_to_string(root().join("runtime/METRICS.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeMap<String, String> = rows
        .map(|row| {
            let (name, rest) = row.split_once('`').unwrap();
            let kind = rest.split('|').nth(1).unwrap().trim();
            (name.to_owned(), kind.to_owned())
        })
        .collect();
    let sample = |(name, kind): (&String, &String)| {
        let ending = match kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        (format!("{name}{ending}"), kind.clone())
    };
    assert_eq!(documented, now.types.iter().map(sample).collect());
    for (name, unit) in &now.units {
        assert!(["seconds", "bytes"].contains(&unit.as_str()), "{name}");
    }
}

#[test]
fn evoke_is_not_ready_while_functions_load() {
    let mut evoke = Evoke::with(ORDERS);
    evoke.start(&[]);
    let admin = || {
        let log = evoke.log();
        let line = log.lines().find(|line| line.contains("starting"))?;
        Some(line.split_once("http://")?.1.split_whitespace().next()?.to_owned())
    };
    assert_eventually!(admin().is_some(), "{}", evoke.log());
    // The store exists, and the components are being compiled. Then the functions cannot be registered until this test
    // ends its transaction.
    let store = rusqlite::Connection::open(evoke.path(".evoke/evoke.db")).unwrap();
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    let admin = admin().unwrap();
    let response = get(&admin, "/readyz");
    assert_eq!((response.status, get(&admin, "/healthz").status), (503, 200));
    assert!(response.json()["detail"].as_str().unwrap().contains("starting"), "{response:?}");
    let authorization = format!("Bearer {}", evoke.token());
    let metrics = request("GET", &admin, "/metrics", &[("authorization", authorization.as_str())], "").unwrap();
    assert_eq!(metrics.status, 200);
    store.execute_batch("ROLLBACK").unwrap();
    evoke.await_ready();
    assert_eq!(get(&admin, "/readyz").status, 200);
}

#[test]
fn evoke_is_not_ready_while_it_drains() {
    let mut evoke = Evoke::with(SLOW);
    evoke.up_with_arguments(&["--drain", "2m"]);
    evoke.post_accepted("/in", "{}");
    let slow = [("function", "lab/slow")];
    assert_eventually!(scrape(&evoke).value("evoke_deliveries_running", &slow) == 1.0, "{}", evoke.log());
    evoke.terminate();
    assert_eventually!(get(evoke.admin(), "/readyz").status == 503, "{}", evoke.log());
    let response = get(evoke.admin(), "/readyz");
    assert!(response.json()["detail"].as_str().unwrap().contains("draining"), "{response:?}");
    assert_eq!(get(evoke.admin(), "/healthz").status, 200);
}

#[test]
fn a_failed_store_is_neither_ready_nor_healthy_and_metrics_are_still_served() {
    let mut evoke = Evoke::with(SLOW);
    evoke.up_with_arguments(&["--drain", "2m"]);
    evoke.post_accepted("/in", "{}");
    let slow = [("function", "lab/slow")];
    assert_eventually!(scrape(&evoke).value("evoke_deliveries_running", &slow) == 1.0, "{}", evoke.log());
    let store = rusqlite::Connection::open(evoke.path(".evoke/evoke.db")).unwrap();
    store.execute_batch("ALTER TABLE events RENAME TO gone").unwrap();
    assert_eq!(evoke.post("/quick", "{}").status, 500);
    for path in ["/healthz", "/readyz"] {
        let response = get(evoke.admin(), path);
        assert_eq!(response.status, 503, "{path}");
        assert!(response.json()["detail"].as_str().unwrap().contains("the store failed"), "{response:?}");
    }
    let refused = [("source", "http"), ("reason", "store-failed")];
    assert_eq!(scrape(&evoke).value("evoke_events_refused_total", &refused), 1.0);
}
