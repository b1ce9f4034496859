//! What is kept of an event while it is matched: the values of the fields that patterns ask for, and in which array
//! elements they stand.

use super::condition::Value;
use super::event::{DataView, EventView};
use super::fields::{Fields, ROOT};
use super::json::{self, DEPTH_MAX, MalformedEvent, RawString, Scanner};
use super::number::Decimal;

/// No occurrence, no element.
pub(super) const NONE: u32 = u32::MAX;
/// The element that stands for the event itself, outside of all arrays.
pub(super) const OUTSIDE: u32 = 0;

/// Where a text stands; an event is never copied, but for strings with escapes.
#[derive(Clone, Copy, Debug)]
struct Span {
    origin: Origin,
    start: u32,
    end: u32,
}

#[derive(Clone, Copy, Debug)]
enum Origin {
    Attribute(u32),
    Data,
    Unescaped,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Null,
    Bool(bool),
    /// The span in the text, and the index into `numbers`.
    Number(u32),
    Text,
    /// A later member of the same name replaced it.
    Replaced,
}

/// A scalar at a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occurrence {
    kind: Kind,
    span: Span,
    /// The innermost array element that it stands in; a scalar right in an array stands outside of its elements.
    pub(super) element: u32,
    /// The next one at the same field.
    next: u32,
}

/// An array element that is an object or array itself: values in two elements of one array never match together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element {
    pub(super) parent: u32,
    /// The field of its array.
    pub(super) field: u32,
    /// Of the elements within it the last one, plus 1. Elements are numbered in the order of the text.
    pub(super) end: u32,
    /// Its occurrences, including those of elements within it.
    pub(super) first: u32,
    pub(super) last: u32,
}

/// What is known of a field in the current event; of another event when `epoch` is not the current one.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    epoch: u32,
    head: u32,
    tail: u32,
    /// The object in which it was seen last, and which occurrences came from there: to notice repeated names.
    object: u32,
    first: u32,
    last: u32,
}

/// The values of one event, read once. Buffers are kept between events.
#[derive(Default)]
pub(super) struct Extract {
    epoch: u32,
    seen: Vec<Seen>,
    /// The fields with values, in the order of the text.
    pub(super) touched: Vec<u32>,
    occurrences: Vec<Occurrence>,
    pub(super) elements: Vec<Element>,
    numbers: Vec<Decimal>,
    unescaped: String,
    key: String,
    objects: u32,
}

/// Buffers that an unusually large event has grown are given back afterwards.
const KEEP_OCCURRENCES: usize = 16 * 1024;
const KEEP_TEXT: usize = 256 * 1024;

impl Extract {
    fn begin(&mut self, fields: &Fields) {
        if self.epoch == u32::MAX {
            self.seen.clear();
            self.epoch = 0;
        }
        self.epoch += 1;
        if self.seen.len() < fields.len() {
            self.seen.resize(fields.len(), Seen::default());
        }
        self.touched.clear();
        self.occurrences.clear();
        self.occurrences.shrink_to(KEEP_OCCURRENCES);
        self.elements.clear();
        self.elements.shrink_to(KEEP_OCCURRENCES);
        self.elements.push(Element { parent: NONE, field: ROOT, end: NONE, first: 0, last: NONE });
        self.numbers.clear();
        self.numbers.shrink_to(KEEP_OCCURRENCES);
        self.unescaped.clear();
        self.unescaped.shrink_to(KEEP_TEXT);
        self.objects = 1; // the event itself
    }

    /// Reads an event; returns the way to its texts.
    pub(super) fn read<'a>(&mut self, fields: &Fields, event: &'a EventView<'a>) -> Result<Texts<'a>, MalformedEvent> {
        self.begin(fields);
        for (index, (name, value)) in event.attributes().enumerate() {
            if let Some(field) = fields.child(ROOT, name) {
                let span = Span { origin: Origin::Attribute(index as u32), start: 0, end: value.len() as u32 };
                self.top(fields, field, span);
            }
        }
        let data = match event.data() {
            DataView::None => "",
            DataView::Text(text) => {
                if let Some(field) = fields.child(ROOT, "data") {
                    self.top(fields, field, Span { origin: Origin::Data, start: 0, end: text.len() as u32 });
                }
                text
            }
            DataView::Json(json) => {
                let mut walk = Walk { scanner: Scanner::new(json)?, fields, extract: self };
                match fields.child(ROOT, "data") {
                    Some(field) => walk.member(field, 1, OUTSIDE, 0)?,
                    None => walk.scanner.skip(0)?,
                }
                walk.scanner.end()?;
                walk.scanner.text
            }
        };
        Ok(Texts { event: Some(event), data })
    }

