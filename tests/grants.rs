//! What functions use of their grants is recorded, shown with the smallest grants, and checked by `validate --strict`.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::assert_eventually;
use crate::outbound::peer::{self, Peer};
use crate::support::{Evoke, signal};

/// A manifest with the fixture `use-grants`, which has this `allow:`.
fn manifest(allow: &str) -> String {
    format!(
        "
evoke: 1
app: lab
sources:
  in: {{ http: {{ path: /in, type: lab.in }} }}
functions:
  part:
    component: $FUNCTIONS/use-grants.wasm
    on: [{{ source: in }}]
    retry: {{ attempts: 1 }}
{allow}
"
    )
}

/// Grants of which the tests use a part.
fn allow(peer: &Peer) -> String {
    format!(
        "    allow:
      publish: [\"used.*\", \"spare.*\"]
      state: {{ shared: true, max_keys: 10 }}
      http:
        - {{ url: \"{}\", addresses: [127.0.0.1], headers: {{ x-key: \"{{secret.HEADER_KEY}}\" }} }}
        - https://*.spare.example
      config: {{ READ: one, SPARE: two }}
      secrets:
        READ_KEY: {{ file: ./key }}
        HEADER_KEY: {{ env: HEADER_KEY }}
        SPARE_KEY: {{ env: SPARE_KEY }}",
        peer.url()
    )
}

fn with(manifest: &str) -> Evoke {
    let mut evoke = Evoke::with(manifest);
    std::fs::write(evoke.path("key"), "read-key-0123").unwrap();
    evoke.set_environment(&[("HEADER_KEY", "header-key-0123"), ("SPARE_KEY", "spare-key-0123")]);
    evoke.up();
    evoke
}

/// Makes the function use these grants.
fn run(evoke: &Evoke, uses: &Value) {
    evoke.post_accepted("/in", &uses.to_string());
    evoke.settle();
}

fn grants(evoke: &Evoke, more: &[&str]) -> Value {
    let found = evoke.json_lines(&[&["grants", "part"], more].concat());
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// The used grants, each with its recorded values.
fn used(grants: &Value) -> Vec<String> {
    let all = grants["grants"].as_array().unwrap().iter().filter(|grant| grant["used"] == true);
    let name = |grant: &Value| grant["name"].as_str().map(|name| format!(" {name}")).unwrap_or_default();
    let seen = |grant: &Value| {
        let seen: Vec<_> = grant["seen"].as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect();
        seen.join(",")
    };
    all.map(|grant| format!("{}{}: {}", grant["kind"].as_str().unwrap(), name(grant), seen(grant))).collect()
}

/// Replaces times, such as `2026-01-31T12:00:00.000Z`, by a word.
fn without_times(text: &str) -> String {
    let is_time = |word: &str| word.len() == 24 && word.ends_with('Z') && word.matches(':').count() == 2;
    let words = text.split_inclusive([' ', '\n']).map(|word| {
        let bare = word.trim_end();
        if is_time(bare) { word.replace(bare, "TIME") } else { word.to_owned() }
    });
    words.collect()
}

#[test]
fn used_and_refused_grants_are_shown_with_the_smallest_grants_also_after_a_stop_and_a_kill() {
    let (peer, other) = (Peer::start(peer::ok), Peer::start(peer::ok));
    let mut evoke = with(&manifest(&allow(&peer)));
    let new = grants(&evoke, &[]);
    assert_eq!((&new["attempts"], used(&new), &new["proposal"]), (&json!(0), Vec::new(), &Value::Null), "{new}");
    assert!(evoke.stdout(&["grants"]).contains("the function has not run yet"));

    run(
        &evoke,
        &json!({
            "publish": ["used.a", "other.type"], "get": ["k"], "config": ["READ", "READ_KEY", "MISSING"],
            "http": [peer.url(), other.url(), "http://127.0.0.1.nip.spare.example"],
        }),
    );
    let after = grants(&evoke, &[]);
    let expected = [
        "publish used.*: used.a".to_owned(),
        "state: open,read".to_owned(),
        format!("http {0}: {0}", peer.url()),
        "config READ: read".to_owned(),
        "secret HEADER_KEY: header".to_owned(),
        "secret READ_KEY: read".to_owned(),
    ];
    assert_eq!(used(&after), expected, "{after}");
    assert_eq!(after["attempts"], 1);
    let refused: Vec<_> = after["refused"].as_array().unwrap().iter().map(|refused| refused["allow"].clone()).collect();
    let expected = [
        json!({ "publish": ["other.type"] }),
        json!({ "http": [other.url()] }),
        json!({ "http": ["http://127.0.0.1.nip.spare.example"] }),
        json!({ "config": { "MISSING": "VALUE" } }),
    ];
    assert_eq!(refused, expected, "{after}");
    let expected = json!({
        "publish": ["used.a"],
        "state": { "max_keys": 10 },
        "http": [{ "url": peer.url(), "addresses": ["127.0.0.1"], "headers": { "x-key": "{secret.HEADER_KEY}" } }],
        "config": { "READ": "one" },
        "secrets": { "READ_KEY": { "file": "key" }, "HEADER_KEY": { "env": "HEADER_KEY" } },
    });
    assert_eq!(after["proposal"], expected);
    assert!(!after.to_string().contains("key-0123"), "{after}");

    assert!(evoke.stop().success());
    assert_eq!(grants(&evoke, &["--offline", ".evoke"]), after);
    evoke.up();
    assert_eq!(grants(&evoke, &[]), after, "a restart changes nothing");

    // Stored uses survive a kill, which is noted.
    run(&evoke, &json!({ "publish": ["used.b"], "set": ["k"] }));
    let stored = || used(&grants(&evoke, &["--offline", ".evoke"]));
    assert_eventually!(stored().contains(&"publish used.*: used.a,used.b".to_owned()), "{:?}", stored());
    evoke.kill();
    evoke.up();
    let killed = grants(&evoke, &[]);
    assert_eq!(used(&killed)[..2], ["publish used.*: used.a,used.b", "state: open,read,write"], "{killed}");
    assert_eq!(killed["attempts"], 2, "{killed}");
    assert!(killed["unclean_end"].is_string() && after["unclean_end"].is_null(), "{killed}");
    assert!(evoke.stdout(&["grants"]).contains("may be missing"));
}

#[test]
fn a_changed_manifest_keeps_the_record_of_the_other_grants() {
    let peer = Peer::start(peer::ok);
    let mut evoke = with(&manifest("    allow: { publish: [\"used.*\", old], state: true }"));
    run(&evoke, &json!({ "publish": ["used.a", "new"], "get": ["k"], "shared": true }));
    let before = grants(&evoke, &[]);
    let refused = [json!({ "publish": ["new"] }), json!({ "state": { "shared": true } })];
    assert_eq!(
        before["refused"].as_array().unwrap().iter().map(|one| one["allow"].clone()).collect::<Vec<_>>(),
        refused
    );
    assert!(evoke.stop().success());
    evoke.write_manifest(&manifest(&format!(
        "    allow: {{ publish: [\"used.*\", new], state: {{ shared: true }}, http: [\"{}\"] }}",
        peer.url()
    )));
    evoke.up();
    let after = grants(&evoke, &[]);
    let grant = |grants: &Value, name: &str| {
        grants["grants"].as_array().unwrap().iter().find(|grant| grant["name"] == name).cloned().unwrap_or_default()
    };
    assert_eq!(grant(&after, "used.*"), grant(&before, "used.*"));
    assert_eq!((&grant(&after, "new")["attempts"], grant(&after, "old")), (&json!(0), Value::Null), "{after}");
    assert_eq!(after["refused"], Value::Null, "both are granted now");
    // Nothing is known of the new grants yet, so none is a mistake.
    let output = evoke.run(&["validate", "--strict"]);
    assert!(output.status.success(), "{output:?}");

    // An address that the grant does not have is refused.
    run(&evoke, &json!({ "shared": true, "http": [peer.url()] }));
    let after = grants(&evoke, &[]);
    let line = json!({ "http": [{ "url": peer.url(), "addresses": ["127.0.0.1"] }] });
    assert_eq!(after["refused"][0]["allow"], line, "{after}");
    assert!(used(&after).contains(&"shared-state: open".to_owned()), "{after}");
}

#[test]
fn a_renamed_function_keeps_the_record_of_its_grants_through_a_kill_and_a_reload() {
    let named = |name: &str, was: &str| {
        manifest("    allow: { publish: [\"used.*\", spare], state: true }")
            .replace("part:", &format!("{name}:\n    {was}"))
    };
    let mut evoke = with(&named("part", ""));
    run(&evoke, &json!({ "publish": ["used.a", "other"], "get": ["k"] }));
    let record = |evoke: &Evoke, name: &str| {
        let found = evoke.json_lines(&["grants", name]);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    };
    let before = record(&evoke, "lab");
    let stored = || {
        let output = evoke.run(&["grants", "lab", "--offline", ".evoke", "--json"]);
        // Before the first write, the store has no such record.
        serde_json::from_slice(&output.stdout).map_or_else(|_| Vec::new(), |record| used(&record))
    };
    assert_eventually!(stored() == used(&before), "{:?}", stored());
    evoke.kill();

    evoke.write_manifest(&named("whole", "was: [part]"));
    evoke.up();
    let after = record(&evoke, "lab");
    assert_eq!(after["function"], "lab/whole");
    for key in ["since", "attempts", "grants", "refused", "proposal"] {
        assert_eq!(after[key], before[key], "{key}: {after}");
    }
    // A reload takes over uses that are not stored yet, and an earlier name is not stored again.
    run(&evoke, &json!({ "publish": ["used.b"] }));
    evoke.write_manifest(&named("last", "was: [whole, part]"));
    signal(evoke.pid(), Signal::HUP);
    assert_eventually!(evoke.log().contains("lab/last takes over from lab/whole"), "{}", evoke.log());
    let renamed = || evoke.json_lines(&["grants", "lab"]).iter().any(|record| record["function"] == "lab/last");
    assert_eventually!(renamed(), "{:?}", evoke.json_lines(&["grants", "lab"]));
    let last = record(&evoke, "lab");
    assert_eq!((&last["since"], &last["attempts"]), (&before["since"], &json!(2)), "{last}");
    assert_eq!(used(&last), ["publish used.*: used.a,used.b", "state: open,read"]);
    assert!(evoke.stop().success());
    assert_eq!(record_offline(&evoke), last);
}

/// The only record in the store, which may be in use.
fn record_offline(evoke: &Evoke) -> Value {
    let found = evoke.json_lines(&["grants", "lab", "--offline", ".evoke"]);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn strict_validation_reports_each_unused_grant_at_its_place() {
    let peer = Peer::start(peer::ok);
    let mut evoke = with(&manifest(&allow(&peer)));
    // Before the function has run, nothing is known.
    let output = evoke.run(&["validate", "--strict"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("warning: `part` has not run, so its unused grants are not known"), "{text}");

    let uses =
        json!({ "publish": ["used.a", "used.b"], "get": ["k"], "config": ["READ", "READ_KEY"], "http": [peer.url()] });
    run(&evoke, &uses);
    let expected = r#"error: `part` did not use `spare.*` in 1 attempt since TIME
   ╭▸ evoke.yaml:12:27
   │
12 │       publish: ["used.*", "spare.*"]
   │                           ━━━━━━━━━
   │
   ╰ help: remove it; with other grants of this kind, the function used `used.a`, `used.b`

error: `part` did not use the shared state of the app in 1 attempt since TIME
   ╭▸ evoke.yaml:13:16
   │
13 │       state: { shared: true, max_keys: 10 }
   │                ━━━━━━
   │
   ╰ help: remove it

error: `part` did not use `https://*.spare.example` in 1 attempt since TIME
   ╭▸ evoke.yaml:16:11
   │
16 │         - https://*.spare.example
   │           ━━━━━━━━━━━━━━━━━━━━━━━
   │
   ╰ help: remove it; with other grants of this kind, the function used `PEER`

error: `part` did not use `SPARE` in 1 attempt since TIME
   ╭▸ evoke.yaml:17:28
   │
17 │       config: { READ: one, SPARE: two }
   │                            ━━━━━
   │
   ╰ help: remove it; with other grants of this kind, the function used `READ`

error: `part` did not use `SPARE_KEY` in 1 attempt since TIME
   ╭▸ evoke.yaml:21:9
   │
21 │         SPARE_KEY: { env: SPARE_KEY }
   │         ━━━━━━━━━
   │
   ╰ help: remove it; with other grants of this kind, the function used `HEADER_KEY`, `READ_KEY`
error: 5 errors
"#;
    let check = |evoke: &Evoke, more: &[&str]| {
        let output = evoke.run(&[&["validate", "--strict"], more].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = without_times(&String::from_utf8(output.stderr).unwrap());
        assert_eq!(text.replace(&peer.url(), "PEER"), expected);
    };
    check(&evoke, &[]);
    let output = evoke.run(&["validate", "--strict", "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let place = |one: &Value| (one["line"].clone(), one["column"].clone(), one["severity"].clone());
    let places: Vec<_> = found.as_array().unwrap().iter().map(place).collect();
    let expected_places = [(12, 27), (13, 16), (16, 11), (17, 28), (21, 9)];
    assert_eq!(places, expected_places.map(|(line, column)| (json!(line), json!(column), json!("error"))));
    assert!(evoke.run(&["validate"]).status.success(), "only with --strict");

    // The grants that the command proposes are accepted as they are printed, and are the smallest.
    let printed = evoke.stdout(&["grants", "part"]);
    let (_, proposal) = printed.split_once("the smallest `allow` for all uses:\n").unwrap();
    assert!(evoke.stop().success());
    // The store of a stopped Evoke is read, too, and that of a copy.
    check(&evoke, &[]);
    check(&evoke, &["--offline", ".evoke"]);
    evoke.write_manifest(&manifest(proposal));
    evoke.up();
    run(&evoke, &uses);
    let output = evoke.run(&["validate", "--strict"]);
    assert!(output.status.success(), "{proposal}\n{output:?}");
    let small = grants(&evoke, &[]);
    assert_eq!((&small["proposal"], &small["refused"]), (&Value::Null, &Value::Null), "{small}");

    let empty = Evoke::with(&manifest("    allow: { state: true }"));
    let output = empty.run(&["validate", "--strict"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("name its data folder with --offline"), "{text}");
}

#[test]
fn programs_are_given_their_settings_whole_and_endpoints_use_the_secrets_of_their_requests() {
    let peer = Peer::start(peer::ok);
    let mut evoke = Evoke::with(&format!(
        "
evoke: 1
app: lab
functions:
  program:
    component: $FUNCTIONS/command.wasm
    on: [{{ http: {{ path: /program, type: lab.program }} }}]
    allow: {{ publish: [order.priced], config: {{ CURRENCY: EUR, UNREAD: x }} }}
  tell:
    deliver:
      url: {}/hook
      addresses: [127.0.0.1]
      headers: {{ x-key: \"{{secret.KEY}}\" }}
      secrets: {{ KEY: {{ env: KEY }}, SPARE: {{ env: SPARE }} }}
    on: [{{ events: {{ type: [order.priced] }} }}]
",
        peer.url()
    ));
    evoke.set_environment(&[("KEY", "endpoint-key"), ("SPARE", "spare-key")]);
    evoke.up();
    evoke.post_accepted("/program", r#"{"items":["book"]}"#);
    evoke.settle();
    let found = evoke.json_lines(&["grants", "lab"]);
    assert_eq!(found.len(), 2, "{found:?}");
    let environment = ["CURRENCY", "UNREAD"].map(|name| format!("config {name}: environment"));
    assert_eq!(used(&found[0])[1..], environment, "{found:?}");
    assert!(found[0]["refusing_imports"].as_array().unwrap().contains(&json!("wasi:filesystem")), "{found:?}");
    let endpoint = [format!("http {0}: {0}", peer.url()), "secret KEY: header".to_owned()];
    assert_eq!((used(&found[1]), peer.seen().len()), (endpoint.to_vec(), 1));
    let output = evoke.run(&["validate", "--strict"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("`tell` did not use `SPARE` in 1 attempt"), "{text}");
    assert_eq!((output.status.code(), text.matches("did not use").count()), (Some(1), 1), "{text}");

    // A viewer may look.
    let token = evoke.stdout(&["token", "create", "look", "--role", "viewer"]);
    let token = token.split_whitespace().last().unwrap().to_owned();
    let shown = evoke.command(&["grants", "tell"]).env("EVOKE_TOKEN", token).output().unwrap();
    assert!(shown.status.success() && String::from_utf8_lossy(&shown.stdout).contains("secret KEY"), "{shown:?}");
    let unknown = evoke.run(&["grants", "tel"]);
    let text = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(4), "{text}");
    assert!(text.contains("did you mean `lab/tell`?"), "{text}");
}
