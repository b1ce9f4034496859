use std::collections::BTreeMap;

use super::*;
use crate::outside::Outside;
use evoke_model::clock::Clock;

fn draft(type_: &str, data: &[u8]) -> Draft {
    Draft {
        type_: type_.into(),
        subject: None,
        datacontenttype: None,
        dataschema: None,
        extensions: vec![],
        data: data.to_vec(),
        id: None,
    }
}

/// The values that a publisher borrows.
struct Harness {
    cause: Event,
    allowed: [String; 2],
    clock: Clock,
    published: Mutex<Published>,
    budget: HostBudget,
    redactor: Redactor,
    grant_use: GrantUse,
}

impl Harness {
    fn new() -> Self {
        let cause = br#"{"id":"1","source":"/a","type":"t","traceparent":"00-aa-bb-01","other":"x"}"#;
        let cause = Event::from_json(cause, |_| {}).unwrap();
        let allowed = ["payment.*".into(), "done".into()];
        let (clock, published, budget) = (Clock::system(), Mutex::default(), HostBudget::of_delivery());
        Self { cause, allowed, clock, published, budget, redactor: Redactor::default(), grant_use: GrantUse::default() }
    }

    fn publisher(&self) -> Publisher<'_> {
        let Self { cause, allowed, clock, published, budget, redactor, grant_use } = self;
        let (source, delivery_id, outside) = ("/shop/charge", "s-7", &Outside::Live);
        let origin = Origin { source, delivery_id, cause: Some(cause), clock, outside };
        Publisher { origin, allowed, grant_use, published, budget, redactor }
    }
}

#[test]
fn a_star_matches_any_run_of_characters() {
    for (glob, yes, no) in [
        ("payment.*", "payment.charged", "payments"),
        ("*", "", "\u{0}"),
        ("a*b*c", "a-b-b-c", "a-c-b"),
        ("a*a", "aa", "a"),
        ("exact", "exact", "exactly"),
        ("*.failed", "payment.failed", "payment.failed.x"),
    ] {
        assert!(glob_matches(glob, yes), "{glob} {yes}");
        assert!(glob == "*" || !glob_matches(glob, no), "{glob} {no}");
    }
}

