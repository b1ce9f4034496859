use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::*;
use evoke_model::hex;

const KEY: &str = "[secret KEY]";

fn secrets(pairs: &[(&str, &str)]) -> Secrets {
    Secrets::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned().into())).collect()).unwrap()
}

/// Redacts a text with one secret, `KEY`.
fn redact(value: &str, text: &str) -> String {
    let secrets = secrets(&[("KEY", value)]);
    let redacted = secrets.redactor().redact_text(text).into_owned();
    assert_eq!(secrets.redactor().redact(text.as_bytes()), redacted.as_bytes());
    redacted
}

#[test]
fn every_occurrence_is_replaced_and_other_text_stays() {
    assert_eq!(redact("hunter2", "a hunter2, ähunter2ü hunter"), "a [secret KEY], ä[secret KEY]ü hunter");
    assert_eq!(redact("hunter2", "hunter2hunter2"), KEY);
    assert_eq!(redact("größe-ß", "a größe-ß b"), "a [secret KEY] b");
    assert_eq!(redact(" hunter2\n", "a hunter2 b"), "a [secret KEY] b");
    assert_eq!(redact("abab", "ababab"), KEY);
}

#[test]
fn a_value_in_the_name_of_a_host_is_replaced_also_in_lower_case() {
    assert_eq!(redact("Hunter-TWO", "https://a.hunter-two.example"), "https://a.[secret KEY].example");
    // The lower case of a shorter value is not replaced, because it occurs in other words too often.
    assert_eq!(redact("Hunter2", "a hunter2"), "a hunter2");
}

#[test]
fn of_a_text_without_its_end_no_part_of_a_value_is_left() {
    let secrets = secrets(&[("KEY", "hunter2-hunter2"), ("LONGER", "hunter2-hunter2/größe")]);
    let rest = "-".repeat(secrets.redactor().lookahead());
    for value in ["hunter2-hunter2", "hunter2-hunter2/größe"] {
        for (before, between) in [("bad token: ", ""), ("", "hunter2-hunter2"), ("ü", "x"), ("hunter2-hunter2", " ")] {
            let text = format!("{before}{between}{value} {rest} {value}");
            for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
                let shown = secrets.redact_unfinished(&text[..end]);
                assert!(!shown.contains("hunt"), "{text:?} {end}: {shown}");
            }
            let shown = secrets.redact_unfinished(&format!("{before}{between}{value} {rest}"));
            assert!(shown.starts_with(&secrets.redact(&format!("{before}{between}{value}"))), "{shown}");
        }
    }
    assert_eq!(Secrets::default().redact_unfinished("text"), "text");
}

#[test]
fn without_secrets_the_text_is_not_copied() {
    let redactor = Redactor::default();
    assert!(!redactor.is_active());
    assert!(matches!(redactor.redact_text("text"), std::borrow::Cow::Borrowed("text")));
    assert_eq!(redactor.redact_start("text", 2), ("text".into(), ""));
    assert!(matches!(secrets(&[("KEY", "x")]).redactor().redact(b"x"), std::borrow::Cow::Borrowed(b"x")));
}

#[test]
fn a_value_of_four_bytes_is_replaced_and_a_shorter_one_is_not() {
    assert_eq!(redact("abcd", "xabcdx"), "x[secret KEY]x");
    for short in ["abc", "", "  a  "] {
        assert_eq!(redact(short, "xabcx a"), "xabcx a");
        assert!(!Secret::from(short.to_owned()).is_redacted());
    }
    assert!(Secret::from("abcd".to_owned()).is_redacted());
}

#[test]
fn of_values_that_contain_each_other_or_overlap_nothing_is_left() {
    let secrets = secrets(&[("A", "token-1"), ("B", "token-1-extended"), ("C", "nded-more")]);
    let redact = |text: &str| secrets.redactor().redact_text(text).into_owned();
    assert_eq!(redact("token-1"), "[secret A]");
    assert_eq!(redact("token-1-extended"), "[secret B]");
    assert_eq!(redact("token-1-extended-more!"), "[secret B]!");
    assert_eq!(redact("token-1token-1-extended"), "[secret B]");
    assert_eq!(redact("token-1-extendet"), "[secret A]-extendet");
}

