//! Extracts from an event the values of the fields that patterns test, and the array elements that contain these
//! values. The event is read once; all patterns are then matched against the extracted values.

use super::condition::Value;
use super::event::{DataView, EventView};
use super::fields::{Fields, ROOT};
use super::json::{self, DEPTH_MAX, MalformedEvent, RawString, Scanner};
use super::number::{Decimal, NumberRef};

/// The number that means "no occurrence", "no element" or "no field".
pub(super) const NONE: u32 = u32::MAX;
/// The number of the root element, the event itself. Values outside of all arrays belong to this element.
pub(super) const ROOT_ELEMENT: u32 = 0;

/// The position of a text. Texts are not copied from the event, except strings with escapes.
#[derive(Clone, Copy, Debug)]
struct Span {
    origin: Origin,
    start: u32,
    end: u32,
}

/// The buffer that a span points into.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// The value of the attribute with this index.
    Attribute(u32),
    /// The data, or the whole event when the event is one JSON text.
    Data,
    /// [`ExtractedValues::unescaped`].
    Unescaped,
}

#[derive(Clone, Copy, Debug)]
enum ValueKind {
    Null,
    Bool(bool),
    /// A number; the index is into `ExtractedValues::numbers`.
    Number(u32),
    Text,
    /// The value does not count, because a later member of the same object has the same name.
    Replaced,
}

/// A scalar value of the event at a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occurrence {
    kind: ValueKind,
    span: Span,
    /// The number of the innermost element that contains the value. Scalars are not elements: for a scalar that is
    /// directly in an array, this is the element that contains the array.
    pub(super) element: u32,
    /// The number of the next occurrence at the same field.
    next: u32,
}

/// An array element that is an object or an array. Values in two different elements of the same array never match
/// together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element {
    /// The number of the element that contains the array of this element.
    pub(super) parent: u32,
    /// The field whose value is the array of this element.
    pub(super) field: u32,
    /// The number of the last element within this element, plus 1. Elements are numbered in the order of the text.
    pub(super) end: u32,
    /// The occurrences inside this element, at any depth, are `first..last`.
    pub(super) first: u32,
    pub(super) last: u32,
}

/// The occurrences of a field in one event: a linked list from `head` to `tail`. `epoch` is the number of that event.
/// If it differs from the number of the current event, the list is from an earlier event and counts as empty.
#[derive(Clone, Copy, Debug, Default)]
struct FieldOccurrences {
    epoch: u32,
    head: u32,
    tail: u32,
    /// The number of the object in which the field was read last. The field's occurrences in that object are
    /// `first..last`. If the object repeats the name, these occurrences no longer count.
    object: u32,
    first: u32,
    last: u32,
}

/// The extracted values of one event. The buffers are reused between events.
#[derive(Default)]
pub(super) struct ExtractedValues {
    /// The number of the current event, from 1.
    epoch: u32,
    by_field: Vec<FieldOccurrences>,
    /// The fields that have occurrences, in the order of the text.
    pub(super) present_fields: Vec<u32>,
    occurrences: Vec<Occurrence>,
    pub(super) elements: Vec<Element>,
    numbers: Vec<Decimal>,
    /// The unescaped texts of strings that have escapes, one after another.
    unescaped: String,
    /// The unescaped text of the latest member name that has escapes.
    key: String,
    /// The length of the data in bytes.
    data_bytes: usize,
    /// The number of objects read so far. Each object gets its own number from this counter.
    objects: u32,
}

/// Searching this many bytes of a text for a literal takes about as long as testing a short value. See
/// [`ExtractedValues::value_units`].
const UNIT_BYTES: usize = 64;
/// After a very large event, the buffers are shrunk to these sizes, to free memory. The first size is a number of
/// entries, the second a number of bytes.
const OCCURRENCES_KEPT_MAX: usize = 16 * 1024;
const TEXT_BYTES_KEPT_MAX: usize = 256 * 1024;

