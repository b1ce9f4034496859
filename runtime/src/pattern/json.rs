//! A strict reader of JSON text (RFC 8259) that goes through it once and keeps nothing.
//!
//! Everything is validated, also what no pattern asks for: the whole text is UTF-8, escapes are complete, numbers follow
//! the grammar, nothing stands behind the value. A surrogate without its partner (`"\ud800"`, which JavaScript writes for
//! half a character) is within the grammar and read as U+FFFD; section 8.2 leaves it open. At most [`DEPTH_MAX`] arrays
//! and objects lie within each other.

use std::fmt;

/// How deeply arrays and objects may be nested; the limit that serde_json has, too.
pub(super) const DEPTH_MAX: u32 = 128;

/// The event's data is not one JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedEvent {
    /// Where it goes wrong, in bytes from its start.
    pub position: usize,
    /// What is wrong there.
    pub reason: &'static str,
}

impl fmt::Display for MalformedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.reason, self.position)
    }
}

impl std::error::Error for MalformedEvent {}

type Read<T> = Result<T, MalformedEvent>;

/// Where a string's characters stand, without the quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawString {
    pub(super) start: usize,
    pub(super) end: usize,
    /// It has escapes, so that its text is not these bytes.
    pub(super) escaped: bool,
}

/// A position in a JSON text.
pub(super) struct Scanner<'a> {
    pub(super) text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(json: &'a [u8]) -> Read<Self> {
        match std::str::from_utf8(json) {
            Ok(text) if json.len() <= u32::MAX as usize => Ok(Self { text, bytes: json, at: 0 }),
            Ok(_) => Err(MalformedEvent { position: u32::MAX as usize, reason: "longer than 4 GiB" }),
            Err(error) => Err(MalformedEvent { position: error.valid_up_to(), reason: "not UTF-8" }),
        }
    }

    pub(super) fn fail<T>(&self, reason: &'static str) -> Read<T> {
        Err(MalformedEvent { position: self.at, reason })
    }

    /// Where the scanner stands, in bytes from the start.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte that is not white space; it is not consumed.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other,
            }
        }
    }

    /// Consumes the byte that `peek` showed.
    #[inline]
    pub(super) fn advance(&mut self) {
        self.at += 1;
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Read<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.fail("something follows the end of the JSON text"),
        }
    }

    /// A member's name and its colon.
    #[inline]
    pub(super) fn key(&mut self) -> Read<RawString> {
        match self.peek() {
            Some(b'"') => {}
            None => return self.fail("the text ends within an object"),
            Some(_) => return self.fail("expected a member's name in quotes"),
        }
        let key = self.string()?;
        match self.peek() {
            Some(b':') => {
                self.at += 1;
                Ok(key)
            }
            _ => self.fail("expected `:` behind a member's name"),
        }
    }

    /// Consumes a comma (`true`) or the given closing bracket (`false`).
    #[inline]
    pub(super) fn more(&mut self, close: u8) -> Read<bool> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            Some(_) if close == b'}' => self.fail("expected `,` or `}` behind a member"),
            Some(_) => self.fail("expected `,` or `]` behind an element"),
            None if close == b'}' => self.fail("the text ends within an object"),
            None => self.fail("the text ends within an array"),
        }
    }

    /// A string; `peek` showed its opening quote.
    #[inline]
    pub(super) fn string(&mut self) -> Read<RawString> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.plain();
            match self.byte() {
                Some(b'"') => {
                    let end = self.at;
                    self.at += 1;
                    return Ok(RawString { start, end, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return self.fail("a control character within a string must be escaped"),
                None => return self.fail("the text ends within a string"),
            }
        }
    }

    /// Passes what needs no look within a string, eight bytes at a time.
    #[inline]
    fn plain(&mut self) {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGHS: u64 = 0x8080_8080_8080_8080;
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        while let Some(chunk) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk) {
            let word = u64::from_le_bytes(*chunk);
            let control = word.wrapping_sub(ONES * 0x20) & !word;
            let stop =
                (zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | control) & HIGHS;
            if stop != 0 {
                // Subtraction carries only upwards, so the lowest mark is a true one.
                self.at += (stop.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while let Some(byte) = self.byte() {
            if byte < 0x20 || byte == b'"' || byte == b'\\' {
                return;
            }
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Read<()> {
        self.at += 1;
        match self.byte() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.byte().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return self.fail("`\\u` needs four hexadecimal digits");
                    }
                    self.at += 1;
                }
                Ok(())
            }
            Some(_) => self.fail("unknown escape within a string"),
            None => self.fail("the text ends within a string"),
        }
    }

    /// A number; returns where it stands.
    pub(super) fn number(&mut self) -> Read<(usize, usize)> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => {
                self.at += 1;
                if matches!(self.byte(), Some(b'0'..=b'9')) {
                    return self.fail("a number has no leading zero");
                }
            }
            Some(b'1'..=b'9') => self.digits()?,
            _ => return self.fail("expected a value"),
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok((start, self.at))
    }

    fn digits(&mut self) -> Read<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        if self.at == start { self.fail("expected a digit") } else { Ok(()) }
    }

    pub(super) fn literal(&mut self, word: &'static str) -> Read<()> {
        if self.bytes.get(self.at..self.at + word.len()) == Some(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            self.fail("expected a value")
        }
    }

    /// Passes a scalar that nobody asks for.
    #[inline]
    fn scalar(&mut self, first: Option<u8>) -> Read<()> {
        match first {
            Some(b'"') => self.string().map(drop),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(_) => self.number().map(drop),
            None => self.fail("the text ends where a value should be"),
        }
    }

    /// Passes a value that nobody asks for, inside of `depth` arrays and objects. What is open is kept as bits, so that
    /// depth costs nothing.
    pub(super) fn skip(&mut self, depth: u32) -> Read<()> {
        let mut objects: u128 = 0; // one bit an open container: it is an object
        let mut open = 0;
        loop {
            let first = self.peek();
            let (close, object) = match first {
                Some(b'{') => (b'}', 1),
                Some(b'[') => (b']', 0),
                _ => {
                    self.scalar(first)?;
                    if self.close(&mut objects, &mut open)? {
                        return Ok(());
                    }
                    continue;
                }
            };
            if depth + open >= DEPTH_MAX {
                return self.fail("nested deeper than 128 levels");
            }
            self.at += 1;
            if self.peek() == Some(close) {
                self.at += 1;
                if self.close(&mut objects, &mut open)? {
                    return Ok(());
                }
                continue;
            }
            objects = (objects << 1) | object;
            open += 1;
            if object == 1 {
                self.key()?;
            }
        }
    }

    /// Behind a value: closes what ends here. True when all is closed; else the next value follows.
    #[inline]
    fn close(&mut self, objects: &mut u128, open: &mut u32) -> Read<bool> {
        while *open > 0 {
            let object = *objects & 1 == 1;
            if self.more(if object { b'}' } else { b']' })? {
                if object {
                    self.key()?;
                }
                return Ok(false);
            }
            *objects >>= 1;
            *open -= 1;
        }
        Ok(true)
    }
}

/// Appends the text of a validated string with escapes.
pub(super) fn unescape(raw: &str, into: &mut String) {
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        into.push_str(rest.get(..at).unwrap_or_default());
        let escape = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        let mut length = 2;
        into.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = unit(rest, at + 2).unwrap_or(0);
                length = 6;
                let low = if (0xd800..0xdc00).contains(&high) { second(rest, at + 6) } else { None };
                let code = low.map_or(high, |low| {
                    length = 12;
                    0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
                });
                // What is left of surrogates has no partner.
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            other => char::from(other),
        });
        rest = rest.get(at + length..).unwrap_or_default();
    }
    into.push_str(rest);
}

/// The low surrogate of a pair, when its escape stands there.
fn second(text: &str, at: usize) -> Option<u32> {
    let escape = text.get(at..at + 2)?;
    unit(text, at + 2).filter(|low| escape == "\\u" && (0xdc00..0xe000).contains(low))
}

fn unit(text: &str, at: usize) -> Option<u32> {
    u32::from_str_radix(text.get(at..at + 4)?, 16).ok()
}
