//! Tests one value against all lists of conditions that a pattern has for a field.
//!
//! The cost of a value depends on its length, on the logarithm of the number of conditions, and on the total length of
//! the wildcards, which is limited.

use super::segments::{Interval, Segments};
use super::wildcards::Wildcards;
use super::{bit, or_into, set_bit, words_for};
use crate::cidr::Address;
use crate::condition::{Condition, ConditionList, Exact, Value};
use crate::number::Number;
use crate::text::{TextTest, Wildcard, compare_bytes, fold_char};

/// The conditions of several lists on one field. Bit `i` of a row belongs to list `i`.
///
/// A list with several `anything-but` conditions matches a value unless all these conditions exclude the value.
/// Conditions that test the same form of the text (see [`PLAIN`]) share a bit, because one lookup finds whether all of
/// them exclude the value. Each condition with wildcards has a bit of its own; a pattern has few of them. So a list can
/// need several bits, and it matches if at least one of them is set. The first one is bit `i`. The additional bits
/// follow after the first bits of all lists.
pub(super) struct Lists {
    count: usize,
    words: usize,
    /// The bits of lists that match every value.
    always: Vec<u64>,
    /// For each value that conditions name, the bits of the lists with these conditions.
    include: ValueIndex,
    /// A mask of all bits that stand for `anything-but`. In the row of a value, all of them are set, except those that
    /// `exclude` gives for that value.
    but: Vec<u64>,
    exclude: ValueIndex,
    /// The additional bits, each with the number of its list.
    additional: Vec<(u32, u32)>,
}

/// The buffers of [`Lists::row`], which can be reused for the next value.
#[derive(Default)]
pub(super) struct ValueBuffers {
    row: Vec<u64>,
    excluded: Vec<u64>,
    text: Vec<u8>,
    folded: String,
    states: Vec<u64>,
}

impl Lists {
    pub(super) fn new(lists: &[&ConditionList]) -> Self {
        // Each list has at most one additional bit for each form of the text, and one for each `anything-but` with
        // wildcards.
        let wildcards = |condition: &Condition| match condition {
            Condition::AnythingButText(tests) => {
                usize::from(tests.iter().any(|test| matches!(test, TextTest::Wildcard(_))))
            }
            _ => 0,
        };
        let is_but =
            |condition: &Condition| matches!(condition, Condition::AnythingBut(_) | Condition::AnythingButText(_));
        let additional_max = |list: &&ConditionList| {
            let buts = list.conditions.iter().filter(|condition| is_but(condition)).count();
            buts.saturating_sub(1).min(FORMS + list.conditions.iter().map(wildcards).sum::<usize>())
        };
        let bits = lists.iter().map(additional_max).sum::<usize>() + lists.len();
        let words = words_for(bits);
        let (mut always, mut but, mut additional) = (vec![0; words], vec![0; words], Vec::new());
        let (mut include, mut exclude) = (Builder::new(words), Builder::new(words));
        let mut next = lists.len() as u32;
        for (list, number) in lists.iter().zip(0..) {
            let mut bit_of_form: [Option<u32>; FORMS] = [None; FORMS];
            let mut but_bit = |condition: &Condition, parts: &mut Vec<u32>| {
                let shared = form_of(condition).and_then(|form| bit_of_form.get_mut(form));
                let chosen = match &shared {
                    Some(Some(chosen)) => *chosen,
                    _ if !bit(&but, number) => number,
                    _ => {
                        next += 1;
                        additional.push((next - 1, number));
                        next - 1
                    }
                };
                if let Some(shared) = shared {
                    *shared = Some(chosen);
                }
                set_bit(&mut but, chosen, true);
                if let Some(parts) = parts.get_mut(chosen as usize) {
                    *parts += 1;
                }
                chosen
            };
            for condition in &list.conditions {
                match condition {
                    Condition::Exact(exact) => include.exact(exact, number),
                    Condition::Text(test) => include.text(test, number),
                    Condition::Range(range) => include.number(range.low.clone(), range.high.clone(), number),
                    Condition::Cidr(cidr) => {
                        let (first, last) = cidr.bounds();
                        include.addresses.push(Interval {
                            low: Some((first, true)),
                            high: Some((last, true)),
                            bit: number,
                            part: number,
                        });
                    }
                    Condition::Present => set_bit(&mut always, number, true),
                    Condition::Absent => {}
                    Condition::AnythingBut(values) => {
                        let but = but_bit(condition, &mut exclude.parts);
                        exclude.begin_part();
                        values.iter().for_each(|value| exclude.exact(value, but));
                    }
                    Condition::AnythingButText(tests) => {
                        let but = but_bit(condition, &mut exclude.parts);
                        exclude.begin_part();
                        tests.iter().for_each(|test| exclude.text(test, but));
                    }
                }
            }
        }
        let (include, exclude) = (include.build(), exclude.build());
        Self { count: lists.len(), words, always, include, but, exclude, additional }
    }

