//! Secrets as keys, and the comparison of requests with them. The time of a comparison does not depend on the bytes:
//! two values are compared by their HMACs under a random key of this process.

use std::fmt;
use std::sync::Arc;

use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, UnparsedPublicKey};

use super::preset::{Claim, Signature, Signed};
use crate::signature::hmac_key;
use evoke_manifest::hmac::Algorithm;

/// The highest number of Ed25519 signatures that are verified for one request; the rest match no key. Each verification
/// reads the whole body. A sender that changes its key sends two signatures, so 16 verifications are enough for the 8
/// keys that a source can have.
const VERIFICATIONS_MAX: usize = 16;

/// A secret of a source. `Debug` hides it.
pub(super) struct Key {
    /// The sender that knows the secret.
    principal: Arc<str>,
    material: Material,
}

enum Material {
    Hmac(hmac::Key),
    /// A public key.
    Ed25519(Vec<u8>),
    /// The HMAC of a token, or of `user:password`, under [`Keys::comparison`].
    Secret(hmac::Tag),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.principal).finish()
    }
}

/// The secrets of a source.
#[derive(Debug)]
pub(super) struct Keys {
    keys: Vec<Key>,
    /// A random key. Two values are compared by their HMACs under this key.
    comparison: hmac::Key,
}

/// The verified sender of a request.
pub(super) struct Match {
    pub(super) principal: Arc<str>,
    /// The HMAC of the signed text; `None` if the sender was verified in another way.
    pub(super) code: Option<hmac::Tag>,
}

impl Keys {
    /// Returns an empty list, which no request matches; `None` if the system has no random numbers.
    pub(super) fn new() -> Option<Self> {
        let comparison = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        Some(Self { keys: Vec::new(), comparison })
    }

    pub(super) fn add_hmac(&mut self, principal: Arc<str>, algorithm: Algorithm, secret: &[u8]) {
        let material = Material::Hmac(hmac_key(algorithm, secret));
        self.keys.push(Key { principal, material });
    }

    pub(super) fn add_ed25519(&mut self, principal: Arc<str>, public: Vec<u8>) {
        self.keys.push(Key { principal, material: Material::Ed25519(public) });
    }

    pub(super) fn add_secret(&mut self, principal: Arc<str>, secret: &[u8]) {
        let material = Material::Secret(hmac::sign(&self.comparison, secret));
        self.keys.push(Key { principal, material });
    }

    /// Returns the sender whose secret matches a claim over this body. The body only matters for signatures.
    pub(super) fn find(&self, claim: &Claim, body: &[u8]) -> Option<Match> {
        match claim {
            Claim::Secret(secret) => self.find_secret(secret),
            Claim::Signed(signed) => self.find_signer(signed, body),
        }
    }

    /// Compares with all secrets, also after a match, so that the time does not depend on which secret matches.
    fn find_secret(&self, secret: &[u8]) -> Option<Match> {
        let presented = hmac::sign(&self.comparison, secret);
        let mut found = None;
        for key in &self.keys {
            if let Material::Secret(expected) = &key.material
                && self.are_equal(presented.as_ref(), expected.as_ref())
            {
                found = Some(Match { principal: key.principal.clone(), code: None });
            }
        }
        found
    }

    fn find_signer(&self, signed: &Signed, body: &[u8]) -> Option<Match> {
        let parts = [signed.before.as_slice(), body, &signed.after];
        let (mut text, mut verifications) = (None, 0);
        for key in &self.keys {
            match &key.material {
                Material::Hmac(secret) => {
                    let mut context = hmac::Context::with_key(secret);
                    parts.iter().for_each(|part| context.update(part));
                    let expected = context.sign();
                    let matches = |signature: &Signature| match signature {
                        Signature::Hmac(code) => self.are_equal(code, expected.as_ref()),
                        Signature::Ed25519(_) => false,
                    };
                    if signed.signatures.iter().any(matches) {
                        return Some(Match { principal: key.principal.clone(), code: Some(expected) });
                    }
                }
                Material::Ed25519(public) => {
                    let mut verify = |signature: &Signature| match signature {
                        Signature::Ed25519(_) if verifications == VERIFICATIONS_MAX => false,
                        Signature::Ed25519(signature) => {
                            verifications += 1;
                            let text = text.get_or_insert_with(|| parts.concat());
                            UnparsedPublicKey::new(&ED25519, public).verify(text, signature).is_ok()
                        }
                        Signature::Hmac(_) => false,
                    };
                    if signed.signatures.iter().any(&mut verify) {
                        return Some(Match { principal: key.principal.clone(), code: None });
                    }
                }
                Material::Secret(_) => {}
            }
        }
        None
    }

    fn are_equal(&self, left: &[u8], right: &[u8]) -> bool {
        hmac::verify(&self.comparison, left, hmac::sign(&self.comparison, right).as_ref()).is_ok()
    }
}