    /// Reads an event that is one JSON object; returns the way to its texts.
    pub(super) fn read_json<'a>(&mut self, fields: &Fields, json: &'a [u8]) -> Result<Texts<'a>, MalformedEvent> {
        self.begin(fields);
        let mut walk = Walk { scanner: Scanner::new(json)?, fields, extract: self };
        match walk.scanner.peek() {
            Some(b'{') => walk.value(ROOT, OUTSIDE, 0)?,
            _ => return walk.scanner.fail("an event is a JSON object"),
        }
        walk.scanner.end()?;
        Ok(Texts { event: None, data: walk.scanner.text })
    }

    /// A top-level string.
    fn top(&mut self, fields: &Fields, field: u32, span: Span) {
        self.replace(field, 1);
        if fields.is_leaf(field) {
            self.push(field, OUTSIDE, Kind::Text, span);
        }
        self.placed(field);
    }

    /// Before a member of an object is read: if its name was there already, what it held no longer counts.
    fn replace(&mut self, field: u32, object: u32) {
        let now = self.occurrences.len() as u32;
        let epoch = self.epoch;
        let Some(seen) = self.seen.get_mut(field as usize) else { return };
        if seen.epoch != epoch {
            *seen = Seen { epoch, head: NONE, tail: NONE, object, first: now, last: now };
            return;
        }
        if seen.object == object {
            let old = seen.first as usize..seen.last as usize;
            for occurrence in self.occurrences.get_mut(old).unwrap_or_default() {
                occurrence.kind = Kind::Replaced;
            }
        }
        (seen.object, seen.first, seen.last) = (object, now, now);
    }

    /// Behind a member: remembers which occurrences came from it.
    fn placed(&mut self, field: u32) {
        let now = self.occurrences.len() as u32;
        if let Some(seen) = self.seen.get_mut(field as usize) {
            seen.last = now;
        }
    }

    fn push(&mut self, field: u32, element: u32, kind: Kind, span: Span) {
        let number = self.occurrences.len() as u32;
        self.occurrences.push(Occurrence { kind, span, element, next: NONE });
        let Some(seen) = self.seen.get_mut(field as usize) else { return };
        if seen.head == NONE {
            seen.head = number;
            self.touched.push(field);
        } else if let Some(previous) = self.occurrences.get_mut(seen.tail as usize) {
            previous.next = number;
        }
        seen.tail = number;
    }

    /// The occurrences at a field, in the order of the text, each with its number.
    pub(super) fn at(&self, field: u32) -> impl Iterator<Item = (u32, &Occurrence)> {
        let head = match self.seen.get(field as usize) {
            Some(seen) if seen.epoch == self.epoch => seen.head,
            _ => NONE,
        };
        let mut next = head;
        std::iter::from_fn(move || {
            loop {
                let number = next;
                let occurrence = self.occurrences.get(number as usize)?;
                next = occurrence.next;
                if !matches!(occurrence.kind, Kind::Replaced) {
                    return Some((number, occurrence));
                }
            }
        })
    }

    /// Which event the extract holds: a number that no other event since has had.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }
}

/// A way to get at the texts that occurrences stand for.
#[derive(Clone, Copy)]
pub(super) struct Texts<'a> {
    /// None of an event that is one JSON text.
    event: Option<&'a EventView<'a>>,
    data: &'a str,
}

