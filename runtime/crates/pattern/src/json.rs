//! A strict JSON scanner (RFC 8259), which reads the text once and builds no values.
//!
//! The whole text is validated, including the parts that no pattern tests: the text is UTF-8, escapes are complete,
//! numbers follow the grammar, and nothing follows the value. Arrays and objects are nested at most [`DEPTH_MAX`] deep.
//!
//! An escaped surrogate without its partner (`"\ud800"`) is half a character. The grammar allows it, and RFC 8259
//! section 8.2 does not define its meaning. JavaScript writes such escapes, so the scanner accepts them. They are read
//! as U+FFFD.

use std::fmt;

/// The largest nesting depth of arrays and objects; serde_json has the same limit.
pub(super) const DEPTH_MAX: u32 = 128;

/// The error of an event whose data is not exactly one valid JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedEvent {
    /// The position of the error in the JSON text, in bytes from its start.
    pub position: usize,
    /// The reason, such as `expected a value`.
    pub reason: &'static str,
}

impl fmt::Display for MalformedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.reason, self.position)
    }
}

impl std::error::Error for MalformedEvent {}

type ScanResult<T> = Result<T, MalformedEvent>;

/// The position of a string in the text, without its quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawString {
    pub(super) start: usize,
    pub(super) end: usize,
    /// True if the string contains escapes and must therefore be unescaped.
    pub(super) escaped: bool,
}

