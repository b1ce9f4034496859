//! Verifies all alternatives of a pattern against an event together, in one pass. An alternative is one combination of
//! the pattern's `$or` entries. A set of alternatives is stored as a row with one bit for each alternative of the
//! pattern, a set of lists of conditions as a row with one bit for each list of the field. A row consists of words of
//! 64 bits.
//!
//! [`verify`](super::verify) handles one alternative after another, so its work grows with the number of alternatives
//! times the size of the event. For a pattern with many alternatives or conditions and a large event, this module
//! shares the work:
//!
//! - Each value of a field is tested once against all lists of conditions on the field ([`Lists`]).
//! - Each array element is searched for all alternatives together.
//!
//! Both modules follow the rules in the docs of `verify`. A test compares their results.

mod absent;
mod cache;
mod lists;
mod rows;
mod search;
mod segments;
mod wildcards;

use super::condition::{ConditionList, Value};
use super::extract::{ExtractedValues, ROOT_ELEMENT, SourceTexts};
use super::verify::Requirement;
use cache::RowCache;
use lists::{Lists, ValueBuffers};
use rows::Rows;
use search::{Entry, Search};

/// All alternatives of a pattern, prepared for [`Bulk::verify`].
pub(super) struct Bulk {
    fields: Vec<BulkField>,
    requirements: Vec<BulkRequirement>,
    /// The requirements of each alternative, as indexes into `requirements`.
    alternatives: Vec<Vec<u32>>,
    /// The number of words in a set of alternatives.
    words: usize,
}

/// A field of the pattern and all lists of conditions on it.
struct BulkField {
    /// The number of the field in the index.
    field: u32,
    /// For each list, in the order of the bits of a row: the index of its requirement in `Bulk::requirements`.
    requirements: Vec<u32>,
    lists: Lists,
    /// The alternatives that test the field.
    tested_by: Vec<u64>,
    /// The alternatives that need a value of the field.
    needed_by: Vec<u64>,
}

/// One list of conditions.
struct BulkRequirement {
    /// The field of the list, as an index into `Bulk::fields`.
    field: u32,
    /// The bit of the list in the rows of that field.
    bit: u32,
    may_be_absent: bool,
    /// The alternatives that contain the list.
    alternatives: Vec<u64>,
    /// The words of `alternatives` that are not 0, each with its position.
    used: Vec<(u32, u64)>,
}

/// A value of the event at a field.
#[derive(Clone, Copy)]
struct Candidate {
    /// The number of the value among all extracted values of the event.
    number: u32,
    /// The innermost array element that contains the value.
    element: u32,
    /// The number of the row whose bits stand for the lists that the value meets.
    row: u32,
}

/// The number of words for a row of `bits` bits.
fn words_for(bits: usize) -> usize {
    bits.div_ceil(64)
}

fn bit(row: &[u64], bit: u32) -> bool {
    row.get(bit as usize / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
}

fn set_bit(row: &mut [u64], bit: u32, value: bool) {
    if let Some(word) = row.get_mut(bit as usize / 64) {
        let mask = 1 << (bit % 64);
        *word = if value { *word | mask } else { *word & !mask };
    }
}

/// Adds the bits of another row.
fn or_into(row: &mut [u64], other: &[u64]) {
    row.iter_mut().zip(other).for_each(|(word, other)| *word |= other);
}

/// Removes the bits of another row.
fn remove_from(row: &mut [u64], other: &[u64]) {
    row.iter_mut().zip(other).for_each(|(word, other)| *word &= !other);
}

fn is_empty(row: &[u64]) -> bool {
    row.iter().all(|word| *word == 0)
}

/// The bits that are set, ascending.
fn bits(row: &[u64]) -> impl Iterator<Item = u32> {
    row.iter().zip(0..).flat_map(|(word, at)| {
        let mut rest = *word;
        std::iter::from_fn(move || {
            let bit = rest.trailing_zeros();
            rest &= rest.wrapping_sub(1);
            (bit < 64).then_some(at * 64 + bit)
        })
    })
}

/// Returns one item for each list: true if at least one of the values meets the list.
pub(super) fn met_lists<'v>(lists: &[&ConditionList], values: impl Iterator<Item = Value<'v>>) -> Vec<bool> {
    let (prepared, mut buffers) = (Lists::new(lists), ValueBuffers::default());
    let mut met = vec![0; words_for(lists.len())];
    values.for_each(|value| or_into(&mut met, prepared.row(value, &mut buffers, &mut 0)));
    (0..lists.len() as u32).map(|list| bit(&met, list)).collect()
}

