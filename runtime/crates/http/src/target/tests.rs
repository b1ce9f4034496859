use std::path::Path;

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Handle;

use super::request::{Delivery, Template};
use super::*;
use evoke_egress::Client;
use evoke_manifest::{Registry, load_str};
use evoke_model::event::Data;
use evoke_telemetry::Metrics;

/// Returns the settings of a function with this `deliver`, in YAML flow style.
fn deliver(yaml: &str) -> Result<Deliver, String> {
    let manifest = format!(
        "evoke: 1\napp: shop\nfunctions:\n  f:\n    deliver: {yaml}\n    on: [{{ events: {{ type: [order.placed] }} }}]\n"
    );
    let checked = load_str(&manifest, Path::new("evoke.yaml"), &Registry::new([])).map_err(|errors| errors.plain())?;
    Ok(checked.manifest.functions.into_iter().next().unwrap().deliver.unwrap())
}

fn event() -> Event {
    let json = json!({
        "id": "e-1", "source": "/shop/checkout", "type": "order.placed", "subject": "a\"b\\c {id}\u{20ac}",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=1",
        "data": {
            "total": 12.50, "name": "Ada \"the\" \\ {secret.KEY}\n", "none": null, "list": [1, "2"], "yes": true,
            "deep": { "er": "x" }, "path": "..a/b\\c?x=1#y", "dots": "..", "empty": "", "line": "a\r\nx-evil: 1",
        },
    });
    Event::from_json(json.to_string().as_bytes(), |_| {}).unwrap()
}

fn request_for(yaml: &str, event: &Event) -> Result<Request<Bytes>, String> {
    let deliver = deliver(yaml)?;
    let secrets = [("KEY", "k\"ey/1?a=b"), ("PATH", "T0/B1?x=y"), ("BROKEN", "a b")];
    let secrets = secrets.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let template = Template::new(&deliver, Arc::new(secrets), None);
    let trace = TraceContext::of_event(event);
    template
        .request(deliver.url.target(), Delivery { event, id: "s1-7", hops: 2, trace: trace.as_ref(), now_ms: 1_000 })
}

const SECRETS: &str = "secrets: { KEY: { env: KEY }, PATH: { env: PATH }, BROKEN: { env: BROKEN } }";

