use super::*;
use crate::source::Accept;
use crate::source::path::PathPattern;
use evoke_manifest::{Template, TypeGlob};
use evoke_model::event::Data;

fn template(text: &str) -> RequestTemplate {
    let name = |name: &str| {
        Ok(match name.split_once('.').unwrap() {
            ("header", name) => RequestValue::Header(name.parse().unwrap()),
            ("query", name) => RequestValue::Query(name.to_owned()),
            ("path", name) => RequestValue::Path(name.to_owned()),
            (_, path) => RequestValue::Data(path.split('.').map(str::to_owned).collect()),
        })
    };
    Template::parse(text, name).unwrap()
}

const HEADERS: [(&str, &[u8]); 7] = [
    ("x-kind", b"push"),
    ("x-empty", b""),
    ("x-twice", b"1"),
    ("x-twice", b"2"),
    ("x-latin", b"caf\xe9"),
    ("x-tab", b"a\tb"),
    ("x-name", "Zo\u{eb} \u{200b}".as_bytes()),
];
const QUERY: &str = "page=2&empty=&twice=1&twice=1&word=caf%C3%A9+x&bad=%FF";
const DATA: &str = r#"{"a":{"b":"x","n":1.50,"t":true,"z":null,"o":{},"l":[1]},"a.b":"dots","half":"\ud800","kind":"old","kind":"new"}"#;

/// Sets one attribute of a raw event; returns its value, or the status of the refusal and its text.
fn apply(key: &str, text: &str, accept: &[&str]) -> Result<String, (u16, String)> {
    let mut source = HttpSource::at("/hooks/{team}");
    match key {
        "type" => source.type_ = Some(template(text)),
        "subject" => source.subject = Some(template(text)),
        "id" => source.id = Some(template(text)),
        name => drop(source.attributes.insert(name.to_owned(), template(text))),
    }
    let types = accept.iter().map(|glob| TypeGlob::parse(glob).unwrap()).collect();
    let policy = ClaimPolicy::new("/shop/hook".into(), None, Accept { types, sources: Vec::new() });
    let mut headers = HeaderMap::new();
    for (name, value) in HEADERS {
        headers.append(name, http::HeaderValue::from_bytes(value).unwrap());
    }
    let parameters = PathPattern::new("/hooks/{team}").capture("/hooks/a%20b").unwrap();
    let values = RequestValues { headers: &headers, query: Query::new(Some(QUERY)), parameters: Some(&parameters) };
    let mut event = Event { data: Data::Json(DATA.into()), ..Event::default() };
    let templates = Templates::of(&source).unwrap();
    match templates.apply(&mut event, true, &values, &policy, None) {
        Ok(()) => Ok(event.attributes().find(|(name, _)| *name == key).unwrap().1.to_owned()),
        Err(problem) => Err((problem.status.as_u16(), problem.detail)),
    }
}

#[test]
fn values_of_a_request_become_attributes() {
    for (key, text, value) in [
        ("type", "github.{header.x-kind}", "github.push"),
        ("type", "x.{query.none|y}", "x.y"),
        ("subject", "{header.x-kind}-{query.page}", "push-2"),
        ("subject", "{query.word}", "café x"),
        ("subject", "{path.team}", "a b"),
        ("subject", "{data.a.b}{data.a.n}{data.a.t}", "x1.50true"),
        ("subject", "{data.kind}", "new"),
        ("subject", "{header.x-name}", "Zoë \u{200b}"),
        // Missing and empty values have the default.
        ("subject", "{header.x-empty|e}{query.empty|e}{data.a.z|z}{data.a.b.c|c}{data.none|n}", "eezcn"),
        ("id", "{header.x-kind}", "push"),
        ("team", "{path.team}", "a b"),
        ("fixed", "yes", "yes"),
    ] {
        assert_eq!(apply(key, text, &[]).as_deref(), Ok(value), "{key}: {text}");
    }
}

