//! Tests that send requests through the real listener to a bus over the memory store.

use std::convert::Infallible;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

mod bounds;
mod verified;

use super::auth::{Auth, SecretAuth};
use super::*;
use evoke_core::bus;
use evoke_core::router::Router;
use evoke_manifest::{ByteSize, SecretList, SecretRef, TypeGlob};
use evoke_model::event::Data;
use evoke_model::state::Transaction;
use evoke_model::{
    Actor, AttemptRecord, Completion, DeliveryId, FunctionId, Lineage, NewEvent, Retention, Seq, Verdict,
};
use evoke_store::memory::MemoryStore;
use evoke_store::{DeliveryStore, InspectionStore, Store, StoreError};

fn source(path: &str) -> HttpSource {
    HttpSource { type_: Some("order.placed".into()), max_body: ByteSize(1_000), ..HttpSource::at(path) }
}

fn endpoint(path: &str) -> Endpoint {
    Endpoint::new(&source(path), "/shop/checkout", Origin(1), Target::Matching)
}

fn http(limits: bus::Limits) -> (Http, Arc<MemoryStore>) {
    let clock = Clock::system();
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let mut router = Router::default();
    router.add_app("shop");
    let bus = Bus::new(store.clone(), router, limits);
    let any = Accept { types: vec![TypeGlob::parse("*").unwrap()], sources: vec![SourceGlob::parse("*").unwrap()] };
    let events = HttpSource { type_: None, accept: Some(any), ..source("/events") };
    let events = Endpoint::new(&events, "/shop/events", Origin(2), Target::Matching);
    (Http::new(bus, clock, Routes::new([endpoint("/checkout"), events]).unwrap()), store)
}

/// A handler that chooses its result by the query string of the request.
#[derive(Debug)]
struct QueryHandler;

impl RequestHandler for QueryHandler {
    fn handle(&self, request: Request<Payload>) -> BoxFuture<'_, Result<Response<Payload>, HandlerError>> {
        async move {
            match request.uri().query() {
                Some("busy") => Err(HandlerError::Busy),
                Some("late") => Err(HandlerError::Late(Duration::from_secs(2))),
                Some("failed") => Err(HandlerError::Failed),
                _ => match request.into_body().collect().await {
                    Ok(body) => Ok(Response::new(Full::from(body.to_bytes()).map_err(|e| match e {}).boxed_unsync())),
                    Err(_) => Err(HandlerError::Failed),
                },
            }
        }
        .boxed()
    }
}

#[tokio::test]
async fn an_endpoint_with_a_handler_returns_its_response_and_stores_nothing() {
    let (http, store) = http(bus::Limits::default());
    let endpoint = Endpoint { handler: Some(Arc::new(QueryHandler)), body_max: 10, ..endpoint("/send") };
    http.set_routes(Routes::new([endpoint]).unwrap());
    let post = |query: &str| post(&format!("/send?{query}")).header("host", "a");
    let reply = send(&http, post(""), "1234567890").await;
    assert_eq!((reply.status, reply.json), (200, json!(1_234_567_890)));
    for (request, body, status, words) in [
        (post("busy"), "", 503, "`concurrency`"),
        (post("late"), "", 504, "`timeout` of 2s"),
        (post("failed"), "", 502, "`evoke logs`"),
        (post(""), "12345678901", 413, "10 bytes"),
        (Request::post("/send"), "", 400, "`Host`"),
    ] {
        let reply = send(&http, request, body).await;
        let detail = reply.json["detail"].as_str().unwrap();
        assert!(reply.status == status && detail.contains(words), "{} {detail}", reply.status);
    }
    assert!(store.event(Seq(1)).await.unwrap().is_none());
}

struct Reply {
    status: u16,
    headers: http::HeaderMap,
    json: Value,
}

async fn send(http: &Http, request: http::request::Builder, body: &str) -> Reply {
    let request = request.body(Full::from(body.to_owned())).unwrap();
    let (head, body) = http.handle(request).await.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let json = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
    Reply { status: head.status.as_u16(), headers: head.headers, json }
}

fn post(path: &str) -> http::request::Builder {
    Request::post(path)
}

