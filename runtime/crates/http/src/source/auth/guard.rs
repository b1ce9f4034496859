//! The guard of one http source: reads its secrets, and verifies each request.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};

use super::basic::BasicAuth;
use super::bearer::Bearer;
use super::config::{Auth, Hmac};
use super::github::GitHub;
use super::hmac::{HmacPreset, Timestamp};
use super::keys::{Keys, Match};
use super::log::RefusalLog;
use super::preset::{Claim, Preset, Refusal, Signed};
use super::slack::Slack;
use super::standard_webhooks::{StandardKey, StandardWebhooks, parse_key};
use super::stripe::Stripe;
use crate::problem::Problem;
use evoke_manifest::hmac::Algorithm;
use evoke_manifest::{SecretList, SecretRef};
use evoke_model::clock::UnixMs;
use evoke_model::hex;
use evoke_telemetry::AuthMetrics;

/// The error for a secret that cannot be read or is not a valid key. Its texts never contain the value of the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretError {
    /// The name of the secret, and why it cannot be used.
    pub message: String,
    /// How to correct it.
    pub help: String,
}

/// Reads the value of a secret. The first argument names the secret in messages.
type ReadSecret<'r> = dyn FnMut(&str, &SecretRef) -> Result<String, SecretError> + 'r;

/// Verifies the senders of one http source.
pub struct Guard {
    preset: Box<dyn Preset>,
    /// `None` for a guard without secrets, which refuses every request.
    keys: Option<Keys>,
    metrics: Arc<AuthMetrics>,
    log: RefusalLog,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("preset", &self.preset).finish_non_exhaustive()
    }
}

/// A request whose headers were checked.
#[derive(Debug)]
pub(in crate::source) enum Admitted {
    /// The headers prove the sender.
    Verified(Sender),
    /// The sender has to be verified with its signature over the body.
    Signed(Signed),
}

/// The verified sender of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) struct Sender {
    /// The preset and the name of the secret, as in `github:new`.
    pub(in crate::source) principal: Arc<str>,
    /// The id that the sender gave the request, or an id that was made from the signature.
    pub(in crate::source) id: Option<String>,
    /// True if the proof is a signature over the body, which does not cover the headers.
    pub(in crate::source) is_signature: bool,
    /// The body of the response to a request that only tests the endpoint; `None` for other requests.
    pub(in crate::source) challenge: Option<String>,
}

impl Guard {
    /// Makes the guard of a source. `read` returns the values of its secrets.
    ///
    /// # Errors
    /// Lists every secret that cannot be read or is not a valid key.
    pub fn new(
        auth: &Auth,
        metrics: Arc<AuthMetrics>,
        mut read: impl FnMut(&str, &SecretRef) -> Result<String, SecretError>,
    ) -> Result<Self, Vec<SecretError>> {
        let Some(mut keys) = Keys::new() else {
            let message = "`auth` needs random numbers, but the system cannot provide them".to_owned();
            return Err(vec![SecretError { message, help: "make /dev/urandom available".to_owned() }]);
        };
        let mut errors = Vec::new();
        add_keys(&mut keys, auth, &mut read, &mut errors);
        if errors.is_empty() { Ok(Self { keys: Some(keys), ..Self::closed(auth, metrics) }) } else { Err(errors) }
    }

    /// Makes a guard that refuses every request.
    pub fn closed(auth: &Auth, metrics: Arc<AuthMetrics>) -> Self {
        Self { preset: preset(auth), keys: None, metrics, log: RefusalLog::default() }
    }

    #[cfg(test)]
    pub(super) fn metrics(&self) -> &AuthMetrics {
        &self.metrics
    }

    /// Checks the headers of a request, before its body is read.
    pub(in crate::source) fn check_headers(&self, headers: &HeaderMap, now_ms: UnixMs) -> Result<Admitted, Problem> {
        match self.preset.read(headers, now_ms) {
            Ok(Claim::Signed(signed)) => Ok(Admitted::Signed(signed)),
            Ok(claim @ Claim::Secret(_)) => {
                let Match { principal, .. } = self.find(&claim, &[])?;
                Ok(Admitted::Verified(Sender { principal, id: None, is_signature: false, challenge: None }))
            }
            Err(refusal) => Err(self.refuse(&refusal)),
        }
    }

    /// Verifies a request with its whole raw body.
    pub(in crate::source) fn check_body(&self, admitted: Admitted, body: &[u8]) -> Result<Sender, Problem> {
        let signed = match admitted {
            Admitted::Verified(sender) => return Ok(sender),
            Admitted::Signed(signed) => Claim::Signed(signed),
        };
        let Match { principal, code } = self.find(&signed, body)?;
        let Claim::Signed(Signed { id, is_dated, .. }) = signed else { return Err(unverified()) };
        let of_signature = || code.filter(|_| is_dated).map(|code| format!("signature-{}", hex(code.as_ref())));
        let id = id.or_else(|| self.preset.id_in(body)).or_else(of_signature);
        Ok(Sender { principal, id, is_signature: true, challenge: self.preset.challenge(body) })
    }

