use super::*;
use crate::problem::Problem;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    headers
}

fn read(type_: Option<&str>, pairs: &[(&str, &str)], body: impl Into<Bytes>) -> Result<Vec<Event>, Problem> {
    let headers = headers(pairs);
    let raw = Raw { type_, source: "/shop/checkout", now_ms: 1_769_860_800_000 };
    Ok(Mode::of(&headers, &raw)?.read(&headers, body.into(), &raw)?)
}

fn refusal(type_: Option<&str>, pairs: &[(&str, &str)], body: &'static str) -> (u16, String) {
    let problem = read(type_, pairs, body).unwrap_err();
    (problem.status.as_u16(), problem.detail)
}

#[test]
fn a_structured_event_keeps_its_own_attributes() {
    let body = r#"{"specversion":"1.0","id":"1","source":"/other","type":"t","data":{"n": 1.0}}"#;
    for content_type in [
        "application/cloudevents+json",
        "Application/CloudEvents+JSON; charset=\"UTF-8\"",
        "application/cloudevents+json;charset=utf8",
        "application/cloudevents+json; charset=us-ascii; v=1",
    ] {
        let events = read(None, &[("content-type", content_type)], body).unwrap();
        assert_eq!((events[0].source.as_str(), events[0].id.as_str()), ("/other", "1"));
        assert_eq!(events[0].data.as_bytes(), br#"{"n": 1.0}"#);
        assert_eq!(events[0].time, None);
    }
}

#[test]
fn a_batch_with_one_bad_event_is_refused_as_a_whole() {
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let event = r#"{"specversion":"1.0","id":"1","source":"/a","type":"t"}"#;
    assert_eq!(read(None, &batch, format!("[{event}, {event}]")).unwrap().len(), 2);
    assert_eq!(read(None, &batch, "[]").unwrap().len(), 0);
    let problem = read(None, &batch, format!(r#"[{event}, {{"specversion":"1.0","id":"1"}}]"#)).unwrap_err();
    assert!(problem.status == 400 && problem.detail.starts_with("event 1: `source` is missing"), "{}", problem.detail);
    let problem = read(None, &batch, format!("[{event}{}]", format!(",{event}").repeat(BATCH_MAX))).unwrap_err();
    assert!(problem.status == 413 && problem.detail.contains("at most 1000"), "{}", problem.detail);
    let extensions: String = (0..100).map(|n| format!(r#","a{n}":0"#)).collect();
    let event = event.replace('}', &format!("{extensions}}}"));
    let many = |count: usize| format!("[{event}{}]", format!(",{event}").repeat(count - 1));
    assert_eq!(read(None, &batch, many(100)).unwrap().len(), 100);
    let problem = read(None, &batch, many(101)).unwrap_err();
    assert!(problem.status == 413 && problem.detail.contains("more than 10000 extension"), "{}", problem.detail);
}

#[test]
fn a_binary_event_reads_its_attributes_from_headers() {
    let events = read(
        None,
        &[
            ("ce-specversion", "1.0"),
            ("ce-id", "a%20b"),
            ("ce-source", "/a"),
            ("ce-type", "\"quoted \\\" type\""),
            ("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ("ce-myext", "100%25"),
            ("content-type", "text/plain; charset=utf-8"),
        ],
        "hello",
    )
    .unwrap();
    let event = &events[0];
    assert_eq!((event.id.as_str(), event.type_.as_str()), ("a b", "quoted \" type"));
    assert_eq!(event.subject.as_deref(), Some("Euro € 😀"));
    assert_eq!(event.extensions["myext"], "100%");
    assert_eq!(event.datacontenttype.as_deref(), Some("text/plain; charset=utf-8"));
    assert_eq!(event.data, Data::Text("hello".into()));
}

#[test]
fn a_raw_body_becomes_an_event_of_the_declared_type() {
    let events = read(Some("order.placed"), &[("content-type", "application/json")], r#"{"total": 1}"#).unwrap();
    let event = &events[0];
    assert_eq!((event.source.as_str(), event.type_.as_str()), ("/shop/checkout", "order.placed"));
    assert_eq!(event.time.as_deref(), Some("2026-01-31T12:00:00.000Z"));
    assert_eq!(uuid::Uuid::parse_str(&event.id).unwrap().get_version_num(), 7);
    assert_eq!(event.data, Data::Json(r#"{"total": 1}"#.into()));
    assert!(event.check().is_ok());
}

#[test]
fn a_raw_body_without_a_media_type_is_json_or_bytes() {
    let event = &read(Some("t"), &[], "[1]").unwrap()[0];
    assert_eq!((&event.data, event.datacontenttype.as_deref()), (&Data::Json("[1]".into()), None));
    let event = &read(Some("t"), &[], "a=1&b=2").unwrap()[0];
    assert_eq!(event.data, Data::Binary("a=1&b=2".into()));
    assert_eq!(event.datacontenttype.as_deref(), Some("application/octet-stream"));
    assert_eq!(read(Some("t"), &[], "").unwrap()[0].data, Data::None);
}

#[test]
fn an_idempotency_key_becomes_the_id_of_a_raw_event() {
    for (key, id) in [("order-17", "order-17"), ("\"8e03978e\"", "8e03978e")] {
        assert_eq!(read(Some("t"), &[("idempotency-key", key)], "1").unwrap()[0].id, id);
    }
    for key in ["", "\"\"", "a b", "é", &"x".repeat(257)] {
        let problem = read(Some("t"), &[("idempotency-key", key)], "1").unwrap_err();
        assert!(problem.status == 400 && problem.detail.contains("1 to 256 visible"), "{key}: {}", problem.detail);
    }
}

#[test]
fn the_trace_context_of_a_request_is_copied_to_its_events() {
    let trace = [("traceparent", TRACE), ("tracestate", "a=1")];
    let event = &read(Some("t"), &trace, "1").unwrap()[0];
    assert_eq!((event.extensions["traceparent"].as_str(), event.extensions["tracestate"].as_str()), (TRACE, "a=1"));

    let own = TRACE.replace("-01", "-00");
    let body = format!(r#"{{"specversion":"1.0","id":"1","source":"/a","type":"t","traceparent":"{own}"}}"#);
    let structured = [("content-type", "application/cloudevents+json"), trace[0], trace[1]];
    let event = &read(None, &structured, body).unwrap()[0];
    assert_eq!((event.extensions["traceparent"].as_str(), event.extensions.get("tracestate")), (own.as_str(), None));

    for malformed in ["", "00-1-2-3", &TRACE.to_uppercase(), &TRACE.replacen("00", "ff", 1), &format!("{TRACE}-more")] {
        let event = &read(Some("t"), &[("traceparent", malformed), trace[1]], "1").unwrap()[0];
        assert!(event.extensions.is_empty(), "{malformed}");
    }
}

#[test]
fn a_malformed_trace_context_is_replaced_by_that_of_the_request_and_tracestate_may_span_several_headers() {
    let own = r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","traceparent":"mine","tracestate":"b=2"}"#;
    let structured = ("content-type", "application/cloudevents+json");
    let event = &read(None, &[structured, ("traceparent", TRACE)], own).unwrap()[0];
    assert_eq!((event.extensions["traceparent"].as_str(), event.extensions.get("tracestate")), (TRACE, None));
    let event = &read(None, &[structured], own).unwrap()[0];
    assert_eq!(event.extensions["traceparent"], "mine");
    let lists = [("traceparent", TRACE), ("tracestate", "a=1,b=2"), ("tracestate", "c=3")];
    assert_eq!(read(Some("t"), &lists, "1").unwrap()[0].extensions["tracestate"], "a=1,b=2,c=3");
}

#[test]
fn names_of_headers_ignore_case_and_values_keep_what_is_not_an_escape() {
    let event = |subject| {
        let headers =
            [("CE-SpecVersion", "1.0"), ("Ce-Id", "1"), ("CE-SOURCE", "/a"), ("ce-Type", "t"), ("Ce-MyExt", "X")];
        read(None, &[&headers[..], &[("ce-subject", subject)]].concat(), "").unwrap().remove(0)
    };
    for (subject, expected) in [("50%", "50%"), ("50% off", "50% off"), ("%+1", "%+1"), ("a \"b\" c", "a \"b\" c")] {
        let event = event(subject);
        assert_eq!((event.subject.as_deref(), event.extensions["myext"].as_str()), (Some(expected), "X"));
    }
}

#[test]
fn the_body_of_a_binary_or_raw_event_is_kept_byte_for_byte() {
    let binary = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/a"), ("ce-type", "t")];
    for (content_type, body) in [
        ("application/json", &b" {\"n\": 1e400}\r\n"[..]),
        ("application/json; charset=ISO-8859-1", b"\"caf\xe9\""),
        ("text/plain; charset=windows-1252", b"caf\xe9"),
        ("text/plain", b"\xef\xbb\xbftext\n"),
        ("application/octet-stream", b"\x00\xff"),
    ] {
        let headers = [&binary[..], &[("content-type", content_type)]].concat();
        for events in [read(None, &headers, body), read(Some("t"), &headers[4..], body)] {
            let event = &events.unwrap()[0];
            assert_eq!((event.data.as_bytes(), event.datacontenttype.as_deref()), (body, Some(content_type)));
        }
    }
}

#[test]
fn a_byte_order_mark_before_json_is_skipped_in_every_mode() {
    let event = r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","data":[1]}"#;
    let structured = ("content-type", "application/cloudevents+json");
    let batch = ("content-type", "application/cloudevents-batch+json");
    let json = ("content-type", "application/json");
    let binary = [json, ("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/a"), ("ce-type", "t")];
    for (headers, body) in [
        (&[structured][..], event.to_owned()),
        (&[batch], format!("[{event}]")),
        (&binary, "[1]".to_owned()),
        (&[json], "[1]".to_owned()),
        (&[], "[1]".to_owned()),
    ] {
        let events = read(Some("t"), headers, format!("\u{feff}{body}")).unwrap();
        assert_eq!(events[0].data, Data::Json("[1]".into()), "{headers:?}");
    }
}

#[test]
fn refusals_say_what_would_be_right() {
    let json = ("content-type", "application/json");
    let structured = ("content-type", "application/cloudevents+json");
    let binary = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/a"), ("ce-type", "t")];
    let with = |extra| [&binary[..], &[extra]].concat();
    for (type_, pairs, body, status, reason) in [
        (None, vec![json], "{}", 415, "accepts only CloudEvents"),
        (None, vec![], "", 415, "declares no `type`"),
        (None, vec![("ce-id", "1")], "", 400, "`ce-specversion: 1.0`"),
        (Some("t"), vec![("content-type", "application/cloudevents+xml")], "", 415, "application/cloudevents+json"),
        (Some("t"), vec![("content-type", "application/cloudevents+json; charset=latin1")], "", 415, "UTF-8"),
        (Some("t"), vec![("content-type", "json")], "{}", 400, "such as application/json"),
        (Some("t"), vec![json, json], "{}", 400, "more than once"),
        (Some("t"), vec![json], "{\"a\":\n tru}", 400, "line 2 column 5"),
        (None, vec![structured], "{", 400, "line 1 column 1"),
        (None, vec![structured], r#"{"id":"1","source":"/a","type":"t"}"#, 400, "`specversion` is missing"),
        (None, vec![structured], r#"{"specversion":"0.3","id":"1","source":"/a","type":"t"}"#, 400, "only \"1.0\""),
        (None, vec![structured], r#"{"specversion":"1.0","id":"1","source":"/a"}"#, 400, "`type` is missing"),
        (None, vec![("content-type", "application/cloudevents-batch+json")], "{}", 400, "not a JSON array"),
        (None, binary[..3].to_vec(), "", 400, "`type` is missing"),
        (None, with(("ce-subject", "%FF")), "", 400, "`ce-subject`: it is not UTF-8"),
        (None, with(("ce-subject", "")), "", 400, "`subject` is empty"),
        (None, with(("ce-dataschema", "schema")), "", 400, "`dataschema` is not an absolute URI"),
        (None, with(("ce-time", "2026-01-31T12:00Z")), "", 400, "RFC 3339"),
        (None, with(("ce-", "x")), "", 400, "not an attribute name"),
        (None, with(("ce-data_base64", "AA==")), "", 400, "cannot be an attribute"),
        (None, vec![("ce-specversion", "0.3"), binary[1], binary[2], binary[3]], "", 400, "only \"1.0\""),
        (Some("t"), binary[1..].to_vec(), "", 400, "`specversion` is missing"),
        (
            None,
            vec![("ce-specversion", "1.0"), binary[1], ("ce-source", "/a%20b"), binary[3]],
            "",
            400,
            "`source` is not",
        ),
        (Some("t"), vec![("content-type", "application/cloudevents")], "", 415, "application/cloudevents+json"),
        (Some("t"), vec![("content-type", "application/cloudevents+json; charset=utf-16")], "", 415, "UTF-8"),
        (None, with(("ce-id", "2")), "", 400, "`ce-id` is sent more than once"),
        (None, with(("ce-bad_name", "2")), "", 400, "not an attribute name"),
        (None, with(("ce-data", "2")), "", 400, "cannot be an attribute"),
        (None, with(("ce-time", "now")), "", 400, "RFC 3339"),
        (None, with(("ce-datacontenttype", "text/plain")), "", 400, "Content-Type header"),
        (None, with(json), "{", 400, "not JSON"),
    ] {
        let (got, detail) = refusal(type_, &pairs, body);
        assert!(got == status && detail.contains(reason), "{pairs:?} {body}: {got} {detail}");
    }
}
