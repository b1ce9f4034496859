//! Manifests of the right form that mean something else than they seem to: `validate` reports each mistake, and `up`
//! runs a valid manifest as it is written.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::assert_eventually;
use crate::support::{Evoke, root};

/// The diagnostics of `validate --json`, and whether the manifest is valid.
fn validate(evoke: &Evoke) -> (bool, Vec<Value>) {
    let output = evoke.run(&["validate", "--json"]);
    let diagnostics = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    (output.status.success(), diagnostics)
}

/// A manifest with one source.
fn with_source(source: &str) -> String {
    format!("evoke: 1\napp: shop\nsources:\n  source:\n    {source}\n")
}

#[test]
fn validate_reports_mistakes_of_every_kind_at_once_with_their_positions() {
    let manifest = r#"
evoke: 1
app: shop
sources:
  inbox:
    files: { path: ~/inbox }
  outbox:
    files: { path: ., exclude: ["tmp/"] }
  nightly:
    timer: { cron: "0 0 * * L" }
  zoned:
    timer: { cron: "0 2 * * *", timezone: PST }
  orders:
    http: { path: "/orders/:id", type: order.placed }
functions:
  charge:
    component: ~/charge.wasm
    on: [{ source: orders }]
    timeout: ${TIMEOUT}
"#;
    let (is_valid, found) = validate(&Evoke::with(manifest));
    assert!(!is_valid);
    let found: Vec<_> = found
        .iter()
        .map(|one| (one["line"].as_u64().unwrap(), one["severity"].as_str().unwrap(), one["help"].as_str().unwrap()))
        .collect();
    for (index, (line, help)) in [
        (6, "/home/NAME/inbox"),
        (8, "`tmp/**`"),
        (10, "`5L`"),
        (12, "`America/Los_Angeles`"),
        (14, "`{id}`"),
        (17, "/home/NAME/charge.wasm"),
        (19, "write the value itself"),
    ]
    .into_iter()
    .enumerate()
    {
        let (at, severity, suggested) = found[index];
        assert!(at == line && severity == "error" && suggested.contains(help), "{index}: {found:#?}");
    }
    assert_eq!(found.len(), 7, "{found:#?}");
}

#[test]
fn a_folder_that_is_missing_or_unreadable_is_a_warning_and_works_once_it_is_there() {
    let mut evoke = Evoke::with(&with_source("files: { path: inbox, settle: 20ms }"));
    evoke.respect_permissions();
    let warning = |evoke: &Evoke| {
        let (is_valid, found) = validate(evoke);
        assert!(is_valid, "{found:?}");
        let messages: Vec<_> = found.iter().map(|one| one["message"].as_str().unwrap().to_owned()).collect();
        messages.join("; ")
    };
    assert_eq!(warning(&evoke), "the folder `inbox` does not exist");
    std::fs::create_dir(evoke.path("inbox")).unwrap();
    assert_eq!(warning(&evoke), "");
    std::fs::set_permissions(evoke.path("inbox"), Permissions::from_mode(0o000)).unwrap();
    assert!(warning(&evoke).starts_with("the folder `inbox` cannot be read: Permission denied"), "{}", warning(&evoke));
    std::fs::set_permissions(evoke.path("inbox"), Permissions::from_mode(0o700)).unwrap();

    std::fs::remove_dir(evoke.path("inbox")).unwrap();
    evoke.up();
    assert!(evoke.log().contains("the folder `inbox` does not exist"), "{}", evoke.log());
    std::fs::create_dir(evoke.path("inbox")).unwrap();
    std::fs::write(evoke.path("inbox/a"), "a").unwrap();
    assert_eventually!(evoke.events("evoke.file.created").len() == 1, "{}", evoke.log());

    evoke.stop();
    std::fs::remove_dir_all(evoke.path("inbox")).unwrap();
    std::fs::write(evoke.path("inbox"), "").unwrap();
    let (is_valid, found) = validate(&evoke);
    assert!(!is_valid && found[0]["message"] == "`inbox` is a file, not a folder", "{found:?}");
}

