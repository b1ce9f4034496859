//! The rules of CloudEvents 1.0.2, its JSON format and its HTTP binding, over HTTP and with the functions that receive
//! the events.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Map, Value, json};

use crate::support::{Evoke, TIMEOUT};

const MANIFEST: &str = r#"
evoke: 1
app: lab
sources:
  in:
    http: { path: /in, accept: { types: [lab.in], sources: ["/x*"] } }
  raw:
    http: { path: /raw, type: lab.raw }
functions:
  echo:
    component: $FUNCTIONS/echo.wasm
    on: [{ source: in }, { source: raw }]
    allow: { publish: [echo] }
"#;

/// The name and the value of a header; the value need not be UTF-8.
type Header<'a> = (&'a str, &'a [u8]);

const STRUCTURED: (&str, &str) = ("content-type", "application/cloudevents+json");
const BATCHED: (&str, &str) = ("content-type", "application/cloudevents-batch+json");
const ENVELOPE: [(&str, &str); 3] = [("ce-specversion", "1.0"), ("ce-source", "/x"), ("ce-type", "lab.in")];

/// POSTs a body to `/in` with headers of any bytes. Returns the status and the body of the response.
fn post(evoke: &Evoke, headers: &[(&str, &[u8])], body: &[u8]) -> (u16, String) {
    let mut request = b"POST /in HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n".to_vec();
    for (name, value) in headers {
        request.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
    request.extend(body);
    let mut stream = TcpStream::connect(evoke.http()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(&request).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// POSTs an event in binary mode.
fn post_binary(evoke: &Evoke, id: &str, more: &[Header<'_>], body: &[u8]) -> (u16, String) {
    let mut headers: Vec<Header<'_>> = ENVELOPE.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    headers.push(("ce-id", id.as_bytes()));
    headers.extend(more);
    post(evoke, &headers, body)
}

/// Returns the JSON form of an event with more members.
fn event(id: &str, members: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"/x","type":"lab.in"{members}}}"#)
}

/// Sends an event with one attribute of a string in each mode. Returns the ids and the responses.
fn send(evoke: &Evoke, id: &str, name: &str, value: &str) -> [(String, u16, String); 3] {
    let ids = ["structured", "batched", "binary"].map(|mode| format!("{id}-{mode}"));
    let json = |id: &str| {
        let mut members = Map::new();
        for (key, text) in [("specversion", "1.0"), ("id", id), ("source", "/x"), ("type", "lab.in"), (name, value)] {
            members.insert(key.to_owned(), text.into());
        }
        Value::from(members)
    };
    let encoded: String = value
        .bytes()
        .map(|b| if b.is_ascii_graphic() && !b"%\"".contains(&b) { char::from(b).into() } else { format!("%{b:02X}") })
        .collect();
    let mut headers: Vec<(String, String)> =
        ENVELOPE.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    headers.push(("ce-id".into(), ids[2].clone()));
    headers.retain(|(key, _)| *key != format!("ce-{name}"));
    headers.push(if name == "datacontenttype" {
        ("content-type".into(), value.into())
    } else {
        (format!("ce-{name}"), encoded)
    });
    let headers: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let responses = [
        post(evoke, &[(STRUCTURED.0, STRUCTURED.1.as_bytes())], json(&ids[0]).to_string().as_bytes()),
        post(evoke, &[(BATCHED.0, BATCHED.1.as_bytes())], json!([json(&ids[1])]).to_string().as_bytes()),
        post(evoke, &headers, b""),
    ];
    let mut responses = responses.into_iter();
    ids.map(|id| {
        let (status, body) = responses.next().unwrap();
        (id, status, body)
    })
}

/// The event with this id, as it is stored, and as the function received it.
fn stored_and_echoed(evoke: &Evoke, id: &str) -> (Value, Value) {
    let find = |type_: &str, key: &str| {
        let mut found = evoke.events(type_).into_iter().filter(|event| event[key] == id);
        found.next().unwrap_or_else(|| panic!("no event of type {type_} with {key} {id}"))
    };
    (find("lab.in", "id"), find("echo", "receivedid"))
}

#[test]
fn times_follow_the_grammar_of_rfc_3339_in_every_mode_and_arrive_unchanged() {
    let evoke = Evoke::up_with(MANIFEST);
    let mut sent = Vec::new();
    let valid = [
        "9999-12-31T23:59:59Z",
        "2026-01-31T12:00:00.1234567890Z",
        "2026-01-31t12:00:00z",
        "2026-01-31T12:00:00-00:00",
        "2016-12-31T23:59:60Z",
        "2026-01-31T12:00:00+23:59",
    ];
    for (n, time) in valid.into_iter().enumerate() {
        for (id, status, body) in send(&evoke, &format!("valid-{n}"), "time", time) {
            assert_eq!(status, 202, "{time} {body}");
            sent.push((id, time));
        }
    }
    let invalid = [
        "2026-01-31T12:00Z",
        "2026-01-31T12:00:00+24:00",
        "2026-01-31T12:00:00Z[Europe/Berlin]",
        "20260131T120000Z",
        "2026-01-31 12:00:00Z",
        "2026-01-31T12:00:60Z",
        "2026-02-29T12:00:00Z",
        "2026-01-31T12:00:00",
    ];
    for (n, time) in invalid.into_iter().enumerate() {
        for (_, status, body) in send(&evoke, &format!("invalid-{n}"), "time", time) {
            assert!(status == 400 && body.contains("RFC 3339"), "{time} {status} {body}");
        }
    }
    evoke.settle();
    assert_eq!(evoke.events("lab.in").len(), sent.len());
    for (id, time) in sent {
        let (stored, echoed) = stored_and_echoed(&evoke, &id);
        assert_eq!((&stored["time"], &echoed["receivedtime"]), (&json!(time), &json!(time)));
    }
}

#[test]
fn attributes_that_are_empty_or_have_another_form_are_refused_in_every_mode() {
    let evoke = Evoke::up_with(MANIFEST);
    for (n, (name, value, reason)) in [
        ("id", "", "`id` is missing or empty"),
        ("source", "", "`source` is missing or empty"),
        ("type", "", "`type` is missing or empty"),
        ("specversion", "", "only \\\"1.0\\\" is supported"),
        ("specversion", "0.3", "only \\\"1.0\\\" is supported"),
        ("subject", "", "`subject` is empty"),
        ("time", "", "`time` is empty"),
        ("dataschema", "", "`dataschema` is empty"),
        ("dataschema", "order.json", "`dataschema` is not an absolute URI"),
        ("source", "/x y", "`source` is not a URI reference"),
        ("source", "/x%", "`source` is not a URI reference"),
        ("source", "/xé", "`source` is not a URI reference"),
        ("datacontenttype", "", "edia type"),
        ("datacontenttype", "json", "edia type"),
        ("my_ext", "x", "not an attribute name"),
        ("größe", "x", ""),
        ("data_base64x", "x", "not an attribute name"),
    ]
    .into_iter()
    .enumerate()
    {
        for (id, status, body) in send(&evoke, &format!("refused-{n}"), name, value) {
            // An empty Content-Type is refused before the event is read.
            let reason = if body.contains("`datacontenttype` is empty") { "is empty" } else { reason };
            assert!(status == 400 && body.contains(reason), "{id} {name} {value}: {status} {body}");
        }
    }
    for (members, reason) in [
        (r#","id":"2""#, "`id` occurs more than once"),
        (r#","ext":1.5"#, "not an Integer"),
        (r#","ext":2147483648"#, "not an Integer"),
        (r#","ext":1e3"#, "not an Integer"),
        (r#","time":1769860800"#, "`time` must be a string"),
        (r#","subject":7"#, "`subject` must be a string"),
        (r#","ext":{}"#, "must be a string, an integer or a boolean"),
        (r#","MyExt":"x""#, "not an attribute name"),
        (r#","data":1,"data_base64":"AA==""#, "not both"),
        (r#","data_base64":"AA""#, "not base64"),
    ] {
        let json = event("refused", members);
        for (header, body) in [(STRUCTURED, json.clone()), (BATCHED, format!("[{json}]"))] {
            let (status, body) = post(&evoke, &[(header.0, header.1.as_bytes())], body.as_bytes());
            assert!(status == 400 && body.contains(reason), "{members}: {status} {body}");
        }
    }
    assert!(evoke.json_lines(&["events"]).is_empty());
}

#[test]
fn extensions_reach_functions_with_their_digits() {
    let evoke = Evoke::up_with(MANIFEST);
    let members = r#","a":2147483647,"b":-2147483648,"c":true,"d":"12345678901234567890.10","e":null,"averylongattributename":"""#;
    assert_eq!(post(&evoke, &[(STRUCTURED.0, STRUCTURED.1.as_bytes())], event("1", members).as_bytes()).0, 202);
    let headers: [(&str, &[u8]); 2] = [("CE-A", b"2147483648"), ("ce-c", b"\"quo\\\"ted\"")];
    assert_eq!(post_binary(&evoke, "2", &headers, b"").0, 202);
    evoke.settle();
    for event in <[Value; 2]>::from(stored_and_echoed(&evoke, "1")) {
        assert_eq!((&event["a"], &event["b"]), (&json!("2147483647"), &json!("-2147483648")));
        assert_eq!((&event["c"], &event["d"]), (&json!("true"), &json!("12345678901234567890.10")));
        assert_eq!((event.get("e"), &event["averylongattributename"]), (None, &json!("")));
    }
    for event in <[Value; 2]>::from(stored_and_echoed(&evoke, "2")) {
        assert_eq!((&event["a"], &event["c"]), (&json!("2147483648"), &json!("quo\"ted")));
    }
}

#[test]
fn headers_are_percent_decoded_once_and_a_bare_percent_sign_stays() {
    let evoke = Evoke::up_with(MANIFEST);
    let values: [(&[u8], &str); 7] = [
        (b"50%", "50%"),
        (b"100% %zz %4", "100% %zz %4"),
        (b"%2541", "%41"),
        (b"caf%c3%A9", "café"),
        ("café".as_bytes(), "café"),
        (b"\"a\" or \"b\"", "\"a\" or \"b\""),
        (b"  %20x%20  ", " x "),
    ];
    for (n, (value, _)) in values.iter().enumerate() {
        let (status, body) = post_binary(&evoke, &n.to_string(), &[("ce-subject", *value)], b"");
        assert_eq!(status, 202, "{value:?} {body}");
    }
    for value in [&b"caf\xe9"[..], b"%FF", b"%C0%A0"] {
        let (status, body) = post_binary(&evoke, "refused", &[("ce-subject", value)], b"");
        assert!(status == 400 && body.contains("`ce-subject`: it is not UTF-8"), "{value:?} {status} {body}");
    }
    let refused: [(&[Header<'_>], &str); 4] = [
        (&[("ce-subject", b"a"), ("Ce-Subject", b"a")], "more than once"),
        (&[("ce-datacontenttype", b"text/plain")], "Content-Type header"),
        (&[("ce-data", b"x")], "cannot be an attribute"),
        (&[("ce-", b"x")], "not an attribute name"),
    ];
    for (headers, reason) in refused {
        let (status, body) = post_binary(&evoke, "refused", headers, b"");
        assert!(status == 400 && body.contains(reason), "{status} {body}");
    }
    evoke.settle();
    assert_eq!(evoke.events("lab.in").len(), values.len());
    for (n, (_, subject)) in values.iter().enumerate() {
        let (stored, echoed) = stored_and_echoed(&evoke, &n.to_string());
        assert_eq!((&stored["subject"], &echoed["subject"]), (&json!(subject), &json!(subject)));
    }
}

#[test]
fn bytes_and_texts_of_any_charset_arrive_unchanged() {
    let evoke = Evoke::up_with(MANIFEST);
    // The members of the structured event, and how it is printed.
    let structured = [
        (r#""data_base64":"AP+A""#, "data_base64", json!("AP+A")),
        (r#""datacontenttype":"image/png","data_base64":"AP+A""#, "data_base64", json!("AP+A")),
        (r#""datacontenttype":"text/plain; charset=utf8","data":"é\n""#, "data", json!("é\n")),
        (r#""datacontenttype":"text/plain; charset=utf-16","data":"é""#, "data", json!("é")),
        (r#""data":"\"1\"""#, "data", json!("\"1\"")),
        (r#""data":null"#, "data", Value::Null),
    ];
    for (n, (members, _, _)) in structured.iter().enumerate() {
        let body = format!("\u{feff}{}", event(&format!("s{n}"), &format!(",{members}")));
        let (status, body) =
            post(&evoke, &[("content-type", b"application/cloudevents+json; charset=utf8")], body.as_bytes());
        assert_eq!(status, 202, "{members} {body}");
    }
    // The media type and the body, and how it is printed.
    let binary: [(&[u8], &[u8], &str, Value); 8] = [
        (b"text/plain; charset=us-ascii", "é".as_bytes(), "data", json!("é")),
        (b"text/plain; charset=ISO-8859-1", b"cafe", "data", json!("cafe")),
        (b"text/plain; charset=ISO-8859-1", b"caf\xe9", "data_base64", json!("Y2Fm6Q==")),
        (b"text/plain; charset=ISO-8859-1", "é".as_bytes(), "data_base64", json!("w6k=")),
        (b"text/plain; charset=utf-16le", b"a\x00", "data_base64", json!("YQA=")),
        (b"application/json; charset=iso-8859-1", b"\"\xe9\"", "data_base64", json!("Iuki")),
        (b"application/json;charset=utf8", "\u{feff}\"é\"".as_bytes(), "data", json!("é")),
        (b"application/vnd.lab+json", b" [1]\n", "data", json!([1])),
    ];
    for (n, (media_type, body, _, _)) in binary.iter().enumerate() {
        let (status, body) = post_binary(&evoke, &format!("b{n}"), &[("content-type", *media_type)], body);
        assert_eq!(status, 202, "{media_type:?} {body}");
    }
    let (status, body) = post(&evoke, &[("content-type", b"application/cloudevents+json; charset=latin1")], b"{}");
    assert!(status == 415 && body.contains("UTF-8"), "{status} {body}");
    evoke.settle();
    let structured = structured.iter().enumerate().map(|(n, (_, name, value))| (format!("s{n}"), name, value));
    let binary = binary.iter().enumerate().map(|(n, (_, _, name, value))| (format!("b{n}"), name, value));
    for (id, name, value) in structured.chain(binary) {
        let (stored, echoed) = stored_and_echoed(&evoke, &id);
        assert_eq!((stored.get(name), stored.get(name)), (Some(value), echoed.get(name)), "{id} {stored} {echoed}");
    }
    // A function gets text in UTF-8, and a media type with that charset.
    let (stored, _) = stored_and_echoed(&evoke, "s3");
    assert_eq!(stored["datacontenttype"], "text/plain; charset=utf-8");
    // Data without a media type is JSON; the function receives this media type.
    let (stored, echoed) = stored_and_echoed(&evoke, "s4");
    assert_eq!((stored.get("datacontenttype"), &echoed["datacontenttype"]), (None, &json!("application/json")));
}

/// Data whose numbers change if any program on the way parses and prints them.
const NUMBERS: &str =
    r#"{"z":1.0,"a":1,"big":123456789012345678901234567890,"huge":1e400,"exact":9007199254740993.10,"zero":-0}"#;

#[test]
fn numbers_in_data_keep_their_digits_through_functions_commands_replays_and_prints() {
    let mut evoke = Evoke::with(&format!(
        "{MANIFEST}  cat:\n    component: ./cat.wat\n    on: [{{ source: in }}]\n    allow: {{ publish: [lab.in] }}\n"
    ));
    std::fs::copy(crate::support::root().join("tests/cloudevents/cat.wat"), evoke.path("cat.wat")).unwrap();
    evoke.up();
    let data = format!(r#","data":{NUMBERS}"#);
    let structured = event("s", &data);
    assert_eq!(evoke.post_with("/in", &[STRUCTURED], &structured).status, 202);
    assert_eq!(evoke.post_with("/in", &[BATCHED], &format!("[{}]", event("m", &data))).status, 202);
    assert_eq!(post_binary(&evoke, "b", &[("content-type", b"application/json")], NUMBERS.as_bytes()).0, 202);
    assert_eq!(evoke.post("/raw", NUMBERS).status, 202);
    evoke.stdout(&["emit", "--type", "lab.emitted", "--data", NUMBERS]);
    evoke.settle();
    let count = |evoke: &Evoke, type_: &str| {
        let lines = evoke.stdout(&["events", "--type", type_, "--after", "0", "--json"]);
        assert!(lines.lines().all(|line| line.contains(&data)), "{lines}");
        lines.lines().count()
    };
    // The three events in CloudEvents modes, and what `cat` printed of them.
    assert_eq!((count(&evoke, "lab.in"), count(&evoke, "lab.raw"), count(&evoke, "lab.emitted")), (6, 1, 1));
    assert_eq!(count(&evoke, "echo"), 4);
    // The list for readers and the envelope show the same digits.
    let listed = evoke.stdout(&["events", "--type", "lab.emitted", "--after", "0"]);
    assert!(listed.contains(NUMBERS), "{listed}");
    assert!(evoke.stdout(&["events", "--type", "lab.raw", "--after", "0", "--envelope", "--json"]).contains(&data));
    evoke.stdout(&["replay", "--function", "lab/echo", "--wait"]);
    assert_eq!(count(&evoke, "echo"), 8);
    let invoked = evoke.run(&["invoke", "lab/echo", "--event", &structured, "--json"]);
    let printed = String::from_utf8(invoked.stdout).unwrap();
    assert!(invoked.status.success() && printed.contains(&data) && printed.lines().count() == 1, "{printed}");
}

#[test]
fn a_batch_is_stored_as_a_whole_or_not_at_all() {
    let evoke = Evoke::up_with(MANIFEST);
    let batch = |body: &str| evoke.post_with("/in", &[BATCHED], body);
    let response = batch("[]");
    assert_eq!((response.status, response.json()["accepted"].as_u64()), (202, Some(0)), "{response:?}");
    let good = event("good", "");
    for bad in [
        "1".to_owned(),
        "[]".to_owned(),
        good.replace("1.0", "0.3"),
        event("bad", r#","subject":"""#),
        good.replace("lab.in", "lab.other"),
    ] {
        let response = batch(&format!("[{good},{bad}]"));
        assert!([400, 403].contains(&response.status) && response.body.contains("event 1"), "{bad}: {response:?}");
    }
    assert!(evoke.json_lines(&["events"]).is_empty());
    let response = batch(&format!("[{good},{good},{}]", event("other", "")));
    assert_eq!(response.json()["accepted"], 2, "{response:?}");
    // A request with CloudEvents headers but without `ce-specversion` is not accepted as a raw body.
    let headers = [("ce-id", "1"), ("ce-source", "/x"), ("ce-type", "lab.in")];
    let response = evoke.post_with("/raw", &headers, "1");
    assert!(response.status == 400 && response.body.contains("`specversion` is missing"), "{response:?}");
}

#[test]
fn emit_reads_events_by_the_same_rules() {
    let evoke = Evoke::up_with(MANIFEST);
    let file = |name: &str, text: &str| {
        std::fs::write(evoke.path(name), text).unwrap();
        format!("@{name}")
    };
    let event = r#"{"type":"lab.emitted","time":"9999-12-31T23:59:59Z","n":7,"data_base64":"AP8="}"#;
    evoke.stdout(&["emit", "--event", &file("bom.json", &format!("\u{feff}{event}"))]);
    evoke.stdout(&["emit", "--type", "lab.emitted", "--data", &file("data.json", "\u{feff}[1.0]\n")]);
    let stored = evoke.events("lab.emitted");
    assert_eq!((&stored[0]["n"], &stored[0]["data_base64"]), (&json!("7"), &json!("AP8=")));
    assert_eq!((&stored[0]["time"], &stored[1]["data"]), (&json!("9999-12-31T23:59:59Z"), &json!([1.0])));
    for (event, reason) in [
        (r#"{"type":"lab.emitted","subject":""}"#, "`subject` is empty"),
        (r#"{"type":"lab.emitted","time":"2026-01-31T12:00Z"}"#, "RFC 3339"),
        (r#"{"type":"lab.emitted","n":1.5}"#, "not an Integer"),
        (r#"{"type":"lab.emitted","source":"a b"}"#, "`source` is not a URI reference"),
    ] {
        let output = evoke.run(&["emit", "--event", event]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains(reason), "{event}: {message}");
    }
    assert_eq!(evoke.events("lab.emitted").len(), 2);
}

#[test]
fn every_source_accepts_the_same_depth_of_data() {
    let evoke = Evoke::up_with(
        r#"
evoke: 1
app: lab
sources:
  shared:
    http: { path: /shared, type: lab.in }
functions:
  notify:
    component: $FUNCTIONS/notify.wasm
    on: [{ http: { path: /private, type: lab.in } }]
"#,
    );
    for (depth, status) in [(1, 202), (128, 202), (129, 400), (4_000, 400)] {
        let body = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for path in ["/shared", "/private"] {
            let response = evoke.post(path, &body);
            assert_eq!(response.status, status, "{path}, {depth} levels: {response:?}");
        }
    }
}
