//! Reads the headers and the parts of bodies that presets use.

use http::{HeaderMap, HeaderName};
use serde::Deserialize;

use super::preset::Refusal;
use evoke_model::clock::UnixMs;

/// The longest id that a sender can give a request, in bytes.
const ID_BYTES_MAX: usize = 256;
/// The most signatures in one request. Senders add a second one while they rotate their secret.
pub(super) const SIGNATURES_MAX: usize = 8;
/// The tolerance of the presets for the time of a request, in seconds. For `hmac`, this is only the default.
pub(super) const TOLERANCE_S: u32 = 300;

/// Returns the value of a header. A header that is sent twice is refused, because it is ambiguous.
pub(super) fn optional<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Refusal::malformed(format!("the header {name} was sent more than once"))),
        (Some(value), None) => value
            .to_str()
            .map(Some)
            .map_err(|_| Refusal::malformed(format!("the header {name} has a character that is not visible ASCII"))),
        (None, None) => Ok(None),
    }
}

/// Returns the value of a header that the request must have.
pub(super) fn required<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h str, Refusal> {
    optional(headers, name)?.ok_or_else(|| {
        Refusal::missing(format!(
            "the header {name} is missing; the sender must be set up with the secret of this source"
        ))
    })
}

/// Checks a time in seconds since the Unix epoch. A number of 12 or more digits is in milliseconds.
pub(super) fn check_time(text: &str, name: &HeaderName, tolerance_s: u32, now_ms: UnixMs) -> Result<(), Refusal> {
    let is_number = (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(number) = text.parse::<i64>().ok().filter(|_| is_number) else {
        return Err(Refusal::malformed(format!("the time in {name} is not a number of seconds since 1970")));
    };
    let sent_ms = if text.len() < 12 { number * 1_000 } else { number };
    let age_ms = now_ms.saturating_sub(sent_ms);
    if age_ms.unsigned_abs() <= u64::from(tolerance_s) * 1_000 {
        return Ok(());
    }
    let (seconds, direction) = (age_ms.unsigned_abs() / 1_000, if age_ms > 0 { "ago" } else { "in the future" });
    Err(Refusal::expired(format!(
        "the time in {name} is {seconds} s {direction}, but at most {tolerance_s} s are allowed; the request \
         was repeated, or the clock of the sender or of this machine is wrong"
    )))
}

/// Returns true if a text can be the id of an event.
pub(super) fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Returns the id that the sender gave the request in a header, if the request has this header.
pub(super) fn optional_id(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Refusal> {
    match optional(headers, name)? {
        Some(id) if !is_id(id) => {
            Err(Refusal::malformed(format!("the id in {name} must have 1 to {ID_BYTES_MAX} visible ASCII characters")))
        }
        id => Ok(id.map(str::to_owned)),
    }
}

/// Reads the members that `T` has from a JSON object. Returns `None` if the body is not a JSON object with these
/// members.
pub(super) fn members<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Option<T> {
    serde_json::from_slice::<T>(body).ok()
}
