//! Requests become events: placeholders, path parameters, compressed bodies, forms, CORS and the handshake of CloudEvents
//! senders.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::{Evoke, Response, request};

const SHOP: &str = r#"
evoke: 1
app: shop
sources:
  github:
    http:
      path: /hooks/github/{team}
      type: "github.{header.x-github-event}"
      subject: "{data.repository.full_name}"
      id: "{header.x-github-delivery}"
      attributes: { team: "{path.team}", page: "{query.page|1}" }
  ops:
    http: { path: /hooks/github/ops, type: ops.called }
  rest:
    http: { path: "/hooks/{rest...}", methods: [GET, PUT], type: hook.called, subject: "{path.rest}" }
  chosen:
    http: { path: /chosen, type: "{query.type}", accept: { types: ["order.*", "evoked"] } }
  free:
    http: { path: /free, type: "{data.type}" }
  open:
    http: { path: /open, type: open.called, attributes: { team: "{header.x-team|none}" }, accept: { types: ["*"] } }
  search:
    http: { path: /search, methods: [GET], type: search.asked }
  orders:
    http: { path: /orders, type: order.placed, max_body: 64KiB }
functions:
  core-team:
    component: $FUNCTIONS/echo.wasm
    on:
      - events: { type: [{ prefix: "github." }], team: [core] }
    allow: { publish: [echo] }
"#;

const PUSH: &str = r#"{"repository":{"full_name":"acme/shop"}}"#;

fn push<'h>(delivery: &'h str, event: &'h str) -> [(&'h str, &'h str); 3] {
    [("content-type", "application/json"), ("x-github-delivery", delivery), ("x-github-event", event)]
}

fn detail(response: &Response) -> String {
    response.json()["detail"].as_str().unwrap_or_default().to_owned()
}

