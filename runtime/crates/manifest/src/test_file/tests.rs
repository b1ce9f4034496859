use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;
use crate::Registry;
use evoke_model::recording::BodyEnd;

fn parse(text: &str) -> Result<TestFile, Diagnostics> {
    TestFile::parse(text, Path::new("folder/shop.test.yaml"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/test-files")
}

fn files(ending: &str) -> BTreeSet<String> {
    let names = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(ending).map(str::to_owned)).collect()
}

#[test]
fn a_test_has_what_an_attempt_reads_and_what_it_must_do() {
    let file = parse(
        "manifest: shop.yaml
function: charge
tests:
  all:
    event: { type: order.placed, data: { total: 1.50, list: [x, null] } }
    attempt: 3
    clock: 2026-01-31T12:00:00+01:00
    config: { CURRENCY: EUR, LIMIT: 10 }
    secrets: { KEY: abc }
    state: { seen: 7 }
    shared_state: {}
    http:
      - { method: POST, url: 'https://api.example/a?b=1', status: 402, body: { id: 1 } }
      - { url: https://api.example/, error: timeout }
      - { url: https://api.example/, headers: { content-type: text/plain }, body: plain }
    expect:
      outcome: reject
      message: no total
      published: [{ type: payment.taken }]
      state: { seen: 8, gone: null }
      logs: [info ada pays]
      http: ['GET https://api.example/', { method: POST, body: { id: 1 } }]
  defaults: {}
",
    )
    .unwrap();
    assert_eq!(file.manifest.as_ref().unwrap().value, Path::new("folder/shop.yaml"));
    let [all, defaults] = file.tests.as_slice() else { panic!("{file:?}") };
    assert_eq!(all.function.as_ref().unwrap().value, "charge");
    assert_eq!(
        all.event.to_json(),
        r#"{"specversion":"1.0","id":"test-1","source":"/test","type":"order.placed","data":{"list":["x",null],"total":1.50}}"#
    );
    assert_eq!((all.attempt, all.clock_ms), (3, Some(1_769_857_200_000)));
    assert_eq!((&*all.config["LIMIT"].value, &*all.secrets["KEY"].value), ("10", "abc"));
    assert_eq!(all.state.as_ref().unwrap().value["seen"].to_string(), "7");
    assert!(all.shared_state.as_ref().unwrap().value.is_empty());
    let Reply::Response { status, headers, body, .. } = &all.http[0].reply else { panic!("{all:?}") };
    assert_eq!((*status, &body.bytes[..]), (402, &br#"{"id":1}"#[..]));
    assert_eq!(headers["content-type"], "application/json");
    assert!(matches!(all.http[1].reply, Reply::Error(RequestError::Timeout, None)));
    let Reply::Response { headers, body, .. } = &all.http[2].reply else { panic!("{all:?}") };
    assert_eq!((headers["content-type"].to_str().unwrap(), &body.bytes[..]), ("text/plain", &b"plain"[..]));
    let expect = &all.expect;
    assert_eq!((expect.outcome.as_deref(), expect.message.as_deref()), (Some("reject"), Some("no total")));
    assert_eq!(expect.state.as_ref().unwrap()["gone"], Value::Null);
    let requests = expect.http.as_ref().unwrap();
    assert_eq!((&requests[0]["method"], &requests[0]["url"]), (&"GET".into(), &"https://api.example/".into()));
    assert_eq!(requests[1]["body"]["id"], 1);

    assert_eq!((defaults.attempt, defaults.clock_ms, &*defaults.event.type_), (1, None, "evoke.test"));
    assert_eq!(defaults.expect, Expect::default());
    assert!(defaults.expect_spans.is_none() && all.expect_spans.is_some());
}

#[test]
fn a_test_of_a_recorded_attempt_gives_each_reading_and_bytes_that_are_no_text() {
    let seed = "0f".repeat(32);
    let file = parse(&format!(
        "tests:
  all:
    event: '{{\"id\":\"1\",\"source\":\"/a\",\"type\":\"t\",\"data\":{{ \"b\": 1,  \"a\": 2 }}}}'
    recorded:
      delivery: s-7
      trigger: on[1]
      replay: true
      wall: [2026-01-31T12:00:00.000000001Z]
      monotonic: [18446744073709551615, 0]
      published: [2026-01-31T12:00:00.5Z]
      random: '{seed}'
      state: {{ raw: {{ a: {{ base64: /wA= }}, empty: '' }}, keys: [a, b], usage: [2, 30] }}
    http:
      - {{ url: 'http://a/', body_base64: /wA=, body_parts: [1], body_error: closed, headers: {{ set-cookie: [a=1, b=2] }} }}
      - {{ url: 'http://a/', error: never }}
      - {{ url: 'http://a/', error: address-refused, refusal: not global }}
      - {{ url: 'http://a/', body: ab, body_error: never }}
    expect: {{ state: {{}}, state_raw: {{ a: '[1, 2]' }} }}
"
    ))
    .unwrap();
    let test = &file.tests[0];
    assert!(test.event.to_json().contains(r#"{ "b": 1,  "a": 2 }"#), "{}", test.event.to_json());
    let Recorded { delivery, trigger, replay, reads } = &test.recorded;
    assert_eq!((delivery.as_deref(), trigger.as_deref(), *replay), (Some("s-7"), Some("on[1]"), true));
    assert_eq!((&reads.wall_ns[..], &reads.monotonic_ns[..]), (&[1_769_860_800_000_000_001][..], &[u64::MAX, 0][..]));
    assert_eq!((&reads.published_ms[..], reads.random.unwrap().0), (&[1_769_860_800_500][..], [15; 32]));
    assert_eq!((reads.state.values.len(), reads.state.keys.len(), reads.state.usage), (2, 2, Some((2, 30))));
    let Reply::Response { headers, body, .. } = &test.http[0].reply else { panic!("{test:?}") };
    let end = BodyEnd::Error(RequestError::Closed);
    assert_eq!(*body, GivenBody { bytes: vec![255, 0].into(), parts: vec![1], end });
    assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
    let Reply::Response { body, .. } = &test.http[3].reply else { panic!("{test:?}") };
    assert_eq!(*body, GivenBody { bytes: "ab".into(), end: BodyEnd::Never, ..GivenBody::default() });
    assert!(matches!(test.http[1].reply, Reply::Never));
    assert!(
        matches!(&test.http[2].reply, Reply::Error(RequestError::AddressRefused, Some(why)) if why == "not global")
    );
    assert_eq!(test.expect.state_raw.as_ref().unwrap()["a"], b"[1, 2]");
}

/// For each `tests/test-files/NAME.test.yaml`, the file `NAME.stderr` has the exact text of the expected diagnostics.
/// With `EVOKE_BLESS=1`, the test writes these files instead.
#[test]
fn every_golden_file_of_tests_has_exactly_the_expected_mistakes() {
    let manifest = crate::load(&folder().join("shop.yaml"), &Registry::default()).unwrap();
    let here = format!("{}/", folder().display());
    let mut failures = Vec::new();
    for name in files(".test.yaml") {
        let file = TestFile::load(&folder().join(format!("{name}.test.yaml")));
        let found = match file.map(|file| file.resolve(&manifest).map(|_| ())) {
            Ok(resolved) => resolved.expect_err(&name),
            Err(found) => found,
        };
        assert!(found.iter().all(|one| one.help.is_some()), "{name}: {found}");
        let (text, golden) = (found.plain().replace(&here, ""), folder().join(format!("{name}.stderr")));
        if std::env::var_os("EVOKE_BLESS").is_some() {
            std::fs::write(&golden, &text).unwrap();
        }
        if std::fs::read_to_string(&golden).unwrap_or_default() != text {
            failures.push(format!("{name}:\n{text}"));
        }
    }
    assert!(failures.is_empty(), "{}\nrun with EVOKE_BLESS=1 to accept the new output", failures.join("\n\n"));
    assert_eq!(files(".stderr"), files(".test.yaml"));
}

#[test]
fn a_manifest_without_components_has_nothing_to_test() {
    let deliver = "{ deliver: { url: 'https://crm.example/' }, on: [{ events: { type: [t] } }] }";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.yaml");
    std::fs::write(&path, format!("evoke: 1\napp: crm\nfunctions: {{ tell: {deliver} }}\n")).unwrap();
    let manifest = crate::load(&path, &Registry::default()).unwrap();
    let found = parse("tests: { a: {} }").unwrap().resolve(&manifest).unwrap_err().plain();
    assert!(found.contains("the manifest has no function with a component"), "{found}");
    assert!(found.contains("only functions with a component can be tested"), "{found}");
}

#[test]
fn the_number_of_tests_and_of_answers_is_bounded() {
    let many = |count: usize, line: &str| {
        (0..count).map(|number| line.replace("{n}", &number.to_string())).collect::<String>()
    };
    let tests = |count| parse(&format!("tests:\n{}", many(count, "  t{n}: {}\n")));
    assert_eq!(tests(TESTS_MAX).unwrap().tests.len(), TESTS_MAX);
    assert!(tests(TESTS_MAX + 1).unwrap_err().plain().contains("the limit is 1000"));
    let answers = |count| parse(&format!("tests:\n  a:\n    http:\n{}", many(count, "      - { url: 'http://a/' }\n")));
    assert_eq!(answers(ANSWERS_MAX).unwrap().tests[0].http.len(), ANSWERS_MAX);
    assert!(answers(ANSWERS_MAX + 1).unwrap_err().plain().contains("the limit is 1000"));
    let large = parse(&format!("tests: {{ a: {{}} }}\n#{}", "x".repeat(1 << 20))).unwrap_err();
    assert!(large.plain().contains("the test file is larger than 1 MiB"));
}
