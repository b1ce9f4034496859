//! Searches the array elements of an event for values that meet the requirements of alternatives. The search handles
//! all alternatives of a pattern together.

use super::absent::AbsentFields;
use super::rows::Rows;
use super::{Bulk, Candidate, is_empty, or_into, remove_from};
use crate::extract::{Element, ExtractedValues, NONE};
use crate::verify::child_element;

/// If at most this many fields have values in an array, each element is searched for each of these fields. Otherwise,
/// in an element with few values, all fields without a value are handled together by [`AbsentFields`].
const FEW_FIELDS_MAX: usize = 8;

/// A field, restricted to one array element. The candidates (the values of the field) in that element are `from..to`.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    field: u32,
    from: usize,
    to: usize,
    /// The row of the lists that a value outside of the element already meets. These lists need no value in the
    /// element.
    free: u32,
    /// True if the field has a value directly in an enclosing element. The field then never counts as absent.
    strict: bool,
    /// The candidates that are not directly in the element are in an array that is directly in the element. This is the
    /// number of the field whose value is that array.
    array: u32,
    /// The innermost element that contains the first candidate in that array.
    inside: u32,
}

/// The fields of an event and the search through its elements.
pub(super) struct Search<'a> {
    bulk: &'a Bulk,
    extracted: &'a ExtractedValues,
    candidates: Vec<Vec<Candidate>>,
    rows: Vec<Rows<'a>>,
    /// The field of each occurrence; `NONE` if the pattern does not test the field. Empty until the first use.
    field_of_occurrence: Vec<u32>,
    /// The number of steps so far.
    pub(super) steps: u64,
}

impl<'a> Search<'a> {
    pub(super) fn new(bulk: &'a Bulk, extracted: &'a ExtractedValues) -> Self {
        Self { bulk, extracted, candidates: Vec::new(), rows: Vec::new(), field_of_occurrence: Vec::new(), steps: 0 }
    }

    /// Adds the next field of the pattern.
    pub(super) fn add_field(&mut self, candidates: Vec<Candidate>, rows: Rows<'a>) {
        self.candidates.push(candidates);
        self.rows.push(rows);
    }

    /// The entry of a field for the whole event.
    pub(super) fn whole_field(&self, field: u32) -> Entry {
        let to = self.candidates.get(field as usize).map_or(0, Vec::len);
        Entry { field, from: 0, to, free: Rows::EMPTY, strict: false, array: NONE, inside: NONE }
    }

    fn candidates(&self, entry: &Entry) -> &[Candidate] {
        self.candidates.get(entry.field as usize).and_then(|all| all.get(entry.from..entry.to)).unwrap_or_default()
    }

    fn empty_set(&self) -> Vec<u64> {
        vec![0; self.bulk.words]
    }

    /// Removes from `active` the alternatives that are not satisfied within `element`. Returns those of the remaining
    /// alternatives for which a value in the element meets a list; all other bits of the result are unspecified.
    /// `entries` are the fields to satisfy.
    ///
    /// The recursion is as deep as the nesting of arrays.
    pub(super) fn solve(&mut self, element: u32, entries: &[Entry], active: &mut [u64]) -> Vec<u64> {
        let element = self.innermost(element, entries);
        let mut by_value = self.empty_set();
        let mut inner = Vec::new();
        for entry in entries {
            inner.extend(self.place(element, entry, active, &mut by_value));
            if is_empty(active) {
                return by_value;
            }
        }
        inner.sort_unstable_by_key(|entry| entry.array);
        for group in inner.chunk_by(|a, b| a.array == b.array) {
            // `needed`: alternatives that need a value in the array; `touched`: alternatives that test a field with
            // values in the array.
            let (mut needed, mut touched) = (self.empty_set(), self.empty_set());
            for entry in group {
                let Some(field) = self.bulk.fields.get(entry.field as usize) else { continue };
                or_into(&mut touched, &field.tested_by);
                if entry.free == Rows::EMPTY {
                    or_into(&mut needed, &field.tested_by);
                } else if let Some(rows) = self.rows.get_mut(entry.field as usize) {
                    rows.with_sets(entry.free, &self.bulk.requirements, &mut self.steps, |sets| {
                        or_into(&mut needed, &sets.unmet);
                    });
                }
            }
            let mut wanted = active.to_vec();
            for (at, word) in wanted.iter_mut().enumerate() {
                let get = |set: &[u64]| set.get(at).copied().unwrap_or(0);
                *word &= get(&needed) | (get(&touched) & !get(&by_value));
            }
            if is_empty(&wanted) {
                continue;
            }
            let found = self.search_array(element, group, &wanted);
            for ((word, needed), found) in active.iter_mut().zip(&needed).zip(&found) {
                *word &= !needed | found;
            }
            or_into(&mut by_value, &found);
            if is_empty(active) {
                return by_value;
            }
        }
        by_value
    }