impl ExtractedValues {
    /// Clears the values of the previous event.
    fn begin(&mut self, fields: &Fields) {
        if self.epoch == u32::MAX {
            self.by_field.clear();
            self.epoch = 0;
        }
        self.epoch += 1;
        if self.by_field.len() < fields.len() {
            self.by_field.resize(fields.len(), FieldOccurrences::default());
        }
        self.present_fields.clear();
        self.occurrences.clear();
        self.occurrences.shrink_to(OCCURRENCES_KEPT_MAX);
        self.elements.clear();
        self.elements.shrink_to(OCCURRENCES_KEPT_MAX);
        self.elements.push(Element { parent: NONE, field: ROOT, end: NONE, first: 0, last: NONE });
        self.numbers.clear();
        self.numbers.shrink_to(OCCURRENCES_KEPT_MAX);
        self.unescaped.clear();
        self.unescaped.shrink_to(TEXT_BYTES_KEPT_MAX);
        self.objects = 1; // the event itself is object 1
    }

    /// Extracts an event; returns the texts that the occurrences point into.
    pub(super) fn read<'a>(
        &mut self,
        fields: &Fields,
        event: &'a EventView<'a>,
    ) -> Result<SourceTexts<'a>, MalformedEvent> {
        self.begin(fields);
        for (index, (name, value)) in event.attributes().enumerate() {
            if let Some(field) = fields.child(ROOT, name) {
                let span = Span { origin: Origin::Attribute(index as u32), start: 0, end: span_end(value)? };
                self.add_top_level_text(fields, field, span);
            }
        }
        let data = match event.data() {
            DataView::None => "",
            DataView::Text(text) => {
                if let Some(field) = fields.child(ROOT, "data") {
                    self.add_top_level_text(
                        fields,
                        field,
                        Span { origin: Origin::Data, start: 0, end: span_end(text)? },
                    );
                }
                text
            }
            DataView::Json(json) => {
                let mut walker = Walker { scanner: Scanner::new(json)?, fields, extracted: self };
                match fields.child(ROOT, "data") {
                    Some(field) => walker.member(field, 1, ROOT_ELEMENT, 0)?,
                    None => walker.scanner.skip_value(0)?,
                }
                walker.scanner.expect_end()?;
                walker.scanner.text
            }
        };
        self.data_bytes = data.len();
        Ok(SourceTexts { event: Some(event), data })
    }

    /// Extracts an event that is one JSON object; returns the texts that the occurrences point into.
    pub(super) fn read_json<'a>(&mut self, fields: &Fields, json: &'a [u8]) -> Result<SourceTexts<'a>, MalformedEvent> {
        self.begin(fields);
        let mut walker = Walker { scanner: Scanner::new(json)?, fields, extracted: self };
        match walker.scanner.peek() {
            Some(b'{') => walker.value(ROOT, ROOT_ELEMENT, 0)?,
            _ => return walker.scanner.fail("an event must be a JSON object"),
        }
        walker.scanner.expect_end()?;
        let data = walker.scanner.text;
        self.data_bytes = data.len();
        Ok(SourceTexts { event: None, data })
    }

    /// Adds a string at a top-level field.
    fn add_top_level_text(&mut self, fields: &Fields, field: u32, span: Span) {
        self.start_member(field, 1);
        if fields.is_tested(field) {
            self.add_occurrence(field, ROOT_ELEMENT, ValueKind::Text, span);
        }
        self.end_member(field);
    }

    /// Called before a member of an object is read. If an earlier member of the object has the same name, the values of
    /// the earlier member no longer count.
    fn start_member(&mut self, field: u32, object: u32) {
        let now = self.occurrences.len() as u32;
        let epoch = self.epoch;
        let Some(entry) = self.by_field.get_mut(field as usize) else { return };
        if entry.epoch != epoch {
            *entry = FieldOccurrences { epoch, head: NONE, tail: NONE, object, first: now, last: now };
            return;
        }
        if entry.object == object {
            let old = entry.first as usize..entry.last as usize;
            for occurrence in self.occurrences.get_mut(old).unwrap_or_default() {
                occurrence.kind = ValueKind::Replaced;
            }
        }
        (entry.object, entry.first, entry.last) = (object, now, now);
    }

    /// Called after a member was read. Stores the range of the member's occurrences.
    fn end_member(&mut self, field: u32) {
        let now = self.occurrences.len() as u32;
        if let Some(entry) = self.by_field.get_mut(field as usize) {
            entry.last = now;
        }
    }

    /// Adds a value at a field.
    fn add_occurrence(&mut self, field: u32, element: u32, kind: ValueKind, span: Span) {
        let number = self.occurrences.len() as u32;
        self.occurrences.push(Occurrence { kind, span, element, next: NONE });
        let Some(entry) = self.by_field.get_mut(field as usize) else { return };
        if entry.head == NONE {
            entry.head = number;
            self.present_fields.push(field);
        } else if let Some(previous) = self.occurrences.get_mut(entry.tail as usize) {
            previous.next = number;
        }
        entry.tail = number;
    }

    /// The occurrences at a field, each with its number, in the order of the text. Leaves out replaced values.
    pub(super) fn occurrences(&self, field: u32) -> impl Iterator<Item = (u32, &Occurrence)> {
        let head = match self.by_field.get(field as usize) {
            Some(entry) if entry.epoch == self.epoch => entry.head,
            _ => NONE,
        };
        let mut next = head;
        std::iter::from_fn(move || {
            loop {
                let number = next;
                let occurrence = self.occurrences.get(number as usize)?;
                next = occurrence.next;
                if !matches!(occurrence.kind, ValueKind::Replaced) {
                    return Some((number, occurrence));
                }
            }
        })
    }

    /// An estimate of the work to test one condition on all values of the event. The unit is the work for one short
    /// value.
    pub(super) fn value_units(&self) -> usize {
        self.occurrences.len() + self.data_bytes / UNIT_BYTES
    }

    /// The number of the current event. Events are counted from 1; the count restarts at 1 after `u32::MAX`.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }
}

