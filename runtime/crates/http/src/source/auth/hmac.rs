//! The preset `hmac`: any other sender that signs with an HMAC, as the manifest describes.

use http::{HeaderMap, HeaderName};

use super::headers::{check_time, required};
use super::preset::{Claim, Preset, Refusal, Signature, Signed};
use crate::signature::decode;
use evoke_manifest::hmac::HmacFormat;
use evoke_model::clock::UnixMs;

#[derive(Debug)]
pub(super) struct HmacPreset {
    pub(super) format: HmacFormat,
    pub(super) timestamp: Option<Timestamp>,
}

/// A time that is a part of the signed text.
#[derive(Debug)]
pub(super) struct Timestamp {
    pub(super) header: HeaderName,
    /// The parts of the signed text before the body. `None` stands for the time.
    pub(super) before: Vec<Option<String>>,
    /// The parts after the body.
    pub(super) after: Vec<Option<String>>,
    pub(super) tolerance_s: u32,
}

impl Preset for HmacPreset {
    fn read(&self, headers: &HeaderMap, now_ms: UnixMs) -> Result<Claim, Refusal> {
        let HmacFormat { header, encoding, prefix, .. } = &self.format;
        let value = required(headers, header)?;
        let code = value.strip_prefix(prefix).and_then(|code| decode(*encoding, code)).ok_or_else(|| {
            Refusal::malformed(format!("the header {header} must be `{prefix}` and a signature in {encoding:?}"))
        })?;
        let mut signed = Signed { signatures: vec![Signature::Hmac(code)], ..Signed::default() };
        if let Some(Timestamp { header, before, after, tolerance_s }) = &self.timestamp {
            let time = required(headers, header)?;
            check_time(time, header, *tolerance_s, now_ms)?;
            let fill = |parts: &[Option<String>]| -> Vec<u8> {
                parts.iter().flat_map(|part| part.as_deref().unwrap_or(time).bytes()).collect()
            };
            (signed.before, signed.after, signed.is_dated) = (fill(before), fill(after), true);
        }
        Ok(Claim::Signed(signed))
    }

    fn advice(&self) -> &'static str {
        "the secret, `algorithm`, `encoding`, `prefix` and `timestamp` must be the same as those of the sender"
    }
}
