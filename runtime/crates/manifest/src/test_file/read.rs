//! Reads a file of tests from its tree.

mod recorded;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Uri};
use serde_json::{Map, Value as Json};

use super::{ANSWERS_MAX, Answer, Expect, Reply, Spanned, TESTS_MAX, Test};
use crate::diagnostics::{ValueError, excerpt};
use crate::names::header_name;
use crate::parser::{Entry, Node, Reader, Resolved, Table, Value, join_with_or, nearest, one_of};
use crate::source_text::Span;
use evoke_model::clock::UnixMs;
use evoke_model::event::Event;
use evoke_model::outcome::Outcome;
use evoke_model::recording::{BodyEnd, GivenBody, RequestError};
use evoke_model::rfc3339::is_date_time;
use evoke_model::state::KEY_BYTES_MAX;

const ATTEMPT_RANGE: RangeInclusive<u32> = 1..=u32::MAX;
const STATUS_RANGE: RangeInclusive<u32> = 200..=999;
const TEST_EXAMPLE: &str = "`{ event: { data: {} }, expect: { outcome: done } }`";

type Read = (Option<Spanned<PathBuf>>, Vec<Test>);

pub(super) fn file(reader: &mut Reader<'_>, root: &Node) -> Option<Read> {
    let example = "`tests:` with the tests by name";
    let mut table = Table::read(reader, root, root.span, "TestFile", "the test file", example)?;
    let manifest = table.optional(reader, "manifest").and_then(|node| text(reader, node, "`manifest`"));
    let function = table.optional(reader, "function").and_then(|node| text(reader, node, "`function`"));
    let example = "`tests:` with a test under its name, such as `takes a payment: { event: { data: {} } }`";
    let node = table.required(reader, "tests", &["test", "cases", "specs"], example);
    table.reject_unknown_keys(reader, |key| match key {
        "event" | "expect" | "given" | "state" | "config" | "clock" => Some("put it under the name of a test"),
        "evoke" | "app" | "functions" | "sources" => Some("this file has tests: write the manifest in another file"),
        _ => None,
    });
    let node = node?;
    let entries = reader.entries(node, "`tests`", TEST_EXAMPLE);
    if matches!(&node.value, Value::Map(entries) if entries.is_empty()) {
        reader.error(node.span, "`tests` is empty", format!("write a test under its name: {TEST_EXAMPLE}"));
    }
    if let Some(entry) = entries.get(TESTS_MAX) {
        let message = format!("the file has {} tests; the limit is {TESTS_MAX}", entries.len());
        reader.error(entry.key_span, message, "split it into several files");
        return None;
    }
    let tests = entries.iter().filter_map(|entry| test(reader, entry, function.as_ref())).collect();
    let folder = reader.source.path.parent().map(PathBuf::from).unwrap_or_default();
    let manifest = manifest.map(|Spanned { value, span }| Spanned { value: folder.join(value), span });
    Some((manifest, tests))
}

