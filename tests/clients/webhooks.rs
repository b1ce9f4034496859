//! The libraries of senders of webhooks sign requests for Evoke, and verify those of `tests/webhooks.rs`.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use super::clients;
use crate::support::root;
use crate::webhooks::{BILLING_SECRET, NEW, STRIPE, now_s, sign, up};

#[test]
#[ignore = "needs the official clients: run tests/clients/run"]
fn requests_of_the_libraries_of_senders_are_verified_and_stored_once() {
    let evoke = up();
    let body = r#"{"id":"evt_x","note":"\u00e9"}"#;
    let signed = ["billing", "stripe", "slack"].map(|sender| {
        let headers: BTreeMap<&str, String> = sign(&format!("/{sender}"), "x", now_s(), body).into_iter().collect();
        json!({ "sender": sender, "headers": headers, "body": body })
    });
    let secrets = json!({ "billing": BILLING_SECRET, "stripe": STRIPE, "slack": NEW });
    let wrong = json!({ "billing": "whsec_YW5vdGhlciBrZXkgb2YgMjQgYnl0ZXM=", "stripe": NEW, "slack": STRIPE });
    let given = evoke.path("given.json");
    std::fs::write(&given, json!({ "secrets": secrets, "wrong": wrong, "signed": signed }).to_string()).unwrap();
    let output = Command::new(clients().join("python-webhooks/bin/python3"))
        .arg(root().join("tests/clients/python/webhooks.py").canonicalize().unwrap())
        .args([evoke.http(), given.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3 * 3 * 5 + 3);
    let mut ids = Vec::new();
    for line in &lines {
        match line["variant"].as_str().unwrap() {
            "verified" => assert_eq!((&line["accepted"], &line["changed"]), (&json!(true), &json!(false)), "{line}"),
            "right" => {
                assert_eq!(line["status"], 202, "{line}");
                ids.push(line["id"].as_str().unwrap());
            }
            "again" => assert_eq!(line["status"], 200, "{line}"),
            _ => assert_eq!(line["status"], 401, "{line}"),
        }
    }
    let events = evoke.json_lines(&["events", "--after", "0"]);
    assert_eq!(events.iter().map(|event| event["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
}