/// A JSON text and the current position in it, in bytes.
pub(super) struct Scanner<'a> {
    pub(super) text: &'a str,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Scanner<'a> {
    /// Starts at the beginning of a text. Rejects text that is not UTF-8. Also rejects text longer than 4 GiB, because
    /// positions are stored as `u32`.
    pub(super) fn new(json: &'a [u8]) -> ScanResult<Self> {
        match std::str::from_utf8(json) {
            Ok(text) if json.len() <= u32::MAX as usize => Ok(Self { text, bytes: json, position: 0 }),
            Ok(_) => Err(MalformedEvent { position: u32::MAX as usize, reason: "longer than 4 GiB" }),
            Err(error) => Err(MalformedEvent { position: error.valid_up_to(), reason: "not UTF-8" }),
        }
    }

    /// Returns an error at the current position.
    pub(super) fn fail<T>(&self, reason: &'static str) -> ScanResult<T> {
        Err(MalformedEvent { position: self.position, reason })
    }

    /// The current position, in bytes from the start.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.position).copied()
    }

    /// Skips white space and returns the next byte without consuming it; `None` at the end of the text.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.position += 1,
                other => return other,
            }
        }
    }

    /// Consumes the byte that `peek` returned.
    #[inline]
    pub(super) fn advance(&mut self) {
        self.position += 1;
    }

    /// Checks that only white space follows.
    pub(super) fn expect_end(&mut self) -> ScanResult<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.fail("unexpected text after the JSON value"),
        }
    }

    /// Reads the name of a member and the colon after it.
    #[inline]
    pub(super) fn member_name(&mut self) -> ScanResult<RawString> {
        match self.peek() {
            Some(b'"') => {}
            None => return self.fail("the text ends inside an object"),
            Some(_) => return self.fail("expected a member's name in quotes"),
        }
        let key = self.string()?;
        match self.peek() {
            Some(b':') => {
                self.position += 1;
                Ok(key)
            }
            _ => self.fail("expected `:` after a member's name"),
        }
    }

    /// Consumes a comma and returns true, or consumes the closing bracket `close` and returns false.
    #[inline]
    pub(super) fn comma_or_close(&mut self, close: u8) -> ScanResult<bool> {
        match self.peek() {
            Some(b',') => {
                self.position += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.position += 1;
                Ok(false)
            }
            Some(_) if close == b'}' => self.fail("expected `,` or `}` after a member"),
            Some(_) => self.fail("expected `,` or `]` after an element"),
            None if close == b'}' => self.fail("the text ends inside an object"),
            None => self.fail("the text ends inside an array"),
        }
    }

    /// Reads a string; the next byte is its opening quote.
    #[inline]
    pub(super) fn string(&mut self) -> ScanResult<RawString> {
        self.position += 1;
        let start = self.position;
        let mut escaped = false;
        loop {
            self.skip_plain_bytes();
            match self.byte() {
                Some(b'"') => {
                    let end = self.position;
                    self.position += 1;
                    return Ok(RawString { start, end, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return self.fail("a control character inside a string must be escaped"),
                None => return self.fail("the text ends inside a string"),
            }
        }
    }

    /// Skips the bytes of a string up to the next quote, backslash or control character, eight bytes at a time.
    #[inline]
    fn skip_plain_bytes(&mut self) {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGHS: u64 = 0x8080_8080_8080_8080;
        let mark_zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word;
        while let Some(chunk) = self.bytes.get(self.position..).and_then(<[u8]>::first_chunk) {
            let word = u64::from_le_bytes(*chunk);
            let control = word.wrapping_sub(ONES * 0x20) & !word;
            let stop = (mark_zero_bytes(word ^ (ONES * u64::from(b'"')))
                | mark_zero_bytes(word ^ (ONES * u64::from(b'\\')))
                | control)
                & HIGHS;
            if stop != 0 {
                // A borrow of the subtractions can wrongly mark a byte, but only above a correctly marked one. So the
                // lowest marked byte is always correct. The lowest byte of the word is the first one in the text.
                self.position += (stop.trailing_zeros() / 8) as usize;
                return;
            }
            self.position += 8;
        }
        while let Some(byte) = self.byte() {
            if byte < 0x20 || byte == b'"' || byte == b'\\' {
                return;
            }
            self.position += 1;
        }
    }

    fn escape(&mut self) -> ScanResult<()> {
        self.position += 1;
        match self.byte() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.position += 1;
                Ok(())
            }
            Some(b'u') => {
                self.position += 1;
                for _ in 0..4 {
                    if !self.byte().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return self.fail("`\\u` needs four hexadecimal digits");
                    }
                    self.position += 1;
                }
                Ok(())
            }
            Some(_) => self.fail("unknown escape inside a string"),
            None => self.fail("the text ends inside a string"),
        }
    }

    /// Reads a number; returns its start and end, in bytes.
    pub(super) fn number(&mut self) -> ScanResult<(usize, usize)> {
        let start = self.position;
        if self.byte() == Some(b'-') {
            self.position += 1;
        }
        match self.byte() {
            Some(b'0') => {
                self.position += 1;
                if matches!(self.byte(), Some(b'0'..=b'9')) {
                    return self.fail("a number must not have a leading zero");
                }
            }
            Some(b'1'..=b'9') => self.digits()?,
            _ => return self.fail("expected a value"),
        }
        if self.byte() == Some(b'.') {
            self.position += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.position += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.position += 1;
            }
            self.digits()?;
        }
        Ok((start, self.position))
    }

    fn digits(&mut self) -> ScanResult<()> {
        let start = self.position;
        while let Some(b'0'..=b'9') = self.byte() {
            self.position += 1;
        }
        if self.position == start { self.fail("expected a digit") } else { Ok(()) }
    }

    pub(super) fn literal(&mut self, word: &'static str) -> ScanResult<()> {
        if self.bytes.get(self.position..self.position + word.len()) == Some(word.as_bytes()) {
            self.position += word.len();
            Ok(())
        } else {
            self.fail("expected a value")
        }
    }

    /// Skips a value that is not an array or an object. `first` is the first byte of the value, as returned by `peek`.
    #[inline]
    fn skip_scalar(&mut self, first: Option<u8>) -> ScanResult<()> {
        match first {
            Some(b'"') => self.string().map(drop),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(_) => self.number().map(drop),
            None => self.fail("the text ends where a value is expected"),
        }
    }

    /// Skips a value of any type; `depth` is the number of arrays and objects around it. The open arrays and objects
    /// are stored as bits of an integer, so there is no recursion.
    pub(super) fn skip_value(&mut self, depth: u32) -> ScanResult<()> {
        let mut objects: u128 = 0; // one bit for each open container: 1 for an object, 0 for an array
        let mut open = 0;
        loop {
            let first = self.peek();
            let (close, object) = match first {
                Some(b'{') => (b'}', 1),
                Some(b'[') => (b']', 0),
                _ => {
                    self.skip_scalar(first)?;
                    if self.close_containers(&mut objects, &mut open)? {
                        return Ok(());
                    }
                    continue;
                }
            };
            if depth + open >= DEPTH_MAX {
                return self.fail("nested deeper than 128 levels");
            }
            self.position += 1;
            if self.peek() == Some(close) {
                self.position += 1;
                if self.close_containers(&mut objects, &mut open)? {
                    return Ok(());
                }
                continue;
            }
            objects = (objects << 1) | object;
            open += 1;
            if object == 1 {
                self.member_name()?;
            }
        }
    }

    /// Called after a value: closes the arrays and objects that end here. Returns true when all are closed, false when
    /// another value follows.
    #[inline]
    fn close_containers(&mut self, objects: &mut u128, open: &mut u32) -> ScanResult<bool> {
        while *open > 0 {
            let object = *objects & 1 == 1;
            if self.comma_or_close(if object { b'}' } else { b']' })? {
                if object {
                    self.member_name()?;
                }
                return Ok(false);
            }
            *objects >>= 1;
            *open -= 1;
        }
        Ok(true)
    }
}

/// Appends the unescaped text of a validated string to `into`.
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
                let high = code_unit(rest, at + 2).unwrap_or(0);
                length = 6;
                let low = if (0xd800..0xdc00).contains(&high) { low_surrogate(rest, at + 6) } else { None };
                let code = low.map_or(high, |low| {
                    length = 12;
                    0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
                });
                // A surrogate that remains here has no partner.
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            other => char::from(other),
        });
        rest = rest.get(at + length..).unwrap_or_default();
    }
    into.push_str(rest);
}

/// The low surrogate whose escape is at a position; `None` when there is none.
fn low_surrogate(text: &str, at: usize) -> Option<u32> {
    let escape = text.get(at..at + 2)?;
    code_unit(text, at + 2).filter(|low| escape == "\\u" && (0xdc00..0xe000).contains(low))
}

/// The UTF-16 code unit of the four hexadecimal digits at a position.
fn code_unit(text: &str, at: usize) -> Option<u32> {
    u32::from_str_radix(text.get(at..at + 4)?, 16).ok()
}