#[test]
fn a_structured_request_has_the_whole_event_as_its_body() {
    let request = request_for("{ url: \"https://crm.example/hooks?a=b\" }", &event()).unwrap();
    assert_eq!(
        (request.method().as_str(), request.uri().to_string().as_str()),
        ("POST", "https://crm.example/hooks?a=b")
    );
    let headers = request.headers();
    assert_eq!(headers["content-type"], "application/cloudevents+json");
    assert!(headers["idempotency-key"] == "s1-7" && headers["tracestate"] == "a=1");
    assert_eq!(headers["traceparent"], "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    assert_eq!(Event::from_json(request.body(), |_| {}).unwrap(), event());
}

#[test]
fn a_binary_request_has_the_attributes_as_headers_and_the_data_as_its_body() {
    let request = request_for("{ url: \"https://crm.example\", mode: binary, method: PUT }", &event()).unwrap();
    let headers = request.headers();
    assert!(headers["ce-specversion"] == "1.0" && headers["ce-id"] == "e-1");
    assert_eq!(headers["ce-subject"], "a%22b\\c%20{id}%E2%82%AC");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(request.body(), event().data.as_bytes());
    let no_data = Event { data: Data::None, datacontenttype: None, ..event() };
    let request = request_for("{ url: \"https://crm.example\", mode: binary }", &no_data).unwrap();
    assert!(request.body().is_empty() && !request.headers().contains_key("content-type"));
}

#[test]
fn values_in_a_json_body_keep_their_type_alone_and_are_escaped_within_a_text() {
    let body = "{ total: \"{data.total}\", text: \"{data.name}: {data.total} {data.list}\", name: \"{data.name}\", \
                none: \"{data.none}\", all: \"{data.deep}\", list: [\"{data.list}\", 1.50, true, null, \"{{x}}\"], \
                default: \"{data.missing|no \\\"value}\", subject: \"{subject}\", key: \"{secret.KEY}\" }";
    let request =
        request_for(&format!("{{ url: \"https://crm.example\", body: {body}, {SECRETS} }}"), &event()).unwrap();
    assert_eq!(request.headers()["content-type"], "application/json");
    let text = std::str::from_utf8(request.body()).unwrap();
    assert!(text.contains("\"total\":12.5") && text.contains("1.50"), "{text}");
    let sent: Value = serde_json::from_str(text).unwrap();
    let name = "Ada \"the\" \\ {secret.KEY}\n";
    let expected = json!({
        "total": sent["total"], "text": format!("{name}: {} [1,\"2\"]", sent["total"]), "name": name, "none": null,
        "all": { "er": "x" }, "list": [[1, "2"], sent["list"][1], true, null, "{x}"], "default": "no \"value",
        "subject": "a\"b\\c {id}\u{20ac}", "key": "k\"ey/1?a=b",
    });
    assert_eq!(sent, expected);
}

#[test]
fn no_value_of_an_event_leaves_its_place_in_the_url_or_in_a_header() {
    let yaml = format!(
        "{{ url: \"https://crm.example/o/{{data.path}}/{{secret.PATH}}&q={{subject}}\", {SECRETS}, \
         headers: {{ x-name: \"{{data.deep.er}} {{secret.KEY}}\", Authorization: \"Bearer {{secret.KEY}}\" }} }}"
    );
    let request = request_for(&yaml, &event()).unwrap();
    let path = request.uri().path_and_query().unwrap().as_str();
    assert_eq!(path, "/o/..a%2Fb%5Cc%3Fx%3D1%23y/T0/B1?x=y&q=a%22b%5Cc%20%7Bid%7D%E2%82%AC");
    assert_eq!(request.headers()["x-name"], "x k\"ey/1?a=b");
    assert!(request.headers()["authorization"].is_sensitive());

    for (template, error) in [
        ("url: \"https://crm.example/{data.dots}\"", "`{data.dots}` in the URL has a part of only dots"),
        ("url: \"https://crm.example/{data.missing}\"", "no value for `{data.missing}` in the URL"),
        ("url: \"https://crm.example/users/{data.empty}\"", "no value for `{data.empty}` in the URL"),
        ("url: \"https://crm.example/{data.empty}{data.dots}/x\"", "no value for `{data.empty}` in the URL"),
        (
            "url: \"https://crm.example\", headers: { x: \"{data.line}\" }",
            "in the header `x` contains a control character",
        ),
        ("url: \"https://crm.example\", headers: { x: \"{data.none}\" }", "no value for `{data.none}`"),
        ("url: \"https://crm.example\", body: { x: \"a {data.none}\" }", "no value for `{data.none}`"),
        ("url: \"https://crm.example\", body: \"{data.nothing}\"", "no value for `{data.nothing}`"),
        ("url: \"https://crm.example/{secret.BROKEN}\"", "the URL contains a character that cannot be sent"),
    ] {
        let message = request_for(&format!("{{ {template}, {SECRETS} }}"), &event()).unwrap_err();
        assert!(message.contains(error), "{template}: {message}");
    }
    // In the query, empty values and dots are accepted. In the path, an empty value is replaced by its default.
    let yaml = "{ url: \"https://crm.example/users/{data.empty|all}?a={data.empty}&b={data.dots}\" }";
    let request = request_for(yaml, &event()).unwrap();
    assert_eq!(request.uri().path_and_query().unwrap().as_str(), "/users/all?a=&b=..");
}

#[test]
fn a_value_with_a_segment_of_dots_is_refused_in_the_path_also_after_an_encoded_slash() {
    let path = |value: &str, place: &str| {
        let event = Event { subject: Some(value.to_owned()), ..event() };
        request_for(&format!("{{ url: \"https://crm.example/a/{place}\" }}"), &event)
    };
    for value in [".", "..", "...", "../../admin", "x/..", "x/./y", "/..", "..\\admin", "x\\..", "a/..\\b"] {
        for place in ["{subject}", "v{subject}", "{subject}/x"] {
            let message = path(value, place).unwrap_err();
            assert!(message.contains("`{subject}` in the URL has a part of only dots"), "{value} {place}: {message}");
        }
        assert!(path(value, "?q={subject}").is_ok(), "{value}");
    }
    for value in ["a.b", "..a", "a..", "a/b", "/a/", "\u{2025}"] {
        assert!(path(value, "{subject}").is_ok(), "{value}");
    }
}

#[test]
fn a_head_that_servers_would_not_accept_is_refused_before_it_is_sent() {
    let binary = "{ url: \"https://crm.example\", mode: binary }";
    let with = |subject: String| Event { subject: Some(subject), ..event() };
    assert!(request_for(binary, &with("x".repeat(8 * 1024))).is_ok());
    // Each character has 9 bytes in a header.
    for subject in ["x".repeat(8 * 1024 + 1), "x".repeat(1 << 20), "\u{20ac}".repeat(1_000)] {
        let message = request_for(binary, &with(subject)).unwrap_err();
        assert!(message.starts_with("the header `ce-subject` would have more than 8 KiB; use shorter"), "{message}");
    }
    let content_type = Event { datacontenttype: Some(format!("text/{}", "x".repeat(8 * 1024))), ..event() };
    let message = request_for(binary, &content_type).unwrap_err();
    assert!(message.starts_with("the header `content-type` would have more than 8 KiB; "), "{message}");
    let total = "the URL and the headers would have more than 16 KiB in total; use shorter values, or `mode: structured`, \
                 which sends attributes in the body";
    let mut many = event();
    (0..100).for_each(|at| many.set(&format!("a{at}"), "x".repeat(200)).unwrap());
    assert_eq!(request_for(binary, &many).unwrap_err(), total);
    let url = "{ url: \"https://crm.example/{subject}\", headers: { x: \"{subject}\", y: \"{subject}\" } }";
    assert_eq!(request_for(url, &with("x".repeat(6 * 1024))).unwrap_err(), total);
    assert!(request_for(url, &with("x".repeat(5 * 1024))).is_ok());
}

#[test]
fn a_body_that_repeats_large_data_is_bounded() {
    let large = Event { subject: Some("x".repeat(1 << 20)), ..event() };
    let items = ["\"{subject}\""; 9].join(",");
    let message = request_for(&format!("{{ url: \"https://crm.example\", body: [{items}] }}"), &large).unwrap_err();
    assert!(message.contains("more than 8 MiB"), "{message}");
    let text = "{subject}".repeat(9);
    let message = request_for(&format!("{{ url: \"https://crm.example\", body: \"{text}\" }}"), &large).unwrap_err();
    assert!(message.contains("too long"), "{message}");
}

#[test]
fn an_address_in_the_url_needs_a_grant_unless_it_is_public() {
    for (yaml, is_refused) in [
        ("{ url: \"http://127.0.0.1:80\" }", true),
        ("{ url: \"http://2130706433/\" }", true),
        ("{ url: \"http://[::1]/\", addresses: [127.0.0.1] }", true),
        ("{ url: \"http://127.0.0.1:80\", addresses: [\"127.0.0.0/8\"] }", false),
        ("{ url: \"http://1.1.1.1/\" }", false),
        ("{ url: \"http://localhost/\" }", false),
    ] {
        match deliver(yaml) {
            Ok(deliver) => {
                assert!(!is_refused, "{yaml}");
                assert!(grant(&deliver, None).is_some_and(|grant| grant.destination.matches(deliver.url.target())));
            }
            Err(message) => assert!(is_refused && message.contains("every request would be refused"), "{message}"),
        }
    }
}

#[test]
fn mistakes_in_deliver_are_reported() {
    for (yaml, error) in [
        ("{ url: \"https://crm.example/{secret.MISSING}\" }", "the secret `MISSING` is not declared"),
        (
            "{ url: \"https://crm.example\", body: \"{{\\\"a\\\": \\\"{data.a}\\\"}}\" }",
            "JSON body cannot be written as a text",
        ),
        ("{ url: \"https://crm.example\", body: \"x\", mode: binary }", "`mode` has no effect"),
        ("{ url: \"https://crm.example\", headers: { Host: x } }", "the header `host` is set by Evoke"),
        ("{ url: \"https://crm.example\", headers: { ce-id: x } }", "is set from the event"),
        ("{ url: \"https://crm.example\", sign: {} }", "`sign` does not name a kind of signature"),
        ("{ url: \"https://crm.example\", rate: 10 }", "`10` is not a rate"),
        ("{ mode: binary }", "needs the key `url`"),
    ] {
        let message = deliver(yaml).err().unwrap_or_else(|| panic!("{yaml}"));
        assert!(message.contains(error), "{yaml}: {message}");
    }
}

/// Returns the target of a function that sends events to `url` on loopback.
fn target(url: &str, timeout: Duration) -> HttpTarget {
    let deliver = deliver(&format!("{{ url: \"{url}\", addresses: [127.0.0.1], {SECRETS} }}")).unwrap();
    let client = Client::new(Handle::current(), Arc::new(Metrics::new()));
    let owner = client.owner("shop/f", vec![grant(&deliver, None).unwrap()]);
    let secrets = [("KEY".to_owned(), "k".to_owned())].into();
    HttpTarget::new(&deliver, Arc::new(secrets), None, owner, timeout, Clock::system())
}

/// Sends an event to an endpoint on loopback that responds to each request with this status and without a body. `path`
/// is the path of `url`.
async fn sent(path: &str, event: &Event, status: &'static str) -> Sent {
    let response = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
    sent_with(path, event, response, |target| target).await
}

/// Sends an event to an endpoint on loopback that responds with these bytes. `change` changes the target.
async fn sent_with(path: &str, event: &Event, response: String, change: impl FnOnce(HttpTarget) -> HttpTarget) -> Sent {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}{path}", listener.local_addr().unwrap());
    let endpoint = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(response.as_bytes()).await.unwrap();
        // The body of the request is read until the client closes the connection.
        while stream.read_u8().await.is_ok() {}
    });
    let sent = change(target(&url, Duration::from_secs(60))).send(event, "s1-7", 0, None).await;
    endpoint.abort();
    sent
}

