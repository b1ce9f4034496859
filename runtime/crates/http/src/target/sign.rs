//! Signatures of requests.

use std::fmt;

use http::{HeaderMap, HeaderValue};
use ring::hmac;
use ring::signature::Ed25519KeyPair;

use crate::signature::{decode, encode, hmac_key};
use evoke_manifest::deliver::Hmac;
use evoke_manifest::hmac::{Algorithm, Encoding, HmacFormat};
use evoke_model::clock::UnixMs;

/// Signs requests with a key.
pub struct Signer(Kind);

enum Kind {
    /// One key, or several keys while they are rotated.
    Standard(Vec<StandardKey>),
    Hmac {
        format: HmacFormat,
        key: Box<hmac::Key>,
    },
}

enum StandardKey {
    Hmac(hmac::Key),
    Ed25519(Ed25519KeyPair),
}

/// Why a secret is not a valid key. The message does not contain the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidKey(&'static str);

impl Signer {
    /// Makes a signer for Standard Webhooks. The signer adds one signature for each secret. A secret is `whsec_`
    /// followed by the Base64 of an HMAC key, or `whsk_` followed by the Base64 of an Ed25519 key: the seed of 32
    /// bytes, alone or followed by the public key.
    ///
    /// # Errors
    /// A secret has another form.
    pub fn standard_webhooks<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Result<Self, InvalidKey> {
        let keys = secrets.into_iter().map(StandardKey::parse).collect::<Result<_, _>>()?;
        Ok(Self(Kind::Standard(keys)))
    }

    /// Makes a signer for an HMAC in one header.
    ///
    /// # Errors
    /// The secret is empty.
    pub fn hmac(settings: &Hmac, secret: &str) -> Result<Self, InvalidKey> {
        if secret.is_empty() {
            return Err(InvalidKey("it is empty"));
        }
        let key = hmac_key(settings.format.algorithm, secret.as_bytes());
        Ok(Self(Kind::Hmac { format: settings.format.clone(), key: Box::new(key) }))
    }

    /// Adds the headers of the signature. `id` is the id of the delivery.
    pub(super) fn sign(&self, headers: &mut HeaderMap, id: &str, body: &[u8], now_ms: UnixMs) -> Result<(), String> {
        let value = |text: String| {
            let mut value =
                HeaderValue::try_from(text).map_err(|error| format!("the signature cannot be sent: {error}"))?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        };
        match &self.0 {
            Kind::Standard(keys) => {
                let seconds = now_ms.div_euclid(1000).to_string();
                let signed = [id.as_bytes(), b".", seconds.as_bytes(), b".", body];
                let signatures: Vec<_> = keys.iter().map(|key| key.sign(&signed)).collect();
                headers.insert("webhook-id", value(id.to_owned())?);
                headers.insert("webhook-timestamp", value(seconds)?);
                headers.insert("webhook-signature", value(signatures.join(" "))?);
            }
            Kind::Hmac { format: HmacFormat { header, encoding, prefix, .. }, key } => {
                let signature = encode(*encoding, tag(key, &[body]).as_ref());
                headers.insert(header, value(format!("{prefix}{signature}"))?);
            }
        }
        Ok(())
    }
}

impl StandardKey {
    fn parse(secret: &str) -> Result<Self, InvalidKey> {
        let secret = secret.trim();
        let decode =
            |text: &str| decode(Encoding::Base64, text).ok_or(InvalidKey("the part after the prefix is not Base64"));
        if let Some(private) = secret.strip_prefix("whsk_") {
            let bytes = decode(private)?;
            let wrong =
                InvalidKey("a `whsk_` key must have 32 bytes (a seed), or 64 bytes (a seed and its public key)");
            let pair = match bytes.len() {
                32 => Ed25519KeyPair::from_seed_unchecked(&bytes),
                64 => {
                    let (seed, public) = bytes.split_at(32);
                    Ed25519KeyPair::from_seed_and_public_key(seed, public)
                }
                _ => return Err(wrong),
            };
            Ok(Self::Ed25519(pair.map_err(|_| wrong)?))
        } else if let Some(shared) = secret.strip_prefix("whsec_") {
            let bytes = decode(shared)?;
            if bytes.is_empty() {
                return Err(InvalidKey("the part after `whsec_` is empty"));
            }
            Ok(Self::Hmac(hmac_key(Algorithm::Sha256, &bytes)))
        } else {
            Err(InvalidKey("it begins neither with `whsec_` nor with `whsk_`"))
        }
    }

