//! The values of secrets do not appear in log lines, messages, spans, runtime events, responses of the admin API and
//! files, in whatever way a function passes them to the host.

use std::path::Path;

use serde_json::json;

use crate::assert_eventually;
use crate::support::{Evoke, request};
use crate::telemetry::collector::{Collector, Reply};

const KEY: &str = "key/zqvw \"ü\" <9> & 0123456789";
const PEM: &str =
    "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n-----END KEY-----\n";
const REPLACEMENT: &str = "[secret API_KEY]";

const MANIFEST: &str = "
evoke: 1
app: lab
sources:
  in: { http: { path: /in, type: lab.in } }
functions:
  leak:
    component: $FUNCTIONS/leak-secret.wasm
    allow: { publish: [leaked], secrets: { API_KEY: { env: LEAKED_KEY }, PEM: { file: ./key.pem } } }
    retry: { attempts: 1 }
    on: [{ source: in }]
";

fn up(environment: &[(&'static str, &str)]) -> Evoke {
    let mut evoke = Evoke::with(MANIFEST);
    std::fs::write(evoke.path("key.pem"), PEM).unwrap();
    evoke.set_environment(&[&[("LEAKED_KEY", KEY)], environment].concat());
    evoke.up();
    evoke
}

/// Runs the function on one event, whose attempt ends before this returns.
fn leak(evoke: &Evoke, secret: &str, way: &str, text: &str) {
    // The guest holds an unfinished line back, and loses it when its instance is dropped.
    let end = if ["stdout", "stderr"].contains(&way) { "\n" } else { "" };
    let text = format!("{text}{end}");
    evoke.post_accepted("/in", &json!({ "secret": secret, "way": way, "text": text }).to_string());
    evoke.settle();
}

/// The bytes of all files below a folder.
fn files(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| match path.is_dir() {
        true => files(&path),
        false => String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned(),
    };
    entries.filter(|path| !path.ends_with("compiled")).map(read).collect()
}

/// Returns all text that users can read: the output of commands, responses of the admin API, the program's own log, and
/// files.
fn everything(evoke: &Evoke) -> String {
    let mut shown = evoke.log();
    for arguments in [
        &["logs", "--limit", "10000"][..],
        &["logs", "--limit", "10000", "--json"],
        &["events", "--after", "0"],
        &["events", "--after", "0", "--json"],
        &["dead", "list"],
        &["dead", "list", "--json"],
        &["status"],
        &["status", "--json"],
        &["explain", "1"],
        &["inspect", "evoke.yaml"],
    ] {
        shown += &String::from_utf8_lossy(&evoke.run(arguments).stdout);
    }
    for event in evoke.events("lab.in") {
        let number = event["id"].as_str().unwrap().to_owned();
        shown += &evoke.stdout(&["trace", &number]);
        shown += &evoke.stdout(&["trace", &number, "--json"]);
    }
    for letter in evoke.json_lines(&["dead", "list", "--limit", "1000"]) {
        let number = letter["delivery"]["id"].to_string();
        shown += &String::from_utf8_lossy(&evoke.run(&["dead", "show", &number]).stdout);
        shown += &String::from_utf8_lossy(&evoke.run(&["dead", "show", &number, "--json"]).stdout);
    }
    shown += &evoke.get_admin("/metrics", &[]).body;
    shown + &files(&evoke.path(".evoke"))
}

#[test]
fn a_secret_is_shown_in_no_way_in_which_a_function_gives_it_to_the_host() {
    let collector = Collector::start(Reply::Ok);
    let endpoint = collector.endpoint();
    let mut evoke =
        up(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "20"), ("EVOKE_LOG", "debug")]);
    let ways = ["log", "context", "stdout", "stderr", "panic", "retry", "reject", "type"];
    for way in ways {
        leak(&evoke, "API_KEY", way, "<{raw}>");
    }
    let shown = everything(&evoke);
    assert!(!shown.contains("zqvw") && !shown.contains("0123456789"), "{shown}");
    let logs = evoke.stdout(&["logs", "--limit", "1000"]);
    // Also the panic, which the function logs before it traps. Each failed attempt has a line, too.
    let own = logs.lines().filter(|line| !line.contains("the attempt failed")).collect::<String>();
    assert_eq!(own.matches("[secret API_KEY]").count(), 5, "{logs}");
    let letters = evoke.json_lines(&["dead", "list"]);
    assert_eq!(letters.len(), 4);
    for letter in letters {
        assert!(letter["delivery"]["cause"].as_str().unwrap().contains(REPLACEMENT), "{letter}");
    }
    let reports = evoke.events("evoke.delivery.dead");
    assert!(
        reports.iter().all(|report| report["data"]["cause"].as_str().unwrap().contains(REPLACEMENT)),
        "{reports:?}"
    );
    assert!(evoke.stop().success(), "{}", evoke.log());
    let spans = format!("{:?}", collector.spans(2 * ways.len()));
    assert!(spans.contains("process lab/leak") && spans.contains(REPLACEMENT), "{spans}");
    assert!(!spans.contains("zqvw") && !spans.contains("0123456789"), "{spans}");
}