    /// Returns the innermost element within `element` that contains all candidates of `entries`. If all values of an
    /// element are in one inner element, the same alternatives are satisfied in both elements. Searching only the inner
    /// element makes arrays in arrays cheap.
    fn innermost(&mut self, mut element: u32, entries: &[Entry]) -> u32 {
        let ends = |entry: &Entry| {
            let candidates = self.candidates(entry);
            Some((*candidates.first()?, candidates.last()?.number))
        };
        let first = entries.iter().filter_map(ends).map(|(first, _)| first).min_by_key(|first| first.number);
        let last = entries.iter().filter_map(ends).map(|(_, last)| last).max();
        let (Some(first), Some(last)) = (first, last) else { return element };
        let mut steps = entries.len() as u64;
        while let Some((child, _)) = child_element(self.extracted, element, first.element)
            && self.extracted.elements.get(child as usize).is_some_and(|bounds| last < bounds.last)
        {
            steps += 1;
            element = child;
        }
        self.steps += steps;
        element
    }

    /// Tests one field with its candidates in an element. Removes from `active` the alternatives that the field rules
    /// out. If a value directly in the element meets a list, adds the alternatives with that list to `by_value`. If an
    /// array in the element contains candidates, returns the entry to search for in that array.
    fn place(&mut self, element: u32, entry: &Entry, active: &mut [u64], by_value: &mut [u64]) -> Option<Entry> {
        self.steps += 1;
        let bulk = self.bulk;
        let field = bulk.fields.get(entry.field as usize)?;
        let candidates = self.candidates.get(entry.field as usize)?.get(entry.from..entry.to).unwrap_or_default();
        let rows = self.rows.get_mut(entry.field as usize)?;
        let Some(first) = candidates.first() else {
            if entry.free == Rows::EMPTY && !entry.strict {
                remove_from(active, &field.needed_by);
                return None;
            }
            rows.with_sets(entry.free, &bulk.requirements, &mut self.steps, |sets| {
                remove_from(active, if entry.strict { &sets.unmet } else { &sets.unmet_needed });
            });
            return None;
        };
        // A field has values both directly in the element and in an array of the element only if the field itself is
        // the array. For any other field, all candidates are in the array if the first one is.
        let (mut direct, mut has_direct) = (Rows::EMPTY, false);
        let mut inside = (first.element != element).then_some(first.element);
        let array_of = |inside: u32| child_element(self.extracted, element, inside).map_or(NONE, |(_, array)| array);
        if inside.is_none_or(|inside| array_of(inside) == field.field) {
            self.steps += (candidates.len() * (1 + rows.words())) as u64;
            direct = rows.union(candidates.iter().filter_map(|candidate| {
                let is_direct = candidate.element == element;
                if is_direct {
                    has_direct = true;
                } else if inside.is_none() {
                    inside = Some(candidate.element);
                }
                is_direct.then_some(candidate.row)
            }));
        }
        let free = rows.union([entry.free, direct].into_iter());
        if direct != Rows::EMPTY {
            rows.with_sets(direct, &bulk.requirements, &mut self.steps, |sets| or_into(by_value, &sets.met));
        }
        let Some(inside) = inside else {
            rows.with_sets(free, &bulk.requirements, &mut self.steps, |sets| remove_from(active, &sets.unmet));
            return None;
        };
        Some(Entry { free, strict: entry.strict || has_direct, array: array_of(inside), inside, ..*entry })
    }

    /// Returns those alternatives of `wanted` that are satisfied within at least one element of an array, by at least
    /// one value in that element. The array is directly in `element`; `group` are the fields with candidates in the
    /// array. Tries each element of the array once.
    fn search_array(&mut self, element: u32, group: &[Entry], wanted: &[u64]) -> Vec<u64> {
        let mut found = self.empty_set();
        let child_of = |entry: &Entry| Some(child_element(self.extracted, element, entry.inside)?.0);
        let Some(mut child) = group.iter().filter_map(child_of).min() else { return found };
        let last = group.iter().filter_map(|entry| self.candidates(entry).last()).map(|last| last.number).max();
        let absent = (group.len() > FEW_FIELDS_MAX).then(|| {
            let mut entry_of = vec![NONE; self.bulk.fields.len()];
            for (entry, at) in group.iter().zip(0..) {
                if let Some(slot) = entry_of.get_mut(entry.field as usize) {
                    *slot = at;
                }
            }
            (self.absent_fields(group), entry_of)
        });
        let mut open = group.to_vec();
        // After an element come the elements that are nested in it, and then, at `bounds.end`, the next element of the
        // array.
        while let Some(bounds) = self.extracted.elements.get(child as usize).copied()
            && bounds.parent == element
            && Some(bounds.first) <= last
        {
            let this = std::mem::replace(&mut child, bounds.end);
            self.steps += 1 + self.bulk.words as u64;
            if bounds.first == bounds.last {
                continue;
            }
            let mut tried = wanted.to_vec();
            remove_from(&mut tried, &found);
            if is_empty(&tried) {
                break;
            }
            let entries: Vec<Entry> = match &absent {
                // In an element with few values, all fields without a value are handled together.
                Some((absent, entry_of)) if ((bounds.last - bounds.first) as usize) < group.len() => {
                    let present = self.present_fields(bounds, entry_of);
                    let mut ruled_out = self.empty_set();
                    self.steps += absent.collect(&present, &mut ruled_out);
                    remove_from(&mut tried, &ruled_out);
                    let narrow = |at: &u32| Some(self.narrow(open.get_mut(*at as usize)?, bounds));
                    present.iter().filter_map(narrow).collect()
                }
                _ => open.iter_mut().map(|entry| self.narrow(entry, bounds)).collect(),
            };
            if !is_empty(&tried) && entries.iter().any(|entry| entry.from < entry.to) {
                self.try_element(this, &entries, tried, &mut found);
            }
        }
        found
    }