#[test]
fn a_value_that_cannot_be_used_refuses_the_request_and_is_named() {
    for (key, text, detail) in [
        (
            "type",
            "a.{header.x-none}",
            "`{header.x-none}` is missing, and the `type` of the event needs it: send the header `x-none`",
        ),
        ("subject", "{header.x-empty}", "`{header.x-empty}` is missing"),
        ("subject", "{query.none}", "add `none=VALUE` to the query"),
        ("subject", "{data.a.none}", "send JSON with the field `a.none`"),
        ("subject", "{data.a.z}", "`{data.a.z}` is missing"),
        ("subject", "{data.a.o}", "is an object or a list"),
        ("subject", "{data.a.l|x}", "is an object or a list"),
        ("subject", "{data.half}", "is not valid text"),
        ("subject", "{header.x-twice}", "more than once"),
        ("subject", "{query.twice|x}", "more than once"),
        ("subject", "{header.x-latin}", "is not UTF-8"),
        ("subject", "{query.bad}", "is not UTF-8"),
        ("subject", "{header.x-tab}", "would contain U+0009"),
        ("subject", "{header.x-none|}", "would be empty"),
        ("type", "a.{path.team}", "visible ASCII"),
        ("type", "a.{query.word}", "visible ASCII"),
        ("type", "a.{header.x-name}", "visible ASCII"),
    ] {
        let (status, got) = apply(key, text, &[]).unwrap_err();
        assert!(status == 400 && got.contains(detail), "{key}: {text}: {status} {got}");
    }
    let long = format!("{}{{header.x-kind}}", "x".repeat(ATTRIBUTE_MAX - 3));
    assert!(apply("subject", &long, &[]).unwrap_err().1.contains("longer than 1024 bytes"));
    let long = format!("{}{{header.x-kind}}", "x".repeat(ID_MAX - 3));
    assert!(apply("id", &long, &[]).unwrap_err().1.contains("longer than 256 bytes"));
}

#[test]
fn a_type_from_a_request_is_neither_of_the_runtime_nor_another_than_the_accepted_ones() {
    for text in ["{query.none|evoke.timer.tick}", "{query.none|Evoke}.{header.x-kind}", "{query.none|%65voke.}x"] {
        assert_eq!(apply("type", text, &[]).unwrap_err().0, 403, "{text}");
        assert_eq!(apply("type", text, &["*"]).unwrap_err().0, 403, "{text}");
    }
    assert_eq!(apply("type", "{header.x-kind}", &["issues.*", "push"]).as_deref(), Ok("push"));
    let (status, detail) = apply("type", "{header.x-kind}", &["issues.*"]).unwrap_err();
    assert!(status == 403 && detail.contains("does not accept the type `push`; it accepts `issues.*`"), "{detail}");
}

#[test]
fn cloudevents_keep_their_type_subject_and_id_and_get_the_attributes() {
    let mut source = HttpSource::at("/hooks");
    source.type_ = Some(template("made.{header.x-kind}"));
    source.id = Some(template("{header.x-kind}"));
    source.subject = Some(template("{header.x-kind}"));
    source.attributes.insert("kind".into(), template("{header.x-kind}"));
    let policy = ClaimPolicy::new("/shop/hook".into(), None, Accept::default());
    let headers = HeaderMap::from_iter([("x-kind".parse().unwrap(), "push".parse().unwrap())]);
    let values = RequestValues { headers: &headers, query: Query::new(None), parameters: None };
    let mut event = Event { id: "1".into(), type_: "t".into(), subject: Some("s".into()), ..Event::default() };
    event.extensions.insert("kind".into(), "claimed".into());
    Templates::of(&source).unwrap().apply(&mut event, false, &values, &policy, Some(0)).unwrap();
    assert_eq!((event.id.as_str(), event.type_.as_str(), event.subject.as_deref()), ("1", "t", Some("s")));
    assert_eq!(event.extensions["kind"], "push");
    let values = RequestValues { headers: &HeaderMap::new(), ..values };
    let refused = Templates::of(&source).unwrap().apply(&mut event, false, &values, &policy, Some(3));
    assert!(refused.unwrap_err().detail.starts_with("event 3: `{header.x-kind}` is missing"));
}

#[test]
fn a_source_without_placeholders_has_no_templates() {
    let fixed = HttpSource { type_: Some("order.placed".into()), ..HttpSource::at("/") };
    assert!(Templates::of(&fixed).is_none());
    assert!(Templates::of(&HttpSource { type_: Some(template("a.{query.b}")), ..fixed }).is_some());
}

#[test]
fn a_copy_of_an_attribute_counts() {
    let event = |state: &str| {
        let json = format!(r#"{{"id":"1","source":"/s","type":"t","tracestate":"{state}","data":[1,2,3]}}"#);
        Event::from_json(json.as_bytes(), |_| {}).unwrap()
    };
    let (short, long) = (memory_of(&event("a=1")), memory_of(&event(&format!("a={}", "1".repeat(501)))));
    assert_eq!(long - short, 500);
    assert!(short > EVENT_BYTES + EXTENSION_BYTES);
}
