//! Strings of JSON (RFC 8259, section 7).

use super::{Reader, Result};

impl<'a> Reader<'a> {
    /// What stands between the quotes: its escapes are valid, and it is UTF-8.
    pub(super) fn string(&mut self) -> Result<Text<'a>> {
        self.at += 1;
        let start = self.at;
        let (mut escaped, mut ascii) = (false, true);
        loop {
            self.at += plain(self.bytes.get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(..0x20) => return self.malformed("a control character in a string is to be escaped"),
                Some(byte) => {
                    ascii &= byte < 0x80;
                    self.at += 1;
                }
                None => return self.malformed("the text ends within a string"),
            }
        }
        let bytes = self.bytes.get(start..self.at).unwrap_or_default();
        if !ascii && let Err(error) = std::str::from_utf8(bytes) {
            self.at = start + error.valid_up_to();
            return self.malformed("not UTF-8");
        }
        self.at += 1;
        Ok(Text { bytes, escaped })
    }

    fn escape(&mut self) -> Result<()> {
        let digits = match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 0,
            Some(b'u') => 4,
            _ => return self.malformed("no such escape"),
        };
        let hex = self.bytes.get(self.at + 2..self.at + 2 + digits);
        if !hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
            return self.malformed("`\\u` takes four hexadecimal digits");
        }
        self.at += 2 + digits;
        Ok(())
    }
}

/// What stands between quotes.
pub(super) struct Text<'a> {
    pub(super) bytes: &'a [u8],
    /// Whether there are escapes.
    pub(super) escaped: bool,
}

impl Text<'_> {
    pub(super) fn push_to(&self, into: &mut String) {
        let text = std::str::from_utf8(self.bytes).unwrap_or_default();
        if self.escaped { unescape(text, into) } else { into.push_str(text) }
    }
}

/// How many bytes at the start are surely ASCII that stands for itself, in steps of 8: each step looks at 8 bytes in one
/// word, and stops at a quote, a backslash, a control character or a byte that is not ASCII.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES * 0x80;
    let mut done = 0;
    for word in bytes.as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*word);
        let below = |limit: u8, word: u64| word.wrapping_sub(ONES * u64::from(limit)) & !word;
        let is = |byte: u8| below(1, word ^ (ONES * u64::from(byte)));
        let special = (word | below(0x20, word) | is(b'"') | is(b'\\')) & HIGHS;
        if special != 0 {
            return done + special.trailing_zeros() as usize / 8;
        }
        done += 8;
    }
    done
}

/// Adds the text that one with valid escapes stands for. A surrogate without its other half becomes U+FFFD.
fn unescape(text: &str, into: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        into.push_str(plain);
        let (c, length) = match escape.as_bytes().get(1) {
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            Some(b'u') => unicode(escape),
            Some(byte) => (char::from(*byte), 2),
            None => ('\\', 1),
        };
        into.push(c);
        rest = escape.get(length..).unwrap_or_default();
    }
    into.push_str(rest);
}

/// The character of `\uXXXX`, or of two that are a surrogate pair, and the length of its text.
fn unicode(escape: &str) -> (char, usize) {
    let unit = |at: usize| {
        let hex = escape.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(hex, 16).ok()
    };
    let first = unit(0).unwrap_or(0xfffd);
    if let (0xd800..0xdc00, Some(second @ 0xdc00..0xe000)) = (first, unit(6)) {
        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 6)
}
