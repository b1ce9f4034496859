//! Stands in for the services that the examples call, so that they run without accounts and without a network: an HTTP
//! component that logs each request and responds as the service would.

use serde_json::{Value, json};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

/// Larger payments are declined.
const AMOUNT_MAX: u64 = 1_000;

struct StandIn;

wasip2::http::proxy::export!(StandIn);

impl Guest for StandIn {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let key = header(&request, "idempotency-key");
        let body: Value = serde_json::from_slice(&read(&request)).unwrap_or_default();
        evoke::log::info!("{path}: {body}");
        let (status, response) = respond(&path, &key, &body);
        send(out, status, &response.to_string());
    }
}

/// Returns the status and the body of the service's response.
fn respond(path: &str, key: &str, body: &Value) -> (u16, Value) {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').skip(1).collect();
    match parts[..] {
        ["github", "repos", owner, repository, "issues", number, "comments"] => {
            (201, json!({ "html_url": format!("https://github.com/{owner}/{repository}/issues/{number}#comment-1") }))
        }
        ["provider", "v1", "payments"] => match body["amount"].as_u64() {
            Some(1..=AMOUNT_MAX) => (201, json!({ "id": format!("pay_{key}"), "status": "succeeded" })),
            Some(_) => (402, json!({ "id": format!("pay_{key}"), "status": "declined" })),
            None => (400, json!({ "error": "`amount` is missing" })),
        },
        ["chat", ..] => (200, json!({ "ok": true })),
        _ => (404, json!({ "error": format!("no service has the path {path}") })),
    }
}

fn header(request: &IncomingRequest, name: &str) -> String {
    let values = request.headers().get(name);
    values.first().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
}

fn read(request: &IncomingRequest) -> Vec<u8> {
    let mut data = Vec::new();
    let Ok(body) = request.consume() else { return data };
    if let Ok(stream) = body.stream() {
        while let Ok(chunk) = stream.blocking_read(64 * 1024) {
            data.extend(chunk);
        }
    }
    data
}

fn send(out: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::new();
    let _ = headers.append("content-type", b"application/json");
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(stream) = body.write() {
        let _ = stream.blocking_write_and_flush(text.as_bytes());
    }
    let _ = OutgoingBody::finish(body, None);
}
