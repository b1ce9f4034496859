//! Hostile guests harm only themselves: each ends in its own outcome, memory returns to the baseline, and other
//! functions go on.

use std::fmt::Write as _;

use serde_json::Value;

use crate::assert_eventually;
use crate::support::{Evoke, request};

/// The templates of the unit tests: a handler, and an HTTP component.
const HANDLER: &str = include_str!("../runtime/crates/sandbox/src/guest.wat");
const HTTP: &str = include_str!("../runtime/crates/sandbox/src/http_guest.wat");

/// A hostile handler.
pub(crate) struct Hostile {
    name: &'static str,
    /// Body of `handle`, with its locals.
    body: String,
    /// More fields of its core module.
    fields: String,
    realloc: &'static str,
    lift: &'static str,
    pages: u32,
    /// The outcome and a part of its message.
    expected: (&'static str, &'static str),
}

pub(crate) fn hostile(name: &'static str, body: impl Into<String>, expected: (&'static str, &'static str)) -> Hostile {
    let (body, fields) = (body.into(), String::new());
    Hostile { name, body, fields, realloc: "", lift: "", pages: 2, expected }
}

impl Hostile {
    /// Sets the pages of its memory at the start.
    pub(crate) fn with_pages(self, pages: u32) -> Self {
        Self { pages, ..self }
    }

