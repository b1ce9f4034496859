//! User names and passwords (RFC 7617): `Authorization: Basic BASE64`.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::headers::required;
use super::preset::{Claim, Preset, Refusal};
use crate::signature::decode;
use evoke_manifest::hmac::Encoding;
use evoke_model::clock::UnixMs;

#[derive(Debug)]
pub(super) struct BasicAuth;

impl Preset for BasicAuth {
    fn read(&self, headers: &HeaderMap, _now_ms: UnixMs) -> Result<Claim, Refusal> {
        let value = required(headers, &AUTHORIZATION)?;
        let encoded = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
        let user_and_password = encoded.and_then(|(_, text)| decode(Encoding::Base64, text));
        let user_and_password = user_and_password.filter(|text| text.contains(&b':'));
        user_and_password.map(Claim::Secret).ok_or_else(|| {
            Refusal::malformed("the header authorization must be `Basic ` followed by the Base64 of `USER:PASSWORD`")
        })
    }

    fn advice(&self) -> &'static str {
        "the user name and the password of the sender must be those of a user of this source"
    }

    fn scheme(&self) -> Option<&'static str> {
        Some("Basic realm=\"evoke\", charset=\"UTF-8\"")
    }
}