impl<'a> Texts<'a> {
    fn get(self, extract: &'a Extract, span: Span) -> &'a str {
        let text = match span.origin {
            Origin::Attribute(index) => self.event.map_or("", |event| event.attribute(index)),
            Origin::Data => self.data,
            Origin::Unescaped => &extract.unescaped,
        };
        text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// The value of an occurrence.
    pub(super) fn value(self, extract: &'a Extract, occurrence: &Occurrence) -> Value<'a> {
        match occurrence.kind {
            Kind::Null | Kind::Replaced => Value::Null,
            Kind::Bool(bool) => Value::Bool(bool),
            Kind::Number(index) => match extract.numbers.get(index as usize) {
                Some(number) => Value::Number(*number),
                None => Value::Null,
            },
            Kind::Text => Value::Text(self.get(extract, occurrence.span)),
        }
    }

    /// The text of a number as the event writes it, or of a string.
    pub(super) fn text(self, extract: &'a Extract, occurrence: &Occurrence) -> &'a str {
        self.get(extract, occurrence.span)
    }
}

/// Goes through a JSON text along the fields that are asked for and skips the rest.
struct Walk<'a, 'b> {
    scanner: Scanner<'a>,
    fields: &'b Fields,
    extract: &'b mut Extract,
}

impl Walk<'_, '_> {
    fn member(&mut self, field: u32, object: u32, element: u32, depth: u32) -> Result<(), MalformedEvent> {
        self.extract.replace(field, object);
        self.value(field, element, depth)?;
        self.extract.placed(field);
        Ok(())
    }

    /// The value of a field. The recursion is at most [`DEPTH_MAX`] deep.
    fn value(&mut self, field: u32, element: u32, depth: u32) -> Result<(), MalformedEvent> {
        let first = self.scanner.peek();
        match first {
            Some(b'{') if self.fields.has_children(field) => return self.object(field, element, depth),
            Some(b'[') => return self.array(field, element, depth),
            Some(b'{') => return self.scanner.skip(depth),
            _ if !self.fields.is_leaf(field) => return self.scanner.skip(depth),
            _ => {}
        }
        let start = self.scanner.position() as u32;
        let mut span = Span { origin: Origin::Data, start, end: start };
        let kind = match first {
            Some(b'"') => {
                let raw = self.scanner.string()?;
                span = self.span(raw);
                Kind::Text
            }
            Some(b't') => self.scanner.literal("true").map(|()| Kind::Bool(true))?,
            Some(b'f') => self.scanner.literal("false").map(|()| Kind::Bool(false))?,
            Some(b'n') => self.scanner.literal("null").map(|()| Kind::Null)?,
            Some(_) => {
                let (start, end) = self.scanner.number()?;
                span.end = end as u32;
                let text = self.scanner.text.as_bytes().get(start..end).unwrap_or_default();
                self.extract.numbers.push(Decimal::parse(text));
                Kind::Number(self.extract.numbers.len() as u32 - 1)
            }
            None => return self.scanner.fail("the text ends where a value should be"),
        };
        self.extract.push(field, element, kind, span);
        Ok(())
    }

    fn span(&mut self, raw: RawString) -> Span {
        if !raw.escaped {
            return Span { origin: Origin::Data, start: raw.start as u32, end: raw.end as u32 };
        }
        let start = self.extract.unescaped.len() as u32;
        json::unescape(self.scanner.text.get(raw.start..raw.end).unwrap_or_default(), &mut self.extract.unescaped);
        Span { origin: Origin::Unescaped, start, end: self.extract.unescaped.len() as u32 }
    }

    fn object(&mut self, field: u32, element: u32, depth: u32) -> Result<(), MalformedEvent> {
        if depth >= DEPTH_MAX {
            return self.scanner.fail("nested deeper than 128 levels");
        }
        self.extract.objects += 1;
        let object = self.extract.objects;
        self.scanner.advance();
        if self.scanner.peek() == Some(b'}') {
            self.scanner.advance();
            return Ok(());
        }
        loop {
            let raw = self.scanner.key()?;
            let name = self.scanner.text.get(raw.start..raw.end).unwrap_or_default();
            let child = if raw.escaped {
                self.extract.key.clear();
                json::unescape(name, &mut self.extract.key);
                self.fields.child(field, &self.extract.key)
            } else {
                self.fields.child(field, name)
            };
            match child {
                Some(child) => self.member(child, object, element, depth + 1)?,
                None => self.scanner.skip(depth + 1)?,
            }
            if !self.scanner.more(b'}')? {
                return Ok(());
            }
        }
    }

    fn array(&mut self, field: u32, element: u32, depth: u32) -> Result<(), MalformedEvent> {
        if depth >= DEPTH_MAX {
            return self.scanner.fail("nested deeper than 128 levels");
        }
        self.scanner.advance();
        if self.scanner.peek() == Some(b']') {
            self.scanner.advance();
            return Ok(());
        }
        loop {
            match self.scanner.peek() {
                Some(b'{' | b'[') => self.element(field, element, depth + 1)?,
                _ => self.value(field, element, depth + 1)?,
            }
            if !self.scanner.more(b']')? {
                return Ok(());
            }
        }
    }

    fn element(&mut self, field: u32, parent: u32, depth: u32) -> Result<(), MalformedEvent> {
        let number = self.extract.elements.len() as u32;
        let first = self.extract.occurrences.len() as u32;
        self.extract.elements.push(Element { parent, field, end: number, first, last: first });
        self.value(field, number, depth)?;
        let last = self.extract.occurrences.len() as u32;
        if last == first {
            // Nothing in it is asked for: so it may as well not be there.
            self.extract.elements.truncate(number as usize);
            return Ok(());
        }
        let end = self.extract.elements.len() as u32;
        if let Some(element) = self.extract.elements.get_mut(number as usize) {
            (element.last, element.end) = (last, end);
        }
        Ok(())
    }
}