fn test(reader: &mut Reader<'_>, entry: &Entry, function_of_file: Option<&Spanned<String>>) -> Option<Test> {
    let what = format!("the test `{}`", excerpt(&entry.key));
    if entry.key.trim().is_empty() {
        reader.error(entry.key_span, "a test has no name", "write what the function does, such as `takes a payment`");
    }
    let mut table = Table::read(reader, &entry.node, entry.key_span, "Test", what, TEST_EXAMPLE)?;
    let function = table.optional(reader, "function").and_then(|node| text(reader, node, "`function`"));
    let event_node = table.optional(reader, "event");
    let event = event(reader, event_node);
    let attempt = table.optional(reader, "attempt");
    let attempt = attempt.and_then(|node| reader.integer(node, "`attempt`", ATTEMPT_RANGE));
    let clock_ms = table.optional(reader, "clock").and_then(|node| reader.parse_text(node, "`clock`", clock));
    let config = table.optional(reader, "config").map(|node| settings(reader, node, "`config`"));
    let secrets = table.optional(reader, "secrets").map(|node| settings(reader, node, "`secrets`"));
    let mut state = |reader: &mut Reader<'_>, key: &'static str| {
        let span = table.key_span(key);
        table.optional(reader, key).map(|node| Spanned { value: values(reader, node, key), span })
    };
    let (state, shared_state) = (state(reader, "state"), state(reader, "shared_state"));
    let http = table.optional(reader, "http").map(|node| answers(reader, node)).unwrap_or_default();
    let recorded_span = table.key_span("recorded");
    let recorded = table.optional(reader, "recorded");
    let recorded = recorded.and_then(|node| recorded::recorded(reader, node, recorded_span));
    let expect_span = table.key_span("expect");
    let expect_node = table.optional(reader, "expect");
    let expect = expect_node.and_then(|node| expect(reader, node, expect_span));
    table.reject_unknown_keys(reader, |key| match key {
        "outcome" | "message" | "published" | "logs" | "then" => Some("put it under `expect`"),
        "given" | "when" => Some("write its keys into the test itself"),
        "data" | "type" | "subject" | "source" | "id" => Some("put it under `event`"),
        "time" | "now" => Some("did you mean `clock`?"),
        "env" | "environment" => Some("did you mean `config`?"),
        "requests" | "responses" | "answers" => Some("did you mean `http`?"),
        _ => None,
    });
    Some(Test {
        name: Spanned { value: entry.key.clone(), span: entry.key_span },
        span: entry.node.span,
        function: function.or_else(|| function_of_file.cloned()),
        event: event?,
        attempt: attempt.unwrap_or(1),
        clock_ms,
        recorded: recorded.unwrap_or_default(),
        config: config.unwrap_or_default(),
        secrets: secrets.unwrap_or_default(),
        state,
        shared_state,
        http,
        expect: expect.unwrap_or_default(),
        expect_spans: expect_node.map(|node| (expect_span, node.span)),
    })
}

