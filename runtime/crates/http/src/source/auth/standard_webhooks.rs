//! Standard Webhooks 1.0.0: `webhook-id`, `webhook-timestamp` and `webhook-signature`. The signed text is
//! `ID.TIME.BODY`. The signatures are separated by spaces: `v1,BASE64` is an HMAC-SHA256, `v1a,BASE64` an ed25519
//! signature. Signatures of other versions are ignored.

use http::{HeaderMap, HeaderName};

use super::headers::{SIGNATURES_MAX, TOLERANCE_S, check_time, is_id, required};
use super::preset::{Claim, Preset, Refusal, Signature, Signed};
use crate::signature::decode;
use evoke_manifest::hmac::Encoding;
use evoke_model::clock::UnixMs;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The length of an ed25519 public key, in bytes.
const PUBLIC_KEY_BYTES: usize = 32;

#[derive(Debug)]
pub(super) struct StandardWebhooks;

impl Preset for StandardWebhooks {
    fn read(&self, headers: &HeaderMap, now_ms: UnixMs) -> Result<Claim, Refusal> {
        let (id, time, list) =
            (required(headers, &ID)?, required(headers, &TIMESTAMP)?, required(headers, &SIGNATURE)?);
        if !is_id(id) {
            return Err(Refusal::malformed("the header webhook-id must have 1 to 256 visible ASCII characters"));
        }
        let malformed =
            || Refusal::malformed("the header webhook-signature must be 1 to 8 parts `v1,BASE64` or `v1a,BASE64`");
        let mut signatures = Vec::new();
        for signature in list.split(' ') {
            let (version, text) = signature.split_once(',').ok_or_else(malformed)?;
            let decode = || decode(Encoding::Base64, text).ok_or_else(malformed);
            match version {
                "v1" => signatures.push(Signature::Hmac(decode()?)),
                "v1a" => signatures.push(Signature::Ed25519(decode()?)),
                _ => {}
            }
        }
        if signatures.is_empty() || signatures.len() > SIGNATURES_MAX {
            return Err(malformed());
        }
        check_time(time, &TIMESTAMP, TOLERANCE_S, now_ms)?;
        let before = format!("{id}.{time}.").into_bytes();
        Ok(Claim::Signed(Signed { before, signatures, id: Some(id.to_owned()), is_dated: true, ..Signed::default() }))
    }

    fn advice(&self) -> &'static str {
        "the secret must be the secret of the sender, `whsec_…`, or the public key of the sender, `whpk_…`"
    }
}

/// A key of Standard Webhooks.
pub(super) enum StandardKey {
    /// A shared secret.
    Hmac(Vec<u8>),
    /// An ed25519 public key.
    Ed25519(Vec<u8>),
}

/// Parses a secret. A secret without a prefix is the Base64 of a shared secret. An error has a message and a hint.
pub(super) fn parse_key(text: &str) -> Result<StandardKey, (&'static str, &'static str)> {
    let not_base64 = ("is not Base64", "copy it from the sender as it is: `whsec_…` or `whpk_…`");
    if text.starts_with("whsk_") {
        return Err(("is a private key", "give the public key, `whpk_…`; only the sender needs the private one"));
    }
    if let Some(public) = text.strip_prefix("whpk_") {
        let key = decode(Encoding::Base64, public).ok_or(not_base64)?;
        if key.len() != PUBLIC_KEY_BYTES {
            return Err((
                "is not an ed25519 public key: it does not have 32 bytes",
                "copy the whole public key from the sender",
            ));
        }
        return Ok(StandardKey::Ed25519(key));
    }
    let key = decode(Encoding::Base64, text.strip_prefix("whsec_").unwrap_or(text)).ok_or(not_base64)?;
    if key.is_empty() {
        return Err(("is empty", "copy it from the sender as it is: `whsec_…`"));
    }
    Ok(StandardKey::Hmac(key))
}