    /// Returns the row of a value: one bit for each list that the value meets. Adds the work to `steps`.
    pub(super) fn row<'b>(&self, value: Value<'_>, buffers: &'b mut ValueBuffers, steps: &mut u64) -> &'b [u64] {
        let ValueBuffers { row, excluded, text, folded, states } = buffers;
        row.clear();
        row.extend_from_slice(&self.always);
        let work = self.include.collect(value, row, text, folded, states);
        *steps += work + self.words as u64;
        if self.but.iter().any(|word| *word != 0) {
            excluded.clear();
            excluded.resize(self.words, 0);
            let work = self.exclude.collect(value, excluded, text, folded, states);
            *steps += work + (self.words + self.additional.len()) as u64;
            for ((word, but), excluded) in row.iter_mut().zip(&self.but).zip(excluded) {
                *word |= but & !*excluded;
            }
            for (from, to) in &self.additional {
                if bit(row, *from) {
                    set_bit(row, *to, true);
                    set_bit(row, *from, false);
                }
            }
        }
        // The loop above has moved the additional bits to the first bits of their lists.
        row.truncate(words_for(self.count));
        row
    }
}

/// The form of the text that an `anything-but` tests; `None` for an `anything-but` with wildcards.
fn form_of(condition: &Condition) -> Option<usize> {
    let Condition::AnythingButText(tests) = condition else { return Some(PLAIN) };
    match tests.first()? {
        TextTest::Prefix(_) => Some(PLAIN),
        TextTest::Suffix(_) => Some(REVERSED),
        TextTest::FoldedPrefix(_) | TextTest::Folded(_) => Some(FOLDED),
        TextTest::FoldedSuffix(_) => Some(FOLDED_REVERSED),
        TextTest::Wildcard(_) => None,
    }
}

/// Collects conditions that name values. [`Builder::build`] sorts them.
struct Builder {
    words: usize,
    /// The number of parts of each bit, see [`Interval::part`]; 0 counts as 1.
    parts: Vec<u32>,
    /// The number of the part to which the next intervals belong. `None` if each bit has only one part, which then has
    /// the number of the bit.
    part: Option<u32>,
    literals: [Vec<u64>; 3],
    numbers: Vec<Interval<Number>>,
    texts: [Vec<Interval<Box<[u8]>>>; FORMS],
    addresses: Vec<Interval<Address>>,
    wildcards: Vec<(u32, Wildcard)>,
}

/// The forms of a text, as indexes of [`ValueIndex::texts`]. In every form, a condition tests the start of the text or
/// the whole text: a suffix is a start of the reversed text.
const PLAIN: usize = 0;
const REVERSED: usize = 1;
const FOLDED: usize = 2;
const FOLDED_REVERSED: usize = 3;
const FORMS: usize = 4;

