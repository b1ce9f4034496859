//! Tests one value against all lists of conditions that a pattern has for a field.
//!
//! The cost of a value depends on its length and on the logarithm of the number of conditions. Only wildcards with
//! several literals are tested one by one; a pattern has few of them.

use super::segments::{Interval, Segments};
use super::{bit, or_into, set_bit, words_for};
use crate::cidr::Address;
use crate::condition::{Condition, ConditionList, Exact, Value};
use crate::number::Number;
use crate::text::{BytePositions, TextTest, Wildcard, fold_char};

/// The conditions of several lists on one field. The bit `i` of a row belongs to list `i`. A list with more than one
/// `anything-but` has an additional bit for each further one.
pub(super) struct Lists {
    count: usize,
    words: usize,
    /// The bits of lists that match every value.
    always: Vec<u64>,
    /// For each value that a condition names, the bits of its lists.
    include: ValueIndex,
    /// The bits of `anything-but`. Each is set unless `exclude` has it.
    but: Vec<u64>,
    exclude: ValueIndex,
    /// The additional bits, each with the number of its list.
    additional: Vec<(u32, u32)>,
}

/// Buffers for one value, reused.
#[derive(Default)]
pub(super) struct ValueBuffers {
    row: Vec<u64>,
    excluded: Vec<u64>,
    text: Vec<u8>,
    folded: String,
    positions: BytePositions,
}

impl Lists {
    pub(super) fn new(lists: &[&ConditionList]) -> Self {
        let is_but =
            |condition: &&Condition| matches!(condition, Condition::AnythingBut(_) | Condition::AnythingButText(_));
        let buts = |list: &&ConditionList| list.conditions.iter().filter(is_but).count();
        let bits = lists.iter().map(|list| buts(list).saturating_sub(1)).sum::<usize>() + lists.len();
        let words = words_for(bits);
        let (mut always, mut but, mut additional) = (vec![0; words], vec![0; words], Vec::new());
        let (mut include, mut exclude) = (Builder::new(words), Builder::new(words));
        let mut next = lists.len() as u32;
        for (list, number) in lists.iter().zip(0..) {
            let mut but_bit = || {
                let mut chosen = number;
                if bit(&but, number) {
                    chosen = next;
                    next += 1;
                    additional.push((chosen, number));
                }
                set_bit(&mut but, chosen, true);
                chosen
            };
            for condition in &list.conditions {
                match condition {
                    Condition::Exact(exact) => include.exact(exact, number),
                    Condition::Text(test) => include.text(test, number),
                    Condition::Range(range) => {
                        include.numbers.push(Interval {
                            low: range.low.clone(),
                            high: range.high.clone(),
                            bit: number,
                        });
                    }
                    Condition::Cidr(cidr) => {
                        let (first, last) = cidr.bounds();
                        include.addresses.push(Interval {
                            low: Some((first, true)),
                            high: Some((last, true)),
                            bit: number,
                        });
                    }
                    Condition::Present => set_bit(&mut always, number, true),
                    Condition::Absent => {}
                    Condition::AnythingBut(values) => {
                        let but = but_bit();
                        values.iter().for_each(|value| exclude.exact(value, but));
                    }
                    Condition::AnythingButText(tests) => {
                        let but = but_bit();
                        tests.iter().for_each(|test| exclude.text(test, but));
                    }
                }
            }
        }
        let (include, exclude) = (include.build(), exclude.build());
        Self { count: lists.len(), words, always, include, but, exclude, additional }
    }

    /// Returns the row of a value: one bit for each list that the value meets.
    pub(super) fn row<'b>(&self, value: Value<'_>, buffers: &'b mut ValueBuffers) -> &'b [u64] {
        let ValueBuffers { row, excluded, text, folded, positions } = buffers;
        row.clear();
        row.extend_from_slice(&self.always);
        self.include.collect(value, row, text, folded, positions);
        if self.but.iter().any(|word| *word != 0) {
            excluded.clear();
            excluded.resize(self.words, 0);
            self.exclude.collect(value, excluded, text, folded, positions);
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
        row.truncate(words_for(self.count));
        row
    }
}

/// Conditions that name values, collected before they are sorted.
struct Builder {
    words: usize,
    literals: [Vec<u64>; 3],
    numbers: Vec<Interval<Number>>,
    texts: [Vec<Interval<Box<[u8]>>>; 4],
    addresses: Vec<Interval<Address>>,
    wildcards: Vec<(u32, Wildcard)>,
}

/// From this number of wildcards on, the positions of the bytes of a short text are collected first.
const SEVERAL_WILDCARDS: usize = 4;

/// The forms of a text in which its start is searched, as indexes of [`ValueIndex::texts`].
const PLAIN: usize = 0;
const REVERSED: usize = 1;
const FOLDED: usize = 2;
const FOLDED_REVERSED: usize = 3;

impl Builder {
    fn new(words: usize) -> Self {
        Self {
            words,
            literals: std::array::from_fn(|_| vec![0; words]),
            numbers: Vec::new(),
            texts: std::array::from_fn(|_| Vec::new()),
            addresses: Vec::new(),
            wildcards: Vec::new(),
        }
    }

