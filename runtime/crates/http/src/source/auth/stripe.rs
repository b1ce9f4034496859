//! Stripe: `Stripe-Signature: t=TIME,v1=CODE,…` with the HMAC-SHA256 of `TIME.BODY`. Other schemes than `v1` are
//! ignored.

use http::{HeaderMap, HeaderName};
use serde::Deserialize;

use super::headers::{SIGNATURES_MAX, TOLERANCE_S, check_time, is_id, members, required};
use super::preset::{Claim, Preset, Refusal, Signature, Signed};
use crate::signature::decode_lower_hex;
use evoke_model::clock::UnixMs;

const SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");

#[derive(Debug)]
pub(super) struct Stripe;

#[derive(Deserialize)]
struct StripeEvent {
    id: String,
}

impl Preset for Stripe {
    fn read(&self, headers: &HeaderMap, now_ms: UnixMs) -> Result<Claim, Refusal> {
        let malformed = || {
            Refusal::malformed(
                "the header stripe-signature must be `t=TIME,v1=CODE` with one time and one to eight codes",
            )
        };
        let (mut time, mut signatures) = (None, Vec::new());
        for part in required(headers, &SIGNATURE)?.split(',') {
            match part.split_once('=').ok_or_else(malformed)? {
                ("t", _) if time.is_some() => return Err(malformed()),
                ("t", value) => time = Some(value),
                ("v1", value) => signatures.push(Signature::Hmac(decode_lower_hex(value).ok_or_else(malformed)?)),
                _ => {}
            }
        }
        let time = time.ok_or_else(malformed)?;
        if signatures.is_empty() || signatures.len() > SIGNATURES_MAX {
            return Err(malformed());
        }
        check_time(time, &SIGNATURE, TOLERANCE_S, now_ms)?;
        let before = format!("{time}.").into_bytes();
        Ok(Claim::Signed(Signed { before, signatures, is_dated: true, ..Signed::default() }))
    }

    fn advice(&self) -> &'static str {
        "the secret must be the signing secret of this endpoint in Stripe's dashboard, with its `whsec_`"
    }

    fn id_in(&self, body: &[u8]) -> Option<String> {
        members::<StripeEvent>(body).map(|event| event.id).filter(|id| is_id(id))
    }
}
