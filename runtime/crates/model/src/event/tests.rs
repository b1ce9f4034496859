use bytes::Bytes;

use super::*;

const MINIMAL: &str = r#"{"specversion":"1.0","id":"1","source":"/a","type":"t"}"#;

/// Returns the JSON form of a minimal event with these additional members.
fn with(members: &str) -> String {
    MINIMAL.replace('}', &format!(",{members}}}"))
}

fn parse(json: &str) -> Result<Event, String> {
    Event::from_complete_json(json.as_bytes()).map_err(|error| error.0)
}

fn parse_with(members: &str) -> Event {
    parse(&with(members)).unwrap_or_else(|error| panic!("{members}: {error}"))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn json_data_is_preserved_byte_for_byte() {
    for data in [
        r#"{"n":1.10, "b":[ ]}"#,
        "1",
        "1.0",
        "-0.0",
        "1E400",
        "123456789012345678901234567890.000000000000000000000000000001",
        "9007199254740993",
        "null",
        r#""\u0041\/\ud83d\ude00""#,
        r#"{"a":1,"a":2}"#,
        r#"{ "z" :1,"a" : 1e5 }"#,
    ] {
        let event = parse_with(&format!(r#""data":{data}"#));
        assert_eq!(event.data, Data::Json(data.into()));
        assert!(event.to_json().ends_with(&format!(r#","data":{data}}}"#)), "{}", event.to_json());
        assert_eq!(parse(&event.to_json()).unwrap(), event);
    }
}

#[test]
fn bytes_of_the_data_are_kept_also_around_json() {
    for json in ["{\"n\":1.0}\n", "\r\n [1 , 2]\t", " 1e400 "] {
        let data = Data::from_bytes(json.into(), Some("application/json")).unwrap();
        assert_eq!(data, Data::Json(json.into()));
        let event = Event { data, ..parse(MINIMAL).unwrap() };
        let again = parse(&event.to_json()).unwrap();
        assert_eq!(again.data.as_bytes(), json.trim().as_bytes());
    }
}

#[test]
fn binary_and_text_data_round_trip_through_the_json_form() {
    for (media_type, data) in [
        ("application/octet-stream", Data::Binary(Bytes::from_static(b"\xff\x00"))),
        ("text/csv", Data::Text("a,b\n1,2\n".into())),
        ("text/csv", Data::Text("\u{feff}a".into())),
        ("text/plain; charset=utf-16le", Data::Binary(Bytes::from_static(b"a\x00"))),
        ("application/json; charset=latin1", Data::Binary(Bytes::from_static(b"\"\xe9\""))),
    ] {
        let event = Event { datacontenttype: Some(media_type.into()), data, ..parse(MINIMAL).unwrap() };
        assert_eq!(parse(&event.to_json()).unwrap(), event);
    }
}

#[test]
fn an_invalid_event_is_rejected_with_the_reason() {
    for (json, reason) in [
        ("[]".to_owned(), "not a JSON object"),
        ("\"text\"".to_owned(), "not a JSON object"),
        (format!("{MINIMAL} {MINIMAL}"), "not a JSON object: trailing characters"),
        (r#"{"id":"1","source":"/a","type":"t"}"#.into(), "`specversion` is missing"),
        (r#"{"specversion":null,"id":"1","source":"/a","type":"t"}"#.into(), "`specversion` is missing"),
        (r#"{"specversion":"","id":"1","source":"/a","type":"t"}"#.into(), "only \"1.0\" is supported"),
        (r#"{"specversion":"0.3","id":"1","source":"/a","type":"t"}"#.into(), "only \"1.0\" is supported"),
        (r#"{"specversion":"1.0.2","id":"1","source":"/a","type":"t"}"#.into(), "only \"1.0\" is supported"),
        (r#"{"specversion":1.0,"id":"1","source":"/a","type":"t"}"#.into(), "`specversion` must be a string"),
        (r#"{"specversion":"1.0","source":"/a","type":"t"}"#.into(), "`id` is missing"),
        (r#"{"specversion":"1.0","id":"1","type":"t"}"#.into(), "`source` is missing"),
        (r#"{"specversion":"1.0","id":"1","source":"/a"}"#.into(), "`type` is missing"),
        (r#"{"specversion":"1.0","id":"","source":"/a","type":"t"}"#.into(), "`id` is missing or empty"),
        (r#"{"specversion":"1.0","id":"1","source":"","type":"t"}"#.into(), "`source` is missing or empty"),
        (r#"{"specversion":"1.0","id":"1","source":"/a","type":""}"#.into(), "`type` is missing or empty"),
        (r#"{"specversion":"1.0","id":25,"source":"/a","type":"t"}"#.into(), "`id` must be a string"),
        (r#"{"specversion":"1.0","id":{},"source":"/a","type":"t"}"#.into(), "`id` must be a string"),
        (r#"{"specversion":"1.0","id":"1","source":"/a","type":true}"#.into(), "`type` must be a string"),
        (r#"{"specversion":"1.0","id":"1","source":"/a b","type":"t"}"#.into(), "`source` is not a URI reference"),
        (with(r#""time":1769860800"#), "`time` must be a string"),
        (with(r#""id":"2""#), "`id` occurs more than once"),
        (with(r#""ext":"1","e\u0078t":"1""#), "`ext` occurs more than once"),
        (with(r#""data":1,"data":1"#), "`data` occurs more than once"),
        (with(r#""subject":"""#), "`subject` is empty"),
        (with(r#""time":"""#), "`time` is empty"),
        (with(r#""datacontenttype":"""#), "`datacontenttype` is empty"),
        (with(r#""dataschema":"""#), "`dataschema` is empty"),
        (with(r#""datacontenttype":"xyz""#), "`datacontenttype` is not a media type: `xyz`"),
        (with(r#""dataschema":"/relative""#), "`dataschema` is not an absolute URI"),
        (with(r#""dataschema":"https://shop.example/a b""#), "`dataschema` is not an absolute URI"),
        (with(r#""Bad":"x""#), "`Bad` is not an attribute name"),
        (with(r#""my.extension":"x""#), "not an attribute name"),
        (with(r#""my_extension":"x""#), "not an attribute name"),
        (with(r#""":"x""#), "not an attribute name"),
        (with(r#""größe":"x""#), "not an attribute name"),
        (with(r#""ext":{}"#), "must be a string"),
        (with(r#""ext":[1]"#), "must be a string"),
        (with(r#""data":1,"data_base64":"AA==""#), "not both"),
        (with(r#""data":null,"data_base64":"AA==""#), "not both"),
        (with(r#""data_base64":"*""#), "not base64"),
        (with(r#""data_base64":"AA""#), "not base64"),
        (with(r#""data_base64":1"#), "not base64"),
        (with(r#""time":"yesterday""#), "`time` is \"yesterday\"; expected RFC 3339"),
        (with(r#""time":"2026-01-31T12:00Z""#), "RFC 3339"),
        (with(r#""time":"2026-01-31\u000a""#), "RFC 3339"),
        (r#"{"specversion":"1.0","id":"a\u0000","source":"/a","type":"t"}"#.into(), "`id` contains U+0000"),
        (r#"{"specversion":"1.0","id":"1","source":"/a\u000d","type":"t"}"#.into(), "`source` contains U+000D"),
        (r#"{"specversion":"1.0","id":"1","source":"/a","type":"t\u001b"}"#.into(), "`type` contains U+001B"),
        (with(r#""subject":"\u007f""#), "`subject` contains U+007F"),
        (with(r#""myext":"\u009f""#), "`myext` contains U+009F"),
        (with(r#""myext":"\ufdd0""#), "`myext` contains U+FDD0"),
        (with(r#""dataschema":"\ud83f\udfff""#), "`dataschema` contains U+1FFFF"),
        (with(r#""subject":"\ud800""#), "attribute `subject` has an incomplete Unicode escape"),
        (with(r#""datacontenttype":"text/plain","data":"\ud800""#), "`data` has an incomplete Unicode escape"),
    ] {
        let error = parse(&json).unwrap_err();
        assert!(error.contains(reason), "{json}: {error}");
    }
}

#[test]
fn a_long_wrong_value_is_repeated_in_part() {
    let time = with(&format!(r#""time":"{}""#, "9".repeat(1_000_000)));
    let string = format!("\"{}\"", "\u{7f}".repeat(1_000_000));
    for json in [time, format!(" {string}"), format!("\u{feff}{string}"), format!("{{\"id\":{string}")] {
        let error = parse(&json).unwrap_err();
        assert!(error.len() < 200, "{error}");
    }
}

#[test]
fn any_other_character_is_valid_in_an_attribute() {
    let json = r#"{"id":"\u00a0 é 😀 \ufffd \ue000","source":"/a","type":"t"}"#;
    assert_eq!(Event::from_json(json.as_bytes(), |_| {}).unwrap().id, "\u{a0} é 😀 \u{fffd} \u{e000}");
}

#[test]
fn attributes_keep_their_text() {
    let event = parse_with(
        r#""subject":"50% \"x\"","time":"9999-12-31t23:59:59.1234567890z","datacontenttype":"application/vnd.a+json; b=c",
           "dataschema":"urn:shop:order#total","anameoftwentyonechars":"","data":[]"#,
    );
    assert_eq!(event.subject.as_deref(), Some("50% \"x\""));
    assert_eq!(event.time.as_deref(), Some("9999-12-31t23:59:59.1234567890z"));
    assert_eq!(event.datacontenttype.as_deref(), Some("application/vnd.a+json; b=c"));
    assert_eq!(event.dataschema.as_deref(), Some("urn:shop:order#total"));
    assert_eq!(event.extensions["anameoftwentyonechars"], "");
    assert_eq!(parse(&event.to_json()).unwrap(), event);
}

#[test]
fn null_means_that_an_attribute_is_absent_but_is_a_value_of_the_data() {
    let event = parse_with(r#""subject":null,"time":null,"datacontenttype":null,"dataschema":null,"ext":null"#);
    assert_eq!(event, parse(MINIMAL).unwrap());
    assert_eq!(parse_with(r#""data_base64":null"#).data, Data::None);
    assert_eq!(parse_with(r#""data":null"#).data, Data::Json("null".into()));
    assert_eq!(parse_with(r#""data":null,"data_base64":null"#).data, Data::Json("null".into()));
}

#[test]
fn an_id_a_source_and_a_type_have_a_limited_length() {
    let event = |id: usize, source: usize, type_: usize| {
        let [id, source, type_] = [id, source, type_].map(|bytes| "x".repeat(bytes));
        parse(&format!(r#"{{"specversion":"1.0","id":"{id}","source":"{source}","type":"{type_}"}}"#))
    };
    assert!(event(ID_BYTES_MAX, SOURCE_BYTES_MAX, TYPE_BYTES_MAX).is_ok());
    for (too_long, reason) in [
        (event(ID_BYTES_MAX + 1, 1, 1), "`id` has 1025 bytes; the limit is 1024 bytes"),
        (event(1_000_000, 1, 1), "`id` has 1000000 bytes; the limit is 1024 bytes"),
        (event(1, SOURCE_BYTES_MAX + 1, 1), "`source` has 2049 bytes; the limit is 2048 bytes"),
        (event(1, 1, TYPE_BYTES_MAX + 1), "`type` has 1025 bytes; the limit is 1024 bytes"),
    ] {
        let error = too_long.unwrap_err();
        assert!(error.starts_with(reason) && error.len() < 200, "{error}");
    }
    // Bytes count, not characters.
    assert!(parse(&MINIMAL.replace(r#""1""#, &format!(r#""{}""#, "é".repeat(600)))).is_err());
    assert_eq!(parse_with(&format!(r#""subject":"{}""#, "s".repeat(100_000))).subject.unwrap().len(), 100_000);
}

#[test]
fn an_event_has_at_most_a_hundred_extension_attributes() {
    let with_extensions = |count: usize| {
        let members: Vec<_> = (0..count).map(|n| format!(r#""a{n}":0"#)).collect();
        parse(&with(&members.join(",")))
    };
    assert_eq!(with_extensions(EXTENSIONS_MAX).unwrap().extensions.len(), EXTENSIONS_MAX);
    for count in [EXTENSIONS_MAX + 1, EXTENSIONS_MAX + 20, 100_000] {
        let error = with_extensions(count).unwrap_err();
        assert!(error.starts_with("the event has more than 100 extension attributes"), "{error}");
    }
    // After the limit, the rest of the text must still be valid JSON.
    let cut = with(&"\"a\":1,".repeat(200));
    assert!(parse(&cut).unwrap_err().starts_with("not a JSON object"));
}

#[test]
fn extensions_are_strings_booleans_and_integers_in_their_canonical_string() {
    for (json, text) in [
        (r#""text""#, "text"),
        (r#""""#, ""),
        (r#""1.50""#, "1.50"),
        ("true", "true"),
        ("false", "false"),
        ("0", "0"),
        ("-0", "-0"),
        ("10", "10"),
        ("2147483647", "2147483647"),
        ("-2147483648", "-2147483648"),
    ] {
        let event = parse_with(&format!(r#""ext":{json}"#));
        assert_eq!(event.extensions["ext"], text, "{json}");
    }
    for json in ["2147483648", "-2147483649", "1.0", "1.5", "1e3", "1E400", "12345678901234567890", "0.0"] {
        let error = parse(&with(&format!(r#""ext":{json}"#))).unwrap_err();
        assert!(error.contains("`ext` is a number but not an Integer"), "{json}: {error}");
    }
}

#[test]
fn base64_data_of_any_bytes_is_accepted_with_and_without_a_media_type() {
    let contents: [&[u8]; 6] = [b"", b"\x00\xff", b"hello", b"{", "é".as_bytes(), &[0x80; 3]];
    for kind in ["", r#""datacontenttype":"application/json","#, r#""datacontenttype":"text/plain","#] {
        for bytes in contents {
            let event = parse_with(&format!(r#"{kind}"data_base64":"{}""#, base64(bytes)));
            assert_eq!(event.data, Data::Binary(Bytes::copy_from_slice(bytes)), "{kind} {bytes:?}");
            assert_eq!(parse(&event.to_json()).unwrap(), event);
        }
    }
    // JSON in base64 becomes JSON data with the same bytes.
    for json in ["{\"n\":1.0}", " [1e400]\n", "null"] {
        let event = parse_with(&format!(r#""data_base64":"{}""#, base64(json.as_bytes())));
        assert_eq!(event.data, Data::Json(json.into()));
    }
}

#[test]
fn data_depends_on_the_media_type() {
    let data =
        |media_type: &str, json: &str| parse_with(&format!(r#""datacontenttype":"{media_type}","data":{json}"#)).data;
    assert_eq!(data("text/plain", r#""a\u0041""#), Data::Text("aA".into()));
    assert_eq!(data("image/svg+xml", r#""<a/>""#), Data::Text("<a/>".into()));
    assert_eq!(data("application/x-unknown", r#""{}""#), Data::Text("{}".into()));
    assert_eq!(data("text/plain", r#"{"a": 1.0}"#), Data::Json(r#"{"a": 1.0}"#.into()));
    // The content of a JSON string is not parsed as JSON.
    for media_type in ["application/json", "text/JSON", "application/vnd.a+json; v=1", "a/json"] {
        assert_eq!(data(media_type, r#""{\"a\":1}""#), Data::Json(r#""{\"a\":1}""#.into()));
    }
    assert_eq!(parse_with(r#""data":"I'm just a string""#).data, Data::Json(r#""I'm just a string""#.into()));
}

#[test]
fn text_of_another_charset_is_kept_as_bytes_or_declared_as_utf_8() {
    for (media_type, bytes, is_text) in [
        ("text/plain", &b"caf\xc3\xa9"[..], true),
        ("text/plain; charset=utf8", b"caf\xc3\xa9", true),
        ("text/plain; charset=US-ASCII", b"caf\xc3\xa9", true),
        ("text/plain", b"caf\xe9", false),
        ("text/plain; charset=us-ascii", b"caf\xe9", false),
        ("text/plain; charset=iso-8859-1", b"cafe", true),
        ("text/plain; charset=iso-8859-1", b"caf\xe9", false),
        ("text/plain; charset=iso-8859-1", b"caf\xc3\xa9", false),
        ("text/plain; charset=\"utf-16\"", b"cafe", false),
        ("application/json; charset=utf8", b"\"caf\xc3\xa9\"", true),
        ("application/json; charset=iso-8859-1", b"\"cafe\"", true),
        ("application/json; charset=iso-8859-1", b"\"caf\xe9\"", false),
        ("application/json; charset=iso-8859-1", b"\"caf\xc3\xa9\"", false),
        ("application/json; charset=utf-16le", b"1\x00", false),
    ] {
        let data = Data::from_bytes(Bytes::copy_from_slice(bytes), Some(media_type)).unwrap();
        assert_eq!(data.as_bytes(), bytes);
        assert_eq!(!matches!(data, Data::Binary(_)), is_text, "{media_type} {bytes:?}");
    }
    assert!(Data::from_bytes("\"caf\u{e9}".into(), Some("application/json; charset=utf8")).is_err());
    assert!(Data::from_bytes("{".into(), Some("application/json; charset=iso-8859-1")).is_err());
    for (declared, data, kept) in [
        ("text/plain; charset=iso-8859-1", "café", "text/plain; charset=utf-8"),
        ("text/plain; charset=iso-8859-1", "cafe", "text/plain; charset=iso-8859-1"),
        ("text/plain; charset=utf-16", "cafe", "text/plain; charset=utf-8"),
        ("text/plain; charset=us-ascii", "café", "text/plain; charset=us-ascii"),
        ("application/json; charset=iso-8859-1", "café", "application/json; charset=iso-8859-1"),
    ] {
        let event = parse_with(&format!(r#""datacontenttype":"{declared}","data":"{data}""#));
        assert_eq!(event.datacontenttype.as_deref(), Some(kept));
        assert_eq!(parse(&event.to_json()).unwrap(), event);
    }
}

#[test]
fn a_byte_order_mark_before_json_is_skipped() {
    let event = parse(&format!("\u{feff}{MINIMAL}")).unwrap();
    assert_eq!(event, parse(MINIMAL).unwrap());
    for media_type in [None, Some("application/json"), Some("a/b+json; charset=utf-8")] {
        assert_eq!(Data::from_bytes("\u{feff}[1]".into(), media_type).unwrap(), Data::Json("[1]".into()));
    }
    assert_eq!(Data::from_bytes("\u{feff}".into(), None).unwrap(), Data::None);
    assert!(parse(&format!("\u{feff}\u{feff}{MINIMAL}")).is_err());
    assert_eq!(Data::from_bytes("\u{feff}a".into(), Some("text/plain")).unwrap(), Data::Text("\u{feff}a".into()));
}

#[test]
fn notbefore_is_a_time_within_366_days() {
    let event = |time: &str| parse_with(&format!(r#""notbefore":"{time}""#));
    assert_eq!(parse(MINIMAL).unwrap().not_before_ms(), None);
    assert_eq!(event("1970-01-01T00:00:02+00:00").not_before_ms(), Some(2_000));
    let error = parse(&MINIMAL.replacen('{', r#"{"notbefore":"tomorrow","#, 1)).unwrap_err();
    assert!(
        error.contains("`notbefore` is \"tomorrow\"; expected the earliest time of delivery in RFC 3339"),
        "{error}"
    );
    assert!(event("1971-01-02T00:00:00Z").check_not_before(0).is_ok());
    assert_eq!(
        event("1971-01-02T00:00:00.001Z").check_not_before(0).unwrap_err().to_string(),
        "`notbefore` is \"1971-01-02T00:00:00.001Z\", which is more than 366 days ahead; the latest time is \
         1971-01-02T00:00:00.000Z"
    );
    // A time in the past is allowed: the event is delivered immediately.
    assert!(event("0000-01-01T00:00:00Z").check_not_before(0).is_ok());
}