impl Bulk {
    /// Prepares a pattern. `all` has the requirements of each alternative. [`Requirement::list`] is an index into
    /// `lists`, the condition lists of all patterns.
    pub(super) fn new<'a>(all: impl ExactSizeIterator<Item = &'a [Requirement]>, lists: &[ConditionList]) -> Self {
        let words = words_for(all.len());
        let mut by_list = std::collections::HashMap::new();
        let mut by_field = std::collections::HashMap::new();
        let (mut requirements, mut lists_of): (Vec<BulkRequirement>, Vec<Vec<u32>>) = (Vec::new(), Vec::new());
        let mut field_numbers = Vec::new();
        let mut alternatives = Vec::with_capacity(all.len());
        for (of_alternative, at) in all.zip(0..) {
            let mut chosen = Vec::new();
            for requirement in of_alternative {
                let requirement = *by_list.entry(requirement.list).or_insert_with(|| {
                    let field = *by_field.entry(requirement.field).or_insert_with(|| {
                        field_numbers.push((requirement.field, Vec::new()));
                        lists_of.push(Vec::new());
                        lists_of.len() as u32 - 1
                    });
                    let bit = lists_of.get(field as usize).map_or(0, Vec::len) as u32;
                    if let (Some(numbers), Some((_, members))) =
                        (lists_of.get_mut(field as usize), field_numbers.get_mut(field as usize))
                    {
                        numbers.push(requirement.list);
                        members.push(requirements.len() as u32);
                    }
                    let may_be_absent = lists.get(requirement.list as usize).is_some_and(|list| list.may_be_absent);
                    requirements.push(BulkRequirement {
                        field,
                        bit,
                        may_be_absent,
                        alternatives: vec![0; words],
                        used: Vec::new(),
                    });
                    requirements.len() as u32 - 1
                });
                if let Some(requirement) = requirements.get_mut(requirement as usize) {
                    set_bit(&mut requirement.alternatives, at, true);
                }
                chosen.push(requirement);
            }
            alternatives.push(chosen);
        }
        for requirement in &mut requirements {
            let words = requirement.alternatives.iter().zip(0..).filter(|(word, _)| **word != 0);
            requirement.used = words.map(|(word, at)| (at, *word)).collect();
        }
        let fields = field_numbers.into_iter().zip(&lists_of).map(|((field, members), numbers)| {
            let lists: Vec<_> = numbers.iter().filter_map(|list| lists.get(*list as usize)).collect();
            let (mut tested_by, mut needed_by) = (vec![0; words], vec![0; words]);
            for requirement in members.iter().filter_map(|number| requirements.get(*number as usize)) {
                or_into(&mut tested_by, &requirement.alternatives);
                if !requirement.may_be_absent {
                    or_into(&mut needed_by, &requirement.alternatives);
                }
            }
            BulkField { field, requirements: members, lists: Lists::new(&lists), tested_by, needed_by }
        });
        let fields = fields.collect();
        Self { fields, requirements, alternatives, words }
    }

    /// Returns the number of an alternative that the event matches, counted from 0 within the pattern. Adds to `steps`
    /// the number of steps that this took; each step has a bounded cost.
    pub(super) fn verify(&self, extracted: &ExtractedValues, texts: SourceTexts<'_>, steps: &mut u64) -> Option<u32> {
        let mut active = vec![0; self.words];
        (0..self.alternatives.len() as u32).for_each(|alternative| set_bit(&mut active, alternative, true));
        let mut search = Search::new(self, extracted);
        let mut buffers = ValueBuffers::default();
        let mut cache = RowCache::default();
        // For each field: true if the event has no value of the field; the lists that at least one value meets; and the
        // lists that a value outside of all arrays meets.
        let mut met = Vec::with_capacity(self.fields.len());
        for (field, at_field) in self.fields.iter().zip(0..) {
            let mut rows = Rows::new(&field.requirements, self.words);
            // Consecutive values often have the same row. `last_any` and `last_outside` are the rows that were added
            // last to `any` and `outside`; the same row is not added again.
            let (mut any, mut outside) = (vec![0; rows.words()], vec![0; rows.words()]);
            let (mut last_any, mut last_outside) = (Rows::EMPTY, Rows::EMPTY);
            let mut has_outside = false;
            let mut candidates = Vec::new();
            *steps += 1;
            if field.tested_by.iter().zip(&active).any(|(tested, active)| tested & active != 0) {
                for (number, occurrence) in extracted.occurrences(field.field) {
                    *steps += 1;
                    let value = texts.value(extracted, occurrence);
                    let is_text = matches!(value, Value::Text(_));
                    let is_cached = is_text || matches!(value, Value::Number(_));
                    let key = if is_cached { RowCache::key(texts.text(extracted, occurrence)) } else { None };
                    let row = cache.get(at_field, is_text, key).unwrap_or_else(|| {
                        let row = rows.intern(field.lists.row(value, &mut buffers, steps));
                        cache.insert(at_field, is_text, key, row);
                        row
                    });
                    candidates.push(Candidate { number, element: occurrence.element, row });
                    if row != last_any {
                        *steps += rows.words() as u64;
                        or_into(&mut any, rows.get(row));
                        last_any = row;
                    }
                    if occurrence.element == ROOT_ELEMENT {
                        has_outside = true;
                        if row != last_outside {
                            or_into(&mut outside, rows.get(row));
                            last_outside = row;
                        }
                    }
                }
                if candidates.is_empty() {
                    remove_from(&mut active, &field.needed_by);
                } else {
                    for (number, at) in field.requirements.iter().zip(0..) {
                        let Some(requirement) = self.requirements.get(*number as usize) else { continue };
                        if !bit(&any, at) && (has_outside || !requirement.may_be_absent) {
                            remove_from(&mut active, &requirement.alternatives);
                        }
                    }
                }
            }
            if is_empty(&active) {
                *steps += search.steps;
                return None;
            }
            met.push((candidates.is_empty(), any, outside));
            search.add_field(candidates, rows);
        }
        // An alternative needs no search if at most one of its lists needs a value in an array: no two values can then
        // be in different elements.
        let simple = bits(&active).find(|alternative| {
            let requirements = self.alternatives.get(*alternative as usize).map_or(&[][..], Vec::as_slice);
            let mut in_elements = 0;
            requirements.iter().all(|number| {
                *steps += 1;
                let Some(requirement) = self.requirements.get(*number as usize) else { return false };
                let Some((absent, any, outside)) = met.get(requirement.field as usize) else { return false };
                let is_met = |row: &[u64]| bit(row, requirement.bit);
                let is_outside = *absent || is_met(outside);
                in_elements += u32::from(!is_outside);
                (is_outside || is_met(any)) && in_elements <= 1
            })
        });
        let found = simple.or_else(|| {
            let entries = (0..self.fields.len() as u32).filter(|field| {
                let tested_by = self.fields.get(*field as usize).map_or(&[][..], |field| &field.tested_by);
                tested_by.iter().zip(&active).any(|(tested, active)| tested & active != 0)
            });
            let entries: Vec<Entry> = entries.map(|field| search.whole_field(field)).collect();
            search.solve(ROOT_ELEMENT, &entries, &mut active);
            bits(&active).next()
        });
        *steps += search.steps;
        found
    }
}