#[test]
fn encoded_values_are_replaced() {
    let value = "p\"ä/ss\\w<o>rd\n&'+ \u{1b}é😀%?=~";
    let encoded = [
        STANDARD.encode(value),
        URL_SAFE_NO_PAD.encode(value),
        hex(value.as_bytes()),
        hex(value.as_bytes()).to_uppercase(),
        "p%22%C3%A4%2Fss%5Cw%3Co%3Erd%0A%26%27%2B%20%1B%C3%A9%F0%9F%98%80%25%3F%3D~".to_owned(),
        "p%22%c3%a4%2fss%5cw%3co%3erd%0a%26%27%2b%20%1b%c3%a9%f0%9f%98%80%25%3f%3d~".to_owned(),
        "p%22%C3%A4%2Fss%5Cw%3Co%3Erd%0A%26'%2B%20%1B%C3%A9%F0%9F%98%80%25%3F%3D~".to_owned(),
        "p%22%C3%A4%2Fss%5Cw%3Co%3Erd%0A%26%27%2B+%1B%C3%A9%F0%9F%98%80%25%3F%3D%7E".to_owned(),
        serde_json::to_string(value).unwrap(),
        r#"p\"\u00e4\/ss\\w<o>rd\n&'+ \u001b\u00e9\ud83d\ude00%?=~"#.to_owned(),
        r#"p\"\u00E4/ss\\w\u003Co\u003Erd\u000A\u0026\u0027+ \u001B\u00E9\uD83D\uDE00%?=~"#.to_owned(),
        format!("{value:?}"),
        format!("{:?}", value.as_bytes()),
        serde_json::to_string(value.as_bytes()).unwrap(),
        value.escape_default().to_string(),
        value.as_bytes().escape_ascii().to_string(),
        value
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&quot;")
            .replace('\'', "&#39;"),
    ];
    for text in encoded {
        let redacted = redact(value, &text);
        // Only quotes and brackets around the value, or the last character of base64 with its padding, may be left.
        let left = redacted.replace(KEY, "");
        assert!(redacted.contains(KEY) && left.len() <= 3, "{text}: {redacted}");
    }
}

#[test]
fn base64_is_replaced_behind_any_text_before_the_value() {
    let value = "sk-live-0123456789";
    for before in ["", "u", "us", "use", "user:", "Bearer: "] {
        for after in ["", "x", "xy", "xyz"] {
            let text = STANDARD.encode(format!("{before}{value}{after}"));
            let redacted = redact(value, &text);
            assert!(redacted.contains(KEY), "{before} {after}: {redacted}");
            // The remaining characters encode no more of the value than a part of its first and last byte.
            let left = redacted.replace(KEY, "").trim_end_matches('=').len();
            let around = (4 * before.len()).div_ceil(3) + (4 * after.len()).div_ceil(3) + 2;
            assert!(left <= around, "{before} {after}: {redacted}");
        }
    }
}

#[test]
fn lines_of_a_value_and_strings_in_a_json_value_are_replaced_on_their_own() {
    let pem = "-----BEGIN KEY-----\r\nMIIEvQIBADANBgkqhki\r\nshort\r\n-----END KEY-----";
    assert_eq!(redact(pem, "MIIEvQIBADANBgkqhki"), KEY);
    assert_eq!(redact(pem, "-----BEGIN KEY----- short"), "-----BEGIN KEY----- short");
    assert_eq!(redact(pem, pem), KEY);
    assert_eq!(redact(pem, &format!("{:?}", pem)), "\"[secret KEY]\"");
    let json = r#"{"type": "account", "keys": [{"private_key": "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhki\n-----END KEY-----\n"}]}"#;
    assert_eq!(redact(json, "MIIEvQIBADANBgkqhki account"), "[secret KEY] account");
    assert_eq!(redact(json, "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhki\n-----END KEY-----\n"), "[secret KEY]\n");
    assert_eq!(redact(json, json), KEY);
}

#[test]
fn a_start_is_cut_after_its_values_are_replaced() {
    let secrets = secrets(&[("KEY", "hunter2")]);
    let start = |text: &'static str, max| {
        let (start, rest) = secrets.redactor().redact_start(text, max);
        (start.into_owned(), rest)
    };
    assert_eq!(start("ab hunter2 cd", 100), ("ab [secret KEY] cd".to_owned(), ""));
    assert_eq!(start("ab hunter2 cd", 5), ("ab [secret KEY]".to_owned(), " cd"));
    assert_eq!(start("ab hunter2 cd", 2), ("ab".to_owned(), " hunter2 cd"));
    assert_eq!(start("äöü", 3), ("ä".to_owned(), "öü"));
}

#[test]
fn the_name_in_a_replacement_is_short_and_without_control_characters() {
    let name = format!("A\n\u{1b}{}", "x".repeat(1_000));
    let secrets = secrets(&[(&name, "hunter2")]);
    let text = secrets.redactor().redact_text("hunter2").into_owned();
    assert!(text.len() < 100 && !text.contains(char::is_control), "{text:?}");
}

#[test]
fn large_values_are_replaced_without_their_encodings_and_larger_ones_are_refused() {
    let large: String = (0..100_000).map(|n| format!("{n:08} ")).collect();
    assert_eq!(redact(&large, &format!("<{large}>")), "<[secret KEY] >");
    let values = (0..8).map(|n| (n.to_string(), format!("{n}{large}").into())).collect();
    let error = Secrets::new(values).unwrap_err();
    assert!(error.to_string().contains("more than 4 MiB"), "{error}");
}
