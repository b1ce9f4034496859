//! GitHub: `X-Hub-Signature-256` is the HMAC-SHA256 of the body. A `ping` request makes an event like every other
//! request.

use http::{HeaderMap, HeaderName};

use super::headers::{optional_id, required};
use super::preset::{Claim, Preset, Refusal, Signature, Signed};
use crate::signature::decode_lower_hex;
use evoke_model::clock::UnixMs;

const SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");
const DELIVERY: HeaderName = HeaderName::from_static("x-github-delivery");

#[derive(Debug)]
pub(super) struct GitHub;

impl Preset for GitHub {
    fn read(&self, headers: &HeaderMap, _now_ms: UnixMs) -> Result<Claim, Refusal> {
        let value = required(headers, &SIGNATURE)?;
        let code = value.strip_prefix("sha256=").and_then(decode_lower_hex).ok_or_else(|| {
            Refusal::malformed("the header x-hub-signature-256 must be `sha256=` and lower-case hexadecimal digits")
        })?;
        let id = optional_id(headers, &DELIVERY)?;
        Ok(Claim::Signed(Signed { signatures: vec![Signature::Hmac(code)], id, ..Signed::default() }))
    }

    fn advice(&self) -> &'static str {
        "the field Secret of the webhook on GitHub must have the value of this source's secret"
    }
}
