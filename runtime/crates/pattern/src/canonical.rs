//! The canonical text of a JSON value.

use std::collections::BTreeMap;

use super::json::{DEPTH_MAX, MalformedEvent, Scanner, unescape};
use super::number::canonical_number;

/// Returns the canonical text of a JSON value. All texts of the same value have the same canonical text: without white
/// space, with the members of objects sorted by name, and with numbers as [`canonical_number`] writes them. Two values
/// are the same if no pattern can distinguish them: of several members with the same name only the last one counts, and
/// half of a surrogate pair is read as U+FFFD.
///
/// # Errors
/// The text is not exactly one valid JSON text, or is nested deeper than 128 levels. A matcher returns the same errors.
pub fn canonical_json(json: &str) -> Result<String, MalformedEvent> {
    let mut reader = Reader { scanner: Scanner::new(json.as_bytes())? };
    let mut text = String::with_capacity(json.len());
    reader.value(0, &mut text)?;
    reader.scanner.expect_end()?;
    Ok(text)
}

/// Checks that a text is valid as the JSON data of an event.
///
/// # Errors
/// The text is not exactly one valid JSON text, not UTF-8, or nested deeper than 128 levels. A matcher returns the same
/// errors.
pub fn check_json(json: &[u8]) -> Result<(), MalformedEvent> {
    let mut scanner = Scanner::new(json)?;
    scanner.skip_value(0)?;
    scanner.expect_end()
}

struct Reader<'a> {
    scanner: Scanner<'a>,
}

impl Reader<'_> {
    /// Appends the canonical text of the next value, which is inside of `depth` arrays and objects. The recursion is at
    /// most [`DEPTH_MAX`] deep.
    fn value(&mut self, depth: u32, into: &mut String) -> Result<(), MalformedEvent> {
        match self.scanner.peek() {
            Some(b'{' | b'[') if depth >= DEPTH_MAX => self.scanner.fail("nested deeper than 128 levels"),
            Some(b'{') => self.object(depth, into),
            Some(b'[') => self.array(depth, into),
            Some(b'"') => {
                let raw = self.scanner.string()?;
                into.push_str(&serde_json::Value::from(self.text(raw.start, raw.end)).to_string());
                Ok(())
            }
            first => {
                let start = self.scanner.position();
                self.scanner.skip_value(depth)?;
                let text = self.scanner.text.get(start..self.scanner.position()).unwrap_or_default();
                match first {
                    Some(b'-' | b'0'..=b'9') => into.push_str(&canonical_number(text)),
                    _ => into.push_str(text),
                }
                Ok(())
            }
        }
    }

    /// Returns the text of a string, without its escapes.
    fn text(&self, start: usize, end: usize) -> String {
        let mut text = String::new();
        unescape(self.scanner.text.get(start..end).unwrap_or_default(), &mut text);
        text
    }

    fn object(&mut self, depth: u32, into: &mut String) -> Result<(), MalformedEvent> {
        let mut members = BTreeMap::new();
        self.scanner.advance();
        if self.scanner.peek() == Some(b'}') {
            self.scanner.advance();
        } else {
            loop {
                let raw = self.scanner.member_name()?;
                let (name, mut value) = (self.text(raw.start, raw.end), String::new());
                self.value(depth + 1, &mut value)?;
                members.insert(name, value);
                if !self.scanner.comma_or_close(b'}')? {
                    break;
                }
            }
        }
        into.push('{');
        for (index, (name, value)) in members.into_iter().enumerate() {
            into.push_str(if index == 0 { "" } else { "," });
            into.push_str(&serde_json::Value::from(name).to_string());
            into.push(':');
            into.push_str(&value);
        }
        into.push('}');
        Ok(())
    }

    fn array(&mut self, depth: u32, into: &mut String) -> Result<(), MalformedEvent> {
        self.scanner.advance();
        into.push('[');
        if self.scanner.peek() == Some(b']') {
            self.scanner.advance();
        } else {
            loop {
                self.value(depth + 1, into)?;
                if !self.scanner.comma_or_close(b']')? {
                    break;
                }
                into.push(',');
            }
        }
        into.push(']');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_one_value_have_one_canonical_text() {
        for (canonical, texts) in [
            (r#"{"a":[1,"ü",null],"b":{}}"#, &[r#"{"b":{ },"a":[1.0, "\u00fc",null ]}"#][..]),
            (r#"{"a":2}"#, &[r#"{"a":1,"\u0061":2e0}"#, r#"{"a":{"b":1},"a":2.00}"#]),
            ("[99999999999999999999]", &["[99999999999999999999.0]"]),
            ("[100000000000000000000]", &["[1e20]", "[ 100000000000000000000]"]),
            ("[0]", &["[-0]", "[0e9]"]),
            ("[\"\u{fffd}\"]", &[r#"["\ud800"]"#, r#"["\udfff"]"#]),
            (r#""a\"\\\n😀""#, &[r#""a\u0022\\\u000a\ud83d\ude00""#]),
            ("[true,false,null]", &[" [ true , false , null ] "]),
            // serde_json uses these names internally. Here they must be ordinary names.
            (r#"{"$serde_json::private::Number":"1"}"#, &[r#"{ "$serde_json::private::Number" : "1" }"#]),
            (r#"{"$serde_json::private::RawValue":"x"}"#, &[r#"{"$serde_json::private::RawValue":"\u0078"}"#]),
        ] {
            for text in texts {
                assert_eq!(canonical_json(text).as_deref(), Ok(canonical), "{text}");
            }
            assert_eq!(canonical_json(canonical).as_deref(), Ok(canonical));
        }
    }

    #[test]
    fn the_depth_is_that_of_events_and_other_text_is_an_error() {
        let nested = |depth: usize| format!("{}{}", "[{\"a\":".repeat(depth / 2), "1") + &"}]".repeat(depth / 2);
        for (text, is_valid) in [
            (nested(128), true),
            (nested(130), false),
            ("[1,]".to_owned(), false),
            ("{\"a\" 1}".to_owned(), false),
            ("01".to_owned(), false),
            ("1 2".to_owned(), false),
            (String::new(), false),
            ("{".to_owned(), false),
        ] {
            assert_eq!(canonical_json(&text).is_ok(), is_valid, "{text}");
            assert_eq!(check_json(text.as_bytes()).is_ok(), is_valid, "{text}");
        }
        assert!(check_json(b"\"\xff\"").is_err());
    }
}
