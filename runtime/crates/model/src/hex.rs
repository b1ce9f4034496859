//! Hexadecimal text, as in digests and percent-encoding.

use std::fmt::Write as _;

/// Returns the bytes as lower-case hexadecimal, two digits each.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Returns the byte that two hexadecimal digits represent, in upper or lower case. Unlike the number parsers of the
/// standard library, this function does not accept a sign.
pub fn hex_byte(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

/// Returns the bytes of a text of `2 * N` hexadecimal digits; `None` for any other text.
pub fn hex_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, []) = text.as_bytes().as_chunks() else { return None };
    let pairs: &[[u8; 2]; N] = pairs.try_into().ok()?;
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = hex_byte(*pair)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_are_bytes() {
        assert_eq!(hex_bytes("00fFa9"), Some([0, 0xff, 0xa9]));
        assert_eq!([b"0g", b"+f", b"-1", b" 1"].map(|digits| hex_byte(*digits)), [None; 4]);
        assert_eq!(["", "00", "00000", "000000 ", "00000000", "00é0"].map(hex_bytes::<3>), [None; 6]);
    }

    #[test]
    fn every_byte_has_two_digits() {
        assert_eq!(hex(&[0, 0x0a, 0xff]), "000aff");
    }
}
