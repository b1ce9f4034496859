//! The parts that all presets share: the claim that a request makes about its sender, and the reasons of refusals.

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;

use evoke_model::clock::UnixMs;
use evoke_telemetry::AuthRefusal;

/// One way to verify senders.
pub(super) trait Preset: fmt::Debug + Send + Sync {
    /// Reads the claim of a request from its headers.
    ///
    /// # Errors
    /// The headers have no credentials or credentials in a wrong form, or the time in the headers is outside the
    /// tolerance.
    fn read(&self, headers: &HeaderMap, now_ms: UnixMs) -> Result<Claim, Refusal>;

    /// Returns the advice for the log if no secret matches: the settings to check.
    fn advice(&self) -> &'static str;

    /// Returns the id that the sender gave a verified request, if the id is in the body.
    fn id_in(&self, _body: &[u8]) -> Option<String> {
        None
    }

    /// Returns the body of the response to a verified request that only tests this endpoint.
    fn challenge(&self, _body: &[u8]) -> Option<String> {
        None
    }

    /// Returns the value of `WWW-Authenticate` in refusals (RFC 9110, section 11.6.1).
    fn scheme(&self) -> Option<&'static str> {
        None
    }
}

/// The claim that a request makes about its sender. Has no `Debug`: it can contain a secret.
pub(super) enum Claim {
    /// The request contains a secret: a token, or `user:password`.
    Secret(Vec<u8>),
    /// The request is signed.
    Signed(Signed),
}

/// The signatures of a request. The signed text is `before`, the body, and `after`.
#[derive(Debug, Default)]
pub(in crate::source) struct Signed {
    pub(super) before: Vec<u8>,
    pub(super) after: Vec<u8>,
    /// One of these must match one of the secrets.
    pub(super) signatures: Vec<Signature>,
    /// The id that the sender gave the request, if the id is in a header.
    pub(super) id: Option<String>,
    /// True if the signed text has a time that was checked.
    pub(super) is_dated: bool,
}

#[derive(Debug)]
pub(super) enum Signature {
    Hmac(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// Why a request was refused. The detail is for the operator and never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: AuthRefusal,
    pub(super) detail: Cow<'static, str>,
}

impl Refusal {
    pub(super) fn missing(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: AuthRefusal::Missing, detail: detail.into() }
    }

    pub(super) fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: AuthRefusal::Malformed, detail: detail.into() }
    }

    pub(super) fn expired(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: AuthRefusal::Expired, detail: detail.into() }
    }

    pub(super) fn mismatch(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: AuthRefusal::Mismatch, detail: detail.into() }
    }
}