fn text(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<Spanned<String>> {
    reader.text(node, what).map(|text| Spanned { value: text.to_owned(), span: node.span })
}

/// Reads an event. All attributes are optional.
fn event(reader: &mut Reader<'_>, node: Option<&Node>) -> Option<Event> {
    let fill = |event: &mut Event| {
        let defaults = [(&mut event.id, "test-1"), (&mut event.source, "/test"), (&mut event.type_, "evoke.test")];
        for (attribute, default) in defaults {
            if attribute.is_empty() {
                default.clone_into(attribute);
            }
        }
    };
    let Some(node) = node else { return Event::from_json(b"{}", fill).ok() };
    let example = "write the attributes of the event, as in `{ type: order.placed, data: { total: 42 } }`";
    let json = match &node.value {
        Value::Map(_) => json(reader, node)?.to_string(),
        // A text that starts with `{` is an event in JSON form. In this form, the bytes of the data stay as written.
        Value::Scalar(scalar) if scalar.text.starts_with('{') => scalar.text.clone(),
        _ => {
            reader.error(node.span, format!("`event` must be a map, found {}", node.describe()), example);
            return None;
        }
    };
    match Event::from_json(json.as_bytes(), fill) {
        Ok(event) => Some(event),
        Err(error) => {
            reader.error(node.span, format!("`event` is not a valid event: {error}"), example);
            None
        }
    }
}

fn json(reader: &mut Reader<'_>, node: &Node) -> Option<Json> {
    node.to_json()
        .map_err(|span| {
            reader.error(
                span,
                "JSON has no infinity and no NaN",
                "write a finite number; if the value is a text, put it in quotes",
            );
        })
        .ok()
}

fn clock(text: &str) -> Result<UnixMs, ValueError> {
    point_in_time(text).map(jiff::Timestamp::as_millisecond)
}

fn point_in_time(text: &str) -> Result<jiff::Timestamp, ValueError> {
    let at = is_date_time(text).then(|| text.parse::<jiff::Timestamp>().ok()).flatten();
    at.filter(|at| at.as_nanosecond() >= 0).ok_or_else(|| {
        let message = format!("`{}` is not a point in time since 1970", excerpt(text));
        ValueError::new(message, "write date, time and offset, as in `2026-01-31T12:00:00Z`")
    })
}

/// Reads strings by name. For a number or a boolean, returns its text as written in the file.
fn settings(reader: &mut Reader<'_>, node: &Node, what: &str) -> BTreeMap<String, Spanned<String>> {
    let mut settings = BTreeMap::new();
    for entry in reader.entries(node, what, "`{ NAME: value }`") {
        match &entry.node.value {
            Value::Scalar(scalar) if scalar.resolve() != Resolved::Null => {
                settings.insert(entry.key.clone(), Spanned { value: scalar.text.clone(), span: entry.key_span });
            }
            _ => {
                let message = format!("`{}` must be a string, found {}", excerpt(&entry.key), entry.node.describe());
                reader.error(entry.node.span, message, "write one string; for an empty string, write `\"\"`");
            }
        }
    }
    settings
}

/// Reads JSON values by the key under which they are stored.
fn values(reader: &mut Reader<'_>, node: &Node, what: &str) -> BTreeMap<String, Json> {
    let mut values = BTreeMap::new();
    for entry in reader.entries(node, &format!("`{what}`"), "`{ KEY: value }`, or `{}` for none") {
        if entry.key.is_empty() || entry.key.len() > KEY_BYTES_MAX {
            let message = format!("a key of `{what}` has {} bytes", entry.key.len());
            reader.error(entry.key_span, message, format!("write a key of 1 to {KEY_BYTES_MAX} bytes"));
        }
        if let Some(value) = json(reader, &entry.node) {
            values.insert(entry.key.clone(), value);
        }
    }
    values
}

fn answers(reader: &mut Reader<'_>, node: &Node) -> Vec<Answer> {
    let items = reader.list(node, "`http`");
    if let Some(item) = items.get(ANSWERS_MAX) {
        let message = format!("`http` has {} answers; the limit is {ANSWERS_MAX}", items.len());
        reader.error(item.span, message, "split the test into several tests");
        return Vec::new();
    }
    items.iter().filter_map(|item| answer(reader, item)).collect()
}

fn answer(reader: &mut Reader<'_>, node: &Node) -> Option<Answer> {
    let example = "`{ url: https://api.example/orders, body: { id: 7 } }`";
    let mut table = Table::read(reader, node, node.span, "HttpAnswer", "an HTTP answer", example)?;
    let method = table.optional(reader, "method").map_or(Some(Method::GET), |node| method(reader, node));
    let url = table.required(reader, "url", &["uri", "path"], "`url: https://HOST/PATH`");
    let url = url.and_then(|node| reader.parse_text(node, "`url`", url_of));
    let status = table.optional(reader, "status");
    let status = status.map_or(Some(200), |node| reader.integer(node, "`status`", STATUS_RANGE));
    let headers_node = table.optional(reader, "headers");
    let mut headers = headers_node.map(|node| headers(reader, node)).unwrap_or_default();
    let body_node = table.optional(reader, "body");
    let body = match body_node {
        Some(node) => json(reader, node)?,
        None => Json::String(String::new()),
    };
    let base64 = table.optional(reader, "body_base64").map(|node| recorded::base64(reader, node));
    if body_node.is_some() {
        table.reject_key(
            reader,
            "body_base64",
            "an answer has `body` or `body_base64`, not both",
            "remove one of them",
        );
    }
    let parts = table.optional(reader, "body_parts").map(|node| recorded::parts(reader, node)).unwrap_or_default();
    let body_error = table.optional(reader, "body_error");
    let body_error = body_error.and_then(|node| reader.parse_text(node, "`body_error`", reply_error));
    let refusal = table.optional(reader, "refusal").and_then(|node| reader.text(node, "`refusal`"));
    let error = table.optional(reader, "error").and_then(|node| reader.parse_text(node, "`error`", reply_error));
    if error.is_some() {
        for key in ["status", "headers", "body", "body_base64", "body_parts", "body_error"] {
            let message = format!("an answer with `error` cannot have `{key}`");
            table.reject_key(reader, key, &message, "remove one of them: after an error, there is no response");
        }
    }
    table.reject_unknown_keys(reader, |key| match key {
        "data" | "json" | "text" | "response" => Some("did you mean `body`?"),
        "code" => Some("did you mean `status`?"),
        "request" => Some("write the request as `method:` and `url:`; write expected requests under `expect`"),
        _ => None,
    });
    let body = match (base64, body) {
        (Some(bytes), _) => bytes?,
        (None, Json::String(text)) => text.into_bytes(),
        (None, value) => {
            let json = HeaderValue::from_static("application/json");
            headers.entry(CONTENT_TYPE).or_insert(json);
            value.to_string().into_bytes()
        }
    };
    let status = u16::try_from(status?).ok()?;
    let reply = match error {
        None => {
            let end = match body_error {
                None => BodyEnd::Complete,
                Some(None) => BodyEnd::Never,
                Some(Some(error)) => BodyEnd::Error(error),
            };
            Reply::Response { status, headers, body: GivenBody { bytes: body.into(), parts, end } }
        }
        Some(None) => Reply::Never,
        Some(Some(error)) => Reply::Error(error, refusal.map(str::to_owned)),
    };
    Some(Answer { method: method?, url: url?, reply })
}

fn method(reader: &mut Reader<'_>, node: &Node) -> Option<Method> {
    reader.parse_text(node, "`method`", |text| {
        let method = Method::from_bytes(text.as_bytes()).ok();
        method.filter(|_| text.chars().all(|char| char.is_ascii_uppercase())).ok_or_else(|| {
            let message = format!("`{}` is not an HTTP method", excerpt(text));
            ValueError::new(message, "write it in upper case, as in `POST`")
        })
    })
}

fn url_of(text: &str) -> Result<Uri, ValueError> {
    let url: Option<Uri> = text.parse().ok();
    url.filter(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()).ok_or_else(|| {
        let message = format!("`{}` is not the URL of a request", excerpt(text));
        ValueError::new(message, "write the whole URL, as in `https://api.example/orders?page=1`")
    })
}

/// Parses the error of a request. Returns `None` for `never`, which means that the request does not end.
fn reply_error(text: &str) -> Result<Option<RequestError>, ValueError> {
    if text == "never" {
        return Ok(None);
    }
    one_of(text, "an error of a request", RequestError::ALL).map(Some)
}

fn headers(reader: &mut Reader<'_>, node: &Node) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for entry in reader.entries(node, "`headers`", "`{ NAME: value }`") {
        let key = &entry.key;
        let name = reader.ok_or_report(entry.key_span, header_name(key));
        // In a test file, a header that occurs several times has a list of values.
        let values = match &entry.node.value {
            Value::List(items) => items.iter().map(|item| &**item).collect(),
            _ => vec![&*entry.node],
        };
        for node in values {
            let value = match &node.value {
                Value::Scalar(scalar) if scalar.resolve() != Resolved::Null => Some(&scalar.text),
                _ => {
                    let message = format!("`{}` must be a string, found {}", excerpt(key), node.describe());
                    reader.error(node.span, message, "write one string; for an empty string, write `\"\"`");
                    None
                }
            };
            let value = value.and_then(|value| {
                let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
                    let message = format!("the value of the header `{}` cannot be sent", excerpt(key));
                    ValueError::new(message, "remove line breaks and other control characters")
                });
                reader.ok_or_report(entry.key_span, value)
            });
            if let (Some(name), Some(value)) = (name.clone(), value) {
                headers.append(name, value);
            }
        }
    }
    headers
}