/// Sends bytes over a connection of its own, and returns the status and the whole response.
fn raw(evoke: &Evoke, head: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(evoke.http()).unwrap();
    let head = format!("{head}\nHost: a\nConnection: close\nContent-Length: {}\n\n", body.len());
    stream.write_all(head.replace('\n', "\r\n").as_bytes()).unwrap();
    // The server may respond before it has read everything.
    let _ = stream.write_all(body);
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    (response[9..12].parse().unwrap(), response)
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// A brotli stream with one uncompressed metablock of at most 64 KiB (RFC 7932, section 9.2).
fn brotli(data: &[u8]) -> Vec<u8> {
    let head = u32::try_from(data.len() - 1).unwrap() << 4 | 1 << 20;
    [&head.to_le_bytes()[..3], data, &[3]].concat()
}

#[test]
fn attributes_come_from_the_header_the_query_the_path_and_the_data() {
    let evoke = Evoke::up_with(SHOP);
    let response = evoke.post_with("/hooks/github/core", &push("d-1", "push"), PUSH);
    assert_eq!((response.status, response.json()["events"][0]["id"].as_str()), (202, Some("d-1")), "{response:?}");
    let again = evoke.post_with("/hooks/github/core?page=2", &push("d-1", "push"), PUSH);
    assert_eq!((again.status, &again.json()["duplicates"]), (200, &json!(1)));
    assert_eq!(evoke.post_with("/hooks/github/caf%C3%A9?page=2", &push("d-2", "issues.opened"), PUSH).status, 202);

    let event = &evoke.events("github.push")[0];
    assert_eq!(
        (&event["subject"], &event["team"], &event["page"], &event["source"]),
        (&json!("acme/shop"), &json!("core"), &json!("1"), &json!("/shop/github"))
    );
    let event = &evoke.events("github.issues.opened")[0];
    assert_eq!((&event["team"], &event["page"]), (&json!("café"), &json!("2")));
    evoke.settle();
    assert_eq!(evoke.events("echo").len(), 1);
}

#[test]
fn a_request_without_a_needed_value_is_refused_and_the_value_is_named() {
    let evoke = Evoke::up_with(SHOP);
    let all = push("d-1", "push");
    for (path, headers, body, placeholder, attribute) in [
        ("/hooks/github/core", &all[..2], PUSH, "header.x-github-event", "type"),
        ("/hooks/github/core", &[all[0], all[2]], PUSH, "header.x-github-delivery", "id"),
        ("/hooks/github/core", &all, "{}", "data.repository.full_name", "subject"),
        ("/hooks/github/core", &all, r#"{"repository":{"full_name":null}}"#, "data.repository.full_name", "subject"),
        ("/hooks/github/core", &all, r#"{"repository":{"full_name":["x"]}}"#, "data.repository.full_name", "subject"),
        ("/chosen", &all, PUSH, "query.type", "type"),
        ("/chosen?type=", &all, PUSH, "query.type", "type"),
        ("/chosen?type=order.a&type=order.b", &all, PUSH, "query.type", "type"),
        ("/chosen?type=order.%FF", &all, PUSH, "query.type", "type"),
    ] {
        let response = evoke.post_with(path, headers, body);
        let problem = response.json();
        assert_eq!(response.status, 400, "{path} {problem}");
        assert_eq!(
            (&problem["placeholder"], &problem["attribute"]),
            (&json!(placeholder), &json!(attribute)),
            "{problem}"
        );
        assert!(detail(&response).contains(&format!("`{{{placeholder}}}`")), "{problem}");
    }
    for subject in ["a\\u0000b", "a\\nb", "\\ufffe"] {
        let body = format!(r#"{{"repository":{{"full_name":"{subject}"}}}}"#);
        let response = evoke.post_with("/hooks/github/core", &all, &body);
        assert!(response.status == 400 && detail(&response).contains("`subject`"), "{response:?}");
    }
    let long = format!(r#"{{"repository":{{"full_name":"{}"}}}}"#, "x".repeat(1_025));
    assert!(detail(&evoke.post_with("/hooks/github/core", &all, &long)).contains("1024 bytes"));
    assert!(evoke.json_lines(&["events"]).is_empty());
}

#[test]
fn no_placeholder_forges_a_type_or_an_attribute_that_the_source_sets() {
    let evoke = Evoke::up_with(SHOP);
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    for type_ in ["evoke.timer.tick", "evoke", "Evoke.Delivery.Dead", "%65voke.x", "evoke%2ex", "%2565voke.x"] {
        let chosen = evoke.post_with(&format!("/chosen?type={}", encoded(type_)), &[], "");
        let free =
            evoke.post_with("/free", &[("content-type", "application/json")], &json!({ "type": type_ }).to_string());
        for response in [chosen, free] {
            assert_eq!((response.status, &response.json()["attribute"]), (403, &json!("type")), "{type_} {response:?}");
        }
    }
    for type_ in ["payment.taken", "order", "xorder.placed"] {
        let response = evoke.post_with(&format!("/chosen?type={type_}"), &[], "");
        assert!(response.status == 403 && detail(&response).contains("`order.*`"), "{type_} {response:?}");
    }
    for type_ in ["order.a b", "order.\u{430}", "order.\u{202e}", "order.\n"] {
        let response = evoke.post_with(&format!("/chosen?type={}", encoded(type_)), &[], "");
        assert_eq!(response.status, 400, "{type_:?} {response:?}");
        let body = json!({ "type": type_ }).to_string();
        assert_eq!(evoke.post_with("/free", &[("content-type", "application/json")], &body).status, 400, "{type_:?}");
    }
    assert!(evoke.json_lines(&["events"]).is_empty());
    for type_ in ["order.placed", "evoked"] {
        assert_eq!(evoke.post_with(&format!("/chosen?type={type_}"), &[], "").status, 202);
    }

    // A source with a type from the request accepts no CloudEvent by that: also none of a type that a request can have.
    let event = |type_: &str| json!({ "specversion": "1.0", "id": "1", "source": "/shop/github", "type": type_, "team": "core" });
    let structured =
        [("content-type", "application/cloudevents+json"), ("x-github-event", "push"), ("x-github-delivery", "1")];
    for type_ in ["github.push", "github.{header.x-github-event}", "github.*"] {
        let response = evoke.post_with("/hooks/github/evil", &structured, &event(type_).to_string());
        assert_eq!((response.status, &response.json()["attribute"]), (403, &json!("type")), "{type_} {response:?}");
    }
    // The attributes of the source replace those that a producer claims.
    let claimed =
        json!({ "specversion": "1.0", "id": "1", "source": "/shop/open", "type": "github.push", "team": "core" });
    assert_eq!(evoke.post_with("/open", &structured, &claimed.to_string()).status, 202);
    assert_eq!(evoke.events("github.push")[0]["team"], "none");
    evoke.settle();
    assert_eq!(evoke.events("echo").len(), 0);
}

#[test]
fn the_most_specific_path_gets_the_request_and_its_parameters() {
    let evoke = Evoke::up_with(SHOP);
    let send = |method: &str, path: &str| {
        let (status, response) = raw(
            &evoke,
            &format!(
                "{method} {path} HTTP/1.1\nx-github-event: push\nx-github-delivery: {path}\ncontent-type: application/json"
            ),
            PUSH.as_bytes(),
        );
        assert_eq!(status, 202, "{method} {path}: {response}");
    };
    send("POST", "/hooks/github/ops");
    // The fixed path in another spelling is not a parameter.
    send("POST", "/hooks/github/%6Fps");
    send("POST", "/hooks/github/%2Fops");
    send("PUT", "/hooks/github/ops");
    send("PUT", "/hooks/a/b%20c//d");
    assert_eq!(evoke.events("ops.called").len(), 2);
    assert_eq!(evoke.events("github.push")[0]["team"], "/ops");
    let subjects: Vec<Value> = evoke.events("hook.called").iter().map(|event| event["subject"].clone()).collect();
    assert_eq!(subjects, ["github/ops", "a/b c//d"]);
    for (path, status, text) in [
        ("/hooks/%2e%2e/secret", 400, "`rest` cannot be `..`"),
        ("/hooks/a%2Fb", 400, "encoded `/`"),
        ("/hooks/%FF", 400, "not UTF-8"),
        ("/hooks/%zz", 400, "not UTF-8"),
        ("/hooks/", 400, "`{path.rest}` is missing"),
        ("/hooks", 404, "a source has `/hooks/{rest...}`"),
    ] {
        let (got, response) = raw(&evoke, &format!("PUT {path} HTTP/1.1"), b"");
        assert!(got == status && response.contains(text), "{path}: {response}");
    }
    let (status, response) = raw(&evoke, "DELETE /hooks/github/core HTTP/1.1", b"");
    assert!(status == 405 && response.contains("\r\nallow: POST, GET, HEAD, PUT, OPTIONS\r\n"), "{response}");
}

#[test]
fn head_and_options_make_no_events_and_the_query_of_a_get_request_is_its_data() {
    let evoke = Evoke::up_with(SHOP);
    let (status, response) = raw(&evoke, "HEAD /search?q=x HTTP/1.1", b"");
    assert!(status == 200 && response.ends_with("\r\n\r\n"), "{response}");
    let (status, response) = raw(&evoke, "OPTIONS /search HTTP/1.1", b"");
    assert!(status == 204 && response.contains("\r\nallow: GET, HEAD, OPTIONS\r\n"), "{response}");
    assert_eq!(raw(&evoke, "OPTIONS * HTTP/1.1", b"").0, 204);
    assert_eq!(raw(&evoke, "OPTIONS /nowhere HTTP/1.1", b"").0, 404);
    assert!(evoke.json_lines(&["events"]).is_empty());
    assert_eq!(raw(&evoke, "GET /search?q=caf%C3%A9+x&tag=a&tag=b HTTP/1.1", b"").0, 202);
    assert_eq!(raw(&evoke, "GET /search HTTP/1.1", b"").0, 202);
    let events = evoke.events("search.asked");
    assert_eq!(events[0]["data"], json!({ "q": "café x", "tag": ["a", "b"] }));
    assert_eq!(events[1].get("data"), None);
    // The query of other methods often has tokens, and is stored nowhere.
    assert_eq!(evoke.post("/orders?token=secret", "").status, 202);
    assert!(!evoke.events("order.placed")[0].to_string().contains("secret"));
    let many = format!("GET /search?{} HTTP/1.1", "a&".repeat(1_001));
    assert_eq!(raw(&evoke, &many, b"").0, 413);
}

#[test]
fn compressed_bodies_are_decoded_within_the_limit_and_bombs_are_refused() {
    let evoke = Evoke::up_with(SHOP);
    let order = br#"{"customer":"ada","total":42}"#;
    let post = |coding: &str, body: &[u8]| {
        raw(&evoke, &format!("POST /orders HTTP/1.1\nContent-Type: application/json\nContent-Encoding: {coding}"), body)
    };
    for (coding, body) in [("gzip", gzip(order)), ("br", brotli(order)), ("identity", order.to_vec())] {
        let (status, response) = post(coding, &body);
        assert_eq!(status, 202, "{coding}: {response}");
    }
    let events = evoke.events("order.placed");
    assert!(events.len() == 3 && events.iter().all(|event| event["data"]["total"] == 42), "{events:?}");
    let before_kib = evoke.rss_kib();
    let zeros = vec![b'0'; 48 << 20];
    let bomb = gzip(&zeros);
    assert!(bomb.len() < 64 << 10);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let (status, response) = post("gzip", &bomb);
                    assert!(status == 413 && response.contains("65536 bytes"), "{response}");
                }
            });
        }
    });
    assert!(evoke.rss_kib() < before_kib + (32 << 10), "{before_kib} KiB grew to {} KiB", evoke.rss_kib());
    // A bomb in a bomb is decoded once: what it holds is no JSON.
    let (status, response) = post("gzip", &gzip(&bomb));
    assert!(status == 400 && response.contains("not JSON"), "{response}");
    for (coding, body, status, text) in [
        ("gzip", &order[..], 400, "not valid gzip data"),
        ("gzip", &gzip(order)[..20], 400, "not valid gzip data"),
        ("br", &brotli(order)[..20], 400, "not valid br data"),
        ("gzip, gzip", &gzip(&gzip(order)), 415, "\r\naccept-encoding: gzip, deflate, br\r\n"),
        ("zstd", order, 415, "\r\naccept-encoding: gzip, deflate, br\r\n"),
    ] {
        let (got, response) = post(coding, body);
        assert!(got == status && response.contains(text), "{coding}: {response}");
    }
    assert_eq!(evoke.events("order.placed").len(), 3);
}