    fn sign(&self, parts: &[&[u8]]) -> String {
        match self {
            Self::Hmac(key) => format!("v1,{}", encode(Encoding::Base64, tag(key, parts).as_ref())),
            Self::Ed25519(pair) => format!("v1a,{}", encode(Encoding::Base64, pair.sign(&parts.concat()).as_ref())),
        }
    }
}

fn tag(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    parts.iter().for_each(|part| context.update(part));
    context.sign()
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Standard(_) => "Signer(standard-webhooks)",
            Kind::Hmac { .. } => "Signer(hmac)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use evoke_manifest::SecretRef;
    use http::HeaderName;
    use ring::signature::{ED25519, KeyPair as _, UnparsedPublicKey};

    fn signed(signer: &Signer, id: &str, body: &[u8], now_ms: UnixMs) -> HeaderMap {
        let mut headers = HeaderMap::new();
        signer.sign(&mut headers, id, body, now_ms).unwrap();
        headers
    }

    /// The example in the Standard Webhooks specification. Libraries for Standard Webhooks use it in their tests.
    #[test]
    fn the_published_vector_of_standard_webhooks_is_signed() {
        let signer = Signer::standard_webhooks(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"]).unwrap();
        let headers = signed(&signer, "msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#, 1_614_265_330_999);
        assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        assert_eq!(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_that_are_rotated_make_one_signature_each() {
        let secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAAA"];
        let signature = |secrets: &[&str]| {
            let signer = Signer::standard_webhooks(secrets.iter().copied()).unwrap();
            signed(&signer, "d-1", b"body", 5_000)["webhook-signature"].to_str().unwrap().to_owned()
        };
        assert_eq!(signature(&secrets), format!("{} {}", signature(&secrets[..1]), signature(&secrets[1..])));
        assert!(Signer::standard_webhooks([secrets[0], "whsec_"]).is_err());
    }

    #[test]
    fn an_ed25519_signature_is_verified_with_the_public_key() {
        let seed = [7; 32];
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let public = pair.public_key().as_ref().to_vec();
        for private in [seed.to_vec(), [&seed[..], &public].concat()] {
            let private = format!("whsk_{}", STANDARD.encode(private));
            let signer = Signer::standard_webhooks([private.as_str()]).unwrap();
            let headers = signed(&signer, "d-1", b"body", 5_000);
            let signature = headers["webhook-signature"].to_str().unwrap().strip_prefix("v1a,").unwrap();
            let signature = STANDARD.decode(signature).unwrap();
            assert!(UnparsedPublicKey::new(&ED25519, &public).verify(b"d-1.5.body", &signature).is_ok());
        }
    }

    /// The example of GitHub's documentation on the validation of deliveries.
    #[test]
    fn the_published_vector_of_github_is_signed_in_every_form() {
        let hmac = |algorithm, encoding| Hmac {
            format: HmacFormat {
                header: HeaderName::from_static("x-hub-signature-256"),
                algorithm,
                encoding,
                prefix: "sha256=".into(),
            },
            secret: SecretRef::Env("S".into()),
        };
        let sign = |algorithm, encoding| {
            let signer = Signer::hmac(&hmac(algorithm, encoding), "It's a Secret to Everybody").unwrap();
            let headers = signed(&signer, "d-1", b"Hello, World!", 0);
            headers["x-hub-signature-256"].to_str().unwrap().trim_start_matches("sha256=").to_owned()
        };
        let hex = sign(Algorithm::Sha256, Encoding::Hex);
        assert_eq!(hex, "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
        assert_eq!(evoke_model::hex(&STANDARD.decode(sign(Algorithm::Sha256, Encoding::Base64)).unwrap()), hex);
        let base64url = sign(Algorithm::Sha256, Encoding::Base64url);
        assert_eq!(evoke_model::hex(&URL_SAFE_NO_PAD.decode(base64url).unwrap()), hex);
        assert_eq!(sign(Algorithm::Sha1, Encoding::Hex).len(), 40);
        assert_eq!(sign(Algorithm::Sha512, Encoding::Hex).len(), 128);
    }

    #[test]
    fn a_secret_that_is_no_key_is_an_error_without_the_secret() {
        for secret in ["", "abc", "whsec_", "whsec_*", "whsk_", "whsk_AAAA", "whpk_AAAA"] {
            let error = Signer::standard_webhooks([secret]).unwrap_err().to_string();
            assert!(!error.contains("AAAA"), "{secret}: {error}");
        }
        let mismatched = [[7; 32], [8; 32]].concat();
        let mismatched = format!("whsk_{}", STANDARD.encode(mismatched));
        assert!(Signer::standard_webhooks([mismatched.as_str()]).is_err());
    }
}
