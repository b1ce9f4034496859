use super::*;

#[test]
fn each_mistake_in_a_placeholder_has_a_help_text_with_the_right_form() {
    let path = PathPattern::new("/hooks/{team}/{id}");
    for (text, help) in [
        ("a.{heder.x}", "`{header.x}`"),
        ("a.{headers.x-kind}", "`{header.x-kind}`"),
        ("a.{body.kind}", "`{data.kind}`"),
        ("a.{params.team}", "`{path.team}`"),
        ("a.{kind}", "`{header.NAME}`"),
        ("a.{header}", "`{header.NAME}`"),
        ("a.{data}", "`{data.FIELD}`"),
        ("a.{data.}", "`{data.FIELD}`"),
        ("a.{data.a..b}", "separated by dots"),
        ("a.{data.a[0]}", "separated by dots"),
        ("a.{header.x y}", "the name of a header"),
        ("a.{path.tem}", "`{path.team}`"),
        ("a.{path.other}", "`{path.team}`, `{path.id}`"),
        ("a.{header.x", "close it"),
        ("a.b}", "remove it"),
        ("{}", "in the braces"),
    ] {
        let error = type_template(text, Some(&path)).unwrap_err();
        assert!(error.help.contains(help), "{text}: {error:?}");
    }
    let error = type_template("{path.id}", Some(&PathPattern::new("/hooks"))).unwrap_err();
    assert!(error.help.contains("`path: /…/{id}`"), "{error:?}");
    // Without a valid path, every path parameter is accepted.
    assert!(type_template("{path.id}", None).is_ok());
}

#[test]
fn a_type_of_the_runtime_or_with_white_space_is_a_mistake() {
    for text in ["evoke.x", "evoke", "Evoke.{header.x}", "evoke.{header.x}", "a b", "a.{header.x|b c}", "a\u{7}"] {
        assert!(type_template(text, None).is_err(), "{text}");
    }
    for text in ["evoke-{header.x}", "{header.x}", "a.{header.x|b}", "x.evoke.{header.x}"] {
        assert!(type_template(text, None).is_ok(), "{text}");
    }
}

#[test]
fn a_type_that_no_event_can_have_is_a_mistake() {
    assert!(type_template(&"t".repeat(TYPE_BYTES_MAX), None).is_ok());
    let error = type_template(&"t".repeat(TYPE_BYTES_MAX + 1), None).unwrap_err();
    assert!(error.message.contains("has more than 1024 bytes") && error.message.len() < 200, "{error:?}");
}

#[test]
fn a_type_with_a_star_gets_a_warning() {
    let advice = |text: &str| type_advice(&type_template(text, None).unwrap());
    assert_eq!(advice("order.placed"), []);
    assert_eq!(advice("order.{header.x}"), []);
    for text in ["order.*", "*", "{header.x}.*", "order.{header.x|*}"] {
        let found = advice(text);
        assert!(found.len() == 1 && found[0].0.contains("is one type, with the character `*`"), "{text}: {found:?}");
    }
}

#[test]
fn credentials_and_double_braces_get_a_warning() {
    let advice = |text: &str| advice(&parse(text, None).unwrap());
    assert!(advice("{header.Authorization}")[0].0.contains("credentials"));
    assert!(advice("{header.cookie}")[0].0.contains("credentials"));
    assert_eq!(advice("a.{{header.x}}")[0].1, "write `{header.x}` for the value");
    for text in ["{header.x}", "{{x}}", "a{{b", "{query.token}"] {
        assert_eq!(advice(text), [], "{text}");
    }
}

#[test]
fn an_attribute_is_an_extension_that_nothing_else_sets() {
    for (name, help) in [
        ("type", "beside `attributes`"),
        ("source", "`/APP/NAME`"),
        ("time", "Evoke sets it"),
        ("data", "the body"),
        ("traceparent", "header of the request"),
        ("Team-Name", "`teamname`"),
        ("", "lower-case letters"),
    ] {
        let error = attribute_name(name).unwrap_err();
        assert!(error.help.contains(help), "{name}: {error:?}");
    }
    assert_eq!(attribute_name("team2").as_deref(), Ok("team2"));
}