#[test]
fn encodings_and_lines_of_a_secret_are_not_shown() {
    let evoke = up(&[]);
    for form in ["{base64}", "{hex}", "{json}", "{percent}", "{debug}"] {
        for way in ["log", "stderr", "reject"] {
            leak(&evoke, "API_KEY", way, &format!("<{form}>"));
        }
    }
    for (way, text) in
        [("log", "{raw}"), ("stdout", "{raw}"), ("stderr", "{raw}"), ("reject", "{raw}"), ("log", "{json}")]
    {
        leak(&evoke, "PEM", way, text);
    }
    let shown = everything(&evoke);
    let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let parts = [
        "zqvw",
        "0123456789",
        "DEyMzQ1Njc4",
        "AxMjM0NTY3OD",
        "MTIzNDU2Nzg",
        &hex[..12],
        "107, 101, 121",
        "MIIEvQIB",
        "BKcwggSj",
        "8cKj",
    ];
    for part in parts {
        assert!(!shown.contains(part), "{part}: {shown}");
    }
    let texts: Vec<_> = evoke.json_lines(&["logs", "--limit", "1000"]).iter().map(|l| l["text"].clone()).collect();
    let count = |text: &str| texts.iter().filter(|found| *found == text).count();
    for (text, times) in [("", 1), ("stdout: ", 1), ("stderr: ", 1)] {
        assert_eq!(count(&format!("{text}[secret PEM]")), times, "{text} {texts:?}");
    }
    assert_eq!(count("\"[secret PEM]\""), 1, "{texts:?}");
}

/// A limit cuts the text after some bytes of the value.
#[test]
fn a_limit_on_the_length_of_a_text_leaves_no_part_of_a_secret() {
    let evoke = up(&[]);
    for (way, limit) in [("reject", 4096), ("retry", 4096), ("context", 256), ("type", 256), ("log", 4096)] {
        for before in [limit - 8, limit - 9, limit - 20] {
            leak(&evoke, "API_KEY", way, &format!("{}{{raw}}", "x".repeat(before)));
        }
    }
    let shown = everything(&evoke);
    assert!(!shown.contains("key/") && !shown.contains("zqvw") && !shown.contains("0123456"), "{shown}");
    assert!(shown.contains("[secr"));
}

#[test]
fn published_data_is_what_the_function_is_granted_to_write_and_stays() {
    let evoke = up(&[]);
    leak(&evoke, "API_KEY", "data", "{raw}");
    assert_eq!(evoke.events("leaked")[0]["data"], KEY);
    assert!(!evoke.stdout(&["logs"]).contains("zqvw"));
}

#[test]
fn programs_http_components_and_invoke_show_no_secret() {
    let manifest = "
evoke: 1
app: lab
functions:
  program:
    component: $FUNCTIONS/command.wasm
    allow: { publish: [order.priced], secrets: { LIST: { env: LIST }, CHATTER: { env: CHATTER }, SNEAK: { env: SNEAK } } }
    retry: { attempts: 1 }
    on: [{ http: { path: /in, type: order.placed } }]
  web:
    component: $FUNCTIONS/http-answer.wasm
    allow: { secrets: { QUERY: { env: QUERY } } }
    on: [{ http: { path: /web, methods: [GET] } }]
";
    let mut evoke = Evoke::with(manifest);
    evoke.set_environment(&[
        ("LIST", "price list is"),
        ("CHATTER", "riced"),
        ("SNEAK", "payment.taken"),
        ("QUERY", "query requested a trap"),
    ]);
    evoke.up();
    for order in [r#"{"do": "retry"}"#, r#"{"do": "sneak"}"#, r#"{"items": []}"#] {
        evoke.post_accepted("/in", order);
    }
    evoke.settle();
    let causes: Vec<_> =
        evoke.json_lines(&["dead", "list"]).iter().map(|l| l["delivery"]["cause"].to_string()).collect();
    assert_eq!(causes.len(), 2, "{causes:?}");
    assert!(causes.iter().any(|cause| cause.contains("the [secret LIST] unavailable")), "{causes:?}");
    assert!(causes.iter().any(|cause| cause.contains("`[secret SNEAK]` may not be published")), "{causes:?}");
    assert_eq!(request("GET", evoke.http(), "/web?trap", &[], "").unwrap().status, 502);
    let logs = || evoke.stdout(&["logs", "--limit", "1000"]);
    assert_eventually!(logs().matches("the [secret QUERY]").count() == 2, "{}", logs());
    assert!(logs().contains("p[secret CHATTER]"), "{}", logs());
    let output = evoke.run(&["invoke", "program", "--event", r#"{"data": {"do": "retry"}}"#]);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(text.contains("the [secret LIST] unavailable") && !text.contains("price list is"), "{text}");
}

#[test]
fn short_secrets_are_reported_and_a_secret_that_is_no_text_is_not_quoted() {
    let mut evoke = Evoke::with(MANIFEST);
    std::fs::write(evoke.path("key.pem"), PEM).unwrap();
    evoke.set_environment(&[("LEAKED_KEY", "abc")]);
    let warning = "secrets of `leak` with fewer than 4 bytes are not redacted from log lines and messages: API_KEY";
    let output = evoke.run(&["validate", "evoke.yaml"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && text.contains(warning), "{text}");
    evoke.up();
    assert!(evoke.log().contains(warning), "{}", evoke.log());
    evoke.stop();
    std::fs::write(evoke.path("key.pem"), b"hidden-\xff-value").unwrap();
    let output = evoke.run(&["up", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("cannot read the secret PEM") && !text.contains("hidden-"), "{text}");
    std::fs::write(evoke.path("key.pem"), PEM).unwrap();
    let mut command = evoke.command(&["validate", "evoke.yaml"]);
    let value = std::os::unix::ffi::OsStrExt::from_bytes(b"hidden-\xff-value".as_slice());
    let output = command.env("LEAKED_KEY", std::ffi::OsStr::to_owned(value)).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("LEAKED_KEY is not valid UTF-8") && !text.contains("hidden-"), "{text}");
}