fn expect(reader: &mut Reader<'_>, node: &Node, span: Span) -> Option<Expect> {
    let example = "`{ outcome: done, published: [] }`";
    let mut table = Table::read(reader, node, span, "Expect", "`expect`", example)?;
    let outcome = table.optional(reader, "outcome").and_then(|node| reader.parse_text(node, "`outcome`", outcome));
    let message = table.optional(reader, "message").and_then(|node| reader.text(node, "`message`"));
    let published = table.optional(reader, "published");
    let published = published.map(|node| maps(reader, node, "`published`", "`{ type: payment.taken }`", None));
    let mut state =
        |reader: &mut Reader<'_>, key: &'static str| table.optional(reader, key).map(|node| values(reader, node, key));
    let (state, shared_state) = (state(reader, "state"), state(reader, "shared_state"));
    let mut raw = |reader: &mut Reader<'_>, key: &'static str| {
        table.optional(reader, key).map(|node| recorded::raw(reader, node, &format!("`{key}`")))
    };
    let (state_raw, shared_state_raw) = (raw(reader, "state_raw"), raw(reader, "shared_state_raw"));
    let logs = table.optional(reader, "logs").map(|node| {
        let items = reader.list(node, "`logs`");
        items.iter().filter_map(|item| reader.parse_text(item, "a log line", log_line)).collect()
    });
    let http = table.optional(reader, "http");
    let http = http.map(|node| maps(reader, node, "`http`", "`POST https://HOST/PATH`", Some(call)));
    table.reject_unknown_keys(reader, |key| match key {
        "publish" | "events" => Some("did you mean `published`?"),
        "log" => Some("did you mean `logs`?"),
        "requests" | "calls" => Some("did you mean `http`?"),
        "error" | "reason" => Some("did you mean `message`?"),
        "result" | "status" => Some("did you mean `outcome`?"),
        _ => None,
    });
    let message = message.map(str::to_owned);
    Some(Expect { outcome, message, published, state, shared_state, state_raw, shared_state_raw, logs, http })
}