#[tokio::test]
async fn only_a_body_that_ended_is_redacted_as_a_whole() {
    let mark = |target: HttpTarget| target.with_redaction(Arc::new(|text: &str, extent| format!("{extent:?} {text}")));
    let large = "x".repeat(RESPONSE_BYTES_MAX);
    for (length, body, shown) in [
        (3, "bad", "Whole bad"),
        (large.len(), &large, "Whole xxx"),
        // The endpoint sends nothing more.
        (99, "bad token hunter2-hun", "Start bad token"),
        (0, "", ""),
        (large.len() + 1, &format!("{large}x"), "Start xxx"),
    ] {
        let response = format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {length}\r\n\r\n{body}");
        let message = sent_with("/", &event(), response, mark).await.outcome.message().unwrap();
        assert!(message.contains(shown), "{length}: {message}");
    }
}

#[tokio::test]
async fn large_bodies_of_a_function_wait_for_each_other_and_not_in_memory() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let endpoint = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.read_u8().await.unwrap();
            stream.write_all(response).await.unwrap();
            while stream.read_u8().await.is_ok() {}
        }
    });
    let target = target(&url, Duration::from_millis(500));
    let large = Event { data: Data::Text("\u{1}".repeat(1 << 20)), ..event() };
    let held = target.large_bodies.try_acquire_many(LARGE_BODIES_KIB - 6 * 1024 + 1).unwrap();
    // In JSON, the body has 6 MiB and the attributes.
    let outcome = target.send(&large, "s1-7", 0, None).await.outcome;
    assert!(matches!(&outcome, Outcome::Unavailable { message } if message.contains("large bodies")), "{outcome:?}");
    let outcome = target.send(&event(), "s1-7", 0, None).await.outcome;
    assert_eq!(outcome, Outcome::Done, "small bodies do not wait");
    drop(held);
    let delivery = Delivery { event: &large, id: "s1-7", hops: 0, trace: None, now_ms: 0 };
    let (request, memory) = target.request(delivery, Instant::now()).await.unwrap();
    let held = LARGE_BODIES_KIB as usize - target.large_bodies.available_permits();
    assert!(held == request.body().len() >> 10 && held >= 6 * 1024, "{held}");
    drop(memory);
    assert_eq!(target.large_bodies.available_permits(), LARGE_BODIES_KIB as usize);
    endpoint.abort();
}