/// The end of a span that covers a whole text. Returns an error for a text longer than 4 GiB, as [`Scanner::new`] does.
/// All other positions and counts of an event are at most the length of its JSON text, which [`Scanner::new`] bounds,
/// so they fit into a `u32`, too.
fn span_end(text: &str) -> Result<u32, MalformedEvent> {
    u32::try_from(text.len()).map_err(|_| MalformedEvent { position: u32::MAX as usize, reason: "longer than 4 GiB" })
}

/// The texts of an event, to which the spans of the occurrences refer.
#[derive(Clone, Copy)]
pub(super) struct SourceTexts<'a> {
    /// `None` when the event is one JSON text.
    event: Option<&'a EventView<'a>>,
    data: &'a str,
}

impl<'a> SourceTexts<'a> {
    fn get(self, extracted: &'a ExtractedValues, span: Span) -> &'a str {
        let text = match span.origin {
            Origin::Attribute(index) => self.event.map_or("", |event| event.attribute(index)),
            Origin::Data => self.data,
            Origin::Unescaped => &extracted.unescaped,
        };
        text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// The value of an occurrence; a string is borrowed.
    pub(super) fn value(self, extracted: &'a ExtractedValues, occurrence: &Occurrence) -> Value<'a> {
        match occurrence.kind {
            ValueKind::Null | ValueKind::Replaced => Value::Null,
            ValueKind::Bool(bool) => Value::Bool(bool),
            ValueKind::Number(index) => match extracted.numbers.get(index as usize) {
                Some(&decimal) => {
                    let text = if decimal.is_inexact() { self.get(extracted, occurrence.span) } else { "" };
                    Value::Number(NumberRef { decimal, text })
                }
                None => Value::Null,
            },
            ValueKind::Text => Value::Text(self.get(extracted, occurrence.span)),
        }
    }

    /// The text of a number as the event writes it, or of a string without quotes and escapes.
    pub(super) fn text(self, extracted: &'a ExtractedValues, occurrence: &Occurrence) -> &'a str {
        self.get(extracted, occurrence.span)
    }
}

/// Reads a JSON text, extracts the fields that patterns test and skips the rest. All of the text is validated.
struct Walker<'a, 'b> {
    scanner: Scanner<'a>,
    fields: &'b Fields,
    extracted: &'b mut ExtractedValues,
}

impl Walker<'_, '_> {
    /// Reads the value of a member of an object.
    fn member(&mut self, field: u32, object: u32, element: u32, depth: u32) -> Result<(), MalformedEvent> {
        self.extracted.start_member(field, object);
        self.value(field, element, depth)?;
        self.extracted.end_member(field);
        Ok(())
    }

    /// Reads the value of a field within `element`, inside of `depth` arrays and objects. The recursion is at most
    /// [`DEPTH_MAX`] deep.
    fn value(&mut self, field: u32, element: u32, depth: u32) -> Result<(), MalformedEvent> {
        let first = self.scanner.peek();
        match first {
            Some(b'{') if self.fields.has_children(field) => return self.object(field, element, depth),
            Some(b'[') => return self.array(field, element, depth),
            Some(b'{') => return self.scanner.skip_value(depth),
            _ if !self.fields.is_tested(field) => return self.scanner.skip_value(depth),
            _ => {}
        }
        let start = self.scanner.position() as u32;
        let mut span = Span { origin: Origin::Data, start, end: start };
        let kind = match first {
            Some(b'"') => {
                let raw = self.scanner.string()?;
                span = self.span(raw);
                ValueKind::Text
            }
            Some(b't') => self.scanner.literal("true").map(|()| ValueKind::Bool(true))?,
            Some(b'f') => self.scanner.literal("false").map(|()| ValueKind::Bool(false))?,
            Some(b'n') => self.scanner.literal("null").map(|()| ValueKind::Null)?,
            Some(_) => {
                let (start, end) = self.scanner.number()?;
                span.end = end as u32;
                let text = self.scanner.text.as_bytes().get(start..end).unwrap_or_default();
                self.extracted.numbers.push(Decimal::parse(text));
                ValueKind::Number(self.extracted.numbers.len() as u32 - 1)
            }
            None => return self.scanner.fail("the text ends where a value is expected"),
        };
        self.extracted.add_occurrence(field, element, kind, span);
        Ok(())
    }

    /// The span of a string; a string with escapes is unescaped into a buffer.
    fn span(&mut self, raw: RawString) -> Span {
        if !raw.escaped {
            return Span { origin: Origin::Data, start: raw.start as u32, end: raw.end as u32 };
        }
        let start = self.extracted.unescaped.len() as u32;
        json::unescape(self.scanner.text.get(raw.start..raw.end).unwrap_or_default(), &mut self.extracted.unescaped);
        Span { origin: Origin::Unescaped, start, end: self.extracted.unescaped.len() as u32 }
    }

    fn object(&mut self, field: u32, element: u32, depth: u32) -> Result<(), MalformedEvent> {
        if depth >= DEPTH_MAX {
            return self.scanner.fail("nested deeper than 128 levels");
        }
        self.extracted.objects += 1;
        let object = self.extracted.objects;
        self.scanner.advance();
        if self.scanner.peek() == Some(b'}') {
            self.scanner.advance();
            return Ok(());
        }
        loop {
            let raw = self.scanner.member_name()?;
            let name = self.scanner.text.get(raw.start..raw.end).unwrap_or_default();
            let child = if raw.escaped {
                self.extracted.key.clear();
                json::unescape(name, &mut self.extracted.key);
                self.fields.child(field, &self.extracted.key)
            } else {
                self.fields.child(field, name)
            };
            match child {
                Some(child) => self.member(child, object, element, depth + 1)?,
                None => self.scanner.skip_value(depth + 1)?,
            }
            if !self.scanner.comma_or_close(b'}')? {
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
            if !self.scanner.comma_or_close(b']')? {
                return Ok(());
            }
        }
    }

    /// Reads an array element that is an object or an array.
    fn element(&mut self, field: u32, parent: u32, depth: u32) -> Result<(), MalformedEvent> {
        let number = self.extracted.elements.len() as u32;
        let first = self.extracted.occurrences.len() as u32;
        self.extracted.elements.push(Element { parent, field, end: number, first, last: first });
        self.value(field, number, depth)?;
        let last = self.extracted.occurrences.len() as u32;
        if last == first {
            // Nothing was extracted from this element, so the element and the elements within it are removed again.
            self.extracted.elements.truncate(number as usize);
            return Ok(());
        }
        let end = self.extracted.elements.len() as u32;
        if let Some(element) = self.extracted.elements.get_mut(number as usize) {
            (element.last, element.end) = (last, end);
        }
        Ok(())
    }
}