    pub(crate) fn wat(&self) -> String {
        let Self { body, fields, realloc, lift, pages, .. } = self;
        let core = format!(r#"(func $handle (export "handle") (param i32) (result i32) {body}) {fields}"#);
        let values = [
            ("{PAGES}", &*pages.to_string()),
            ("{IMPORTS}", ""),
            ("{REALLOC}", realloc),
            ("{LIFT}", lift),
            ("{CORE}", &core),
        ];
        values.into_iter().fold(HANDLER.to_owned(), |wat, (place, value)| wat.replace(place, value))
    }
}

const OK: &str = "(i32.const 1024)";
const SPIN: &str = "(loop (br 0))";

/// A symbol of the Itanium C++ ABI that is gigabytes long when demangled, because each part repeats the part before it.
fn expanding_symbol() -> String {
    let parts =
        (0..30).map(|part| format!("S0_IS{0}_S{0}_E", char::from_digit(part, 36).unwrap().to_ascii_uppercase()));
    parts.fold("_Z1fSt4pairIiiE".to_owned(), |name, part| name + &part)
}

fn guests() -> Vec<Hostile> {
    let timeout = ("timeout", "300ms");
    let log = |context: u32, message: u32| {
        format!(
            "(call $log (i32.const 1) (i32.const 2048) (i32.const {context}) (i32.const 2048) (i32.const {message}))"
        )
    };
    let newlines = |bytes: u32| format!("(memory.fill (i32.const 2048) (i32.const 10) (i32.const {bytes}))");
    let symbol = expanding_symbol();
    let publish = "(call $publish (i32.const 2048) (i32.const 4096))";
    vec![
        hostile("spin", format!("{SPIN} unreachable"), timeout),
        Hostile { realloc: SPIN, ..hostile("spin-in-realloc", OK, timeout) },
        Hostile { fields: format!("(func $spin {SPIN}) (start $spin)"), ..hostile("spin-in-start", OK, timeout) },
        Hostile {
            fields: format!(r#"(func (export "after") (param i32) {SPIN})"#),
            lift: r#"(post-return (core func $main "after"))"#,
            ..hostile("spin-after-return", OK, timeout)
        },
        hostile("sleep", format!("(call $block (call $in (i64.const -1))) {OK}"), timeout),
        hostile(
            "zero-timeouts",
            format!(
                "(local $h i32) (local.set $h (call $in (i64.const 0))) (loop (call $block (local.get $h)) (br 0)) {OK}"
            ),
            timeout,
        ),
        hostile(
            "log-in-straight-line",
            format!("{} {} {OK}", newlines(60_000), log(60_000, 60_000).repeat(6_000)),
            timeout,
        ),
        Hostile {
            pages: 40,
            ..hostile(
                "one-large-log",
                format!("{} {} {OK}", newlines(2_000_000), log(1_000_000, 1_000_000)),
                ("done", ""),
            )
        },
        hostile("log-flood", format!("(loop {} (br 0)) unreachable", log(1, 1)), timeout),
        Hostile {
            fields: format!("(func ${symbol} unreachable)"),
            ..hostile("expanding-symbol", format!("(call ${symbol}) {OK}"), ("trap", "in _Z1fSt4pairIiiE"))
        },
        Hostile {
            fields: "(func $deep (call $deep))".into(),
            ..hostile("recursion", format!("(call $deep) {OK}"), ("trap", "stack"))
        },
        Hostile {
            fields: "(func $ping (call $pong)) (func $pong (call $ping))".into(),
            ..hostile("mutual-recursion", format!("(call $ping) {OK}"), ("trap", "stack"))
        },
        hostile(
            "memory-growth",
            "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
            ("out-of-memory", "8"),
        ),
        hostile("handles", "(loop (drop (call $in (i64.const 1))) (br 0)) unreachable", ("trap", "resource table")),
        hostile("huge-argument", format!("{} {OK}", log(0, 0x7fff_ffff)), ("trap", "")),
        Hostile {
            fields: r#"(data (i32.const 2048) "\b8\0b\00\00\06\00\00\00") (data (i32.const 3000) "lab.x0")"#.into(),
            ..hostile(
                "publishes-without-end",
                format!(
                    "(local $n i32) (loop {publish} (local.set $n (i32.add (local.get $n) (i32.const 1)))
                     (br_if 0 (i32.lt_u (local.get $n) (i32.const 100000)))) unreachable"
                ),
                ("denied", "at most 1000 events"),
            )
        },
    ]
}

/// An HTTP component whose `handle` has this body.
pub(crate) fn http_component(body: &str) -> String {
    let core = format!(r#"(func (export "handle") (param i32 i32) (local $n i32) (local $h i32) {body})"#);
    HTTP.replace("{CORE}", &core)
}

/// A manifest with each hostile guest behind a source of its own, a neighbour, and an HTTP component.
fn manifest(guests: &[Hostile]) -> String {
    let mut text = "
evoke: 1
app: lab
functions:
  neighbour:
    component: $FUNCTIONS/fate-done.wasm
    on: [{ http: { path: /neighbour, type: lab.neighbour } }]
  web:
    component: web.wat
    on: [{ http: { path: /web, methods: [GET] } }]
    memory: 8MiB
    timeout: 300ms
"
    .to_owned();
    for guest in guests {
        let name = guest.name;
        write!(
            text,
            "  {name}:
    component: {name}.wat
    on: [{{ http: {{ path: /{name}, type: lab.{name} }} }}]
    timeout: 300ms
    memory: 8MiB
    retry: {{ attempts: 1 }}
    allow: {{ publish: [\"lab.x0\"] }}
"
        )
        .unwrap();
    }
    text
}

/// Starts Evoke with the guests and an HTTP component whose `handle` has this body.
fn up(guests: &[Hostile], web: &str) -> Evoke {
    let mut evoke = Evoke::with(&manifest(guests));
    for guest in guests {
        std::fs::write(evoke.path(&format!("{}.wat", guest.name)), guest.wat()).unwrap();
    }
    std::fs::write(evoke.path("web.wat"), http_component(web)).unwrap();
    evoke.up();
    evoke
}

/// Sends an event to each guest and to the neighbour, and waits until all have ended. Returns the ids by guest.
fn flood(evoke: &Evoke, guests: &[Hostile]) -> Vec<String> {
    let ids = guests.iter().map(|guest| {
        evoke.post_accepted("/neighbour", "{}");
        evoke.post_accepted(&format!("/{}", guest.name), "{}")
    });
    let ids = ids.collect();
    evoke.settle();
    ids
}

#[test]
fn hostile_handlers_end_in_time_and_leave_nothing_behind() {
    let guests = guests();
    let mut evoke = up(&guests, "");
    let ids = flood(&evoke, &guests);
    for (guest, id) in guests.iter().zip(ids) {
        let trace = evoke.json(&["trace", &id]);
        let attempt: &Value = &trace["deliveries"][0]["attempts"][0];
        let (outcome, part) = guest.expected;
        assert_eq!(attempt["outcome"], outcome, "{}: {attempt}", guest.name);
        let message = attempt["message"].as_str().unwrap_or_default();
        assert!(message.contains(part) && message.len() < 5_000, "{}: {message}", guest.name);
        // The limit is 300 ms; the rest is for a busy machine.
        assert!(attempt["duration_us"].as_u64().unwrap() < 600_000, "{}: {attempt}", guest.name);
    }
    // The first floods fill caches and the pool of instances.
    flood(&evoke, &guests);
    let before = evoke.rss_kib();
    for _ in 0..4 {
        flood(&evoke, &guests);
    }
    assert_eventually!(evoke.rss_kib() <= before + before / 20, "{} KiB, then {} KiB", before, evoke.rss_kib());
    assert_eq!(evoke.done_count("lab/neighbour"), 6 * guests.len() as u64);
    assert!(!evoke.has_ended());
}

#[test]
fn an_http_component_that_fills_the_host_fails_alone_and_its_memory_returns() {
    let fields = r#"(local.set $h (call $fields))
        (call $append (local.get $h) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 100000) (i32.const 8))"#;
    let method = "(drop (call $method (call $request (call $fields)) (i32.const 9) (i32.const 0) (i32.const 2000000)))";
    for (body, expected) in [
        (format!("(loop {fields} (br 0))"), "the limit of 4 MiB"),
        (format!("{fields} (loop (drop (call $clone (local.get $h))) (br 0))"), "the limit of 4 MiB"),
        (format!("(loop {method} (br 0))"), "the limit of 4 MiB"),
        ("(loop (call $body (call $response (call $fields)) (i32.const 8)) (br 0))".into(), "the limit of 4 MiB"),
        ("(loop (drop (call $fields)) (br 0))".into(), "resource table"),
        (
            "(call $write (call $stderr) (i32.const 0) (i32.const 2000000) (i32.const 8))".into(),
            "wrote 2000000 bytes to a stream in one call",
        ),
        (
            "(local.set $h (call $stderr))
             (loop (call $write (local.get $h) (i32.const 0) (i32.const 0) (i32.const 8)) (br 0))"
                .into(),
            "reached its timeout",
        ),
    ] {
        let mut evoke = up(&[], &format!("(memory.fill (i32.const 0) (i32.const 120) (i32.const 2000000)) {body}"));
        let get = || request("GET", evoke.http(), "/web", &[], "").unwrap().status;
        let failed = if expected.contains("timeout") { 504 } else { 502 };
        // Until every thread has run one and the pools have their size.
        for _ in 0..24 {
            assert_eq!(get(), failed, "{expected}");
        }
        assert_eventually!(evoke.stdout(&["logs"]).contains(expected), "{expected}: {}", evoke.stdout(&["logs"]));
        let before = evoke.rss_kib();
        for _ in 0..40 {
            assert_eq!(get(), failed);
        }
        assert_eventually!(evoke.rss_kib() <= before + before / 20, "{} KiB, then {} KiB", before, evoke.rss_kib());
        evoke.post_accepted("/neighbour", "{}");
        evoke.settle();
        assert_eq!(evoke.done_count("lab/neighbour"), 1);
        assert!(!evoke.has_ended());
    }
}

#[test]
fn a_component_that_needs_an_unsupported_proposal_is_refused_by_every_command_and_by_a_reload() {
    // A call through a declared supertype. Without the refusal, wasmtime could end the process at the call.
    let subtype = Hostile {
        fields: "(rec (type $a (sub (func))) (type $b (sub $a (func))))
            (func $x (type $b)) (table $t funcref (elem $x))"
            .into(),
        ..hostile("subtype", format!("(call_indirect $t (type $a) (i32.const 0)) {OK}"), ("", ""))
    };
    let expected = "subtype.wat needs the WebAssembly proposal `gc`, which Evoke does not support";
    let good = "evoke: 1\napp: lab\nfunctions:\n  neighbour:\n    component: $FUNCTIONS/fate-done.wasm\n    \
                on: [{ http: { path: /neighbour, type: lab.neighbour } }]\n";
    let bad =
        format!("{good}  subtype:\n    component: subtype.wat\n    on: [{{ http: {{ path: /in, type: lab.in }} }}]\n");

    let mut evoke = Evoke::with(&bad);
    std::fs::write(evoke.path("subtype.wat"), subtype.wat()).unwrap();
    for command in [&["validate"][..], &["inspect", "subtype.wat"], &["invoke", "subtype", "--event", "{}"]] {
        let output = evoke.run(command);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code().is_some_and(|code| code != 0) && text.contains(expected), "{command:?}: {text}");
    }
    assert!(evoke.try_up(&[], &[]).unwrap_err().code().is_some_and(|code| code != 0));
    assert!(evoke.log().contains(expected), "{}", evoke.log());

    let mut evoke = Evoke::with(good);
    std::fs::write(evoke.path("subtype.wat"), subtype.wat()).unwrap();
    evoke.up_with_arguments(&["--watch"]);
    evoke.write_manifest(&bad);
    assert_eventually!(evoke.log().contains("the previous manifests stay active"), "{}", evoke.log());
    assert!(evoke.log().contains(expected), "{}", evoke.log());
    evoke.post_accepted("/neighbour", "{}");
    evoke.settle();
    assert_eq!(evoke.done_count("lab/neighbour"), 1);
}
