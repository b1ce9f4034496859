//! The memory of requests and of their responses.

use super::*;
use crate::source::counted::SMALL_RESPONSE_MAX;
use crate::source::memory::REQUEST_BYTES;
use evoke_model::event::ID_BYTES_MAX;

fn replying() -> Endpoint {
    let reply = ReplyEvent { event: TypeGlob::parse("order.done").unwrap(), timeout: Duration::from_secs(5) };
    let types = vec![TypeGlob::parse("*").unwrap()];
    let accept = Accept { types, sources: vec![SourceGlob::parse("*").unwrap()] };
    let source = HttpSource { reply: Some(reply), accept: Some(accept), max_body: ByteSize(4_000), ..source("/ask") };
    Endpoint::new(&source, "/shop/ask", Origin(4), Target::Matching)
}

#[tokio::test]
async fn an_error_repeats_little_of_the_request() {
    let (http, _) = http(bus::Limits::default());
    let large = HttpSource { max_body: ByteSize(2 << 20), ..source("/large") };
    http.set_routes(Routes::new([Endpoint::new(&large, "/shop/large", Origin(3), Target::Matching)]).unwrap());
    let string = format!("\"{}\"", "\u{7f}".repeat(1 << 20));
    for (form, body) in [("", string.clone()), ("-batch", string.clone()), ("-batch", format!("[{string}]"))] {
        let request = post("/large").header("content-type", format!("application/cloudevents{form}+json"));
        let response = http.handle(request.body(Full::from(body)).unwrap()).await;
        assert_eq!(response.status(), 400);
        assert!(response.into_body().collect().await.unwrap().to_bytes().len() < 500);
    }
}

#[tokio::test]
async fn all_that_a_request_brings_counts_until_its_events_are_committed() {
    let (http, _) = http(bus::Limits::default());
    let get = HttpSource { methods: vec![SourceMethod::Get], max_body: ByteSize(100_000), ..source("/get") };
    let get = Endpoint::new(&get, "/shop/get", Origin(3), Target::Matching);
    let long = "x".repeat(16_000);
    let binary =
        post("/checkout").header("ce-specversion", "1.0").header("ce-id", "1").header("ce-type", "order.placed");
    for (endpoint, request, bytes) in [
        (&get, Request::get("/get?a=1"), REQUEST_BYTES),
        (&get, Request::get(format!("/get?a={}", "%01".repeat(1_300))), 6 * 1_300 + REQUEST_BYTES),
        (&endpoint("/checkout"), post("/checkout"), REQUEST_BYTES),
        (&endpoint("/checkout"), binary.header("ce-source", "/shop/checkout").header("ce-long", &long), long.len()),
    ] {
        let (head, body) = request.body(Full::<Bytes>::default()).unwrap().into_parts();
        let Ok(Taken::Events(events, _, memory)) = http.events(endpoint, &head, body).await else {
            panic!("{} is refused", head.uri);
        };
        let used = http.0.budget.used();
        assert!(events.len() == 1 && used >= bytes, "{used} of {bytes} bytes for {}", head.uri);
        drop(memory);
        assert_eq!(http.0.budget.used(), 0);
    }
}

#[tokio::test]
async fn a_batch_for_a_source_with_a_reply_is_refused_in_every_spelling() {
    let (http, store) = http(bus::Limits::default());
    http.set_routes(Routes::new([replying()]).unwrap());
    let event = r#"{"specversion":"1.0","id":"1","source":"/a","type":"t"}"#;
    for content_type in ["application/cloudevents-batch+json", "Application/CloudEvents-Batch+JSON ; x=\u{e9}"] {
        let content_type = HeaderValue::from_bytes(content_type.as_bytes()).unwrap();
        let reply = send(&http, post("/ask").header("content-type", content_type), &format!("[{event}]")).await;
        assert_eq!(reply.status, 400);
        assert!(reply.json["detail"].as_str().unwrap().starts_with("a batch has no single reply"), "{}", reply.json);
    }
    assert_eq!(store.totals().await.unwrap().events, 0);
}

#[tokio::test]
async fn a_receipt_without_a_reply_is_small() {
    let (http, _) = http(bus::Limits::default());
    http.set_routes(Routes::new([replying()]).unwrap());
    // Each of these characters takes 3 bytes in the id, and 6 in the response.
    for (length, status) in [(ID_BYTES_MAX, 202), (ID_BYTES_MAX + 3, 400)] {
        let id = "\u{202e}".repeat(length / 3);
        let event = format!(r#"{{"specversion":"1.0","id":"{id}","source":"/a","type":"t"}}"#);
        let request = post("/ask").header("content-type", "application/cloudevents+json");
        let response = http.handle(request.body(Full::from(event)).unwrap()).await;
        assert_eq!(response.status(), status);
        assert!(counted::length(response.body()) <= SMALL_RESPONSE_MAX);
    }
}
