//! Signatures in headers: the hash functions and encodings that a manifest can name.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::hmac;

use evoke_manifest::hmac::{Algorithm, Encoding};
use evoke_model::hex_byte;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Makes the key of an HMAC.
pub(crate) fn hmac_key(algorithm: Algorithm, secret: &[u8]) -> hmac::Key {
    let algorithm = match algorithm {
        Algorithm::Sha256 => hmac::HMAC_SHA256,
        Algorithm::Sha512 => hmac::HMAC_SHA512,
        Algorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
    };
    hmac::Key::new(algorithm, secret)
}

/// Encodes the bytes of a signature.
pub(crate) fn encode(encoding: Encoding, bytes: &[u8]) -> String {
    match encoding {
        Encoding::Hex => evoke_model::hex(bytes),
        Encoding::Base64 => STANDARD.encode(bytes),
        Encoding::Base64url => URL_SAFE_NO_PAD.encode(bytes),
    }
}

/// Decodes the text of a signature; `None` if it is not in this encoding.
pub(crate) fn decode(encoding: Encoding, text: &str) -> Option<Vec<u8>> {
    match encoding {
        Encoding::Hex if text.bytes().any(|byte| byte.is_ascii_lowercase()) => decode_lower_hex(text),
        Encoding::Hex => decode_lower_hex(&text.to_ascii_lowercase()),
        Encoding::Base64 => BASE64.decode(text).ok(),
        Encoding::Base64url => BASE64_URL.decode(text).ok(),
    }
}

/// Decodes hexadecimal digits in lower case.
pub(crate) fn decode_lower_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks() else { return None };
    let is_lower = !text.bytes().any(|digit| digit.is_ascii_uppercase());
    pairs.iter().map(|pair| hex_byte(*pair).filter(|_| is_lower)).collect()
}
