//! The examples of `manifests/` that call other services, with the stand-in of those services in another Evoke.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;

use crate::assert_eventually;
use crate::support::{Evoke, root};

pub(crate) const STAND_IN: &str = "
evoke: 1
app: services
functions:
  stand-in:
    component: $FUNCTIONS/stand-in.wasm
    on: [{ http: { path: \"/stand-in/{rest...}\" } }]
";

/// Returns an example that calls the services at this address instead of its own.
pub(crate) fn example(name: &str, services: &Evoke) -> String {
    let text = std::fs::read_to_string(root().join("manifests").join(name)).unwrap();
    let text = text.replace("../functions/target/components", "$FUNCTIONS").replace("127.0.0.1:8080", services.http());
    text.lines().filter(|line| !line.contains("build:")).map(|line| format!("{line}\n")).collect()
}

/// Returns the requests that the services got.
fn requests(services: &Evoke) -> Vec<String> {
    let lines = services.json_lines(&["logs", "--function", "services/stand-in"]);
    // The SDK writes the module in front of the text.
    let text = |line: &serde_json::Value| line["text"].as_str().unwrap().trim_start_matches("stand_in: ").to_owned();
    lines.iter().map(text).collect()
}

#[test]
fn a_payment_is_the_response_to_its_request_and_a_failure_is_told_in_the_chat() {
    let services = Evoke::up_with(STAND_IN);
    let evoke = Evoke::up_with(&example("payments.yaml", &services));
    let pay = |body: &str| evoke.post("/pay", body);

    let taken = pay(r#"{"customer":"ada","amount":42,"currency":"EUR"}"#);
    assert_eq!((taken.status, &taken.json()["status"]), (201, &json!("succeeded")), "{taken:?}");
    let declined = pay(r#"{"customer":"bob","amount":9000,"currency":"EUR"}"#);
    assert_eq!((declined.status, &declined.json()["status"]), (402, &json!("declined")), "{declined:?}");
    assert_eq!(pay(r#"{"customer":"eve"}"#).status, 502);

    let chat = || requests(&services).into_iter().find(|request| request.starts_with("/stand-in/chat"));
    assert_eventually!(chat().is_some(), "no message in the chat: {}", evoke.log());
    let message = chat().unwrap();
    assert!(message.contains("A payment failed for good: ") && message.contains("amount"), "{message}");
    // The provider's ids contain the idempotency keys, which are the ids of the deliveries.
    let id = |event: &serde_json::Value| event["data"]["id"].as_str().unwrap().to_owned();
    let ids: Vec<_> = evoke.events("payment.*").iter().map(id).collect();
    assert!(ids.len() == 2 && ids[0] != ids[1], "{ids:?}");
    assert!(ids.iter().all(|id| id.len() > "pay_".len()), "{ids:?}");
}

#[test]
fn an_alert_reaches_chats_and_mail_in_their_forms() {
    let services = Evoke::up_with(STAND_IN);
    // The stand-in of the example is that of the other Evoke.
    let manifest = example("on-call.yaml", &services).replace("/alerts/chat", "/stand-in/chat");
    let evoke = Evoke::up_with(&format!("{manifest}{FAILS}"));
    evoke.stdout(&["emit", "--type", "order", "--data", "{}"]);
    evoke.settle();
    let all = requests(&services);
    let sent = |to: &str| -> serde_json::Value {
        let found: Vec<_> =
            all.iter().filter_map(|request| request.strip_prefix(&format!("/stand-in/chat/{to}: "))).collect();
        assert_eq!(found.len(), 1, "{to}: {all:#?}");
        serde_json::from_str(found[0]).unwrap()
    };
    let text = sent("slack")["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("ops/fails gave up delivery 1 after one attempt: reject"), "{text}");
    assert_eq!(sent("slack"), json!({ "text": text }));
    assert_eq!(sent("discord"), json!({ "content": text, "allowed_mentions": { "parse": [] } }));
    let card = &sent("teams")["attachments"][0];
    assert_eq!(card["contentType"], "application/vnd.microsoft.card.adaptive");
    assert_eq!(card["content"]["body"], json!([{ "type": "TextBlock", "text": text, "wrap": true }]));
    let mail = sent("mail");
    assert_eq!((&mail["Subject"], &mail["To"]), (&json!("Evoke: ops/fails"), &json!("on-call@shop.example")));
    assert!(mail["TextBody"].as_str().unwrap().starts_with(&text), "{mail}");
}

const FAILS: &str = "
  fails:
    component: $FUNCTIONS/fate-reject.wasm
    on: [{ events: { type: [order] } }]
";

#[test]
fn a_change_on_the_watched_machine_is_logged_and_told_in_the_chat() {
    let services = Evoke::up_with(STAND_IN);
    // The certificate of a server that speaks no TLS is critical.
    let example = example("host-watch.yaml", &services).replace(
        "tls: { address: \"example.com:443\" }",
        &format!("tls: {{ address: \"{}\", addresses: [127.0.0.1] }}", services.http()),
    );
    let evoke = Evoke::up_with(&example);
    let is_told = || {
        let all = requests(&services);
        all.iter().any(|request| request.contains(&format!("{} is critical, was ok", services.http())))
    };
    assert_eventually!(is_told(), "no message in the chat: {:?}\n{}", requests(&services), evoke.log());
    let logged = || evoke.stdout(&["logs", "--function", "host/log-change"]);
    assert_eventually!(logged().contains("is critical, was ok"), "{}", logged());
    let state = |name: &str| {
        let all = evoke.json_lines(&["monitors"]);
        all.iter().find(|one| one["monitor"] == format!("/host/{name}")).map(|one| one["value"].is_number())
    };
    for name in ["disk", "memory", "load", "site"] {
        assert_eventually!(state(name) == Some(true), "{name}: {:?}", evoke.json_lines(&["monitors"]));
    }
}

#[test]
fn a_verified_issue_of_github_gets_a_comment_and_others_are_refused() {
    let services = Evoke::up_with(STAND_IN);
    let mut evoke = Evoke::with(&example("github.yaml", &services));
    evoke.set_environment(&[("GITHUB_SECRET", "secret"), ("GITHUB_TOKEN", "token")]);
    evoke.up();
    let body = json!({
        "action": "opened",
        "issue": { "number": 7, "user": { "login": "ada" } },
        "repository": { "full_name": "shop/site" },
    });
    let body = body.to_string();
    let post = |secret: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let headers = [
            ("content-type", "application/json"),
            ("x-github-event", "issues"),
            ("x-github-delivery", "1"),
            ("x-hub-signature-256", &format!("sha256={signature}")),
        ];
        evoke.post_with("/hooks/github", &headers, &body).status
    };
    // The second request is a repeated delivery.
    assert_eq!([post("other"), post("secret"), post("secret")], [401, 202, 200]);
    evoke.settle();
    let comments = requests(&services);
    assert_eq!(comments.len(), 1, "{comments:?}");
    assert!(comments[0].starts_with("/stand-in/github/repos/shop/site/issues/7/comments: "), "{comments:?}");
    assert!(comments[0].contains("@ada"), "{comments:?}");
}

#[test]
fn a_reminder_is_sent_for_an_order_that_is_not_paid_and_for_no_other() {
    let text = std::fs::read_to_string(root().join("manifests/reminders.yaml")).unwrap();
    let text = text.replace("../functions/target/components", "$FUNCTIONS");
    let text: String = text.lines().filter(|line| !line.contains("build:")).map(|line| format!("{line}\n")).collect();
    let evoke = Evoke::up_with(&text);
    let post =
        |path: &str, order: &str| evoke.post_accepted(path, &json!({ "order": order, "customer": "ada" }).to_string());
    post("/orders", "waits");
    let scheduled = || evoke.json_lines(&["pending", "list", "--scheduled"]);
    assert_eventually!(scheduled().len() == 1, "{:?}\n{}", scheduled(), evoke.log());
    assert!((3_500_000..=3_600_000).contains(&scheduled()[0]["wait_ms"].as_u64().unwrap()), "{:?}", scheduled());
    drop(evoke);

    let evoke = Evoke::up_with(&text.replace("REMIND_AFTER_SECONDS: 3600", "REMIND_AFTER_SECONDS: 2"));
    let post =
        |path: &str, order: &str| evoke.post_accepted(path, &json!({ "order": order, "customer": "ada" }).to_string());
    post("/orders", "open");
    post("/orders", "paid");
    post("/payments", "paid");
    assert_eventually!(evoke.done_count("orders/remind") == 2, "{}", evoke.log());
    let reminded: Vec<_> =
        evoke.events("payment.reminder").iter().map(|event| event["data"]["order"].clone()).collect();
    assert_eq!(reminded, ["open"]);
}
