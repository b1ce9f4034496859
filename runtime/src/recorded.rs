//! Writes recorded attempts as the text of a test file. Running the tests repeats the attempts.

mod values;

use serde_json::{Map, Value};

use self::values::{Form, bucket, changes_in, count_values, event_value, headers, is_writable};
pub(crate) use self::values::{changes, json_or_text};
use crate::yaml;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use evoke_model::clock::rfc3339;
use evoke_model::recording::{Exchange, ExchangeAnswer, Reads, Recording, RequestError};
use evoke_model::{DeliveryId, Json};

/// The prefixes of the log lines that Evoke itself adds about the HTTP requests of an attempt. A test does not expect
/// these lines: they contain durations, and the test already expects the requests.
pub(crate) const HOST_LINES: [&str; 2] = ["debug http: ", "warn http: "];

/// If a test has more JSON values than this, its JSON is written as text. A whole test file may have 100,000 values.
const VALUES_MAX: usize = 20_000;

type Entries = Vec<(&'static str, Value)>;

/// Returns the name of the test of an attempt.
pub(crate) fn test_name(recording: &Recording) -> String {
    let Recording { delivery_id, attempt, .. } = recording;
    let delivery = DeliveryId::from_guest_id(delivery_id).map_or_else(|| delivery_id.clone(), |id| id.to_string());
    format!("delivery {delivery}, attempt {attempt}")
}

/// Returns the first lines of a test file, up to `tests:`. `manifest` is the path of the manifest, either absolute or
/// relative to the folder of the test file; `None` if the place of the test file is unknown.
pub(crate) fn head(manifest: Option<&str>) -> String {
    let mut text = "# Recorded attempts. In place of the value of a secret NAME, they contain the text \
                    `test-NAME`.\n"
        .to_owned();
    if let Some(manifest) = manifest {
        text += &format!("manifest: {}\n", yaml::flow(&manifest.into()));
    }
    text + "tests:\n"
}

/// Returns the text of a test that repeats the attempt: the function reads the recorded values, and must have the
/// recorded outcome and effects.
pub(crate) fn test(recording: &Recording) -> String {
    let count = |entries: &Entries| entries.iter().map(|(_, value)| count_values(value)).sum::<usize>();
    let entries = Some(entries(recording, Form::Values)).filter(|entries| count(entries) <= VALUES_MAX);
    let entries = entries.unwrap_or_else(|| self::entries(recording, Form::Text));
    let lines = yaml::block(entries.iter().map(|(key, value)| (*key, value)), 4);
    format!("  {}:\n{}\n", test_name(recording), lines.join("\n"))
}

fn entries(recording: &Recording, form: Form) -> Entries {
    let mut entries: Entries = Vec::new();
    let Recording { function, event, attempt, config, reads, .. } = recording;
    let name = function.split_once('/').map_or(function.as_str(), |(_, name)| name);
    entries.push(("function", name.into()));
    entries.push(("event", event_value(event, form)));
    entries.push(("attempt", (*attempt).into()));
    if !config.is_empty() {
        entries
            .push(("config", config.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()));
    }
    let mut recorded = Map::new();
    for (key, reads) in [("state", &reads.state), ("shared_state", &reads.shared_state)] {
        let (values, others) = bucket(reads, form);
        if !values.is_empty() {
            entries.push((key, values.into()));
        }
        if !others.is_empty() {
            recorded.insert(key.to_owned(), others.into());
        }
    }
    let answers: Vec<Value> = reached(reads).map(answer).collect();
    if !answers.is_empty() {
        entries.push(("http", answers.into()));
    }
    add_context(recording, &mut recorded);
    entries.push(("recorded", recorded.into()));
    let expect = expectation(recording, form).into_iter().map(|(key, value)| (key.to_owned(), value));
    entries.push(("expect", expect.collect()));
    entries
}

/// Adds the id and the trigger of the delivery. Also adds the values that the attempt read: times, results of polls,
/// and the seed of its random numbers.
fn add_context(recording: &Recording, recorded: &mut Map<String, Value>) {
    let Recording { delivery_id, trigger, replay, reads, .. } = recording;
    let mut add = |key: &str, value: Value| drop(recorded.insert(key.to_owned(), value));
    add("delivery", delivery_id.as_str().into());
    add("trigger", trigger.as_str().into());
    if *replay {
        add("replay", true.into());
    }
    if !reads.wall_ns.is_empty() {
        add("wall", reads.wall_ns.iter().map(|at_ns| Value::from(nanosecond_time(*at_ns))).collect());
    }
    if !reads.monotonic_ns.is_empty() {
        add("monotonic", reads.monotonic_ns.iter().copied().map(Value::from).collect());
    }
    if !reads.published_ms.is_empty() {
        add("published", reads.published_ms.iter().map(|at_ms| Value::from(rfc3339(*at_ms))).collect());
    }
    if !reads.polls.is_empty() {
        add("polls", reads.polls.iter().cloned().map(Value::from).collect());
    }
    if let Some(seed) = reads.random {
        add("random", evoke_model::hex(&seed.0).into());
    }
}

fn nanosecond_time(at_ns: u64) -> String {
    jiff::Timestamp::from_nanosecond(at_ns.into()).map(|at| format!("{at:.9}")).unwrap_or_default()
}

/// Returns the requests that the manifest allowed. The test needs no answers for the other requests, because Evoke
/// refuses them again.
fn reached(reads: &Reads) -> impl Iterator<Item = &Exchange> {
    let is_refused = |exchange: &&Exchange| match &exchange.answer {
        Some(ExchangeAnswer::Error { kind, .. }) => matches!(kind, RequestError::NotGranted | RequestError::Invalid),
        _ => false,
    };
    reads.http.iter().filter(move |exchange| !is_refused(exchange))
}

fn answer(exchange: &Exchange) -> Value {
    let mut map = Map::new();
    let mut add = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    add("method", exchange.method.as_str().into());
    add("url", exchange.url.as_str().into());
    match &exchange.answer {
        None => add("error", "never".into()),
        Some(ExchangeAnswer::Error { kind, refusal }) => {
            add("error", kind.name().into());
            refusal.iter().for_each(|reason| add("refusal", reason.as_str().into()));
        }
        Some(ExchangeAnswer::Response { status, headers: given, body, parts, error, is_stalled }) => {
            add("status", (*status).into());
            if !given.is_empty() {
                add("headers", headers(given).into());
            }
            match std::str::from_utf8(&body.0) {
                Ok("") => {}
                Ok(text) => add("body", text.into()),
                Err(_) => add("body_base64", BASE64.encode(&body.0).into()),
            }
            if parts.len() > 1 {
                add("body_parts", parts.as_slice().into());
            }
            match error {
                Some(error) => add("body_error", error.name().into()),
                None if *is_stalled => add("body_error", "never".into()),
                None => {}
            }
        }
    }
    map.into()
}

/// Returns the outcome and the effects of the attempt as the expectation of a test. Leaves out the data of published
/// events and the bodies of requests if they cannot be written as values.
fn expectation(recording: &Recording, form: Form) -> Entries {
    let Recording { reads, outcome, message, published, logs, .. } = recording;
    let mut entries: Entries = vec![("outcome", outcome.as_str().into())];
    if let Some(message) = message.as_deref().filter(|message| !message.trim().is_empty()) {
        entries.push(("message", message.into()));
    }
    if outcome == "done" {
        let published = published.iter().filter_map(|json| serde_json::from_str::<Json>(json).ok());
        let published = published.map(|Json(mut event)| {
            if let Some(map) = event.as_object_mut()
                && map.get("data").is_some_and(|data| !is_expectable(data, form))
            {
                map.remove("data");
            }
            event
        });
        entries.push(("published", published.collect()));
    }
    let buckets = [
        ("state", "state_raw", &recording.state, &reads.state),
        ("shared_state", "shared_state_raw", &recording.shared_state, &reads.shared_state),
    ];
    for (key, key_raw, changed, read) in buckets {
        let changed_bytes = changed.iter().map(|(key, value)| (key, value.as_ref().map(|value| &value.0[..])));
        let (values, raw) = changes_in(changed_bytes, form);
        if !changed.is_empty() || !read.is_empty() {
            entries.push((key, values.into()));
        }
        if !raw.is_empty() {
            entries.push((key_raw, raw.into()));
        }
    }
    let is_own = |line: &&String| !HOST_LINES.iter().any(|start| line.starts_with(start));
    let lines: Vec<Value> = logs.iter().filter(is_own).map(|line| line.as_str().into()).collect();
    if !lines.is_empty() {
        entries.push(("logs", lines.into()));
    }
    let requests: Vec<Value> = reached(reads).map(|exchange| request(exchange, form)).collect();
    if !requests.is_empty() {
        entries.push(("http", requests.into()));
    }
    entries
}

/// Returns true if an expectation may contain the value: any scalar, and with [`Form::Values`] also a list or map that
/// can be read back.
fn is_expectable(value: &Value, form: Form) -> bool {
    !(value.is_array() || value.is_object()) || (form == Form::Values && is_writable(value))
}

fn request(exchange: &Exchange, form: Form) -> Value {
    let mut map = Map::new();
    map.insert("method".to_owned(), exchange.method.as_str().into());
    map.insert("url".to_owned(), exchange.url.as_str().into());
    let body = json_or_text(&exchange.body.0);
    if exchange.is_sent && !exchange.body.is_empty() && is_expectable(&body, form) {
        map.insert("body".to_owned(), body);
    }
    map.into()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;
    use evoke_manifest::TestFile;
    use evoke_manifest::test_file::Reply;
    use evoke_model::recording::{BodyEnd, BucketReads, Content, GivenBody, Seed};

    fn content(bytes: &[u8]) -> Option<Content> {
        Some(Content(bytes.to_vec()))
    }

    fn recording() -> Recording {
        let response = ExchangeAnswer::Response {
            status: 201,
            headers: vec![("set-cookie".into(), "a=1".into()), ("set-cookie".into(), "b: 2".into())],
            body: Content(b"\xff\xfe".to_vec()),
            parts: vec![1, 1],
            error: Some(RequestError::Closed),
            is_stalled: false,
        };
        let refused = ExchangeAnswer::Error { kind: RequestError::AddressRefused, refusal: Some("not global".into()) };
        let not_granted = ExchangeAnswer::Error { kind: RequestError::NotGranted, refusal: Some("no".into()) };
        let exchange = |path: &str, answer| Exchange {
            method: "POST".into(),
            url: format!("https://a.example/{path}"),
            body: Content(b"{\"n\":1}".to_vec()),
            is_sent: true,
            answer,
        };
        let values = BTreeMap::from([
            ("json".to_owned(), content(b"{\"a\":[1.50]}")),
            ("text".to_owned(), content(b"plain")),
            ("spaced".to_owned(), content(b"[1, 2]")),
            ("gone".to_owned(), None),
        ]);
        Recording {
            function: "shop/charge".into(),
            delivery_id: "0193-42".into(),
            attempt: 2,
            trigger: "on[1]".into(),
            replay: true,
            event: r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","data":{"n": 1}}"#.into(),
            config: BTreeMap::from([("A".into(), "1".into())]),
            reads: Reads {
                wall_ns: vec![1_769_860_800_000_000_001],
                monotonic_ns: vec![5, u64::MAX],
                published_ms: vec![1_769_860_800_500],
                polls: vec![vec![1], vec![0, 1], Vec::new()],
                random: Some(Seed([7; 32])),
                state: BucketReads { values, keys: BTreeSet::from(["json".into(), "k".into()]), usage: Some((3, 40)) },
                http: vec![
                    exchange("", Some(response)),
                    exchange("x", Some(refused)),
                    exchange("y", Some(not_granted)),
                    exchange("z", None),
                ],
                ..Reads::default()
            },
            outcome: "done".into(),
            published: vec![r#"{"specversion":"1.0","id":"0193-42-0","source":"/shop/charge","type":"p"}"#.into()],
            state: BTreeMap::from([
                ("null".into(), content(b"null")),
                ("gone".into(), None),
                ("n".into(), content(b"8")),
            ]),
            logs: vec!["info ada: pays".into(), "warn http: GET a failed in 3.1 ms".into()],
            ..Recording::default()
        }
    }

    #[test]
    fn deep_long_and_many_values_are_read_back_too() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let key = format!("{{\"{}\":1}}", "k".repeat(2_000));
        let many = format!("[{}1]", "1,".repeat(8_000));
        for data in [&nested(20), &nested(100), &key, &many, &format!("{{\"a\":{}}}", nested(60))] {
            let event =
                |id: &str| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/a","type":"t","data":{data}}}"#);
            let values: BTreeMap<_, _> = (0..20).map(|n| (n.to_string(), content(data.as_bytes()))).collect();
            let state = BucketReads { values: values.clone(), ..BucketReads::default() };
            let exchange = Exchange {
                method: "POST".into(),
                url: "https://a.example/".into(),
                body: Content(data.clone().into_bytes()),
                is_sent: true,
                answer: None,
            };
            let recording = Recording {
                function: "shop/charge".into(),
                delivery_id: "0193-7".into(),
                attempt: 1,
                trigger: "on[1]".into(),
                event: event("1"),
                reads: Reads { state, http: vec![exchange], ..Reads::default() },
                outcome: "done".into(),
                published: vec![event("2")],
                state: values.clone(),
                ..Recording::default()
            };
            let text = head(None) + &test(&recording);
            let file = TestFile::parse(&text, Path::new("a.test.yaml"));
            let file = file.unwrap_or_else(|errors| panic!("{errors}\n{}", text.get(..2_000).unwrap_or(&text)));
            let [test] = file.tests.as_slice() else { panic!("{text}") };
            assert_eq!(test.event.to_json(), recording.event);
            let as_value = test.state.as_ref().and_then(|given| given.value.get("7").map(Value::to_string));
            let as_text = test.recorded.reads.state.values.get("7").cloned().flatten();
            assert_eq!(as_value.map(String::into_bytes).or(as_text.map(|raw| raw.0)).as_deref(), Some(data.as_bytes()));
            let expected = test.expect.published.as_ref().unwrap();
            assert_eq!(expected[0]["id"], "2");
        }
    }

    #[test]
    fn a_test_file_gives_back_what_was_recorded() {
        let recording = recording();
        let text = head(Some("shop.yaml")) + &test(&recording);
        let file = TestFile::parse(&text, Path::new("a.test.yaml")).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        let [test] = file.tests.as_slice() else { panic!("{text}") };
        assert_eq!((&*test.name.value, test.attempt), ("delivery 42, attempt 2", 2));
        assert_eq!(test.event.to_json(), recording.event, "{text}");
        let given = &test.recorded;
        assert_eq!((given.delivery.as_deref(), given.replay), (Some("0193-42"), true));
        let (reads, was) = (&given.reads, &recording.reads);
        assert_eq!(reads.wall_ns, was.wall_ns, "{text}");
        assert_eq!((&reads.monotonic_ns, &reads.published_ms), (&was.monotonic_ns, &was.published_ms));
        assert_eq!((reads.random, reads.state.usage), (was.random, was.state.usage));
        assert_eq!(reads.polls, was.polls);
        assert_eq!(reads.state.keys, BTreeSet::from(["k".into()]));
        assert_eq!(reads.state.values["text"], content(b"plain"));
        assert_eq!(reads.state.values["spaced"], content(b"[1, 2]"));
        assert_eq!(test.state.as_ref().unwrap().value["json"].to_string(), r#"{"a":[1.50]}"#);
        assert_eq!(test.http.len(), 3);
        let Reply::Response { headers, body, .. } = &test.http[0].reply else { panic!("{text}") };
        assert_eq!(headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b: 2"]);
        let end = BodyEnd::Error(RequestError::Closed);
        assert_eq!(*body, GivenBody { bytes: vec![255, 254].into(), parts: vec![1, 1], end });
        assert!(matches!(test.http[1].reply, Reply::Error(RequestError::AddressRefused, Some(_))));
        assert!(matches!(test.http[2].reply, Reply::Never));
        let expect = &test.expect;
        assert_eq!(expect.state.as_ref().unwrap()["gone"], Value::Null);
        assert_eq!(expect.state_raw.as_ref().unwrap()["null"], b"null");
        assert_eq!(expect.logs.as_ref().unwrap(), &["info ada: pays"]);
        assert_eq!(expect.http.as_ref().unwrap().len(), 3);
    }
}
