//! Tests of the API over a memory store.

mod access;
mod bytes;
mod threads;

use std::path::Path;

use axum::Router;
use axum::body::Bytes;
use futures_util::future::BoxFuture;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::routes::BODY_MAX;
use super::*;
use crate::control::{Build, Host, ListenerHandle, Parts, Phase, Progress};
use evoke_core::bus;
use evoke_core::dispatcher::Dispatcher;
use evoke_core::router as routes;
use evoke_http::source::{Http, Routes};
use evoke_model::event::Event;
use evoke_model::outcome::Outcome;
use evoke_model::state::Transaction;
use evoke_model::{
    Accepted, AttemptRecord, Completion, DeliveryId, DescendantsMax, FunctionId, Lineage, NewDelivery, NewEvent, Seq,
    Verdict,
};
use evoke_sandbox::{CompileLimits, Compiler, Level, LogLine, LogSink, Sandbox, Settings};
use evoke_store::memory::MemoryStore;
use evoke_store::running::NoRunningLog;
use evoke_store::{DeliveryStore, EventStore, InspectionStore};

/// Returns a `Control` without active apps.
fn control(store: Arc<dyn Store>, bus: Bus, logs: LogSink, folder: &Path) -> Control {
    struct Silent;
    impl Host for Silent {
        fn report(&self, _: Progress<'_>) {}
        fn build(&self, _: Build) -> BoxFuture<'static, std::result::Result<(), String>> {
            unreachable!("no app has a build command")
        }
    }
    let clock = Clock::fixed(1_000);
    let dispatcher = Dispatcher::start(store.clone(), bus.clone(), clock.clone(), 1);
    let compiler = Compiler::this_program(CompileLimits::DEFAULT);
    let cache_dir = Some(folder.join("compiled"));
    let sandbox = Sandbox::new(Settings { cache_dir, compiler, concurrency: 1 }).unwrap();
    let http = Http::new(bus.clone(), clock.clone(), Routes::default());
    let client = evoke_egress::Client::new(tokio::runtime::Handle::current(), Arc::default());
    let monitors = evoke_sources::monitor::Monitors::new(client, false, Arc::default());
    let (metrics, running) = (Arc::default(), Arc::new(NoRunningLog));
    let descendants_max = DescendantsMax::default();
    let parts = Parts {
        store,
        bus,
        dispatcher,
        sandbox,
        http,
        services: evoke_sources::Services { monitors },
        logs,
        metrics,
        clock,
        descendants_max,
        dedup_window: evoke_store::DEDUP_WINDOW,
        running,
        interrupted: None,
        has_suspects: false,
    };
    Control::new(parts, Vec::new(), Arc::new(Silent))
}

/// The API with its memory store, and methods that send requests.
struct Api {
    service: TowerToHyperService<Router>,
    store: Arc<MemoryStore>,
    logs: FunctionLogs,
    stop: CancellationToken,
    control: Control,
    functions: Vec<FunctionId>,
    tokens: Tokens,
    owner: String,
    _data: tempfile::TempDir,
}

const ADDRESS: &str = "127.0.0.1:8081";

