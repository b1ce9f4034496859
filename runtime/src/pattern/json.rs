//! Reads JSON once (RFC 8259, UTF-8), checks all of it and keeps what patterns ask for.

mod string;

use super::index::Fields;
use super::number::Number;
use super::tree::{FieldId, ItemId, NONE, Tree, Value};
use super::view::MalformedEvent;
use string::Text;

/// The most levels of objects and arrays in an event.
const DEPTH_MAX: u32 = 128;

/// Offsets into an event's text have 32 bits.
pub(super) const SIZE_MAX: usize = u32::MAX as usize;

type Result<T> = std::result::Result<T, MalformedEvent>;

/// Reads one whole text as the value of a field and puts it below `parent`.
pub(super) fn read(bytes: &[u8], fields: &Fields, tree: &mut Tree, into: &Place) -> Result<()> {
    let mut reader = Reader { bytes, at: 0, depth: 0, fields, tree, name: String::new() };
    if bytes.len() > SIZE_MAX {
        return reader.malformed("an event of 4 GiB or more");
    }
    reader.space();
    match *into {
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
}
