//! Reads JSON once (RFC 8259, UTF-8), checks all of it and keeps what patterns ask for.

use super::index::Fields;
use super::number::Number;
use super::tree::{FieldId, ItemId, NONE, Tree, Value};
use super::view::MalformedEvent;

/// The most levels of objects and arrays in an event.
const DEPTH_MAX: u32 = 128;

/// Offsets into an event's text have 32 bits.
pub(super) const SIZE_MAX: usize = u32::MAX as usize;

type Result<T> = std::result::Result<T, MalformedEvent>;

/// Reads one whole text as the value of a field and puts it below `parent`.
pub(super) fn read(bytes: &[u8], fields: &Fields, tree: &mut Tree, into: Place) -> Result<()> {
    let mut reader = Reader { bytes, at: 0, depth: 0, fields, tree, name: String::new() };
    if bytes.len() > SIZE_MAX {
        return reader.malformed("an event of 4 GiB or more");
    }
    reader.space();
    match into {
        Place::Root => {
            if reader.peek() != Some(b'{') {
                return reader.malformed("expected an object");
            }
            reader.object(0, super::tree::ROOT)?;
        }
        Place::Member { field: Some(field), parent, previous } => {
            let item = reader.value(field, parent, previous)?;
            reader.tree.member(item);
        }
        Place::Member { field: None, .. } => reader.skip()?,
    }
    reader.space();
    if reader.at < bytes.len() {
        return reader.malformed("unexpected text after the value");
    }
    Ok(())
}

/// Where a value goes.
pub(super) enum Place {
    /// Its members are those of the event.
    Root,
    /// It is the value of a field, or of none that is asked for.
    Member { field: Option<FieldId>, parent: ItemId, previous: ItemId },
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
    fields: &'a Fields,
    tree: &'a mut Tree,
    /// The name of a member, when it has escapes.
    name: String,
}

impl<'a> Reader<'a> {
    fn malformed<T>(&self, reason: &'static str) -> Result<T> {
        Err(MalformedEvent { position: self.at, reason })
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// A value of a field that is asked for.
    fn value(&mut self, field: FieldId, parent: ItemId, previous: ItemId) -> Result<ItemId> {
        let asked = self.fields.asked(field);
        let value = match self.peek() {
            Some(b'{') => {
                let item = self.tree.push(field, parent, previous, Value::Object(NONE));
                match asked.inside {
                    true => self.object(field, item)?,
                    false => self.skip()?,
                }
                return Ok(item);
            }
            Some(b'[') => {
                let item = self.tree.push(field, parent, previous, Value::Array(NONE));
                self.array(field, item)?;
                return Ok(item);
            }
            Some(b'"') if asked.value => {
                let start = self.tree.text.len();
                self.string()?.push_to(&mut self.tree.text);
                self.tree.push_text(start)
            }
            Some(b'-' | b'0'..=b'9') if asked.value => {
                let number = Number::from_text(self.number()?);
                self.tree.push_number(number)
            }
            Some(b't' | b'f') if asked.value => Value::Bool(self.word()? == "true"),
            Some(b'n') if asked.value => {
                self.word()?;
                Value::Null
            }
            // It still takes the place of an earlier member of its name.
            _ => {
                self.skip()?;
                Value::Dead
            }
        };
        Ok(self.tree.push(field, parent, previous, value))
    }

    fn deeper(&mut self) -> Result<()> {
        if self.depth == DEPTH_MAX {
            return self.malformed("objects and arrays nest deeper than 128 levels");
        }
        self.depth += 1;
        self.at += 1;
        self.space();
        Ok(())
    }

    /// After an element: whether another follows. `close` ends the object or array.
    fn more(&mut self, close: u8, expected: &'static str) -> Result<bool> {
        self.space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.space();
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            _ => self.malformed(expected),
        }
    }

    fn is_empty(&mut self, close: u8) -> bool {
        let empty = self.peek() == Some(close);
        if empty {
            self.at += 1;
            self.depth -= 1;
        }
        empty
    }

    fn object(&mut self, field: FieldId, item: ItemId) -> Result<()> {
        self.deeper()?;
        if self.is_empty(b'}') {
            return Ok(());
        }
        let mut previous = NONE;
        loop {
            let name = self.name()?;
            let child = if name.escaped {
                self.name.clear();
                name.push_to(&mut self.name);
                self.fields.child(field, self.name.as_bytes())
            } else {
                self.fields.child(field, name.bytes)
            };
            self.colon()?;
            match child {
                Some(child) => {
                    previous = self.value(child, item, previous)?;
                    self.tree.member(previous);
                }
                None => self.skip()?,
            }
            if !self.more(b'}', "expected `,` or `}`")? {
                return Ok(());
            }
        }
    }

    fn array(&mut self, field: FieldId, item: ItemId) -> Result<()> {
        self.deeper()?;
        if self.is_empty(b']') {
            return Ok(());
        }
        let mut previous = NONE;
        loop {
            previous = self.value(field, item, previous)?;
            if !self.more(b']', "expected `,` or `]`")? {
                return Ok(());
            }
        }
    }

    /// Checks a value that nothing asks for.
    fn skip(&mut self) -> Result<()> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => {
                self.deeper()?;
                if self.is_empty(b'}') {
                    return Ok(());
                }
                loop {
                    self.name()?;
                    self.colon()?;
                    self.skip()?;
                    if !self.more(b'}', "expected `,` or `}`")? {
                        return Ok(());
                    }
                }
            }
            Some(b'[') => {
                self.deeper()?;
                if self.is_empty(b']') {
                    return Ok(());
                }
                loop {
                    self.skip()?;
                    if !self.more(b']', "expected `,` or `]`")? {
                        return Ok(());
                    }
                }
            }
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            Some(b't' | b'f' | b'n') => self.word().map(drop),
            Some(_) => self.malformed("expected a value"),
            None => self.malformed("the text ends where a value is expected"),
        }
    }

    fn name(&mut self) -> Result<Text<'a>> {
        match self.peek() {
            Some(b'"') => self.string(),
            _ => self.malformed("expected a member's name in quotes"),
        }
    }

    fn colon(&mut self) -> Result<()> {
        self.space();
        if self.peek() != Some(b':') {
            return self.malformed("expected `:`");
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    fn word(&mut self) -> Result<&'static str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        for word in ["true", "false", "null"] {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(word);
            }
        }
        self.malformed("expected a value")
    }

    fn digits(&mut self) -> Result<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { self.malformed("expected a digit") } else { Ok(()) }
    }

    /// A number in the grammar of RFC 8259, section 6.
    fn number(&mut self) -> Result<&'a str> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => {
                self.at += 1;
                if let Some(b'0'..=b'9') = self.peek() {
                    return self.malformed("a number has no leading zero");
                }
            }
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.bytes.get(start..self.at).unwrap_or_default();
        Ok(std::str::from_utf8(text).unwrap_or_default())
    }

    /// What stands between the quotes: its escapes are valid, and it is UTF-8.
    fn string(&mut self) -> Result<Text<'a>> {
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
struct Text<'a> {
    bytes: &'a [u8],
    /// Whether there are escapes.
    escaped: bool,
}

impl Text<'_> {
    fn push_to(&self, into: &mut String) {
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