#[tokio::test]
async fn an_accepted_event_is_stored_before_the_response() {
    let (http, store) = http(bus::Limits::default());
    let reply = send(&http, post("/checkout").header("content-type", "application/json"), r#"{"total":5}"#).await;
    assert_eq!((reply.status, reply.headers[CONTENT_TYPE].as_bytes()), (202, &b"application/json"[..]));
    let stored = store.event(Seq(1)).await.unwrap().unwrap().unwrap();
    let event = json!({ "id": stored.event.id, "seq": 1, "duplicate": false });
    assert_eq!(reply.json, json!({ "accepted": 1, "duplicates": 0, "events": [event] }));
    assert_eq!(stored.event.data.as_bytes(), br#"{"total":5}"#);
}

#[tokio::test]
async fn a_repeated_request_is_reported_as_a_duplicate() {
    let (http, store) = http(bus::Limits::default());
    let request = || post("/checkout").header("idempotency-key", "order-17");
    assert_eq!(send(&http, request(), "1").await.json["events"][0]["duplicate"], false);
    let reply = send(&http, request(), "1").await;
    let event = json!({ "id": "order-17", "seq": 1, "duplicate": true });
    assert_eq!((reply.status, reply.json), (200, json!({ "accepted": 0, "duplicates": 1, "events": [event] })));
    assert_eq!(store.totals().await.unwrap().events, 1);
}

#[tokio::test]
async fn the_memory_of_a_large_response_is_counted_until_it_is_read() {
    let (http, _) = http(bus::Limits::default());
    let handled = Endpoint { handler: Some(Arc::new(QueryHandler)), body_max: 1 << 20, ..endpoint("/send") };
    let events = HttpSource { max_body: ByteSize(1 << 20), ..source("/large") };
    let events = Endpoint::new(&events, "/shop/large", Origin(3), Target::Matching);
    http.set_routes(Routes::new([handled, events]).unwrap());
    let large = "x".repeat(100_000);
    let event =
        |n: u32| format!(r#"{{"specversion":"1.0","id":"{n:0>1000}","source":"/shop/large","type":"order.placed"}}"#);
    let batch = format!("[{}]", (0..100).map(event).collect::<Vec<_>>().join(","));
    let cloudevents = post("/large").header("content-type", "application/cloudevents-batch+json");
    for (request, body, status) in [(cloudevents, batch, 202), (post("/send").header("host", "a"), large, 200)] {
        let used = || http.0.budget.used() + http.0.responses.used();
        let response = http.handle(request.body(Full::from(body)).unwrap()).await;
        assert_eq!(response.status(), status);
        assert!(used() >= 100_000, "{} bytes are counted", used());
        assert!(response.into_body().collect().await.unwrap().to_bytes().len() >= 100_000);
        assert_eq!(used(), 0);
    }
}

#[tokio::test]
async fn a_batch_with_some_duplicates_reports_which_events_are_duplicates() {
    let (http, store) = http(bus::Limits::default());
    let batch = || post("/events").header("content-type", "application/cloudevents-batch+json");
    let event = |id: &str| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/a","type":"t"}}"#);
    send(&http, batch(), &format!("[{}]", event("1"))).await;
    let reply = send(&http, batch(), &format!("[{},{}]", event("1"), event("2"))).await;
    let events = json!([{ "id": "1", "seq": 1, "duplicate": true }, { "id": "2", "seq": 2, "duplicate": false }]);
    assert_eq!((reply.status, reply.json), (202, json!({ "accepted": 1, "duplicates": 1, "events": events })));
    let reply = send(&http, batch(), &format!("[{},{}]", event("1"), event("2"))).await;
    assert_eq!((reply.status, &reply.json["duplicates"]), (200, &json!(2)));
    assert_eq!(store.totals().await.unwrap().events, 2);
}

#[tokio::test]
async fn a_batch_with_one_bad_event_stores_nothing() {
    let (http, store) = http(bus::Limits { event_size_max: 200, ..bus::Limits::default() });
    let batch = || post("/events").header("content-type", "application/cloudevents-batch+json");
    let event = |id: &str, data: &str| {
        format!(r#"{{"specversion":"1.0","id":"{id}","source":"/a","type":"t","data":"{data}"}}"#)
    };
    let (small, large) = (event("1", "x"), event("2", &"x".repeat(200)));
    let reply = send(&http, batch(), &format!("[{small},{large}]")).await;
    assert_eq!(reply.status, 413);
    assert!(reply.json["detail"].as_str().unwrap().starts_with("event 1 has "), "{}", reply.json);
    assert_eq!(send(&http, batch(), &format!("[{small},{{}}]")).await.status, 400);
    assert_eq!(store.totals().await.unwrap().events, 0);
    assert_eq!(send(&http, batch(), "[]").await.json, json!({ "accepted": 0, "duplicates": 0, "events": [] }));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused_with_a_hint() {
    let (http, _) = http(bus::Limits::default());
    let reply = send(&http, post("/checkout/"), "1").await;
    assert_eq!((reply.status, reply.headers[CONTENT_TYPE].as_bytes()), (404, &b"application/problem+json"[..]));
    assert_eq!(
        reply.json,
        json!({ "type": "about:blank", "title": "Not Found", "status": 404,
            "detail": "no source has the path `/checkout/`, but a source has `/checkout`; paths must match exactly" })
    );
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::TRACE] {
        let reply = send(&http, Request::builder().method(method).uri("/checkout"), "").await;
        assert_eq!((reply.status, reply.headers[ALLOW].as_bytes()), (405, &b"POST, OPTIONS"[..]));
    }
    let reply = send(&http, Request::builder().method(Method::OPTIONS).uri("/checkout"), "").await;
    assert_eq!((reply.status, reply.headers[ALLOW].as_bytes()), (204, &b"POST, OPTIONS"[..]));
}

#[tokio::test]
async fn overload_is_refused_before_the_commit_with_retry_after() {
    let (http, store) =
        http(bus::Limits { backlog_max: bus::Amount { deliveries: 1, bytes: 1 }, ..bus::Limits::default() });
    store.set_pending(1);
    let reply = send(&http, post("/checkout"), "1").await;
    assert_eq!((reply.status, reply.headers["retry-after"].as_bytes()), (503, &b"5"[..]));
    assert_eq!(store.totals().await.unwrap().events, 0);
}

#[tokio::test]
async fn a_request_without_credentials_is_refused_before_its_body_is_read() {
    let (http, store) = http(bus::Limits::default());
    let auth = Auth::Github(SecretAuth { secret: SecretList::one(SecretRef::Env("KEY".into())) });
    let guard = Guard::new(&auth, Arc::default(), |_, _| Ok("key".to_owned())).unwrap();
    let signed = HttpSource { auth: Some(auth), ..source("/signed") };
    let signed = Endpoint::new(&signed, "/shop/signed", Origin(3), Target::Matching);
    http.set_routes(Routes::new([Endpoint { auth: Some(Arc::new(guard)), ..signed }]).unwrap());
    let polls = Arc::new(AtomicI64::new(0));
    let body = || {
        let polls = polls.clone();
        StreamBody::new(stream::poll_fn(move |_| {
            polls.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(None::<Result<Frame<Bytes>, Infallible>>)
        }))
    };
    let request = || post("/signed").header("expect", "100-continue");
    assert_eq!(http.handle(request().body(body()).unwrap()).await.status(), 401);
    assert_eq!(polls.load(Ordering::Relaxed), 0);
    let wrong = request().header("x-hub-signature-256", "sha256=00");
    assert_eq!(http.handle(wrong.body(body()).unwrap()).await.status(), 401);
    assert!(polls.load(Ordering::Relaxed) > 0);
    assert_eq!(store.totals().await.unwrap().events, 0);
}

#[tokio::test]
async fn each_store_error_maps_to_a_status_that_the_client_can_act_on() {
    for (error, status, retry_after, detail) in [
        (StoreError::Full, 503, true, "no room left"),
        (StoreError::Busy, 503, true, "locked"),
        (StoreError::Closed, 503, true, "closed"),
        (StoreError::Unreachable("connection refused".into()), 503, true, "cannot be reached at the moment"),
        (StoreError::Fenced("owner 2".into()), 503, true, "another process took over"),
        (StoreError::Failed("fsync of /secret/path".into()), 500, false, "not known whether this request was stored"),
    ] {
        let (head, body) = Problem::from(bus::Refused::Store(error)).response().into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        assert_eq!((head.status.as_u16(), head.headers.contains_key("retry-after")), (status, retry_after));
        assert!(body.contains(detail) && !body.contains("secret"), "{body}");
    }
}

#[tokio::test]
async fn routes_are_replaced_while_requests_arrive() {
    let (http, _) = http(bus::Limits::default());
    http.set_routes(Routes::new([endpoint("/new")]).unwrap());
    assert_eq!(send(&http, post("/checkout"), "1").await.status, 404);
    assert_eq!(send(&http, post("/new"), "1").await.status, 202);
}

#[test]
fn two_sources_cannot_share_a_path_and_a_method() {
    let get = Endpoint { methods: vec![Method::GET], uri: "/shop/get".into(), ..endpoint("/checkout") };
    let other = Endpoint { uri: "/other/checkout".into(), ..endpoint("/checkout") };
    assert!(Routes::new([endpoint("/checkout"), get.clone()]).is_ok());
    let conflict = Routes::new([get, endpoint("/checkout"), other]).unwrap_err();
    assert_eq!(
        conflict.to_string(),
        "POST /checkout is declared by both /shop/checkout and /other/checkout: give one of them another path"
    );
}

/// Sends `request` to a new listener, and reads the response until the connection is closed.
async fn over_tcp(request: &[u8], limits: Limits) -> String {
    let (http, _) = http(bus::Limits::default());
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let stop = CancellationToken::new();
    let served = tokio::spawn(http.serve(listener, limits, stop.clone()));
    peer.write_all(request).await.unwrap();
    let mut response = Vec::new();
    peer.read_to_end(&mut response).await.unwrap();
    stop.cancel();
    assert_eq!(served.await.unwrap(), 0);
    String::from_utf8(response).unwrap()
}

#[tokio::test]
async fn bodies_over_a_connection_are_limited_in_size_and_time() {
    let head = "POST /checkout HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    let sized = format!("{head}Content-Length: 1001\r\n\r\n{}", "x".repeat(1_001));
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{}1\r\nx\r\n0\r\n\r\n", chunk.repeat(2));
    let listening = format!("{head}Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n");
    for request in [sized, chunked, listening] {
        let response = over_tcp(request.as_bytes(), Limits::default()).await;
        assert!(response.starts_with("HTTP/1.1 413 ") && response.contains("the 1000 bytes"), "{request}: {response}");
    }
    let fits = format!("{head}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(2));
    assert!(over_tcp(fits.as_bytes(), Limits::default()).await.starts_with("HTTP/1.1 202 "));
    let slow = Limits { body_idle: Duration::from_millis(50), ..Limits::default() };
    let response = over_tcp(format!("{head}Content-Length: 9\r\n\r\n1").as_bytes(), slow).await;
    assert!(response.starts_with("HTTP/1.1 408 ") && response.contains("application/problem+json"), "{response}");
}

#[tokio::test]
async fn concurrent_clients_each_get_the_receipt_of_their_own_event() {
    let (http, store) = http(bus::Limits::default());
    let seqs = AtomicI64::new(0);
    let clients = (0..200).map(|n| {
        let (http, seqs) = (http.clone(), &seqs);
        async move {
            let reply = send(&http, post("/checkout").header("idempotency-key", format!("{n}")), &n.to_string()).await;
            assert_eq!(reply.json["events"][0]["id"], n.to_string());
            seqs.fetch_add(reply.json["events"][0]["seq"].as_i64().unwrap(), Ordering::Relaxed);
        }
    });
    futures_util::future::join_all(clients).await;
    assert_eq!(seqs.into_inner(), (1..=200).sum::<i64>());
    assert_eq!(store.totals().await.unwrap().events, 200);
}

/// Stores an event with the id `k` and the data `1`. Ten seconds later, stores the reply `7` of its function.
async fn answered(store: &MemoryStore, bus: &Bus, now_ms: &AtomicI64) {
    let (id, function, data) = ("k".to_owned(), FunctionId(1), Data::Json("1".into()));
    let (source, type_) = ("/shop/checkout".to_owned(), "order.placed".to_owned());
    let events = vec![Event { id, source, type_, data, ..Event::default() }];
    let target = Target::Function { function, trigger: "on[0]".into() };
    bus.accept(Offer { events, target, origin: Origin(1), ..Offer::default() }).await.unwrap();
    now_ms.fetch_add(10_000, Ordering::Relaxed);
    let answer = Event { type_: "order.done".into(), data: Data::Json("7".into()), ..Event::default() };
    let (delivery, root, origin, verdict) = (DeliveryId(1), Seq(1), Origin(1), Verdict::Done);
    let lineage = Lineage { cause: Some(delivery), root: Some(root), hops: 1, origin };
    let publishes = vec![NewEvent { event: Arc::new(answer), lineage, deliveries: Vec::new() }];
    let record = AttemptRecord { attempt: 1, started_ms: 0, duration_us: 0, outcome: "done".into(), message: None };
    let state = Transaction::default();
    let completion =
        Completion { delivery, function, root, origin, record, verdict, publishes, state, recording: None };
    store.complete(Arc::new(completion)).await.unwrap();
}

#[tokio::test]
async fn an_answer_is_only_for_a_sender_that_knows_the_event_also_after_retention_removed_the_event() {
    let now_ms = Arc::new(AtomicI64::new(1_000_000_000));
    let clock = Clock::manual(&now_ms);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let bus = Bus::new(store.clone(), Router::default(), bus::Limits::default());
    answered(&store, &bus, &now_ms).await;
    let reply = ReplyEvent { event: TypeGlob::parse("order.done").unwrap(), timeout: Duration::from_secs(5) };
    let source = HttpSource { reply: Some(reply), ..source("/checkout") };
    let endpoint = Endpoint::new(&source, "/shop/checkout", Origin(1), Target::Matching);
    let http = Http::new(bus, clock, Routes::new([endpoint]).unwrap());
    let post = || post("/checkout").header("content-type", "application/json").header("idempotency-key", "k");
    let known = send(&http, post(), "1").await;
    assert_eq!((known.status, known.json), (200, json!(7)));
    assert_eq!(send(&http, post(), "2").await.status, 422);

    let retention = Retention { age: Duration::from_secs(5), bytes: u64::MAX };
    assert_eq!(store.retain(&Actor::Runtime, retention).await.unwrap(), 1);
    for body in ["1", "2"] {
        let removed = send(&http, post(), body).await;
        assert_eq!((removed.status, removed.headers[REPLY_HEADER].as_bytes()), (202, &b"none"[..]));
    }
}