#[test]
fn a_draft_gets_source_id_time_and_the_trace_context_of_its_cause() {
    let harness = Harness::new();
    let publisher = harness.publisher();
    assert_eq!(publisher.publish_draft(draft("done", b"")).unwrap(), "s-7-0");
    assert_eq!(publisher.publish_draft(draft("payment.charged", br#"{"a":1}"#)).unwrap(), "s-7-1");
    let named = Draft { id: Some("mine".into()), ..draft("done", b"") };
    assert_eq!(publisher.publish_draft(named).unwrap(), "mine");
    let event = &publisher.take()[1];
    assert_eq!((event.source.as_str(), event.time.is_some()), ("/shop/charge", true));
    assert_eq!(event.extensions, BTreeMap::from([("traceparent".into(), "00-aa-bb-01".into())]));
    assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
}

#[test]
fn data_without_a_media_type_survives_the_json_form() {
    for (data, kind) in [
        (&b"{\"a\":1}"[..], "application/json"),
        (b"hello", "text/plain; charset=utf-8"),
        (b"\xff\x00", "application/octet-stream"),
    ] {
        let harness = Harness::new();
        let publisher = harness.publisher();
        publisher.publish_draft(draft("done", data)).unwrap();
        let event = &publisher.take()[0];
        assert_eq!(event.datacontenttype.as_deref(), Some(kind));
        assert_eq!(&Event::from_json(event.to_json().as_bytes(), |_| {}).unwrap(), event);
    }
}

#[test]
fn a_refusal_names_its_reason_and_is_recorded() {
    let harness = Harness::new();
    let publisher = harness.publisher();
    let mut refusals = Refusals::default();
    let mut bus = Bus { publisher, refusals: &mut refusals };
    let extended = |name: &str| Draft { extensions: vec![(name.into(), "x".into())], ..draft("done", b"") };
    let bad_json = Draft { datacontenttype: Some("application/json".into()), ..draft("done", b"{") };
    for (draft, reason) in [
        (draft("order.placed", b""), "`allow: { publish: [\"order.placed\"] }`"),
        (draft("", b""), "`type` is missing"),
        (extended("source"), "`source` is not an extension"),
        (extended("Bad-Name"), "not an attribute name"),
        (bad_json, "not valid JSON"),
        (
            Draft { extensions: vec![("x".into(), "1".into()), ("x".into(), "1".into())], ..draft("done", b"") },
            "`x` occurs more than once",
        ),
        (Draft { subject: Some(String::new()), ..draft("done", b"") }, "`subject` is empty"),
        (Draft { datacontenttype: Some(String::new()), ..draft("done", b"") }, "`datacontenttype` is empty"),
        (Draft { dataschema: Some("schema".into()), ..draft("done", b"") }, "`dataschema` is not an absolute URI"),
        (Draft { id: Some("x".repeat(1_025)), ..draft("done", b"") }, "`id` has 1025 bytes; the limit is 1024 bytes"),
        (draft("done", &vec![b'1'; EVENT_SIZE_MAX]), "the limit is"),
    ] {
        let error = bus::Host::publish(&mut bus, draft).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
    assert!(matches!(refusals.cause(), Some(Refusal::Denied(reason)) if reason.contains("order.placed")));
    assert!(publisher.take().is_empty());

    let mut refusals = Refusals::default();
    refusals.record_state(Some(Refusal::Quota("the bucket is full".into())));
    let mut bus = Bus { publisher, refusals: &mut refusals };
    bus::Host::publish(&mut bus, draft("done", b"")).unwrap();
    assert_eq!(refusals.cause(), None, "a guest that publishes has handled the refusal");
}

#[test]
fn an_attempt_publishes_a_bounded_number_of_events_and_bytes() {
    let harness = Harness::new();
    let publisher = harness.publisher();
    for _ in 0..EVENTS_MAX {
        publisher.publish_draft(draft("done", b"")).unwrap();
    }
    assert!(publisher.publish_draft(draft("done", b"")).unwrap_err().contains("1000 events"));
    let harness = Harness::new();
    let publisher = harness.publisher();
    for _ in 0..8 {
        publisher.publish_draft(draft("done", &vec![b'1'; 1_000_000])).unwrap();
    }
    assert!(publisher.publish_draft(draft("done", &vec![b'1'; 1_000_000])).unwrap_err().contains("bytes in total"));
}

#[test]
fn a_json_event_requires_only_a_type_and_keeps_its_other_attributes() {
    let harness = Harness::new();
    let publisher = harness.publisher();
    assert_eq!(publisher.publish_json(br#"{"type":"done"}"#).unwrap(), "s-7-0");
    let line = br#"{"type":"done","id":"mine","source":"/forged","time":"2026-01-31T12:00:00Z","subject":"s",
        "traceparent":"own","data":{"n":1.0}}"#;
    assert_eq!(publisher.publish_json(line).unwrap(), "mine");
    let [first, second] = &publisher.take()[..] else { panic!() };
    assert_eq!((first.source.as_str(), first.time.is_some()), ("/shop/charge", true));
    assert_eq!(first.extensions, BTreeMap::from([("traceparent".into(), "00-aa-bb-01".into())]));
    assert_eq!((second.source.as_str(), second.time.as_deref()), ("/shop/charge", Some("2026-01-31T12:00:00Z")));
    assert_eq!((second.subject.as_deref(), second.extensions["traceparent"].as_str()), (Some("s"), "own"));
    assert_eq!(second.data.as_bytes(), br#"{"n":1.0}"#);
    for (line, reason) in [
        (&br#"{"type":"order.placed"}"#[..], "`allow: { publish: [\"order.placed\"] }`"),
        (br#"{"data":1}"#, "`type` is missing"),
        (b"connecting...", "not a JSON object"),
        (br#"{"type":"done","id":7}"#, "`id` must be a string"),
        (br#"{"type":"done","subject":""}"#, "`subject` is empty"),
        (br#"{"type":"done","time":"2026-01-31 12:00:00Z"}"#, "RFC 3339"),
        (br#"{"type":"done","weight":1.5}"#, "`weight` is a number but not an Integer"),
        (br#"{"type":"done","type":"order.placed"}"#, "`type` occurs more than once"),
    ] {
        let error = publisher.publish_json(line).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn nothing_is_published_after_an_http_response_was_set() {
    let harness = Harness::new();
    let publisher = harness.publisher();
    publisher.publish_draft(draft("done", b"1")).unwrap();
    publisher.close();
    let refusal = publisher.publish_draft(draft("done", b"2")).unwrap_err();
    assert!(refusal.starts_with("cannot publish: the response is already set"), "{refusal}");
    assert_eq!(publisher.take().len(), 1);
}

#[test]
fn the_reason_of_a_refusal_has_no_part_of_a_secret() {
    let secret = "hunter2-hunter2";
    let values = [("KEY".to_owned(), secret.to_owned().into())].into();
    let secrets = super::super::secrets::Secrets::new(values).unwrap();
    let harness = Harness::new();
    let publisher = Publisher { redactor: secrets.redactor(), ..harness.publisher() };
    // A reason shows the first 64 characters of a wrong value.
    for before in [0, 40, 50, 60, 64] {
        let wrong = "x".repeat(before) + secret;
        let draft = Draft { datacontenttype: Some(wrong.clone()), ..draft("done", b"1") };
        let line = format!(r#"{{"type":"done","time":"{wrong}"}}"#);
        for refusal in
            [publisher.publish_draft(draft).unwrap_err(), publisher.publish_json(line.as_bytes()).unwrap_err()]
        {
            assert!(!refusal.contains("hun") && refusal.contains(&"x".repeat(before.min(50))), "{refusal}");
        }
    }
    publisher.publish_draft(draft("done", b"not JSON")).unwrap();
    assert!(publisher.publish_json(br#"{"type":"done","data":nothing}"#).unwrap_err().contains("JSON"));
}