#[test]
fn every_cron_expression_that_validate_accepts_runs() {
    let expressions = ["@midnight", "@annually", "0 0 29 2 +MON", "0 0 L,15W * *", "0 9 * * FRI-SUN", "0 9 * * 7#5"];
    let sources: String = expressions
        .iter()
        .enumerate()
        .map(|(index, cron)| format!("  timer-{index}:\n    timer: {{ cron: \"{cron}\" }}\n"))
        .collect();
    let evoke = Evoke::up_with(&format!("evoke: 1\napp: shop\nsources:\n{sources}"));
    assert_eq!(validate(&evoke), (true, Vec::new()));
    let status = evoke.json(&["status"]);
    let sources = status["sources"].as_array().unwrap();
    assert_eq!(sources.len(), expressions.len(), "{status:#}");
    // A timer whose expression has no next time is degraded as soon as it starts.
    assert!(sources.iter().all(|source| source["trouble"].is_null()), "{status:#}");
}

#[test]
fn a_number_and_its_text_have_one_order_key() {
    let evoke = Evoke::up_with(
        r#"
evoke: 1
app: shop
sources:
  checkout:
    http: { path: /checkout, type: order.placed }
functions:
  notify:
    component: $FUNCTIONS/notify.wasm
    on: [{ source: checkout }]
    order_by: data.customer
"#,
    );
    let key = |customer: &str| {
        let id = evoke.post_accepted("/checkout", &format!(r#"{{"customer":{customer}}}"#));
        evoke.json(&["trace", &id])["deliveries"][0]["order_key"].clone()
    };
    for customer in ["1", "1.0", "1e0", "\"1\""] {
        assert_eq!(key(customer), "1", "{customer}");
    }
    assert_eq!(key("12345678901234567890123"), "12345678901234567890123");
    assert_eq!(key("\"1.0\""), "1.0");
    assert_eq!(key("null"), Value::Null);
    // Within lists and objects, too, and beside what is no text.
    assert_eq!(key(r#"{"b":1.0,"a":[99999999999999999999]}"#), r#"{"a":[99999999999999999999],"b":1}"#);
    assert_eq!(key("[1e400]"), "[0.1e401]");
    for (customer, key) in [(r#""\ud800x""#, "\u{fffd}x"), (r#""x","\ud800":0"#, "x")] {
        let id = evoke.post_accepted("/checkout", &format!(r#"{{"customer":{customer}}}"#));
        let trace = evoke.stdout(&["trace", &id, "--json"]);
        assert!(trace.contains(&format!("\"order_key\":\"{key}\"")), "{trace}");
    }
}

#[test]
fn the_example_manifests_have_no_warnings() {
    let folder = root().join("manifests");
    let mut evoke = Evoke::with(&with_source("timer: { every: 1m }"));
    evoke.set_environment(&[("GITHUB_SECRET", "secret"), ("GITHUB_TOKEN", "token")]);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let is_test = path.to_string_lossy().ends_with(".test.yaml");
        if !is_test && path.extension().is_some_and(|extension| extension == "yaml") {
            let output = evoke.run(&["validate", path.to_str().unwrap()]);
            assert!(output.status.success() && output.stderr.is_empty(), "{}: {output:?}", path.display());
        }
    }
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let example = readme.split("```yaml\n").find(|block| block.contains("\nevoke: 1")).unwrap();
    let example = example.split("```").next().unwrap().replace("./charge.wasm", "$FUNCTIONS/charge.wasm");
    let mut evoke = Evoke::with(&example);
    evoke.set_environment(&[("PAYMENT_KEY", "secret")]);
    std::fs::write(evoke.path("tax.key"), "secret").unwrap();
    std::fs::create_dir(evoke.path("inbox")).unwrap();
    assert_eq!(validate(&evoke), (true, Vec::new()));
}
