//! Attempts of the examples in `manifests/`, and of functions in several languages, run again from their recordings after
//! everything that they called has ended.
//!
//! The long form, with more than 1,000 attempts, is
//! `EVOKE_CAMPAIGN=long cargo test --release -p evoke --test blackbox recordings::campaign -- --nocapture`. That form also
//! builds functions in JavaScript, Python and Go with the tools of `sdk/conformance/run`; a language without its tools is
//! left out, and named.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::Sha256;

use super::test;
use crate::faults::random::{is_long_form, size};
use crate::outbound::peer::{Peer, Seen, response};
use crate::support::{Evoke, root, signal};
use crate::{assert_eventually, examples};

const RECORD: &str = "    record: { max_size: 512KiB, keep: 100000, max_total: 1GiB }\n";
const SECRET: &str = "conformance-0123456789";

/// The figures of a campaign.
#[derive(Debug, Default)]
struct Figures {
    attempts: BTreeMap<String, usize>,
    outcomes: BTreeMap<String, usize>,
    published: usize,
    writes: usize,
    requests: usize,
    conflicts: u64,
}

impl Figures {
    fn total(&self) -> usize {
        self.attempts.values().sum()
    }

    /// Waits until all deliveries have ended, compares the recordings of a function with the store, stops Evoke, and runs
    /// all recorded attempts again. `end_peers` ends all that the functions reached.
    fn check(&mut self, mut evoke: Evoke, functions: &[&str], end_peers: impl FnOnce()) {
        evoke.settle();
        let metrics = evoke.get_admin("/metrics", &[]).body;
        let conflicts = metrics.lines().filter(|line| line.starts_with("evoke_state_conflicts_total"));
        self.conflicts += conflicts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>();
        for function in functions {
            self.compare(&evoke, function);
        }
        assert!(evoke.stop().success(), "{}", evoke.log());
        end_peers();
        let stored = rusqlite::Connection::open(evoke.path(".evoke/evoke.db")).unwrap();
        for function in functions {
            let attempts: i64 = stored
                .query_row(
                    "SELECT SUM(d.attempts) FROM deliveries d JOIN functions f ON f.id = d.function WHERE f.name = ?1",
                    [function],
                    |row| row.get(0),
                )
                .unwrap();
            assert_eq!(self.attempts[*function] as i64, attempts, "{function}: each attempt is recorded");
            let (ok, results) = test(&evoke, &["--from", function, "--last", "100000", "--offline", ".evoke"]);
            let failed: Vec<_> = results.iter().filter(|result| result["passed"] != true).collect();
            assert!(ok && failed.is_empty(), "{function}: {} failed: {:#?}", failed.len(), failed.first());
            assert_eq!(results.len(), self.attempts[*function], "{function}");
            for result in results {
                *self.outcomes.entry(result["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
    }

    /// Compares the recordings of a function with its attempts and its events in the store.
    fn compare(&mut self, evoke: &Evoke, function: &str) {
        let path = format!("/api/v1/recordings?function={function}&limit=100000");
        let body = evoke.get_admin(&path, &[]).body;
        let recordings: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let published = ["events", "--source", &format!("/{function}"), "--after", "0", "--limit", "50000"];
        let events: BTreeMap<String, Value> = evoke
            .json_lines(&published)
            .into_iter()
            .map(|event| (event["id"].as_str().unwrap().to_owned(), event))
            .collect();
        let mut seen = 0;
        for recording in &recordings {
            assert_eq!(recording["not_recorded"], Value::Null, "{recording}");
            assert!(!recording.to_string().contains(SECRET), "{recording}");
            self.writes += recording["state"].as_object().map_or(0, |state| state.len());
            self.writes += recording["shared_state"].as_object().map_or(0, |state| state.len());
            self.requests += recording["reads"]["http"].as_array().map_or(0, Vec::len);
            if recording["outcome"] != "done" {
                continue;
            }
            for published in recording["published"].as_array().into_iter().flatten() {
                let published: Value = serde_json::from_str(published.as_str().unwrap()).unwrap();
                let event = &events[published["id"].as_str().unwrap()];
                for (key, value) in published.as_object().unwrap() {
                    let is_same = event[key] == *value || event.to_string().contains(SECRET);
                    assert!(is_same, "{key} of {published}: {event}");
                }
                seen += 1;
            }
        }
        assert_eq!(seen, events.len(), "{function}: all of its events are recorded");
        self.published += seen;
        self.attempts.insert(function.to_owned(), recordings.len());
    }
}

/// Returns an example whose functions are recorded.
fn example(name: &str, services: &Evoke) -> String {
    let mut recorded = String::new();
    for line in examples::example(name, services).lines() {
        recorded += &format!("{line}\n");
        // Components that handle requests have no recordings.
        if line.contains("component:") && !line.contains("stand-in") {
            recorded += RECORD;
        }
    }
    recorded
}

fn signed_issue(evoke: &Evoke, n: usize) {
    let issue = json!({
        "action": if n % 5 == 4 { "closed" } else { "opened" },
        "issue": { "number": n, "user": { "login": "ada" } },
        "repository": { "full_name": "shop/site" },
    });
    let body = issue.to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(b"secret").unwrap();
    mac.update(body.as_bytes());
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let headers = [
        ("content-type", "application/json"),
        ("x-github-event", "issues"),
        ("x-github-delivery", &n.to_string()),
        ("x-hub-signature-256", &format!("sha256={signature}")),
    ];
    assert_eq!(evoke.post_with("/hooks/github", &headers, &body).status, 202);
}

#[test]
fn attempts_of_the_examples_run_again_with_the_same_outcome_events_and_state() {
    let rounds = size(3, 60);
    let mut figures = Figures::default();
    let mut services = Evoke::up_with(examples::STAND_IN);

    let manifest = example("quickstart.yaml", &services);
    let mut shop = Evoke::with(&manifest.replace("every: 10s", "every: 1s"));
    std::fs::create_dir(shop.path("inbox")).unwrap();
    shop.up();
    for n in 0..rounds {
        // A dead letter blocks the later orders of its customer.
        let order = |customer: &str, total: usize, failures: usize| json!({ "customer": customer, "total": total, "items": ["book"], "gateway_failures": failures });
        let (good, bad) = (format!("c{}", n % 5), format!("bad{n}"));
        for order in [order(&good, 42, 0), order(&bad, 0, 0), order(&good, 7, 1 + n % 2)] {
            shop.post_accepted("/checkout", &order.to_string());
        }
        let text = if n % 3 == 2 { "a,b\n1\n".to_owned() } else { format!("a,b\n1,{n}\n") };
        std::fs::write(shop.path(&format!("inbox/{n}.csv")), text).unwrap();
    }
    let imports = || {
        let status = shop.function_status("shop/import-csv");
        status["done"].as_u64().unwrap() + status["dead"].as_u64().unwrap()
    };
    assert_eventually!(imports() as usize == rounds && shop.done_count("shop/heartbeat") > 1, "{}", shop.log());
    let of_shop = ["shop/charge", "shop/receipt", "shop/notify", "shop/import-csv"];
    // No further tick while the recordings are compared.
    shop.write_manifest(&manifest.replace("every: 10s", "every: 1h"));
    signal(shop.pid(), Signal::HUP);
    assert_eventually!(shop.log().contains("  reloaded"), "{}", shop.log());
    figures.check(shop, &[&of_shop[..], &["shop/heartbeat"]].concat(), || {});

    let watch = Evoke::up_with(&example("disk-watch.yaml", &services));
    for n in 0..rounds * 2 {
        let (path, used) = (["/", "/home", "/\u{e4} \u{1f600}"][n % 3], [50, 85, 95, 78][n % 4]);
        let reading = json!({ "path": path, "used": used });
        watch.post_accepted("/readings", &reading.to_string());
    }
    figures.check(watch, &["watch/disk-watch"], || {});

    let text = example("reminders.yaml", &services).replace("REMIND_AFTER_SECONDS: 3600", "REMIND_AFTER_SECONDS: 1");
    let orders = Evoke::up_with(&text);
    for n in 0..rounds {
        let order = json!({ "order": format!("o-{n}"), "customer": "ada" }).to_string();
        orders.post_accepted("/orders", &order);
        if n.is_multiple_of(2) {
            orders.post_accepted("/payments", &order);
        }
    }
    assert_eventually!(orders.done_count("orders/remind") as usize == rounds, "{}", orders.log());
    figures.check(orders, &["orders/schedule", "orders/remind"], || {});

    let payments = Evoke::up_with(&example("payments.yaml", &services));
    for n in 0..rounds {
        let amount = [42, 9_000, 7][n % 3];
        payments.post("/pay", &json!({ "customer": "ada", "amount": amount, "currency": "EUR" }).to_string());
    }
    assert_eq!(payments.post("/pay", r#"{"customer":"eve"}"#).status, 502);
    // The limits of real chats would take longer than all else.
    let text = example("on-call.yaml", &services).replace("/alerts/chat", "/stand-in/chat");
    let text = text.replace("rate: 1/s", "rate: 100/s").replace("rate: 30/m", "rate: 100/s");
    let alerts = Evoke::up_with(&(text + FAILS));
    for _ in 0..rounds {
        alerts.stdout(&["emit", "--type", "order", "--data", "{}"]);
    }
    let mut github = Evoke::with(&example("github.yaml", &services));
    github.set_environment(&[("GITHUB_SECRET", "secret"), ("GITHUB_TOKEN", "a-token-of-github")]);
    github.up();
    (0..rounds).for_each(|n| signed_issue(&github, n));
    [&payments, &alerts, &github].iter().for_each(|evoke| evoke.settle());
    assert!(services.stop().success());
    figures.check(payments, &["payments/pay"], || {});
    figures.check(alerts, &["ops/on-call", "ops/fails"], || {});
    figures.check(github, &["github/comment"], || {});

    println!("{} attempts of the examples: {figures:?}", figures.total());
    assert!(figures.total() >= 15 * rounds, "{figures:?}");
    for outcome in ["done", "reject", "retry"] {
        assert!(figures.outcomes.contains_key(outcome), "{figures:?}");
    }
    assert!(figures.published > rounds && figures.writes > rounds && figures.requests > rounds, "{figures:?}");
}

const FAILS: &str = "
  fails:
    component: $FUNCTIONS/fate-reject.wasm
    record: true
    on: [{ events: { type: [order] } }]
";

/// A language, the command that its tools need, and the file of its guest in `sdk/conformance` and in the folder of a
/// function.
const LANGUAGES: [(&str, &str, [&str; 2]); 4] = [
    ("c", "clang", ["function.c", "function.c"]),
    ("js", "npm", ["function.js", "function.js"]),
    ("python", "python3", ["function.py", "function.py"]),
    ("go", "go", ["main.go", "main.go"]),
];

/// Responds as the server of `sdk/conformance/run` does, and in ways that only a recording can repeat: in parts, late, and
/// never.
fn respond(request: &Seen) -> Vec<u8> {
    let chunks = |sizes: &[usize]| {
        let mut text = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for size in sizes {
            text.extend(format!("{size:x}\r\n{}\r\n", "y".repeat(*size)).into_bytes());
        }
        text.extend(b"0\r\n\r\n");
        text
    };
    match request.path().split('?').next().unwrap() {
        "/echo" => {
            let mut answer = json!({
                "method": request.head.split(' ').next(), "path": request.path(), "size": request.body.len(),
                "key": request.header("idempotency-key"), "type": request.header("content-type"),
            });
            if let Ok(body) = serde_json::from_slice::<Value>(&request.body) {
                answer["body"] = body;
            }
            response("200 OK", &["set-cookie: a=1", "set-cookie: b=2"], answer.to_string().as_bytes())
        }
        "/later" => response("503 Unavailable", &["retry-after: 0"], b"{\"later\":true}"),
        "/parts" => chunks(&[1, 20_000, 3, 70_000, 5]),
        "/slow" => {
            // Long enough for another request to overtake it, on any machine that is not overloaded.
            std::thread::sleep(std::time::Duration::from_millis(3));
            response("200 OK", &[], b"slow")
        }
        "/stalls" => b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly a part".to_vec(),
        "/cut" => b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nonly a part".to_vec(),
        "/silent" => Vec::new(),
        _ => response("404 Not Found", &[], b"{}"),
    }
}

/// Creates and builds a function in a folder of its language. Returns its component, and the memory that it needs; `None`
/// without the tools of the language.
fn build(evoke: &Evoke, language: &str, tool: &str, [source, target]: [&str; 2]) -> Option<(String, String)> {
    let has_tool = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap().status.success();
    if !has_tool {
        println!("{language} is left out: {tool} is missing");
        return None;
    }
    evoke.stdout(&["new", language, "--lang", language]);
    let folder = evoke.path(language);
    let guest = root().join("sdk/conformance").join(language).join(source);
    std::fs::copy(guest, folder.join(target)).unwrap();
    let built = evoke.command(&["build"]).current_dir(&folder).output().unwrap();
    assert!(built.status.success(), "{language}: {}", String::from_utf8_lossy(&built.stderr));
    let manifest = std::fs::read_to_string(folder.join("evoke.yaml")).unwrap();
    let value = |key: &str| {
        let line = manifest.lines().find_map(|line| line.trim().strip_prefix(&format!("{key}: ")));
        line.unwrap_or_else(|| panic!("{key}: {manifest}")).to_owned()
    };
    let component = Path::new(language).join(value("component"));
    Some((component.display().to_string(), value("memory")))
}

#[test]
fn attempts_in_each_language_run_again_with_the_same_outcome_events_and_state() {
    let rounds = size(3, 30);
    let peer = Peer::start(respond);
    let mut evoke = Evoke::with("evoke: 1\napp: lab\nfunctions: {}\n");
    evoke.set_environment(&[("LAB_SECRET", SECRET)]);
    let languages: Vec<_> = LANGUAGES.into_iter().filter(|(language, ..)| is_long_form() || *language == "c").collect();
    let mut manifest =
        "evoke: 1\napp: lab\nsources:\n  in: { http: { path: \"/in/{to}\", type: \"{path.to}\", max_body: 1MiB } }\nfunctions:\n"
            .to_owned();
    let mut add = |name: &str, component: &str, memory: &str, allow: &str| {
        manifest += &format!(
            "  {name}:\n    component: {component}\n    memory: {memory}\n    timeout: 1s\n    concurrency: 8\n    \
             on: [{{ source: in, events: {{ type: [{name}] }} }}]\n    retry: {{ attempts: 2, backoff: 1ms }}\n    \
             allow: {allow}\n{RECORD}"
        );
    };
    let url = peer.url();
    let allow = format!(
        "{{ publish: [\"c.*\"], state: {{ shared: true }}, http: [{{ url: \"{url}\", addresses: [127.0.0.1] }}], \
         config: {{ SET: \"grün 😀\", URL: \"{url}\" }}, secrets: {{ SECRET: {{ env: LAB_SECRET }} }} }}"
    );
    let mut names = Vec::new();
    for (language, tool, files) in languages {
        if let Some((component, memory)) = build(&evoke, language, tool, files) {
            add(language, &component, &memory, &allow);
            names.push(language);
        }
    }
    // The fixtures in Rust and in C that no other campaign has.
    add("rust", "$FUNCTIONS/state-ops.wasm", "8MiB", "{ publish: [\"*\"], state: { shared: true } }");
    add("command-c", "$FUNCTIONS/command-c.wasm", "8MiB", "{ publish: [event.measured] }");
    add("command-p1", "$FUNCTIONS/command-p1.wasm", "8MiB", "{ publish: [\"order.*\"], config: { CURRENCY: EUR } }");
    evoke.write_manifest(&manifest);
    // Compiles each component by itself. All of them at once may take longer than a start may take in tests.
    names.iter().for_each(|name| drop(evoke.run(&["invoke", name, "--event", "{}"])));
    evoke.up();
    for n in 0..rounds {
        names.iter().for_each(|name| drive(&evoke, name, n));
        let end = ["", "retry", "reject", "trap"][n % 4];
        let steps = json!({ "do": [{ "increment": ["n", 1] }, "append", { "get": "n" }, "keys"], "end": end, "shared": n.is_multiple_of(3) });
        (0..4).for_each(|_| drop(evoke.post_accepted("/in/rust", &steps.to_string())));
        evoke.post_accepted("/in/command-c", &json!({ "do": end }).to_string());
        let what = ["", "reject", "retry", "panic", "chatter"][n % 5];
        let order = json!({ "items": ["a", "b"], "do": what });
        evoke.post_accepted("/in/command-p1", &order.to_string());
    }
    evoke.settle();
    let mut figures = Figures::default();
    let names: Vec<String> =
        names.iter().copied().chain(["rust", "command-c", "command-p1"]).map(|name| format!("lab/{name}")).collect();
    figures.check(evoke, &names.iter().map(String::as_str).collect::<Vec<_>>(), || drop(peer));
    println!("{} attempts: {figures:?}", figures.total());
    let outcomes: BTreeSet<&str> = figures.outcomes.keys().map(String::as_str).collect();
    for outcome in ["denied", "done", "reject", "retry", "timeout", "trap"] {
        assert!(outcomes.contains(outcome), "{figures:?}");
    }
    assert!(figures.total() >= size(60, 1_000), "{figures:?}");
    assert!(figures.conflicts > 0 || !is_long_form(), "attempts ran again: {figures:?}");
}

/// Sends the events of one round to the guest of a language.
fn drive(evoke: &Evoke, name: &str, n: usize) {
    let path = format!("/in/{name}");
    let ask = |how: &str, more: Value| {
        let mut data = json!({ "how": how });
        data.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        evoke.post_accepted(&path, &data.to_string());
    };
    let odd = json!({
        "text": "grün 😀 \u{0}\u{2028}\u{85}\u{feff}\"\\: - #", "numbers": [0, -1, 1.5, 9_007_199_254_740_991_u64], "none": null,
        "": [[{}]], "yes": "no", "deep": (0..90).fold(json!(n), |inner, _| json!([inner])), ("x".repeat(1_500)): "~",
    });
    ask("echo", odd);
    for how in ["order", "reject", "retry", "throw", "undo", "refused", "config", "log", "delivery", "outside", "http"]
    {
        ask(how, Value::Null);
    }
    for _ in 0..4 {
        ask("state", Value::Null);
        ask("shared", Value::Null);
    }
    let paths = ["/missing", "/later", "/parts", "/cut", "/echo"];
    ask("http status", json!({ "path": paths[n % 5] }));
    ask("http origin", Value::Null);
    if matches!(name, "js" | "go") {
        ask("race", json!({ "paths": ["/slow", "/parts", "/echo", "/slow", "/parts"] }));
    }
    if n.is_multiple_of(10) {
        ask("spin", Value::Null);
        ask("race", json!({ "paths": ["/parts", "/stalls"] }));
        ask("http status", json!({ "path": "/silent" }));
        ask("http status", json!({ "path": "/stalls" }));
    }
}
