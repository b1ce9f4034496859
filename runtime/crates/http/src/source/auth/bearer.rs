//! Bearer tokens (RFC 6750, section 2.1): `Authorization: Bearer TOKEN`.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::headers::required;
use super::preset::{Claim, Preset, Refusal};
use evoke_model::clock::UnixMs;

#[derive(Debug)]
pub(super) struct Bearer;

impl Preset for Bearer {
    fn read(&self, headers: &HeaderMap, _now_ms: UnixMs) -> Result<Claim, Refusal> {
        let value = required(headers, &AUTHORIZATION)?;
        match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Ok(Claim::Secret(token.as_bytes().to_vec()))
            }
            _ => Err(Refusal::malformed("the header authorization must be `Bearer TOKEN`")),
        }
    }

    fn advice(&self) -> &'static str {
        "the token of the sender must be one of this source's secrets"
    }

    fn scheme(&self) -> Option<&'static str> {
        Some("Bearer")
    }
}