#[tokio::test]
async fn a_large_body_that_the_endpoint_does_not_read_after_its_response_keeps_its_memory_and_only_for_a_while() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let endpoint = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    });
    let target = target(&url, Duration::from_secs(60));
    // In JSON, the body has more bytes than the buffers of the sockets can hold while nothing is read.
    let large = Event { data: Data::Text("\u{1}".repeat(1_300_000)), ..event() };
    assert_eq!(target.send(&large, "s1-7", 0, None).await.outcome, Outcome::Done);
    let free = target.large_bodies.available_permits();
    assert!(free <= LARGE_BODIES_KIB as usize - 7 * 1024, "{free}");
    tokio::time::pause();
    let all = tokio::time::timeout(Duration::from_secs(10), target.large_bodies.acquire_many(LARGE_BODIES_KIB)).await;
    drop(all.expect("the body is still in memory").unwrap());
    endpoint.abort();
}

#[tokio::test]
async fn a_410_is_about_one_event_if_the_url_has_values_of_the_event() {
    for (path, kind) in [
        ("/hooks", "endpoint-gone"),
        ("/{secret.KEY}/hooks?a={secret.KEY}", "endpoint-gone"),
        ("/users/{data.deep.er}", "reject"),
        ("/users/{data.missing|all}", "reject"),
        ("/users?id={id}&key={secret.KEY}", "reject"),
    ] {
        let Sent { outcome, responded, .. } = sent(path, &event(), "410 Gone").await;
        assert_eq!((outcome.kind(), outcome.message().as_deref()), (kind, Some("410 Gone")), "{path}");
        assert!(responded, "{path}");
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_sent_is_rejected_without_a_response() {
    let Sent { outcome, responded, .. } = sent("/users/{data.missing}", &event(), "200 OK").await;
    assert_eq!((outcome.kind(), responded), ("reject", false));
    for (status, kind, responds) in [
        ("200 OK", "done", true),
        ("404 Not Found", "reject", true),
        ("500 Internal Server Error", "endpoint-failed", true),
        // The endpoint, or a gateway in front of it, took no request.
        ("429 Too Many Requests", "endpoint-failed", false),
        ("502 Bad Gateway", "endpoint-failed", false),
        ("503 Service Unavailable", "endpoint-failed", false),
        ("504 Gateway Timeout", "endpoint-failed", false),
    ] {
        let Sent { outcome, responded, .. } = sent("/users/{data.deep.er}", &event(), status).await;
        assert_eq!((outcome.kind(), responded), (kind, responds), "{status}");
    }
}