impl Api {
    async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new(Clock::fixed(1_000)));
        let functions = store.register(vec!["shop/charge".into(), "shop/receipt".into()]).await.unwrap();
        let (logs, stop) = (FunctionLogs::open(data.path()).unwrap(), CancellationToken::new());
        let bus = Bus::new(store.clone(), routes::Router::default(), bus::Limits::default());
        let control = control(store.clone(), bus.clone(), logs.sink(), data.path());
        control.set_phase(Phase::Running);
        let tokens = Tokens::open(data.path(), Clock::fixed(1_000)).unwrap();
        let owner = tokens::read_owner(data.path()).unwrap().unwrap();
        let admin = Admin {
            control: control.clone(),
            store: store.clone(),
            replays: Replays::new(store.clone(), bus.clone()),
            bus,
            logs: logs.clone(),
            clock: Clock::fixed(1_000),
            started: Instant::now(),
            metrics: Arc::default(),
            tokens: tokens.clone(),
            listener: ListenerHandle::new("admin", ADDRESS.parse().unwrap(), None),
            public: None,
            data: data.path().to_owned(),
            readiness: Readiness::default(),
            console: Console::default(),
            stop: stop.clone(),
        };
        let service = TowerToHyperService::new(router(Arc::new(admin)));
        Self { service, store, logs, stop, control, functions, tokens, owner, _data: data }
    }

    async fn send(&self, method: &str, path: &str, media_type: &str, body: Vec<u8>) -> Response<Body> {
        let token = format!("Bearer {}", self.owner);
        self.send_with(method, path, &[("authorization", &token), ("content-type", media_type)], body).await
    }

    async fn send_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Response<Body> {
        let request = Request::builder().method(method).uri(path).header("host", ADDRESS);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.service.call(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap()
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, text) = read_response(self.send("GET", path, "", Vec::new()).await).await;
        (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}")))
    }

    async fn lines(&self, path: &str) -> Vec<Value> {
        let (status, text) = read_response(self.send("GET", path, "", Vec::new()).await).await;
        assert_eq!(status, 200, "{path}: {text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let (status, text) =
            read_response(self.send("POST", path, "application/json", body.to_string().into()).await).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    /// Stores an event with one delivery, to the first function.
    async fn event_with_delivery(&self, event: Value) -> (Seq, DeliveryId) {
        let accepted = self.store.accept(vec![self.new_event(&event, Lineage::default(), true)], Vec::new()).await;
        let Accepted::New(seq) = accepted.unwrap()[0] else { panic!("duplicate: {event}") };
        (seq, self.store.deliveries(seq).await.unwrap()[0].as_ref().unwrap().id)
    }

    fn new_event(&self, event: &Value, lineage: Lineage, has_delivery: bool) -> NewEvent {
        let event = Arc::new(Event::from_json(event.to_string().as_bytes(), |_| {}).unwrap());
        let delivery = NewDelivery { function: self.functions[0], trigger: "on[0]".into(), order_key: None };
        NewEvent { event, lineage, deliveries: if has_delivery { vec![delivery] } else { Vec::new() } }
    }

    async fn complete(&self, delivery: DeliveryId, outcome: &Outcome, verdict: Verdict, publishes: Vec<NewEvent>) {
        let (outcome, message) = (outcome.kind().to_owned(), outcome.message());
        let record =
            AttemptRecord { attempt: 1, started_ms: 1_000, duration_us: 900, outcome: outcome.into(), message };
        let state = Transaction::default();
        let completion = Completion {
            delivery,
            function: self.functions[0],
            root: evoke_model::Seq(1),
            origin: evoke_model::Origin::default(),
            record,
            verdict,
            publishes,
            state,
            recording: None,
        };
        self.store.complete(Arc::new(completion)).await.unwrap();
    }

    /// Completes a delivery as a dead letter.
    async fn make_dead(&self, delivery: DeliveryId) {
        let outcome = Outcome::Reject { message: "no total".into() };
        self.complete(delivery, &outcome, Verdict::Dead("reject: no total".into()), Vec::new()).await;
    }
}

async fn read_response(response: Response<Body>) -> (StatusCode, String) {
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.into()).unwrap())
}

fn event(id: &str, type_: &str) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "/test", "type": type_, "data": { "n": 1 } })
}

