//! Searches the array elements of an event for values that meet an alternative, for all alternatives together.

use super::rows::Rows;
use super::{Bulk, Candidate, bit, bits, is_empty, or_into, remove_from};
use crate::extract::{ExtractedValues, NONE};
use crate::verify::child_element;

/// In an array with more candidates than this, only the elements with a value of a leading field are tried (see
/// [`Leads`]). In a smaller array, all elements are tried.
const SMALL_ARRAY_MAX: usize = 32;
/// An element is searched for all fields of its array if they are at most this many. Otherwise the fields that matter
/// there are selected first.
const FEW_FIELDS_MAX: usize = 8;

/// A field, restricted to one array element. Its candidates in that element are `from..to`.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    field: u32,
    from: usize,
    to: usize,
    /// The row of the lists that a value outside of the element meets. Such a list needs no value in the element.
    free: u32,
    /// The field has a value in an enclosing element of the search, so it is not absent.
    strict: bool,
    /// The array whose elements contain the candidates, as the number of its field. The array is directly in the
    /// element.
    array: u32,
}

/// The fields of an event and the search through its elements.
pub(super) struct Search<'a> {
    bulk: &'a Bulk,
    extracted: &'a ExtractedValues,
    candidates: Vec<Vec<Candidate>>,
    rows: Vec<Rows<'a>>,
    /// The number of steps so far.
    pub(super) steps: u64,
}

/// A leading field, and the alternatives that search an array by its values: an alternative needs such a value, so
/// elements without one are skipped.
struct Leads {
    /// The index of the field in the group.
    entry: usize,
    /// For each bit of the field's rows, the index of its set in `sets`; `NONE` for bits that lead no alternative.
    set_of_bit: Vec<u32>,
    sets: Vec<Vec<u64>>,
}

impl<'a> Search<'a> {
    pub(super) fn new(bulk: &'a Bulk, extracted: &'a ExtractedValues) -> Self {
        Self { bulk, extracted, candidates: Vec::new(), rows: Vec::new(), steps: 0 }
    }

    /// Adds the next field of the pattern.
    pub(super) fn add_field(&mut self, candidates: Vec<Candidate>, rows: Rows<'a>) {
        self.candidates.push(candidates);
        self.rows.push(rows);
    }

    /// The entry of a field for the whole event.
    pub(super) fn whole_field(&self, field: u32) -> Entry {
        let to = self.candidates.get(field as usize).map_or(0, Vec::len);
        Entry { field, from: 0, to, free: Rows::EMPTY, strict: false, array: NONE }
    }

    pub(super) fn row(&self, field: u32, row: u32) -> &[u64] {
        self.rows.get(field as usize).map_or(&[], |rows| rows.get(row))
    }

    fn candidates(&self, entry: &Entry) -> &[Candidate] {
        self.candidates.get(entry.field as usize).and_then(|all| all.get(entry.from..entry.to)).unwrap_or_default()
    }

    fn empty_set(&self) -> Vec<u64> {
        vec![0; self.bulk.words]
    }