    fn find(&self, claim: &Claim, body: &[u8]) -> Result<Match, Problem> {
        self.keys.as_ref().and_then(|keys| keys.find(claim, body)).ok_or_else(|| {
            let what = match claim {
                Claim::Secret(_) => "the credentials are wrong",
                Claim::Signed(_) => "the signature does not match the body",
            };
            self.refuse(&Refusal::mismatch(format!("{what}; {}", self.preset.advice())))
        })
    }

    /// Counts and logs a refusal. The response is the same for every reason.
    fn refuse(&self, refusal: &Refusal) -> Problem {
        let Refusal { reason, detail } = refusal;
        self.metrics.refused(*reason).increment();
        if let Some(before) = self.log.next(*reason) {
            let more = match before {
                0 => Cow::Borrowed(""),
                n => format!(" ({n} more requests since the last such line)").into(),
            };
            tracing::warn!("{} refused a request with 401: {detail}{more}", self.metrics.source);
        }
        let problem = unverified();
        match self.preset.scheme() {
            Some(scheme) => problem.with_header(WWW_AUTHENTICATE, HeaderValue::from_static(scheme)),
            None => problem,
        }
    }
}

fn unverified() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "the sender of this request is not verified")
}

fn preset(auth: &Auth) -> Box<dyn Preset> {
    match auth {
        Auth::StandardWebhooks(_) => Box::new(StandardWebhooks),
        Auth::Github(_) => Box::new(GitHub),
        Auth::Stripe(_) => Box::new(Stripe),
        Auth::Slack(_) => Box::new(Slack),
        Auth::Bearer(_) => Box::new(Bearer),
        Auth::Basic(_) => Box::new(BasicAuth),
        Auth::Hmac(Hmac { format, timestamp, .. }) => {
            let timestamp = timestamp.as_ref().map(|timestamp| {
                let (before, after) = timestamp.signed.parts();
                // The manifest allows at most one hour, so the number always fits.
                let tolerance_s = u32::try_from(timestamp.tolerance.as_secs()).unwrap_or(u32::MAX);
                Timestamp { header: timestamp.header.clone(), before, after, tolerance_s }
            });
            Box::new(HmacPreset { format: format.clone(), timestamp })
        }
    }
}

/// Parses the text of a secret, and adds the key for the principal.
type AddKey<'a> = dyn FnMut(Arc<str>, &str) -> Result<(), Wrong> + 'a;

/// Reads the secrets of a source into `keys`.
fn add_keys(keys: &mut Keys, auth: &Auth, read: &mut ReadSecret<'_>, errors: &mut Vec<SecretError>) {
    let key = auth.key();
    let mut each = |secrets: &SecretList, principal: &str, add: &mut AddKey<'_>| {
        for secret in secrets.iter() {
            let (what, principal) = match &secret.name {
                Some(name) => (format!("the secret `{name}` of `auth: {key}`"), format!("{principal}:{name}")),
                None => (format!("the secret of `auth: {principal}`"), principal.to_owned()),
            };
            let added = read(&what, &secret.location).and_then(|value| {
                let result = if value.is_empty() { Err(EMPTY) } else { add(principal.into(), &value) };
                result.map_err(|(is, help)| SecretError { message: format!("{what} {is}"), help: help.to_owned() })
            });
            errors.extend(added.err());
        }
    };
    match auth {
        Auth::StandardWebhooks(with) => each(&with.secret, key, &mut |principal, text| {
            match parse_key(text)? {
                StandardKey::Hmac(secret) => keys.add_hmac(principal, Algorithm::Sha256, &secret),
                StandardKey::Ed25519(public) => keys.add_ed25519(principal, public),
            }
            Ok(())
        }),
        Auth::Github(with) | Auth::Stripe(with) | Auth::Slack(with) => {
            each(&with.secret, key, &mut |principal, text| {
                keys.add_hmac(principal, Algorithm::Sha256, text.as_bytes());
                Ok(())
            });
        }
        Auth::Hmac(hmac) => each(&hmac.secret, key, &mut |principal, text| {
            keys.add_hmac(principal, hmac.format.algorithm, text.as_bytes());
            Ok(())
        }),
        Auth::Bearer(with) => each(&with.secret, key, &mut |principal, text| {
            keys.add_secret(principal, text.as_bytes());
            Ok(())
        }),
        Auth::Basic(basic) => {
            for (user, passwords) in &basic.users {
                each(passwords, &format!("{key}:{user}"), &mut |principal, text| {
                    keys.add_secret(principal, format!("{user}:{text}").as_bytes());
                    Ok(())
                });
            }
        }
    }
}

/// Why a secret is not a valid key, as a predicate such as "is empty", and the help text.
type Wrong = (&'static str, &'static str);

const EMPTY: Wrong = ("is empty: everybody could sign with it", "give a long random value, such as 32 random bytes");
