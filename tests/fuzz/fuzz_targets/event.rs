//! Events of any bytes, in every form they come in: nothing panics, and what is taken survives its own form.
//!
//! Up to an empty line the input is headers, one a line; the rest is the body.
#![no_main]

use bytes::Bytes;
use evoke_fuzz::event::Event;
use evoke_fuzz::http::read;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(event) = Event::from_json(input, |_| {}) {
        survives(&event);
    }
    let end = input.windows(2).position(|two| two == b"\n\n");
    let (head, body) = end.map_or((&[][..], input), |end| (&input[..end], &input[end + 2..]));
    let headers: HeaderMap = head.split(|byte| *byte == b'\n').filter_map(header).collect();
    for type_ in [None, Some("order.placed")] {
        match read(&headers, Bytes::copy_from_slice(body), type_) {
            Ok(events) => events.iter().for_each(survives),
            Err(problem) => {
                assert!(problem.status.is_client_error(), "{problem:?}");
                assert!(!problem.detail.is_empty());
            }
        }
    }
});

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
}

fn survives(event: &Event) {
    assert_eq!(event.check(), Ok(()));
    let json = event.to_json();
    assert!(!json.contains(['\n', '\r']), "more than a line: {json:?}");
    let again = Event::from_json(json.as_bytes(), |_| {}).unwrap_or_else(|error| panic!("{error}: {json}"));
    // Line breaks within JSON data become spaces; everything else is as it was.
    assert_eq!(again.to_json(), json);
    assert_eq!((&again.id, &again.source, &again.type_), (&event.id, &event.source, &event.type_));
    assert_eq!((&again.time, &again.subject, &again.extensions), (&event.time, &event.subject, &event.extensions));
    assert_eq!((&again.datacontenttype, &again.dataschema), (&event.datacontenttype, &event.dataschema));
    assert_eq!(again.size(), event.size());
    let _ = event.view();
}