impl Builder {
    fn new(words: usize) -> Self {
        Self {
            words,
            parts: vec![0; words * 64],
            part: None,
            literals: std::array::from_fn(|_| vec![0; words]),
            numbers: Vec::new(),
            texts: std::array::from_fn(|_| Vec::new()),
            addresses: Vec::new(),
            wildcards: Vec::new(),
        }
    }

    /// Begins the next part of a bit.
    fn begin_part(&mut self) {
        self.part = Some(self.part.map_or(0, |part| part + 1));
    }

    fn number(&mut self, low: Option<(Number, bool)>, high: Option<(Number, bool)>, bit: u32) {
        self.numbers.push(Interval { low, high, bit, part: self.part.unwrap_or(bit) });
    }

    fn exact(&mut self, exact: &Exact, bit: u32) {
        match exact {
            Exact::Null => self.literal(0, bit),
            Exact::Bool(value) => self.literal(1 + usize::from(*value), bit),
            Exact::Number(number) => {
                let bound = || Some((number.clone(), true));
                self.number(bound(), bound(), bit);
            }
            Exact::Text(text) => self.whole(PLAIN, text, bit),
        }
    }

    fn literal(&mut self, which: usize, bit: u32) {
        if let Some(row) = self.literals.get_mut(which) {
            set_bit(row, bit, true);
        }
    }

    fn text(&mut self, test: &TextTest, bit: u32) {
        let reversed = |text: &str| text.bytes().rev().collect::<Vec<u8>>();
        match test {
            TextTest::Prefix(text) => self.start(PLAIN, text.as_bytes(), bit),
            TextTest::Suffix(text) => self.start(REVERSED, &reversed(text), bit),
            TextTest::FoldedPrefix(text) => self.start(FOLDED, text.as_bytes(), bit),
            TextTest::FoldedSuffix(text) => self.start(FOLDED_REVERSED, &reversed(text), bit),
            TextTest::Folded(text) => self.whole(FOLDED, text, bit),
            TextTest::Wildcard(wildcard) => match wildcard.pieces() {
                [only] => self.whole(PLAIN, only, bit),
                [head, tail] if tail.is_empty() => self.start(PLAIN, head.as_bytes(), bit),
                [head, tail] if head.is_empty() => self.start(REVERSED, &reversed(tail), bit),
                _ => self.wildcards.push((bit, wildcard.clone())),
            },
        }
    }

    /// Adds a text that a value must equal.
    fn whole(&mut self, form: usize, text: &str, bit: u32) {
        let bound = || Some((text.as_bytes().into(), true));
        let part = self.part.unwrap_or(bit);
        if let Some(intervals) = self.texts.get_mut(form) {
            intervals.push(Interval { low: bound(), high: bound(), bit, part });
        }
    }

    /// Adds the interval of all byte strings that begin with `start`.
    fn start(&mut self, form: usize, start: &[u8], bit: u32) {
        let mut end = start.to_vec();
        // No byte of UTF-8 is 0xff, so the last byte can be incremented.
        let high = end.last_mut().map(|last| *last = last.saturating_add(1)).map(|()| (end.into(), false));
        let part = self.part.unwrap_or(bit);
        if let Some(intervals) = self.texts.get_mut(form) {
            intervals.push(Interval { low: Some((start.into(), true)), high, bit, part });
        }
    }

    fn build(self) -> ValueIndex {
        let words = self.words;
        let parts = |bit: u32| self.parts.get(bit as usize).copied().unwrap_or(1);
        ValueIndex {
            literals: self.literals,
            numbers: Segments::new(&self.numbers, words, parts),
            texts: self.texts.map(|intervals| Texts::new(&intervals, words, parts)),
            addresses: Segments::new(&self.addresses, words, parts),
            wildcards: Wildcards::new(&self.wildcards),
        }
    }
}