#[test]
fn a_form_is_json_and_its_fields_can_be_named() {
    let evoke = Evoke::up_with(
        "evoke: 1\napp: shop\nsources:\n  slack:\n    http: { path: /slack, type: \"slack.{data.command}\", subject: \"{data.user|nobody}\" }\n",
    );
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let response = evoke.post_with("/slack", &form, "command=%2Fdeploy&text=shop+now&user=&tag=a&tag=b");
    assert_eq!(response.status, 202, "{response:?}");
    let event = &evoke.events("slack./deploy")[0];
    assert_eq!(event["data"], json!({ "command": "/deploy", "text": "shop now", "user": "", "tag": ["a", "b"] }));
    assert_eq!((&event["datacontenttype"], &event["subject"]), (&json!("application/json"), &json!("nobody")));
    for (body, status) in [("text=x", 400), ("command=a&command=b", 400), ("command=%FF", 400)] {
        assert_eq!(evoke.post_with("/slack", &form, body).status, status, "{body}");
    }
    assert_eq!(evoke.post_with("/slack", &form, &"a&".repeat(1_001)).status, 413);
    // Control characters are six times as large in JSON.
    let (status, response) = raw(
        &evoke,
        "POST /slack HTTP/1.1\nContent-Type: application/x-www-form-urlencoded",
        &[b"command=a&x=".to_vec(), vec![1; 200 << 10]].concat(),
    );
    assert!(status == 413 && response.contains("as JSON"), "{response}");
}