fn numbers(lines: &[Value]) -> Vec<i64> {
    lines.iter().map(|line| line["seq"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn a_posted_event_gets_defaults_and_a_repeated_one_is_a_duplicate() {
    let api = Api::new().await;
    let (status, posted) = api.post("/api/v1/events", &json!({ "type": "t", "data": "x" })).await;
    assert_eq!((status, &posted["accepted"][0]["seq"]), (StatusCode::ACCEPTED, &json!(1)));
    let (_, stored) = api.get("/api/v1/events/1").await;
    assert_eq!(stored["event"]["source"], "/cli");
    assert_eq!(stored["event"]["time"], "1970-01-01T00:00:01.000Z");
    assert_eq!(stored["event"]["id"], posted["accepted"][0]["id"]);

    let both = json!([event("a", "t"), event("b", "t")]);
    assert_eq!(api.post("/api/v1/events", &both).await.0, 202);
    let (_, again) = api.post("/api/v1/events", &both).await;
    let known =
        json!({ "accepted": [{ "id": "a", "seq": 2, "duplicate": true }, { "id": "b", "seq": 3, "duplicate": true }] });
    assert_eq!(again, known);
}

#[tokio::test]
async fn an_invalid_event_is_rejected_with_the_reason_and_nothing_is_stored() {
    let api = Api::new().await;
    let big = json!({ "type": "t", "data": "x".repeat(2 * 1024 * 1024) }).to_string();
    let many = format!("[{}1]", "1,".repeat(10_000));
    for (media_type, body, status, reason) in [
        ("application/json", "{".to_owned(), 400, "not JSON"),
        ("application/json", r#"[{"type":"t"},{"id":"1"}]"#.into(), 400, "event 1: `type` is missing"),
        ("application/json", "7".into(), 400, "not a JSON object"),
        ("text/plain", r#"{"type":"t"}"#.into(), 415, "must be application/json"),
        ("application/json", big, 413, "event 0 has"),
        ("application/json", many, 413, "the array has 10001 events; send at most 10000"),
        ("application/json", " ".repeat(BODY_MAX + 1), 413, "length limit"),
    ] {
        let response = api.send("POST", "/api/v1/events", media_type, body.into_bytes()).await;
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let (actual, text) = read_response(response).await;
        let problem: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((actual.as_u16(), &problem["status"]), (status, &json!(status)), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(reason), "{problem}");
    }
    assert!(api.lines("/api/v1/events").await.is_empty());
}

#[tokio::test]
async fn event_lists_have_the_newest_in_order_or_all_after_a_position() {
    let api = Api::new().await;
    for n in 0..200 {
        let type_ = if n % 2 == 0 { "a.even" } else { "a.odd" };
        api.post("/api/v1/events", &event(&n.to_string(), type_)).await;
    }
    let list = async |query: &str| numbers(&api.lines(&format!("/api/v1/events?envelope=true&{query}")).await);
    assert_eq!(list("limit=3").await, [198, 199, 200]);
    assert_eq!(list("").await, (101..=200).collect::<Vec<_>>());
    assert_eq!(list("limit=150").await, (51..=200).collect::<Vec<_>>());
    assert_eq!(list("limit=100000&type=a.odd").await, (1..=100).map(|n| 2 * n).collect::<Vec<_>>());
    assert_eq!(list("limit=90&type=a.*&source=/test").await.len(), 90);
    assert_eq!(list("after=197&limit=2").await, [198, 199]);
    assert_eq!(list("after=10").await.len(), 190);
    assert_eq!(list("limit=0").await, Vec::<i64>::new());
    assert_eq!(list("source=/other").await, Vec::<i64>::new());
    let bare = &api.lines("/api/v1/events?limit=1").await[0];
    assert_eq!((&bare["id"], &bare["specversion"]), (&json!("199"), &json!("1.0")));
}

#[tokio::test]
async fn following_events_returns_stored_then_new_ones_until_the_stop() {
    let api = Api::new().await;
    for id in ["1", "2"] {
        api.post("/api/v1/events", &event(id, "t")).await;
    }
    let response = api.send("GET", "/api/v1/events?follow=true&limit=1&type=t", "", Vec::new()).await;
    let mut body = response.into_body();
    let mut next = async || body.frame().await.map(|frame| frame.unwrap().into_data().unwrap());
    assert!(next().await.unwrap().starts_with(br#"{"specversion":"1.0","id":"2""#));
    api.post("/api/v1/events", &event("3", "other")).await;
    api.post("/api/v1/events", &event("4", "t")).await;
    assert!(next().await.unwrap().starts_with(br#"{"specversion":"1.0","id":"4""#));
    api.stop.cancel();
    assert!(next().await.is_none());
}

#[tokio::test]
async fn an_event_is_found_by_its_number_or_by_its_id_when_the_id_is_unique() {
    let api = Api::new().await;
    let other = json!({ "id": "a/b c", "source": "/other", "type": "t" });
    api.post("/api/v1/events", &json!([event("a/b c", "t"), event("1", "t"), other])).await;
    assert_eq!(api.get("/api/v1/events/2").await.1["event"]["id"], "1");
    // The number takes precedence over the id.
    assert_eq!(api.get("/api/v1/events/1").await.1["event"]["id"], "a/b c");
    let (status, problem) = api.get("/api/v1/trace/a%2Fb%20c").await;
    assert_eq!((status, &problem["seqs"]), (StatusCode::CONFLICT, &json!([3, 1])));
    assert_eq!(api.get("/api/v1/trace/no-such-event").await.0, 404);
}

#[tokio::test]
async fn a_trace_is_the_tree_of_deliveries_and_published_events() {
    let api = Api::new().await;
    let (seq, charge) = api.event_with_delivery(event("order", "order.placed")).await;
    let lineage = Lineage { cause: Some(charge), root: Some(seq), hops: 1, ..Lineage::default() };
    let publishes = ["x", "y"].map(|id| api.new_event(&event(id, "payment.taken"), lineage, id == "x"));
    api.complete(charge, &Outcome::Done, Verdict::Done, publishes.into()).await;
    let receipt = api.store.deliveries(Seq(2)).await.unwrap()[0].as_ref().unwrap().id;
    api.complete(receipt, &Outcome::Retry { message: "down".into(), after: None }, Verdict::RetryAt(5_000), Vec::new())
        .await;

    let (_, trace) = api.get("/api/v1/trace/order").await;
    let done = &trace["deliveries"][0];
    assert_eq!(trace["event"], event("order", "order.placed"));
    assert_eq!((&done["function"], &done["state"]), (&json!("shop/charge"), &json!("done")));
    let (first, second) = (&done["published"][0], &done["published"][1]);
    assert_eq!((&first["seq"], &second["seq"], &second["deliveries"]), (&json!(2), &json!(3), &json!([])));
    let retrying = &first["deliveries"][0];
    assert_eq!(retrying["due"], "1970-01-01T00:00:05.000Z");
    let attempt = json!({ "attempt": 1, "started": "1970-01-01T00:00:01.000Z", "duration_us": 900, "outcome": "retry", "message": "down" });
    assert_eq!(retrying["attempts"], json!([attempt]));

    let (_, part) = api.get("/api/v1/trace/2").await;
    assert_eq!((&part["seq"], &part["root"], &part["published_by"]), (&json!(2), &json!(1), &json!(charge)));
    assert_eq!(api.get("/api/v1/trace/2?root=true").await.1, trace);
}

#[tokio::test]
async fn a_trace_that_is_too_deep_or_too_wide_is_truncated_and_reports_it() {
    let api = Api::new().await;
    let (first, mut delivery) = api.event_with_delivery(event("0", "t")).await;
    for hop in 1..=40 {
        let lineage = Lineage { cause: Some(delivery), root: Some(first), hops: hop, ..Lineage::default() };
        let next = api.new_event(&event(&hop.to_string(), "t"), lineage, true);
        api.complete(delivery, &Outcome::Done, Verdict::Done, vec![next]).await;
        delivery = api.store.deliveries(Seq(first.0 + i64::from(hop))).await.unwrap()[0].as_ref().unwrap().id;
    }
    let (_, trace) = api.get("/api/v1/trace/1").await;
    let mut node = &trace;
    while node["cut"].is_null() {
        node = &node["deliveries"][0]["published"][0];
    }
    assert_eq!(
        (&node["seq"], &node["cut"]),
        (&json!(30), &json!("the trace stops here after 30 levels of events; to see the rest, trace event 30"))
    );

    let lineage = Lineage { cause: Some(delivery), root: Some(first), hops: 41, ..Lineage::default() };
    let many = (0..1_500).map(|n| api.new_event(&event(&format!("w{n}"), "t"), lineage, false)).collect();
    api.complete(delivery, &Outcome::Done, Verdict::Done, many).await;
    let (_, wide) = api.get("/api/v1/trace/41").await;
    let fan_out = &wide["deliveries"][0];
    assert_eq!((fan_out["published"].as_array().unwrap().len(), &fan_out["omitted"]), (999, &json!(501)));
}

#[tokio::test]
async fn dead_letters_are_listed_shown_redriven_and_purged() {
    let api = Api::new().await;
    let (_, first) = api.event_with_delivery(event("1", "t")).await;
    let (_, second) = api.event_with_delivery(event("2", "t")).await;
    let (_, fine) = api.event_with_delivery(event("3", "t")).await;
    api.make_dead(first).await;
    api.make_dead(second).await;

    let list = api.lines("/api/v1/dead?function=shop/charge").await;
    assert_eq!(list.iter().map(|l| l["delivery"]["id"].as_i64().unwrap()).collect::<Vec<_>>(), [second.0, first.0]);
    assert_eq!((&list[0]["event"]["event"]["id"], &list[0]["event"]["event"]["data"]), (&json!("2"), &Value::Null));
    let (status, problem) = api.get("/api/v1/dead?function=shop/chagre").await;
    assert_eq!(
        (status.as_u16(), &problem["detail"]),
        (404, &json!("there is no function `shop/chagre`; did you mean `shop/charge`?"))
    );
    let (_, letter) = api.get(&format!("/api/v1/dead/{first}")).await;
    assert_eq!(
        (&letter["delivery"]["cause"], &letter["event"]["event"]["data"]["n"]),
        (&json!("reject: no total"), &json!(1))
    );
    let (status, problem) = api.get(&format!("/api/v1/dead/{fine}")).await;
    assert_eq!(
        (status, &problem["detail"]),
        (StatusCode::NOT_FOUND, &json!("delivery 3 is not a dead letter: its state is ready"))
    );
    assert_eq!(api.get("/api/v1/dead/none").await.0, 404);

    let which = json!({ "delivery": first });
    assert_eq!(api.post("/api/v1/dead/redrive", &which).await.1, json!({ "count": 1 }));
    assert_eq!(api.post("/api/v1/dead/redrive", &which).await.1, json!({ "count": 0 }));
    assert_eq!(api.post("/api/v1/dead/purge", &json!({ "function": "shop/charge" })).await.1, json!({ "count": 1 }));
    assert_eq!(api.post("/api/v1/dead/purge", &json!({ "all": true })).await.1, json!({ "count": 0 }));
    for wrong in [json!({}), json!({ "all": false }), json!({ "delivery": "x" }), json!({ "all": true, "delivery": 1 })]
    {
        assert_eq!(api.post("/api/v1/dead/purge", &wrong).await.0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn logs_are_listed_and_followed() {
    let api = Api::new().await;
    let log = |function: &str, text: &str| {
        api.logs.sink()(LogLine {
            level: Level::Info,
            function: function.into(),
            delivery_id: "memory-7".into(),
            attempt: 1,
            text: text.into(),
            at_ms: 0,
        });
    };
    log("shop/charge", "one");
    log("shop/receipt", "two");
    let lines = api.lines("/api/v1/logs?function=shop/charge&delivery=7").await;
    let one = json!({ "at": "1970-01-01T00:00:00.000Z", "level": "info", "function": "shop/charge", "delivery": 7, "attempt": 1, "text": "one" });
    assert_eq!(lines, [one]);
    let texts = async |query: &str| {
        let lines = api.lines(&format!("/api/v1/logs?{query}")).await;
        lines.iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(texts("since=1970-01-01T00:00:00Z").await, ["one", "two"]);
    assert_eq!(texts("since=1970-01-01T00:00:00Z&limit=1").await, ["two"]);
    for query in ["limit=10001", "limit=18446744073709551615", "since=1970-01-01T00:00:00Z&limit=10001"] {
        let (status, problem) = api.get(&format!("/api/v1/logs?{query}")).await;
        assert_eq!(status, 400, "{query}");
        assert!(problem["detail"].as_str().unwrap().ends_with("at most 10000 lines can be listed"), "{problem}");
    }
    let mut body = api.send("GET", "/api/v1/logs?follow=true&limit=1", "", Vec::new()).await.into_body();
    let mut next =
        async || String::from_utf8(body.frame().await.unwrap().unwrap().into_data().unwrap().into()).unwrap();
    assert!(next().await.contains(r#""text":"two""#));
    log("shop/charge", "three");
    assert!(next().await.contains(r#""text":"three""#));
}

#[tokio::test]
async fn status_has_the_totals_of_the_store() {
    let api = Api::new().await;
    let (_, delivery) = api.event_with_delivery(event("1", "t")).await;
    api.make_dead(delivery).await;
    let other = NewDelivery { function: api.functions[1], trigger: "on[0]".into(), order_key: None };
    let removed = NewEvent { deliveries: vec![other], ..api.new_event(&event("2", "t"), Lineage::default(), false) };
    api.store.accept(vec![removed], Vec::new()).await.unwrap();
    let (_, status) = api.get("/api/v1/status").await;
    assert_eq!((&status["events"], &status["pending"]), (&json!(2), &json!(1)));
    let charge = &status["functions"][0];
    assert_eq!(
        (&charge["name"], &charge["dead"], &charge["in_force"]),
        (&json!("shop/charge"), &json!(1), &json!(false))
    );
}

#[tokio::test]
async fn health_is_ok_in_every_phase_and_ready_only_while_running() {
    let api = Api::new().await;
    for (phase, reason) in [(Phase::Starting, "starting"), (Phase::Draining, "draining")] {
        api.control.set_phase(phase);
        let (status, problem) = api.get("/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(problem["detail"].as_str().unwrap().contains(reason), "{problem}");
        assert_eq!(api.get("/healthz").await.0, 200);
        api.control.set_phase(Phase::Running);
        assert_eq!(api.get("/readyz").await.0, 200);
    }
}

#[tokio::test]
async fn an_invalid_request_gets_a_problem_with_the_reason() {
    let api = Api::new().await;
    for (path, status, reason) in [
        ("/api/v2", 404, "the API is under /api/v1"),
        ("/api/v1/dead/purge", 405, "method GET is not allowed here"),
        ("/api/v1/events?limit=many", 400, "limit"),
        ("/api/v1/events?typ=t", 400, "unknown field `typ`"),
        ("/api/v1/dead?limit=1000000", 400, "at most 10000"),
    ] {
        let (actual, problem) = api.get(path).await;
        assert_eq!(actual.as_u16(), status, "{path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(reason), "{path}: {problem}");
    }
}
