//! Senders of webhooks: only requests with the right signature, token or password become events, each of them once.

use std::time::{SystemTime, UNIX_EPOCH};

use ring::hmac;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::assert_eventually;
use crate::support::{Evoke, Response, request, signal};

pub(crate) const MANIFEST: &str = r#"
evoke: 1
app: hooks
sources:
  github:
    http: { path: /github, type: github.event, auth: { github: { secret: [{ name: new, env: NEW }, { name: old, env: OLD }] } } }
  billing:
    http: { path: /billing, type: billing.event, accept: { types: ["billing.*"] }, auth: { standard-webhooks: { secret: { file: billing.key } } } }
  stripe:
    http: { path: /stripe, type: stripe.event, auth: { stripe: { secret: { credential: stripe } } } }
  slack:
    http: { path: /slack, type: slack.event, auth: { slack: { secret: { env: NEW } } } }
  dated:
    http: { path: /dated, type: dated.event, auth: { hmac: { secret: { env: NEW }, header: X-Sig, encoding: base64, prefix: "s=", timestamp: { header: X-Time } } } }
  tokens:
    http: { path: /tokens, accept: { types: ["token.*"], sources: ["https://partner.example/*"] }, auth: { bearer: { secret: [{ name: ci, env: NEW }] } } }
  users:
    http: { path: /users, type: user.event, auth: { basic: { users: { ada: { env: NEW } } } } }
  numbered:
    http: { path: /numbered, methods: [POST, GET], type: numbered.event, id: "order-{data.order}", auth: { github: { secret: { env: NEW } } } }
  open:
    http: { path: /open, type: open.event, accept: { types: ["*"], sources: ["https://partner.example/*"] } }
functions:
  trusted:
    component: $FUNCTIONS/echo.wasm
    on:
      - events: { principal: [{ prefix: github }, "bearer:ci"] }
    allow: { publish: [echo] }
"#;

pub(crate) const NEW: &str = "a long random value";
const OLD: &str = "the value before";
const BILLING: &[u8] = b"24 bytes of a shared key";
/// [`BILLING`] as the sender shows it.
pub(crate) const BILLING_SECRET: &str = "whsec_MjQgYnl0ZXMgb2YgYSBzaGFyZWQga2V5";
pub(crate) const STRIPE: &str = "whsec_of_stripe";

