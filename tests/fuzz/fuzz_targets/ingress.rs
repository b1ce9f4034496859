//! Sends arbitrary bytes over one connection to the HTTP listener and the http source, over a store in memory. No input
//! panics or keeps a connection open; each response is well formed and has a documented status; the store has exactly
//! the events that were acknowledged, and no event claims what belongs to an app or to the runtime.
//!
//! The connection is in memory and the clock is paused, so time limits take no time.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use evoke_core::bus::{Bus, Limits as BusLimits, Origin, Target};
use evoke_core::router::Router;
use evoke_http::listener::{Limits, RequestBody, serve_stream};
use evoke_http::source::auth::{Auth, Guard, SecretAuth};
use evoke_http::source::{Accept, Endpoint, Http, HttpSource, RequestValue, Routes, SourceGlob, SourceMethod};
use evoke_manifest::{ByteSize, SecretList, SecretRef, Template, TypeGlob};
use evoke_model::claim::is_runtime_type;
use evoke_model::clock::Clock;
use evoke_model::{Seq, StoredEvent};
use evoke_store::InspectionStore as _;
use evoke_store::memory::MemoryStore;
use http::Request;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

/// The source of `/checkout` accepts raw bodies, and CloudEvents with its own type and source only.
const CHECKOUT: Origin = Origin(1);
const CHECKOUT_TYPE: &str = "order.placed";
const CHECKOUT_URI: &str = "/shop/checkout";
/// The source of `/events` accepts CloudEvents with any type and source.
const EVENTS: Origin = Origin(2);
const EVENTS_URI: &str = "/shop/events";
/// The source of `/hooks/…` makes the type and an attribute of its events from the request.
const HOOKS: Origin = Origin(3);
const HOOKS_URI: &str = "/shop/hooks";
/// The source of `/tokens` accepts requests with the token [`TOKEN`], that of `/signed` those that GitHub has signed with
/// this secret, which a fuzzer does not find.
const TOKENS: Origin = Origin(4);
const SIGNED: Origin = Origin(5);
const TOKEN: &str = "token";
const BODY_MAX: u64 = 4_096;
/// Longer than all time limits of the listener together.
const END_MAX: Duration = Duration::from_secs(600);
/// The statuses of `http/src/source.rs`, and those of the HTTP server for a malformed head.
const STATUSES: &[u16] = &[200, 202, 204, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 429, 431, 503, 505];

fn endpoints() -> [Endpoint; 5] {
    let checkout = HttpSource {
        methods: vec![SourceMethod::Post, SourceMethod::Put],
        has_default_methods: false,
        type_: Some(CHECKOUT_TYPE.into()),
        max_body: ByteSize(BODY_MAX),
        ..HttpSource::at("/checkout")
    };
    let any = Accept {
        types: vec![TypeGlob::parse("*").expect("a valid glob")],
        sources: vec![SourceGlob::parse("*").expect("a valid glob")],
    };
    let events = HttpSource { path: "/events".into(), type_: None, accept: Some(any), ..checkout.clone() };
    let query = Template::parse("{query.t|hook}.x", |_| Ok(RequestValue::Query("t".into()))).expect("a valid template");
    let team = Template::parse("{path.team}", |_| Ok(RequestValue::Path("team".into()))).expect("a valid template");
    let hooks = HttpSource {
        methods: vec![SourceMethod::Get, SourceMethod::Post],
        type_: Some(query),
        attributes: [("team".to_owned(), team)].into(),
        max_body: ByteSize(BODY_MAX),
        ..HttpSource::at("/hooks/{team}/{rest...}")
    };
    let secret = || SecretAuth { secret: SecretList::one(SecretRef::Env("SECRET".into())) };
    let verified = |path: &str, uri: &str, origin: Origin, auth: Auth| {
        let source = HttpSource { auth: Some(auth.clone()), path: path.into(), ..checkout.clone() };
        let guard = Guard::new(&auth, Arc::default(), |_, _| Ok(TOKEN.to_owned())).expect("a valid secret");
        let mut endpoint = Endpoint::new(&source, uri, origin, Target::Matching);
        endpoint.auth = Some(Arc::new(guard));
        endpoint
    };
    [
        verified("/tokens", "/shop/tokens", TOKENS, Auth::Bearer(secret())),
        verified("/signed", "/shop/signed", SIGNED, Auth::Github(secret())),
        Endpoint::new(&hooks, HOOKS_URI, HOOKS, Target::Matching),
        Endpoint::new(&checkout, CHECKOUT_URI, CHECKOUT, Target::Matching),
        Endpoint::new(&events, EVENTS_URI, EVENTS, Target::Matching),
    ]
}