    /// Removes from `active` the alternatives that are not satisfied within `element`. Returns the alternatives that
    /// have a value there; the bits of other alternatives are unspecified. `entries` are the fields to satisfy.
    ///
    /// The recursion is as deep as the nesting of arrays.
    pub(super) fn solve(&mut self, element: u32, entries: &[Entry], active: &mut [u64]) -> Vec<u64> {
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
            // `needed`: alternatives that need a value in the array; `touched`: alternatives that may have one.
            let (mut needed, mut touched) = (self.empty_set(), self.empty_set());
            for entry in group {
                let Some(field) = self.bulk.fields.get(entry.field as usize) else { continue };
                or_into(&mut touched, &field.tested_by);
                if entry.free == Rows::EMPTY {
                    or_into(&mut needed, &field.tested_by);
                } else if let Some(rows) = self.rows.get_mut(entry.field as usize) {
                    rows.with_sets(entry.free, &self.bulk.requirements, &mut self.steps, |_, unmet| {
                        or_into(&mut needed, unmet);
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

    /// Compares one field with its candidates in an element. Removes the alternatives that it rules out, and adds those
    /// with a value directly in the element to `by_value`. Returns the entry to search for in an array, if any.
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
            for (number, position) in field.requirements.iter().zip(0..) {
                self.steps += 1;
                let requirement = bulk.requirements.get(*number as usize)?;
                if !bit(rows.get(entry.free), position) && (entry.strict || !requirement.may_be_absent) {
                    remove_from(active, &requirement.alternatives);
                }
            }
            return None;
        };
        // Values directly in the element and values in an array of it occur together only if the field is the array.
        let (mut direct, mut has_direct) = (Rows::EMPTY, false);
        let mut inside = (first.element != element).then_some(first.element);
        let array_of = |inside: u32| child_element(self.extracted, element, inside).map_or(NONE, |(_, array)| array);
        if inside.is_none_or(|inside| array_of(inside) == field.field) {
            for candidate in candidates {
                self.steps += 1;
                if candidate.element == element {
                    has_direct = true;
                    direct = rows.union(direct, candidate.row);
                } else if inside.is_none() {
                    inside = Some(candidate.element);
                }
            }
        }
        let free = rows.union(entry.free, direct);
        if direct != Rows::EMPTY {
            rows.with_sets(direct, &bulk.requirements, &mut self.steps, |met, _| or_into(by_value, met));
        }
        let Some(inside) = inside else {
            rows.with_sets(free, &bulk.requirements, &mut self.steps, |_, unmet| remove_from(active, unmet));
            return None;
        };
        Some(Entry { free, strict: entry.strict || has_direct, array: array_of(inside), ..*entry })
    }

    /// Returns the alternatives of `wanted` that an element of an array satisfies with a value. `group` are the fields
    /// with candidates in the array, which is directly in `element`.
    fn search_array(&mut self, element: u32, group: &[Entry], wanted: &[u64]) -> Vec<u64> {
        let mut found = self.empty_set();
        let count: usize = group.iter().map(|entry| entry.to - entry.from).sum();
        if count <= SMALL_ARRAY_MAX {
            self.search_all(element, group, wanted, &mut found);
            return found;
        }
        let mut entry_of = vec![NONE; self.bulk.fields.len()];
        for (entry, at) in group.iter().zip(0..) {
            if let Some(slot) = entry_of.get_mut(entry.field as usize) {
                *slot = at;
            }
        }
        for leads in self.choose_leads(group, wanted, &entry_of) {
            self.search_led(element, group, &entry_of, &leads, &mut found);
        }
        found
    }

    /// Tries every element of an array.
    fn search_all(&mut self, element: u32, group: &[Entry], wanted: &[u64], found: &mut [u64]) {
        let mut rest = group.to_vec();
        loop {
            let next = rest.iter().filter_map(|entry| self.candidates(entry).first()).min_by_key(|next| next.number);
            let Some(next) = next.copied() else { return };
            let child = child_element(self.extracted, element, next.element);
            let Some((child, _)) = child else {
                // The value is directly in `element`.
                for entry in &mut rest {
                    entry.from += usize::from(self.candidates(entry).first().is_some_and(|c| c.number == next.number));
                }
                continue;
            };
            let Some(last) = self.extracted.elements.get(child as usize).map(|bounds| bounds.last) else { return };
            let mut entries = rest.clone();
            for (entry, rest) in entries.iter_mut().zip(&mut rest) {
                entry.to = self.first_at_or_after(entry, last);
                rest.from = entry.to;
            }
            let mut tried = wanted.to_vec();
            remove_from(&mut tried, found);
            if is_empty(&tried) {
                return;
            }
            self.try_element(child, &entries, tried, found);
        }
    }

    /// Chooses for each alternative the field by whose values it searches an array: of the fields that need a value
    /// there, the one with the fewest candidates. An alternative that needs no particular field searches by all.
    fn choose_leads(&mut self, group: &[Entry], wanted: &[u64], entry_of: &[u32]) -> Vec<Leads> {
        let mut chosen: Vec<(u32, u32, u32)> = Vec::new();
        for alternative in bits(wanted) {
            let numbers = self.bulk.alternatives.get(alternative as usize).map_or(&[][..], Vec::as_slice);
            let requirements = numbers.iter().filter_map(|number| self.bulk.requirements.get(*number as usize));
            let in_group = requirements.filter_map(|requirement| {
                let at = *entry_of.get(requirement.field as usize)?;
                Some((at, group.get(at as usize)?, requirement))
            });
            let mut best: Option<(usize, u32, u32)> = None;
            let from = chosen.len();
            for (at, entry, requirement) in in_group {
                self.steps += 1;
                chosen.push((at, requirement.bit, alternative));
                let is_free = bit(self.row(entry.field, entry.free), requirement.bit);
                if !is_free && (entry.strict || !requirement.may_be_absent) {
                    let option = (entry.to - entry.from, at, requirement.bit);
                    best = Some(best.map_or(option, |best| best.min(option)));
                }
            }
            if let Some((_, at, bit)) = best {
                chosen.truncate(from);
                chosen.push((at, bit, alternative));
            }
        }
        chosen.sort_unstable();
        let of_entry = |of_entry: &[(u32, u32, u32)]| {
            let at = of_entry.first()?.0 as usize;
            let bits = self.bulk.fields.get(group.get(at)?.field as usize)?.requirements.len();
            let mut leads = Leads { entry: at, set_of_bit: vec![NONE; bits], sets: Vec::new() };
            for of_bit in of_entry.chunk_by(|a, b| a.1 == b.1) {
                let mut set = self.empty_set();
                of_bit.iter().for_each(|(.., alternative)| super::set_bit(&mut set, *alternative, true));
                *leads.set_of_bit.get_mut(of_bit.first()?.1 as usize)? = leads.sets.len() as u32;
                leads.sets.push(set);
            }
            Some(leads)
        };
        chosen.chunk_by(|a, b| a.0 == b.0).filter_map(of_entry).collect()
    }

    /// Tries the elements of an array that have a value of the leading field.
    fn search_led(&mut self, element: u32, group: &[Entry], entry_of: &[u32], leads: &Leads, found: &mut [u64]) {
        let Some(lead) = group.get(leads.entry).copied() else { return };
        let mut at = lead.from;
        while at < lead.to {
            self.steps += 1;
            let rest = Entry { from: at, ..lead };
            let Some(first) = self.candidates(&rest).first().copied() else { return };
            let Some((child, _)) = child_element(self.extracted, element, first.element) else {
                at += 1;
                continue;
            };
            let Some(bounds) = self.extracted.elements.get(child as usize).copied() else { return };
            let mut row = Rows::EMPTY;
            while at < lead.to {
                let Some(candidate) = self.candidates(&Entry { from: at, ..lead }).first().copied() else { break };
                if candidate.number >= bounds.last {
                    break;
                }
                self.steps += 1;
                at += 1;
                if let Some(rows) = self.rows.get_mut(lead.field as usize) {
                    row = rows.union(row, candidate.row);
                }
            }
            let mut tried = self.empty_set();
            for bit in bits(self.row(lead.field, row)) {
                if let Some(set) = leads.set_of_bit.get(bit as usize).and_then(|set| leads.sets.get(*set as usize)) {
                    or_into(&mut tried, set);
                }
            }
            remove_from(&mut tried, found);
            if is_empty(&tried) {
                continue;
            }
            let entries: Vec<Entry> = self
                .fields_of(&tried, group, entry_of)
                .into_iter()
                .map(|entry| {
                    let from = self.first_at_or_after(&entry, bounds.first);
                    let entry = Entry { from, ..entry };
                    Entry { to: self.first_at_or_after(&entry, bounds.last), ..entry }
                })
                .collect();
            self.try_element(child, &entries, tried, found);
        }
    }

    /// The fields of a group that the given alternatives test.
    fn fields_of(&mut self, alternatives: &[u64], group: &[Entry], entry_of: &[u32]) -> Vec<Entry> {
        if group.len() <= FEW_FIELDS_MAX {
            return group.to_vec();
        }
        let mut chosen = Vec::new();
        for alternative in bits(alternatives) {
            for number in self.bulk.alternatives.get(alternative as usize).into_iter().flatten() {
                let requirement = self.bulk.requirements.get(*number as usize);
                chosen.extend(requirement.and_then(|requirement| entry_of.get(requirement.field as usize)));
            }
            if chosen.len() > 4 * group.len() {
                return group.to_vec();
            }
        }
        self.steps += chosen.len() as u64;
        chosen.sort_unstable();
        chosen.dedup();
        chosen.into_iter().filter_map(|at: u32| group.get(at as usize).copied()).collect()
    }

    /// Adds the alternatives of `tried` that an element satisfies with a value to `found`.
    fn try_element(&mut self, element: u32, entries: &[Entry], mut tried: Vec<u64>, found: &mut [u64]) {
        let by_value = self.solve(element, entries, &mut tried);
        for ((found, satisfied), by_value) in found.iter_mut().zip(tried).zip(by_value) {
            *found |= satisfied & by_value;
        }
    }

    /// The index of the first candidate of an entry whose occurrence number is at least `number`; the end of the entry
    /// when there is none.
    fn first_at_or_after(&self, entry: &Entry, number: u32) -> usize {
        entry.from + self.candidates(entry).partition_point(|candidate| candidate.number < number)
    }
}