const WEB: &str = r#"
evoke: 1
app: web
sources:
  form:
    http:
      path: /form/{name}
      methods: [POST, PUT]
      type: form.sent
      cors: { origins: ["https://shop.example"], headers: [content-type], max_age: 1h }
  public:
    http: { path: /public, type: public.sent, cors: { origins: ["*"] } }
  plain:
    http: { path: /plain, type: plain.sent }
  events:
    http: { path: /events, accept: { types: ["a.*"], sources: ["https://partner.example/*"] }, handshake: { origins: [partner.example], rate: 120 } }
"#;

#[test]
fn a_page_of_a_listed_origin_can_send_requests_and_a_foreign_one_cannot() {
    let evoke = Evoke::up_with(WEB);
    let preflight = |path: &str, origin: &str, method: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", method),
            ("access-control-request-headers", "content-type"),
        ];
        request("OPTIONS", evoke.http(), path, &headers, "").unwrap()
    };
    let granted = preflight("/form/a", "https://shop.example", "PUT");
    assert_eq!(granted.status, 204, "{granted:?}");
    for (name, value) in [
        ("access-control-allow-origin", "https://shop.example"),
        ("access-control-allow-methods", "POST, PUT"),
        ("access-control-allow-headers", "content-type"),
        ("access-control-max-age", "3600"),
    ] {
        assert_eq!(granted.headers[name], value, "{granted:?}");
    }
    assert!(granted.headers["vary"].to_str().unwrap().contains("origin"));
    let is_granted = |response: &Response| response.headers.contains_key("access-control-allow-origin");
    assert!(!is_granted(&preflight("/form/a", "https://evil.example", "PUT")));
    assert!(!is_granted(&preflight("/form/a", "https://shop.example", "DELETE")));
    assert!(!is_granted(&preflight("/plain", "https://shop.example", "POST")));
    assert_eq!(preflight("/public", "https://evil.example", "POST").headers["access-control-allow-origin"], "*");

    // A browser sends simple requests without asking first: the response is hidden from the page, but the event is not
    // made either.
    let send =
        |path: &str, origin: &str| evoke.post_with(path, &[("origin", origin), ("content-type", "text/plain")], "x");
    for origin in ["https://evil.example", "null", "http://shop.example", "https://shop.example.evil.example"] {
        let response = send("/form/a", origin);
        assert_eq!((response.status, is_granted(&response)), (403, false), "{origin} {response:?}");
    }
    assert!(evoke.events("form.sent").is_empty());
    let response = send("/form/a", "https://shop.example");
    assert_eq!(
        (response.status, &response.headers["access-control-allow-origin"], &response.headers["vary"]),
        (202, &"https://shop.example".parse().unwrap(), &"origin".parse().unwrap())
    );
    // The page can also read why a request was refused.
    let refused =
        evoke.post_with("/form/a", &[("origin", "https://shop.example"), ("content-type", "application/json")], "{");
    assert_eq!((refused.status, is_granted(&refused)), (400, true), "{refused:?}");
    assert_eq!(send("/form/a", &format!("http://{}", evoke.http())).status, 202);
    assert_eq!(evoke.post("/form/a", "1").status, 202);
    let plain = send("/plain", "https://evil.example");
    assert_eq!((plain.status, is_granted(&plain)), (202, false));
}