fuzz_target!(|input: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime starts").block_on(exchange(input));
});

async fn exchange(input: &[u8]) {
    let clock = Clock::system();
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let mut router = Router::default();
    router.add_app("shop");
    let bus = Bus::new(store.clone(), router, BusLimits::default());
    let http = Http::new(bus.clone(), clock, Routes::new(endpoints()).expect("five paths"));
    let service = move |request: Request<RequestBody>, _| {
        let http = http.clone();
        async move { http.handle(request).await }
    };

    let (mut peer, io) = duplex(1 << 20);
    let mut received = Vec::new();
    let client = async {
        // The server may close the connection before it has read everything.
        let _ = peer.write_all(input).await;
        let _ = peer.read_to_end(&mut received).await;
    };
    let both = async { tokio::join!(client, serve_stream(io, service, Limits::default())) };
    tokio::time::timeout(END_MAX, both).await.expect("the connection ends");

    let mut stored = 0;
    while let Some(event) = store.event(Seq(stored + 1)).await.expect("the store works") {
        check_event(&event.expect("the event is not damaged"), &bus);
        stored += 1;
    }
    // HTTP/2 frames and responses to HEAD, which have no body, are not parsed.
    if !input.starts_with(b"PRI") && !input.windows(4).any(|four| four == b"HEAD") {
        assert_eq!(acknowledged(&received), stored.cast_unsigned(), "{}", String::from_utf8_lossy(&received));
    }
}

fn check_event(stored: &StoredEvent, bus: &Bus) {
    let StoredEvent { event, lineage, .. } = stored;
    assert_eq!(event.check(), Ok(()));
    let principal = match lineage.entered() {
        Some(TOKENS) => Some("bearer"),
        Some(SIGNED) => Some("github"),
        _ => None,
    };
    assert_eq!(event.principal.as_deref(), principal, "{event:?}");
    match lineage.entered() {
        Some(CHECKOUT) => assert_eq!((&*event.type_, &*event.source), (CHECKOUT_TYPE, CHECKOUT_URI)),
        Some(EVENTS) => {
            assert!(!is_runtime_type(&event.type_), "{}", event.type_);
            let owner = bus.router().owner_of(&event.source, |_| false);
            assert!(owner.is_none() || event.source == EVENTS_URI, "{} belongs to {owner:?}", event.source);
        }
        Some(TOKENS | SIGNED) => assert_eq!(&*event.type_, CHECKOUT_TYPE),
        Some(HOOKS) => {
            assert!(!is_runtime_type(&event.type_) && event.type_.ends_with(".x"), "{}", event.type_);
            assert!(event.type_.bytes().all(|byte| byte.is_ascii_graphic()), "{}", event.type_);
            assert_eq!(event.source, HOOKS_URI);
            assert!(event.extensions.contains_key("team"), "{event:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// Returns the number of events that the responses acknowledge as new.
fn acknowledged(mut bytes: &[u8]) -> u64 {
    let mut events = 0;
    while !bytes.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let length = match head.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            other => panic!("{other:?}: {}", String::from_utf8_lossy(bytes)),
        };
        bytes = &bytes[length..];
        let status = head.code.expect("a status");
        if status == 100 {
            continue;
        }
        assert!(STATUSES.contains(&status), "status {status}");
        let header = |name: &str| head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        let text = |name: &str| header(name).map(|header| String::from_utf8_lossy(header.value).into_owned());
        let length = text("content-length").map_or(0, |length| length.parse().expect("a length"));
        let (body, rest) = bytes.split_at_checked(length).expect("the body is complete");
        bytes = rest;
        if body.is_empty() {
            // The HTTP server's own responses, and those to OPTIONS.
            assert!(status >= 400 || status == 204, "status {status} without a body");
            continue;
        }
        let body: Value = serde_json::from_slice(body).expect("the body is JSON");
        match status {
            200 | 202 => events += body["accepted"].as_u64().expect("the number of events"),
            _ => {
                assert_eq!(text("content-type").as_deref(), Some("application/problem+json"));
                assert_eq!(body["status"], status);
                assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
            }
        }
    }
    events
}