fn outcome(text: &str) -> Result<String, ValueError> {
    if Outcome::KINDS.contains(&text) {
        return Ok(text.to_owned());
    }
    let help = match nearest(text, Outcome::KINDS) {
        Some(similar) => format!("write `{similar}`"),
        None => format!("write {}", join_with_or(Outcome::KINDS)),
    };
    Err(ValueError::new(format!("`{}` is not an outcome", excerpt(text)), help))
}

fn log_line(text: &str) -> Result<String, ValueError> {
    const LEVELS: [&str; 5] = ["trace", "debug", "info", "warn", "error"];
    match text.split_once(' ') {
        Some((level, _)) if LEVELS.contains(&level) => Ok(text.to_owned()),
        _ => {
            let message = format!("the log line `{}` does not start with a level", excerpt(text));
            Err(ValueError::new(message, "write level and text, as in `info ada pays 42`"))
        }
    }
}

/// Converts the short form `METHOD URL` to a map with the keys `method` and `url`.
fn call(text: &str) -> Result<Map<String, Json>, ValueError> {
    match text.split_once(' ') {
        Some((method, url)) if url.parse::<Uri>().is_ok() => Ok([("method", method), ("url", url)]
            .map(|(key, text)| (key.to_owned(), text.into()))
            .into_iter()
            .collect()),
        _ => {
            let message = format!("`{}` is not a request", excerpt(text));
            Err(ValueError::new(message, "write method and URL, as in `POST https://api.example/orders`"))
        }
    }
}

/// Parses a text that stands for a map, such as `METHOD URL`.
type ParseShort = fn(&str) -> Result<Map<String, Json>, ValueError>;

/// Reads a list of maps. `short` parses a text that stands for a map; if it is `None`, every entry must be a map.
fn maps(
    reader: &mut Reader<'_>,
    node: &Node,
    what: &str,
    example: &str,
    short: Option<ParseShort>,
) -> Vec<Map<String, Json>> {
    let mut found = Vec::new();
    for item in reader.list(node, what) {
        match (&item.value, short) {
            (Value::Map(_), _) => {
                if let Some(Json::Object(map)) = json(reader, item) {
                    found.push(map);
                }
            }
            (_, Some(short)) => found.extend(reader.parse_text(item, &format!("an entry of {what}"), short)),
            (_, None) => {
                let message = format!("an entry of {what} must be a map, found {}", item.describe());
                reader.error(item.span, message, format!("write {example}"));
            }
        }
    }
    found
}
