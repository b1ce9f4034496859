//! Reads the body of a response.

use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::{Extent, RESPONSE_BYTES_MAX};
use evoke_egress::ResponseBody;

/// The longest time from the head of a response until the end of its body. The outcome does not depend on the body, so
/// an attempt waits only this long for an endpoint that sends the body slowly.
const BODY_WAIT: Duration = Duration::from_secs(1);

/// Largest number of characters of a body in a message.
const EXCERPT_CHARS_MAX: usize = 200;
/// The excerpt is made from this number of characters at the start of a body. It is larger than the excerpt, because
/// each sequence of white space becomes one space.
const START_CHARS_MAX: usize = 4 * EXCERPT_CHARS_MAX;

/// Reads the body within limits, so that the connection can be used again. Returns the beginning of the body as text
/// for a message, or `None` if the endpoint accepted the event.
pub(super) async fn read(
    mut body: ResponseBody,
    is_success: bool,
    redact: &(dyn Fn(&str, Extent) -> String + Sync),
) -> Option<String> {
    let until = Instant::now() + BODY_WAIT;
    let (mut bytes, mut size, mut extent) = (Vec::new(), 0, Extent::Start);
    while size <= RESPONSE_BYTES_MAX {
        let frame = match timeout_at(until, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) | Err(_) => break,
            Ok(None) => {
                extent = Extent::Whole;
                break;
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        let room = if is_success { 0 } else { RESPONSE_BYTES_MAX.saturating_sub(bytes.len()) };
        bytes.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
    }
    if is_success { None } else { excerpt(&bytes, extent, redact) }
}

/// Returns the beginning of a text in one line. Control characters become spaces.
fn excerpt(bytes: &[u8], extent: Extent, redact: &dyn Fn(&str, Extent) -> String) -> Option<String> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // The bytes may be cut within a character.
        Err(error) => std::str::from_utf8(bytes.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default(),
    };
    let text: String = redact(text, extent).chars().take(START_CHARS_MAX).collect();
    let words: Vec<&str> = text.split(|char: char| char.is_whitespace() || char.is_control()).collect();
    let line = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let mut cut: String = line.chars().take(EXCERPT_CHARS_MAX).collect();
    if cut.len() < line.len() {
        cut.push('…');
    }
    (!cut.is_empty()).then_some(cut)
}

#[cfg(test)]
mod tests {

    use super::*;

    fn excerpt(bytes: &[u8]) -> Option<String> {
        super::excerpt(bytes, Extent::Whole, &|text, _| text.to_owned())
    }

    #[test]
    fn an_excerpt_is_one_line_of_bounded_length_without_control_characters() {
        assert_eq!(
            excerpt(b"{\n  \"error\":\x1b[31m \"no total\"\r\n}").as_deref(),
            Some("{ \"error\": [31m \"no total\" }")
        );
        assert_eq!(excerpt("é".repeat(1000).as_bytes()), Some(format!("{}…", "é".repeat(200))));
        assert_eq!(excerpt(&"é".as_bytes()[..1]), None);
        assert_eq!(excerpt("aé".as_bytes().get(..2).unwrap()).as_deref(), Some("a"));
        for bytes in [&b""[..], b" \n\0", b"\xff\xfe"] {
            assert_eq!(excerpt(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_secret_is_replaced_before_the_text_is_cut() {
        let redact = |text: &str, _| text.replace("hunter2-hunter2", "[secret KEY]");
        for before in [0, 150, 190, 195, 199, 200, 790, 799] {
            for space in [' ', 'x'] {
                let text = space.to_string().repeat(before) + "hunter2-hunter2";
                let shown = super::excerpt(text.as_bytes(), Extent::Whole, &redact).unwrap_or_default();
                assert!(!shown.contains("hunter"), "{before} {space:?}: {shown}");
            }
        }
    }
}
