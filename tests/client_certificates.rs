//! The certificate of a client as the principal of its events.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::certificates::{Authority, curl, text};
use crate::support::Evoke;

const MANIFEST: &str = r#"
evoke: 1
app: shop
sources:
  hook:
    http: { path: /hook, type: hook.called }
  tokens:
    http: { path: /tokens, type: token.used, auth: { bearer: { secret: { env: TOKEN } } } }
  ask:
    http: { path: /ask, type: asked, reply: { event: echo, timeout: 30s } }
functions:
  partner:
    component: $FUNCTIONS/echo.wasm
    on:
      - events: { type: [hook.called, asked], principal: ["certificate:spiffe://partner/a", "certificate:b.example"] }
    allow: { publish: [echo] }
"#;

struct Setup {
    evoke: Evoke,
    ca: PathBuf,
}

/// Starts Evoke, which asks clients for certificates. Of the clients, `a` has a URI as its first name, `b` a DNS name.
fn up() -> Setup {
    let mut evoke = Evoke::with(MANIFEST);
    let authority = Authority::new();
    let ca = authority.write(&evoke, "ca.pem");
    authority.sign(&["a.example"]).write(&evoke, "server");
    let uri = rcgen::SanType::URI("spiffe://partner/a".try_into().unwrap());
    authority.sign_with(&["a.example"], |params| params.subject_alt_names.push(uri)).write(&evoke, "a");
    authority.sign(&["b.example"]).write(&evoke, "b");
    authority.sign(&["c.example"]).write(&evoke, "c");
    evoke.set_environment(&[("TOKEN", "a long random value")]);
    let tls = ["--http-cert", "server.pem", "--http-key", "server.key", "--http-client-ca", "ca.pem"];
    evoke.up_with_arguments(&[&tls[..], &["--http-client-cert", "optional"]].concat());
    Setup { evoke, ca }
}

impl Setup {
    /// Posts an event with the certificate of a client. Returns the body and the status of the response.
    fn post(&self, client: Option<&str>, path: &str, more: &[&str]) -> String {
        let file = |end: &str| client.map(|name| self.evoke.path(&format!("{name}.{end}")));
        let (certificate, key) = (file("pem"), file("key"));
        let text_of = |path: &Option<PathBuf>| path.as_deref().map(|path: &Path| path.to_str().unwrap().to_owned());
        let (certificate, key) = (text_of(&certificate), text_of(&key));
        let mut arguments = vec!["--json", r#"{"n":1}"#, "--write-out", " %{http_code}"];
        if let (Some(certificate), Some(key)) = (&certificate, &key) {
            arguments.extend(["--cert", certificate, "--key", key]);
        }
        arguments.extend(more);
        text(&curl(self.evoke.http(), path, &self.ca, &arguments))
    }
}

#[test]
fn the_certificate_of_a_client_is_the_principal_unless_auth_verifies_another_sender() {
    let setup = up();
    let token = ["--header", "authorization: Bearer a long random value"];
    for (client, path, more, principal, status) in [
        (Some("a"), "/hook", &[][..], json!("certificate:spiffe://partner/a"), 202),
        (Some("b"), "/hook", &[], json!("certificate:b.example"), 202),
        (Some("c"), "/hook", &[], json!("certificate:c.example"), 202),
        (None, "/hook", &[], Value::Null, 202),
        (Some("a"), "/tokens", &token, json!("bearer"), 202),
        // A certificate is no token.
        (Some("a"), "/tokens", &[], Value::Null, 401),
    ] {
        let before = setup.evoke.json_lines(&["events", "--after", "0", "--type", "hook.called"]).len()
            + setup.evoke.json_lines(&["events", "--after", "0", "--type", "token.used"]).len();
        let response = setup.post(client, path, more);
        assert!(response.ends_with(&format!(" {status}")), "{client:?} {path}: {response}");
        let events: Vec<Value> = setup
            .evoke
            .json_lines(&["events", "--after", "0", "--envelope"])
            .into_iter()
            .filter(|event| event["event"]["type"] != "echo")
            .collect();
        assert_eq!(events.len(), before + usize::from(status == 202), "{client:?} {path}");
        if status == 202 {
            assert_eq!(events[before]["principal"], principal, "{client:?} {path}");
        }
    }
    setup.evoke.settle();
    // The pattern names two of the principals; what the function publishes has none.
    assert_eq!(setup.evoke.events("echo").len(), 2);
    // The principal survives a kill.
    let Setup { mut evoke, .. } = setup;
    evoke.kill();
    evoke.up();
    assert_eq!(evoke.json(&["trace", "1"])["principal"], "certificate:spiffe://partner/a");
}

#[test]
fn a_repeated_request_of_another_principal_gets_no_answer() {
    let setup = up();
    let key = ["--header", "idempotency-key: 7"];
    let first = setup.post(Some("a"), "/ask", &key);
    assert!(first.ends_with(" 200"), "{first}");
    assert_eq!(setup.post(Some("a"), "/ask", &key), first, "the same sender gets the same answer");
    for client in [Some("b"), Some("c"), None] {
        let response = setup.post(client, "/ask", &key);
        assert!(response.ends_with(" 422") && !response.contains("\"n\""), "{client:?}: {response}");
    }
}