pub(crate) fn up() -> Evoke {
    let mut evoke = Evoke::with(MANIFEST);
    std::fs::write(evoke.path("billing.key"), format!("{BILLING_SECRET}\n")).unwrap();
    std::fs::create_dir(evoke.path("credentials")).unwrap();
    std::fs::write(evoke.path("credentials/stripe"), STRIPE).unwrap();
    let credentials = evoke.path("credentials");
    evoke.set_environment(&[("NEW", NEW), ("OLD", OLD), ("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap())]);
    evoke.up();
    evoke
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn code(key: &[u8], parts: &[&str]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), parts.concat().as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub(crate) type Headers = Vec<(&'static str, String)>;

/// Returns the headers of a signed request to a source.
pub(crate) fn sign(path: &str, id: &str, time: u64, body: &str) -> Headers {
    let time = time.to_string();
    match path {
        "/github" => vec![
            ("x-hub-signature-256", format!("sha256={}", hex(&code(NEW.as_bytes(), &[body])))),
            ("x-github-delivery", id.to_owned()),
        ],
        "/billing" => {
            let code = base64(&code(BILLING, &[id, ".", &time, ".", body]));
            vec![
                ("webhook-id", id.to_owned()),
                ("webhook-timestamp", time),
                ("webhook-signature", format!("v1,AAAA v1,{code}")),
            ]
        }
        "/stripe" => {
            let code = hex(&code(STRIPE.as_bytes(), &[&time, ".", body]));
            vec![("stripe-signature", format!("t={time},v1={code},v0=00"))]
        }
        "/slack" => {
            let code = hex(&code(NEW.as_bytes(), &["v0:", &time, ":", body]));
            vec![("x-slack-signature", format!("v0={code}")), ("x-slack-request-timestamp", time)]
        }
        "/dated" => {
            let code = base64(&code(NEW.as_bytes(), &[&time, ".", body]));
            vec![("x-sig", format!("s={code}")), ("x-time", time)]
        }
        "/tokens" => vec![
            ("authorization", format!("Bearer {NEW}")),
            ("ce-specversion", "1.0".into()),
            ("ce-id", id.into()),
            ("ce-type", "token.used".into()),
            ("ce-source", "https://partner.example/x".into()),
        ],
        "/users" => vec![
            ("authorization", format!("Basic {}", base64(format!("ada:{NEW}").as_bytes()))),
            ("idempotency-key", id.into()),
        ],
        _ => unreachable!("no source has this path"),
    }
}

fn send(evoke: &Evoke, path: &str, headers: &Headers, body: &str) -> Response {
    let mut all: Vec<(&str, &str)> = vec![("content-type", "application/json")];
    all.extend(headers.iter().map(|(name, value)| (*name, value.as_str())));
    evoke.post_with(path, &all, body)
}

fn envelopes(evoke: &Evoke) -> Vec<Value> {
    evoke.json_lines(&["events", "--after", "0", "--envelope"])
}

/// The events that senders sent, without those that the function published.
fn received(evoke: &Evoke) -> Vec<Value> {
    envelopes(evoke).into_iter().filter(|event| event["event"]["type"] != "echo").collect()
}

/// The value of `evoke_requests_unverified_total`.
fn unverified(evoke: &Evoke, source: &str, reason: &str) -> u64 {
    let text = evoke.get_admin("/metrics", &[]).body;
    let start = format!("evoke_requests_unverified_total{{source=\"{source}\",reason=\"{reason}\"}} ");
    text.lines()
        .find_map(|line| line.strip_prefix(&start))
        .unwrap_or_else(|| panic!("{start}: {text}"))
        .parse()
        .unwrap()
}

const SIGNED: [&str; 5] = ["/github", "/billing", "/stripe", "/slack", "/dated"];

#[test]
fn a_verified_request_is_stored_once_with_its_principal_and_the_id_of_its_sender() {
    let evoke = up();
    let body = r#"{"id":"evt_1","event_id":"Ev1","n":1}"#;
    for (path, principal, id) in [
        ("/github", "github:new", Some("d-1")),
        ("/billing", "standard-webhooks", Some("d-1")),
        ("/stripe", "stripe", Some("evt_1")),
        ("/slack", "slack", Some("Ev1")),
        ("/dated", "hmac", None),
        ("/tokens", "bearer:ci", Some("d-1")),
        ("/users", "basic:ada", Some("d-1")),
    ] {
        let headers = sign(path, "d-1", now_s(), body);
        let (first, second) = (send(&evoke, path, &headers, body), send(&evoke, path, &headers, body));
        assert_eq!((first.status, second.status), (202, 200), "{path}: {first:?} {second:?}");
        let events = received(&evoke);
        let stored: Vec<_> = events.iter().filter(|event| event["origin"] == json!(format!("/hooks{path}"))).collect();
        let [stored] = stored.as_slice() else { panic!("{path}: {stored:?}") };
        assert_eq!((&stored["principal"], &stored["event"]["data"]["n"]), (&json!(principal), &json!(1)), "{stored}");
        match id {
            Some(id) => assert_eq!(stored["event"]["id"], id, "{path}"),
            None => assert!(stored["event"]["id"].as_str().unwrap().starts_with("signature-"), "{stored}"),
        }
        assert_eq!(stored["event"]["principal"], Value::Null, "it is no attribute");
    }
    evoke.settle();
    // The function gets the events of two senders. Its published events have no principal.
    let published: Vec<Value> =
        envelopes(&evoke).into_iter().filter(|event| event["event"]["type"] == "echo").collect();
    assert_eq!(published.len(), 2, "{published:?}");
    assert!(published.iter().all(|event| event["principal"].is_null()));
    let trace = evoke.json(&["trace", "1"]);
    assert_eq!(trace["principal"], "github:new");
    assert!(evoke.stdout(&["trace", "1"]).contains(" by github:new at "));
    assert!(evoke.stdout(&["events"]).contains("/hooks/github by github:new"));
    let explained = evoke.json(&["explain", "1"]).to_string();
    assert!(explained.contains("principal") && explained.contains("github:new"), "{explained}");
}

#[test]
fn no_wrong_old_and_replayed_signatures_are_refused_alike_and_counted_and_nothing_is_stored() {
    let evoke = up();
    let body = r#"{"id":"evt_1","event_id":"Ev1"}"#;
    let mut answers = Vec::new();
    let mut refuse = |path: &str, headers: &Headers, body: &str, reason: &str| {
        let source = format!("/hooks{path}");
        let before = unverified(&evoke, &source, reason);
        let response = send(&evoke, path, headers, body);
        assert_eq!(response.status, 401, "{path} {reason}: {response:?}");
        assert_eq!(unverified(&evoke, &source, reason), before + 1, "{path} {reason}");
        answers.push(response.body);
    };
    for path in SIGNED {
        let right = sign(path, "d-1", now_s(), body);
        refuse(path, &Vec::new(), body, "missing");
        refuse(path, &right, r#"{"id":"evt_2","event_id":"Ev1"}"#, "mismatch");
        // Not JSON, and in a form that no source accepts: strangers do not learn that.
        refuse(path, &right, "{", "mismatch");
        let mut other_form = right.clone();
        other_form.push(("content-encoding", "zstd".into()));
        refuse(path, &other_form, "{", "mismatch");
        let malformed = right.iter().map(|(name, _)| (*name, "?".to_owned())).collect();
        refuse(path, &malformed, body, "malformed");
        if path == "/github" {
            continue;
        }
        for time in [now_s() - 301, now_s() + 310] {
            refuse(path, &sign(path, "d-1", time, body), body, "expired");
        }
        // An old request with a new time: the signature covers the time.
        let (old_time, new_time) = (now_s() - 10_000, now_s().to_string());
        let old = sign(path, "d-1", old_time, body);
        let renewed: Headers = old
            .into_iter()
            .map(|(name, value)| match name {
                "webhook-timestamp" | "x-slack-request-timestamp" | "x-time" => (name, new_time.clone()),
                "stripe-signature" => (name, value.replace(&format!("t={old_time}"), &format!("t={new_time}"))),
                _ => (name, value),
            })
            .collect();
        refuse(path, &renewed, body, "mismatch");
    }
    for (path, wrong, malformed) in [
        ("/tokens", "Bearer a long random valuE", "Basic YTpi"),
        ("/users", "Basic YWRhOndyb25n", "Bearer a long random value"),
    ] {
        refuse(path, &Vec::new(), body, "missing");
        refuse(path, &vec![("authorization", wrong.to_owned())], body, "mismatch");
        refuse(path, &vec![("authorization", malformed.to_owned())], body, "malformed");
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "every refusal has the same body: {answers:?}");
    for (path, scheme) in [("/tokens", "Bearer"), ("/users", "Basic realm=\"evoke\", charset=\"UTF-8\"")] {
        assert_eq!(evoke.post(path, body).headers["www-authenticate"], scheme);
    }
    assert_eq!(envelopes(&evoke), Vec::<Value>::new());
    let text = evoke.get_admin("/metrics", &[]).body;
    assert!(text.contains("evoke_events_refused_total{source=\"http\",reason=\"unverified\"}"), "{text}");
    // The log has one line for each source and reason, with what would be right, and no secret.
    let log = evoke.log();
    let lines = log.lines().filter(|line| line.contains("/hooks/github refused a request with 401")).count();
    assert_eq!(lines, 3, "{log}");
    assert!(log.contains("the field Secret of the webhook on GitHub"), "{log}");
    for secret in [NEW, OLD, STRIPE, "MjQgYnl0ZXM"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn an_id_cannot_be_occupied_without_the_secret() {
    let evoke = up();
    let body = r#"{"id":"evt_1","event_id":"Ev1"}"#;
    for path in SIGNED {
        let right = sign(path, "d-1", now_s(), body);
        assert_eq!(send(&evoke, path, &right, r#"{"id":"evt_1","event_id":"Ev1","x":1}"#).status, 401);
        // The same id through a source without `auth` is another one.
        let event = json!({ "specversion": "1.0", "id": "d-1", "type": "x", "source": "https://partner.example/x" });
        let structured = [("content-type", "application/cloudevents+json")];
        assert!(evoke.post_with("/open", &structured, &event.to_string()).status < 300);
        assert_eq!(send(&evoke, path, &right, body).status, 202, "{path}");
    }
}

#[test]
fn a_rotated_secret_is_accepted_until_it_is_removed() {
    let mut evoke = up();
    let sign = |secret: &str, body: &str| {
        vec![("x-hub-signature-256", format!("sha256={}", hex(&code(secret.as_bytes(), &[body]))))]
    };
    assert_eq!(send(&evoke, "/github", &sign(OLD, "1"), "1").status, 202);
    assert_eq!(send(&evoke, "/github", &sign(NEW, "2"), "2").status, 202);
    let principals: Vec<Value> = received(&evoke).iter().map(|event| event["principal"].clone()).collect();
    assert_eq!(principals, ["github:old", "github:new"]);
    evoke.write_manifest(&MANIFEST.replace(", { name: old, env: OLD }", ""));
    signal(evoke.pid(), Signal::HUP);
    assert_eventually!(send(&evoke, "/github", &sign(OLD, "3"), "3").status == 401, "{}", evoke.log());
    assert_eq!(send(&evoke, "/github", &sign(NEW, "4"), "4").status, 202);
    // The file of a secret is read again.
    let body = "{}";
    std::fs::write(evoke.path("billing.key"), "whsec_YW5vdGhlciBrZXkgb2YgMjQgYnl0ZXM=").unwrap();
    assert_eq!(send(&evoke, "/billing", &self::sign("/billing", "a", now_s(), body), body).status, 202);
    signal(evoke.pid(), Signal::HUP);
    let again = || send(&evoke, "/billing", &self::sign("/billing", "b", now_s(), body), body).status;
    assert_eventually!(again() == 401, "{}", evoke.log());
    // The principals survive a kill.
    evoke.kill();
    evoke.up();
    assert_eq!(envelopes(&evoke)[0]["principal"], "github:old");
    evoke.stdout(&["check"]);
}

#[test]
fn with_watch_a_changed_secret_is_read_without_a_signal() {
    let manifest = "
evoke: 1
app: hooks
sources:
  tokens:
    http: { path: /tokens, type: token.used, auth: { bearer: { secret: { file: token.key } } } }
";
    let mut evoke = Evoke::with(manifest);
    std::fs::write(evoke.path("token.key"), "the first value").unwrap();
    evoke.up_with_arguments(&["--watch"]);
    let post = |token: &str| evoke.post_with("/tokens", &[("authorization", &format!("Bearer {token}"))], "1").status;
    assert_eq!((post("the first value"), post("the second value")), (202, 401));
    std::fs::write(evoke.path("token.key"), "the second value").unwrap();
    assert_eventually!(post("the second value") == 202, "{}", evoke.log());
    assert_eq!(post("the first value"), 401);
}

#[test]
fn a_head_request_is_verified_as_the_get_request_would_be() {
    let evoke = up();
    let code = |body: &str| hex(&code(NEW.as_bytes(), &[body]));
    let head = |headers: &[(&str, &str)]| request("HEAD", evoke.http(), "/numbered", headers, "").unwrap().status;
    assert_eq!(head(&[]), 401);
    assert_eq!(head(&[("x-hub-signature-256", &format!("sha256={}", code("x")))]), 401);
    assert_eq!(head(&[("x-hub-signature-256", &format!("sha256={}", code("")))]), 200);
    assert_eq!(unverified(&evoke, "/hooks/numbered", "missing"), 1);
    assert_eq!(unverified(&evoke, "/hooks/numbered", "mismatch"), 1);
    assert_eq!(envelopes(&evoke), Vec::<Value>::new());
}

#[test]
fn a_verified_source_accepts_only_what_it_declares() {
    let evoke = up();
    let structured = |type_: &str, source: &str, extension: Value| {
        let mut event = json!({ "specversion": "1.0", "id": "1", "type": type_, "source": source, "data": 1 });
        event.as_object_mut().unwrap().extend(extension.as_object().cloned().unwrap_or_default());
        event.to_string()
    };
    let post = |body: &str| {
        let signed = sign("/billing", "d", now_s(), body);
        let mut headers: Vec<(&str, &str)> = vec![("content-type", "application/cloudevents+json")];
        headers.extend(signed.iter().map(|(name, value)| (*name, value.as_str())));
        evoke.post_with("/billing", &headers, body)
    };
    for (type_, source, status) in [
        ("other.type", "/hooks/billing", 403),
        ("evoke.delivery.dead", "/hooks/billing", 403),
        ("billing.paid", "/hooks/github", 403),
        ("billing.paid", "/evoke", 403),
        ("billing.paid", "/hooks/billing", 202),
    ] {
        assert_eq!(post(&structured(type_, source, json!({}))).status, status, "{type_} {source}");
    }
    assert_eq!(envelopes(&evoke)[0]["principal"], "standard-webhooks");
    // No mode lets a sender claim a principal.
    let claimed = structured("billing.paid", "/hooks/billing", json!({ "principal": "github:new" }));
    let response = post(&claimed);
    assert!(response.status == 400 && response.body.contains("`principal` cannot be an attribute"), "{response:?}");
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "2"),
        ("ce-type", "x"),
        ("ce-source", "https://partner.example/x"),
        ("ce-principal", "github:new"),
    ];
    assert_eq!(evoke.post_with("/open", &binary, "1").status, 400);
    let batch = format!("[{}]", structured("x", "https://partner.example/x", json!({ "principal": "github:new" })));
    assert_eq!(evoke.post_with("/open", &[("content-type", "application/cloudevents-batch+json")], &batch).status, 400);
    // The attributes of binary mode are headers, which the signature does not cover.
    let body = "1";
    let mut headers = sign("/billing", "e", now_s(), body);
    for (name, value) in &binary[..4] {
        headers.push((name, (*value).to_owned()));
    }
    let response = send(&evoke, "/billing", &headers, body);
    assert!(response.status == 400 && response.body.contains("application/cloudevents+json"), "{response:?}");
    assert_eq!(envelopes(&evoke).len(), 1);
}

#[test]
fn an_id_that_the_manifest_declares_replaces_the_id_of_the_sender() {
    let evoke = up();
    let body = r#"{"order":7}"#;
    assert_eq!(send(&evoke, "/numbered", &sign("/github", "d-1", 0, body), body).status, 202);
    assert_eq!(send(&evoke, "/numbered", &sign("/github", "d-2", 0, body), body).status, 200);
    let events = envelopes(&evoke);
    assert_eq!((&events[0]["event"]["id"], &events[0]["principal"]), (&json!("order-7"), &json!("github")));
}

#[test]
fn what_a_signature_does_not_cover_is_not_data() {
    let evoke = up();
    // The signature of an empty body, which anybody could send again with another query.
    let signed = sign("/github", "d-1", 0, "");
    let headers: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let response = request("GET", evoke.http(), "/numbered?order=7", &headers, "").unwrap();
    assert!(response.status == 400 && response.body.contains("does not cover the query"), "{response:?}");
    assert_eq!(request("GET", evoke.http(), "/numbered?order=7", &[], "").unwrap().status, 401);
    assert_eq!(envelopes(&evoke), Vec::<Value>::new());
}

#[test]
fn slack_gets_its_challenge_back_after_verification_only() {
    let evoke = up();
    let body =
        r#"{"token":"t","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}"#;
    let response = send(&evoke, "/slack", &sign("/slack", "", now_s(), body), body);
    assert_eq!((response.status, response.headers["content-type"].to_str().unwrap()), (200, "text/plain"));
    assert_eq!(response.body, "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P");
    assert_eq!(evoke.post("/slack", body).status, 401);
    assert_eq!(envelopes(&evoke), Vec::<Value>::new());
}

#[test]
fn a_missing_secret_is_an_error_of_up_and_a_warning_of_validate() {
    let mut evoke = Evoke::with(MANIFEST);
    let validated = evoke.run(&["validate"]);
    let warnings =
        String::from_utf8_lossy(&validated.stderr).into_owned() + &String::from_utf8_lossy(&validated.stdout);
    assert!(validated.status.success(), "{validated:?}");
    assert!(evoke.try_up(&[], &[]).is_err());
    let errors = evoke.log();
    for text in [&warnings, &errors] {
        for words in [
            "cannot read the secret `new` of `auth: github`: the environment variable NEW is not set",
            "start Evoke with NEW set",
            "cannot read the secret `old` of `auth: github`",
            "billing.key",
            "systemd passes no credentials (CREDENTIALS_DIRECTORY is not set)",
            "cannot read the secret of `auth: basic:ada`",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
    // A secret in a pipe is not waited for, and a large file is not read.
    std::fs::create_dir(evoke.path("credentials")).unwrap();
    crate::support::shell(&evoke.path("."), "mkfifo billing.key; head -c 2000000 /dev/zero > credentials/stripe");
    let credentials = evoke.path("credentials");
    evoke.set_environment(&[("NEW", NEW), ("OLD", OLD), ("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap())]);
    let output = evoke.run_within_timeout(&["validate"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("a named pipe") && text.contains("larger than the limit"), "{text}");
}

#[test]
fn a_component_that_handles_requests_gets_verified_ones_only() {
    let manifest = r#"
evoke: 1
app: web
functions:
  signed:
    component: $FUNCTIONS/http-answer.wasm
    on: [{ http: { path: /signed, methods: [POST], max_body: 1KiB, auth: { github: { secret: { env: NEW } } } } }]
  token:
    component: $FUNCTIONS/http-answer.wasm
    on: [{ http: { path: /token, methods: [POST], auth: { bearer: { secret: { env: NEW } } } } }]
"#;
    let mut evoke = Evoke::with(manifest);
    evoke.set_environment(&[("NEW", NEW)]);
    evoke.up();
    let signed = |body: &str| vec![("x-hub-signature-256", format!("sha256={}", hex(&code(NEW.as_bytes(), &[body]))))];
    let token = vec![("authorization", format!("Bearer {NEW}"))];
    for (path, headers) in [("/signed", signed("hello")), ("/token", token)] {
        let response = send(&evoke, path, &headers, "hello");
        assert!((response.status == 200 && response.body == "hello"), "{path}: {response:?}");
        assert_eq!(send(&evoke, path, &Vec::new(), "hello").status, 401, "{path}");
        assert_eq!(
            unverified(&evoke, if path == "/signed" { "/web/signed/http-1" } else { "/web/token/http-1" }, "missing"),
            1
        );
    }
    assert_eq!(send(&evoke, "/signed", &signed("hello"), "Hello").status, 401);
    let large = "x".repeat(2_000);
    assert_eq!(send(&evoke, "/signed", &signed(&large), &large).status, 413);
}