    fn exact(&mut self, exact: &Exact, bit: u32) {
        match exact {
            Exact::Null => self.literal(0, bit),
            Exact::Bool(value) => self.literal(1 + usize::from(*value), bit),
            Exact::Number(number) => {
                let bound = || Some((number.clone(), true));
                self.numbers.push(Interval { low: bound(), high: bound(), bit });
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

    /// Adds a text that must be equal.
    fn whole(&mut self, form: usize, text: &str, bit: u32) {
        let bound = || Some((text.as_bytes().into(), true));
        if let Some(intervals) = self.texts.get_mut(form) {
            intervals.push(Interval { low: bound(), high: bound(), bit });
        }
    }

    /// Adds a start: the interval of all byte strings that begin with it.
    fn start(&mut self, form: usize, start: &[u8], bit: u32) {
        let mut end = start.to_vec();
        // No byte of UTF-8 is 0xff, so the last byte can be incremented.
        let high = end.last_mut().map(|last| *last = last.saturating_add(1)).map(|()| (end.into(), false));
        if let Some(intervals) = self.texts.get_mut(form) {
            intervals.push(Interval { low: Some((start.into(), true)), high, bit });
        }
    }

    fn build(self) -> ValueIndex {
        let words = self.words;
        ValueIndex {
            literals: self.literals,
            numbers: Segments::new(&self.numbers, words),
            texts: self.texts.map(|intervals| Texts::new(&intervals, words)),
            addresses: Segments::new(&self.addresses, words),
            wildcards: self.wildcards,
        }
    }
}

/// Texts and starts of texts in one form.
struct Texts {
    segments: Segments<Box<[u8]>>,
    /// The length of the longest text; more bytes of a value than that make no difference.
    bytes_max: usize,
}

impl Texts {
    fn new(intervals: &[Interval<Box<[u8]>>], words: usize) -> Self {
        let segments = Segments::new(intervals, words);
        let bytes_max = segments.keys().iter().map(|key| key.len()).max().unwrap_or(0);
        Self { segments, bytes_max }
    }

    fn collect(&self, text: &[u8], row: &mut [u64]) {
        or_into(row, self.segments.row(|key| key[..].cmp(text)));
    }
}

/// For any value, the bits of the conditions that name it.
struct ValueIndex {
    /// The rows of `null`, `false` and `true`.
    literals: [Vec<u64>; 3],
    numbers: Segments<Number>,
    texts: [Texts; 4],
    addresses: Segments<Address>,
    /// The wildcards with several literals, each with its bit.
    wildcards: Vec<(u32, Wildcard)>,
}

impl ValueIndex {
    fn collect(
        &self,
        value: Value<'_>,
        row: &mut [u64],
        buffer: &mut Vec<u8>,
        folded: &mut String,
        positions: &mut BytePositions,
    ) {
        let [null, no, yes] = &self.literals;
        match value {
            Value::Null => or_into(row, null),
            Value::Bool(false) => or_into(row, no),
            Value::Bool(true) => or_into(row, yes),
            Value::Number(_) if self.numbers.is_empty() => {}
            Value::Number(number) => or_into(row, self.numbers.row(|bound| bound.view().cmp(&number))),
            Value::Text(text) => {
                self.collect_text(text, row, buffer, folded);
                self.collect_wildcards(text, row, positions);
            }
        }
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

    fn collect_wildcards(&self, text: &str, row: &mut [u64], positions: &mut BytePositions) {
        let mut collect = |matches: &dyn Fn(&Wildcard) -> bool| {
            for (number, wildcard) in &self.wildcards {
                if !bit(row, *number) && matches(wildcard) {
                    set_bit(row, *number, true);
                }
            }
        };
        if self.wildcards.len() < SEVERAL_WILDCARDS || text.len() > BytePositions::BYTES_MAX {
            collect(&|wildcard| wildcard.matches(text));
        } else {
            positions.with(text, |positions| collect(&|wildcard| wildcard.matches_short(text, positions)));
        }
    }
}
