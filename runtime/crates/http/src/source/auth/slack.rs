//! Slack: `X-Slack-Signature: v0=CODE` with the HMAC-SHA256 of `v0:TIME:BODY`. A request of the type `url_verification`
//! makes no event; the response repeats its challenge.

use http::{HeaderMap, HeaderName};
use serde::Deserialize;

use super::headers::{TOLERANCE_S, check_time, is_id, members, required};
use super::preset::{Claim, Preset, Refusal, Signature, Signed};
use crate::signature::decode_lower_hex;
use evoke_model::clock::UnixMs;

const SIGNATURE: HeaderName = HeaderName::from_static("x-slack-signature");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-slack-request-timestamp");

#[derive(Debug)]
pub(super) struct Slack;

#[derive(Deserialize)]
struct SlackEvent {
    event_id: String,
}

#[derive(Deserialize)]
struct Verification {
    #[serde(rename = "type")]
    type_: String,
    challenge: String,
}

impl Preset for Slack {
    fn read(&self, headers: &HeaderMap, now_ms: UnixMs) -> Result<Claim, Refusal> {
        let (value, time) = (required(headers, &SIGNATURE)?, required(headers, &TIMESTAMP)?);
        let code = value.strip_prefix("v0=").and_then(decode_lower_hex).ok_or_else(|| {
            Refusal::malformed("the header x-slack-signature must be `v0=` and lower-case hexadecimal digits")
        })?;
        check_time(time, &TIMESTAMP, TOLERANCE_S, now_ms)?;
        let before = format!("v0:{time}:").into_bytes();
        let signatures = vec![Signature::Hmac(code)];
        Ok(Claim::Signed(Signed { before, signatures, is_dated: true, ..Signed::default() }))
    }

    fn advice(&self) -> &'static str {
        "the secret must be the Signing Secret under Basic Information of the Slack app"
    }

    fn id_in(&self, body: &[u8]) -> Option<String> {
        members::<SlackEvent>(body).map(|event| event.event_id).filter(|id| is_id(id))
    }

    fn challenge(&self, body: &[u8]) -> Option<String> {
        let verification = members::<Verification>(body).filter(|body| body.type_ == "url_verification");
        verification.map(|body| body.challenge).filter(|challenge| is_id(challenge))
    }
}