/// The texts, and starts of texts, that conditions name. All of them have the same form (see [`PLAIN`]).
struct Texts {
    segments: Segments<Box<[u8]>>,
    /// The [`head`] of each key of `segments`. Most comparisons need only the head.
    heads: Vec<u64>,
    /// The length of the longest key. To compare a value with all keys, its first `bytes_max + 1` bytes are enough.
    bytes_max: usize,
}

impl Texts {
    fn new(intervals: &[Interval<Box<[u8]>>], words: usize, parts: impl Fn(u32) -> u32) -> Self {
        let segments = Segments::new(intervals, words, parts);
        let bytes_max = segments.keys().iter().map(|key| key.len()).max().unwrap_or(0);
        let heads = segments.keys().iter().map(|key| head(key)).collect();
        Self { segments, heads, bytes_max }
    }

    fn collect(&self, text: &[u8], row: &mut [u64]) {
        let wanted = head(text);
        let low = self.heads.partition_point(|head| *head < wanted);
        let same = self.heads.get(low..).unwrap_or_default();
        let same = if same.first() == Some(&wanted) { same.partition_point(|head| *head == wanted) } else { 0 };
        or_into(row, self.segments.row_within(low..low + same, |key| compare_bytes(key, text)));
    }
}

/// The first 8 bytes as a big-endian number. The order of heads never contradicts the order of the byte strings.
fn head(text: &[u8]) -> u64 {
    let mut head = [0; 8];
    head.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    u64::from_be_bytes(head)
}

/// Finds the bits of all conditions that name a value.
struct ValueIndex {
    /// The rows of `null`, `false` and `true`.
    literals: [Vec<u64>; 3],
    numbers: Segments<Number>,
    texts: [Texts; FORMS],
    addresses: Segments<Address>,
    wildcards: Wildcards,
}

impl ValueIndex {
    /// Adds the bits of all conditions that name `value` to `row`. Returns the number of steps.
    fn collect(
        &self,
        value: Value<'_>,
        row: &mut [u64],
        buffer: &mut Vec<u8>,
        folded: &mut String,
        states: &mut Vec<u64>,
    ) -> u64 {
        let [null, no, yes] = &self.literals;
        match value {
            Value::Null => or_into(row, null),
            Value::Bool(false) => or_into(row, no),
            Value::Bool(true) => or_into(row, yes),
            Value::Number(_) if self.numbers.is_empty() => {}
            Value::Number(number) => or_into(row, self.numbers.row(|bound| bound.view().cmp(&number))),
            Value::Text(text) => {
                self.collect_text(text, row, buffer, folded);
                return self.wildcards.collect(text, row, states);
            }
        }
        1
    }

    fn collect_text(&self, text: &str, row: &mut [u64], buffer: &mut Vec<u8>, folded: &mut String) {
        for (form, texts) in self.texts.iter().enumerate().filter(|(_, texts)| !texts.segments.is_empty()) {
            // One byte more than the longest key shows that a value is longer than every key.
            let take = texts.bytes_max.saturating_add(1);
            match form {
                PLAIN => texts.collect(text.as_bytes(), row),
                REVERSED => {
                    buffer.clear();
                    buffer.extend(text.bytes().rev().take(take));
                    texts.collect(buffer, row);
                }
                FOLDED => {
                    folded.clear();
                    for char in text.chars() {
                        if folded.len() >= take {
                            break;
                        }
                        folded.push(fold_char(char));
                    }
                    texts.collect(folded.as_bytes(), row);
                }
                _ => {
                    buffer.clear();
                    for char in text.chars().rev() {
                        if buffer.len() >= take {
                            break;
                        }
                        buffer.extend(fold_char(char).encode_utf8(&mut [0; 4]).bytes().rev());
                    }
                    texts.collect(buffer, row);
                }
            }
        }
        if let (false, Some(address)) = (self.addresses.is_empty(), Address::parse(text)) {
            or_into(row, self.addresses.row(|bound| bound.cmp(&address)));
        }
    }
}