#[test]
fn a_listed_sender_of_cloudevents_gets_a_positive_answer_to_its_validation_request() {
    let evoke = Evoke::up_with(WEB);
    let ask = |path: &str, origin: &str| {
        let headers = [
            ("webhook-request-origin", origin),
            ("webhook-request-rate", "1000"),
            ("webhook-request-callback", "http://127.0.0.1:9/callback"),
        ];
        request("OPTIONS", evoke.http(), path, &headers, "").unwrap()
    };
    let granted = ask("/events", "partner.example");
    assert_eq!(granted.status, 200, "{granted:?}");
    assert_eq!(granted.headers["webhook-allowed-origin"], "partner.example");
    assert_eq!(granted.headers["webhook-allowed-rate"], "120");
    assert_eq!(ask("/events", "evil.example").status, 403);
    // A source that did not ask for it promises nothing.
    let off = ask("/plain", "partner.example");
    assert!(off.status == 204 && !off.headers.contains_key("webhook-allowed-origin"), "{off:?}");
}

#[test]
fn two_apps_cannot_declare_paths_that_match_the_same_requests() {
    let app = |name: &str, path: &str| {
        format!("evoke: 1\napp: {name}\nsources:\n  hook:\n    http: {{ path: \"{path}\", type: hook.called }}\n")
    };
    let evoke = Evoke::with(&app("one", "/hooks/{team}"));
    std::fs::write(evoke.path("two.yaml"), app("two", "/hooks/{name}")).unwrap();
    let output =
        evoke.run_within_timeout(&["up", "evoke.yaml", "two.yaml", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{output:?}");
    assert!(errors.contains("POST /hooks/{name} is declared by both /one/hook and /two/hook"), "{errors}");
}