    /// For each field of a group, the alternatives that are ruled out in an element without a value of the field.
    fn absent_fields(&mut self, group: &[Entry]) -> AbsentFields {
        if self.field_of_occurrence.is_empty() {
            for (candidates, field) in self.candidates.iter().zip(0..) {
                self.steps += candidates.len() as u64;
                for candidate in candidates {
                    let at = candidate.number as usize;
                    if self.field_of_occurrence.len() <= at {
                        self.field_of_occurrence.resize(at + 1, NONE);
                    }
                    if let Some(slot) = self.field_of_occurrence.get_mut(at) {
                        *slot = field;
                    }
                }
            }
        }
        let mut absent = AbsentFields::new(group.len(), self.bulk.words);
        for (entry, at) in group.iter().zip(0..) {
            let (Some(field), Some(rows)) =
                (self.bulk.fields.get(entry.field as usize), self.rows.get_mut(entry.field as usize))
            else {
                continue;
            };
            if entry.free == Rows::EMPTY && !entry.strict {
                absent.set(at, &field.needed_by);
            } else {
                rows.with_sets(entry.free, &self.bulk.requirements, &mut self.steps, |sets| {
                    absent.set(at, if entry.strict { &sets.unmet } else { &sets.unmet_needed });
                });
            }
        }
        absent.finish();
        self.steps += (group.len() * self.bulk.words) as u64;
        absent
    }

    /// Returns the fields of a group that have candidates in an element, as ascending positions in the group. Reads all
    /// occurrences in the element, so it is called only for elements with few occurrences.
    fn present_fields(&mut self, bounds: Element, entry_of: &[u32]) -> Vec<u32> {
        let range = bounds.first as usize..(bounds.last as usize).min(self.field_of_occurrence.len());
        let fields = self.field_of_occurrence.get(range).unwrap_or_default();
        self.steps += fields.len() as u64;
        let mut present: Vec<u32> =
            fields.iter().filter_map(|field| entry_of.get(*field as usize)).copied().filter(|at| *at != NONE).collect();
        present.sort_unstable();
        present.dedup();
        present
    }

    /// Returns the entry `open`, restricted to the array element with these bounds. Removes all candidates up to the
    /// end of that element from `open`, because the next call is for a later element.
    fn narrow(&self, open: &mut Entry, bounds: Element) -> Entry {
        open.from = self.first_at_or_after(open, bounds.first);
        let to = self.first_at_or_after(open, bounds.last);
        let entry = Entry { to, ..*open };
        open.from = to;
        entry
    }

    /// Adds to `found` those alternatives of `tried` that are satisfied within `element`, by at least one value in the
    /// element.
    fn try_element(&mut self, element: u32, entries: &[Entry], mut tried: Vec<u64>, found: &mut [u64]) {
        let by_value = self.solve(element, entries, &mut tried);
        for ((found, satisfied), by_value) in found.iter_mut().zip(tried).zip(by_value) {
            *found |= satisfied & by_value;
        }
    }

    /// Searches the candidates of an entry. Returns the index of the first candidate whose number is at least `number`;
    /// the end of the entry if there is none.
    fn first_at_or_after(&self, entry: &Entry, number: u32) -> usize {
        let candidates = self.candidates(entry);
        let is_before = |at: usize| candidates.get(at).is_some_and(|candidate| candidate.number < number);
        // The candidate is usually near, so the search starts with small steps, which double.
        let (mut low, mut step) = (0, 1);
        while is_before(low + step - 1) {
            low += step;
            step *= 2;
        }
        let high = (low + step - 1).min(candidates.len());
        let near = candidates.get(low..high).unwrap_or_default();
        entry.from + low + near.partition_point(|candidate| candidate.number < number)
    }
}
