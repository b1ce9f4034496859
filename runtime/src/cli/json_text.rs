//! Formats JSON text without parsing its values: numbers keep their digits, and members their order.

/// The deepest indentation, in levels. Without this limit, the text of deeply nested JSON could grow with the square of
/// its length.
const INDENTED_LEVELS_MAX: usize = 32;

/// Removes the white space between the tokens of JSON text.
pub(super) fn compact(json: &str) -> String {
    tokens(json).collect()
}

/// Puts each member and each item of JSON text on a line of its own.
pub(super) fn pretty(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let mut level = 0_usize;
    let break_line = |text: &mut String, level: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", level.min(INDENTED_LEVELS_MAX)));
    };
    let mut tokens = tokens(json).peekable();
    while let Some(token) = tokens.next() {
        match token {
            "{" | "[" => {
                text.push_str(token);
                match tokens.next_if(|next| matches!(*next, "}" | "]")) {
                    Some(end) => text.push_str(end),
                    None => {
                        level += 1;
                        break_line(&mut text, level);
                    }
                }
            }
            "}" | "]" => {
                level = level.saturating_sub(1);
                break_line(&mut text, level);
                text.push_str(token);
            }
            "," => {
                text.push_str(token);
                break_line(&mut text, level);
            }
            ":" => text.push_str(": "),
            _ => text.push_str(token),
        }
    }
    text
}

/// Splits JSON text into its tokens: punctuation, strings, numbers, `true`, `false` and `null`.
fn tokens(json: &str) -> impl Iterator<Item = &str> {
    let mut rest = json;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let length = match rest.bytes().next()? {
            b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
            b'"' => string_length(rest),
            _ => rest.find(|c: char| c.is_whitespace() || "{}[],:\"".contains(c)).unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
}

/// Returns the length of the string at the start of `text`, with its quotes, in bytes.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text.bytes().skip(1).position(|byte| match byte {
        _ if is_escaped => {
            is_escaped = false;
            false
        }
        b'\\' => {
            is_escaped = true;
            false
        }
        byte => byte == b'"',
    });
    end.map_or(text.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_removes_only_white_space_between_tokens() {
        for (json, expected) in [
            (" { \"b\" : 1.0 ,\n\"a\":[ 1e400,\t\"x \\\" , y\" , { } ] } ", r#"{"b":1.0,"a":[1e400,"x \" , y",{}]}"#),
            ("9007199254740993", "9007199254740993"),
            ("\"a\\\\\" ", "\"a\\\\\""),
            (" null ", "null"),
            ("\"é\u{2028} \"", "\"é\u{2028} \""),
            ("", ""),
        ] {
            assert_eq!(compact(json), expected);
        }
    }

    #[test]
    fn pretty_indents_members_and_items() {
        let json = r#"{"b":1.0,"a":[1e400,{"c":"x:{,}"}],"e":{},"f":[ ]}"#;
        let expected = "\
{
  \"b\": 1.0,
  \"a\": [
    1e400,
    {
      \"c\": \"x:{,}\"
    }
  ],
  \"e\": {},
  \"f\": []
}";
        assert_eq!(pretty(json), expected);
        assert_eq!(pretty("-0"), "-0");
    }

    #[test]
    fn deep_nesting_does_not_grow_the_text_without_bound() {
        let json = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(pretty(&json).len() < 200_000 * (2 * INDENTED_LEVELS_MAX + 2));
    }
}
