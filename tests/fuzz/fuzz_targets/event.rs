//! Reads events from arbitrary bytes in every accepted form. No input panics, and every accepted event survives a round
//! trip through its JSON form.
//!
//! The input is a list of headers, one on each line, up to an empty line; the rest is the body.
#![no_main]

use bytes::Bytes;
use evoke_http::source::cloudevents::{Mode, Raw, ReadError};
use evoke_model::event::Event;
use evoke_pattern::EventView;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(event) = Event::from_json(input, |_| {}) {
        assert_round_trip(&event);
    }
    let end = input.windows(2).position(|two| two == b"\n\n");
    let (head, body) = end.map_or((&[][..], input), |end| (&input[..end], &input[end + 2..]));
    let headers: HeaderMap = head.split(|byte| *byte == b'\n').filter_map(header).collect();
    for type_ in [None, Some("order.placed")] {
        match read(&headers, Bytes::copy_from_slice(body), type_) {
            Ok(events) => events.iter().for_each(assert_round_trip),
            Err(error) => assert!(!error.to_string().is_empty(), "{error:?}"),
        }
    }
});

/// Reads the events of a request as the http source does. A raw body is accepted only if `type_` is given.
fn read(headers: &HeaderMap, body: Bytes, type_: Option<&str>) -> Result<Vec<Event>, ReadError> {
    let raw = Raw { type_, source: "/fuzz/in", now_ms: 1_700_000_000_000 };
    Mode::of(headers, &raw)?.read(headers, body, &raw)
}

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
}

fn assert_round_trip(event: &Event) {
    assert_eq!(event.check(), Ok(()));
    let json = event.to_json();
    assert!(!json.contains(['\n', '\r']), "more than one line: {json:?}");
    let again = Event::from_json(json.as_bytes(), |_| {}).unwrap_or_else(|error| panic!("{error}: {json}"));
    // Line breaks within JSON data become spaces, and white space around it is dropped; everything else is unchanged.
    assert_eq!(again.to_json(), json);
    assert_eq!((&again.id, &again.source, &again.type_), (&event.id, &event.source, &event.type_));
    assert_eq!((&again.time, &again.subject, &again.extensions), (&event.time, &event.subject, &event.extensions));
    assert_eq!((&again.datacontenttype, &again.dataschema), (&event.datacontenttype, &event.dataschema));
    assert!(again.size() <= event.size());
    let _ = EventView::from(event);
}
