//! Verifies one alternative of a pattern against an event.
//!
//! For a match, each field of the alternative needs a value of the event that meets the conditions of the field. A
//! field with `exists: false` can have no value instead. The values must follow two rules:
//!
//! - The values of two fields are never in different elements of the same array.
//! - A field counts as having no value in two cases: the event has no value for the field, or all values of the field
//!   are in other array elements than the values of the other fields.

use super::condition::ConditionList;
use super::extract::{ExtractedValues, NONE, ROOT_ELEMENT, SourceTexts};

/// A field of an alternative and the conditions on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Requirement {
    pub(super) field: u32,
    /// The number of the field's list of conditions in `Index::lists`.
    pub(super) list: u32,
}

/// A value of the event at a required field.
#[derive(Clone, Copy)]
struct CandidateValue {
    /// The number of the value among all extracted values of the event.
    number: u32,
    /// The innermost array element that contains the value.
    element: u32,
    /// True if the value meets the conditions of the field.
    matched: bool,
}

/// A required field, restricted to one array element. Its candidates in that element are `from..to` of
/// `Search::candidates`.
#[derive(Clone, Copy)]
struct OpenField {
    from: usize,
    to: usize,
    may_be_absent: bool,
    /// True if a value outside of the element meets the field's conditions, so that the field needs no value in the
    /// element. A value in the element is still useful: with it, other fields can match by their absence from the
    /// element.
    satisfied: bool,
    /// The candidates that are not directly in the element are in an array that is directly in the element. This is the
    /// number of the field whose value is that array; `NONE` if all candidates are directly in the element.
    array: u32,
}

/// The buffers of the search, reused between events.
#[derive(Default)]
pub(super) struct Search {
    candidates: Vec<CandidateValue>,
    open_fields: Vec<OpenField>,
    /// The array elements in which the search found values that match.
    chosen: Vec<u32>,
    /// The number of steps of all searches so far; each step has a bounded cost.
    pub(super) steps: u64,
}

/// The result of a search within one array element.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Satisfaction {
    /// Every field is satisfied, at least one of them by a value in the element.
    ByValue,
    /// Every field is satisfied without a value in the element.
    ByAbsence,
    /// At least one field is not satisfied.
    Unsatisfied,
}

/// Returns true if an event meets all requirements together.
pub(super) fn alternative_matches(
    extracted: &ExtractedValues,
    texts: SourceTexts<'_>,
    requirements: &[Requirement],
    lists: &[ConditionList],
    search: &mut Search,
) -> bool {
    let mut all_met = true;
    let mut fields_in_elements = 0;
    for requirement in requirements {
        let Some(list) = lists.get(requirement.list as usize) else { return false };
        let (mut matched, mut has_value, mut in_element, mut outside) = (false, false, false, false);
        for (_, occurrence) in extracted.occurrences(requirement.field) {
            search.steps += 1;
            has_value = true;
            in_element |= occurrence.element != ROOT_ELEMENT;
            outside |= occurrence.element == ROOT_ELEMENT;
            if list.matches(texts.value(extracted, occurrence)) {
                matched = true;
                break;
            }
        }
        let met = matched || (list.may_be_absent && !has_value);
        // A field with a value outside of all arrays is not absent from any element.
        if !met && (outside || !list.may_be_absent) {
            return false;
        }
        all_met &= met;
        fields_in_elements += u32::from(in_element);
    }
    // If at most one field has values in array elements, the values of two fields are never in different elements of an
    // array.
    if fields_in_elements <= 1 && all_met {
        return true;
    }
    // A field is absent from an element only if another field has a value there.
    if requirements.len() <= 1 {
        return false;
    }
    search.find(extracted, texts, requirements, lists)
}

impl Search {
    /// Returns true if the event has values that meet all requirements together.
    fn find(
        &mut self,
        extracted: &ExtractedValues,
        texts: SourceTexts<'_>,
        requirements: &[Requirement],
        lists: &[ConditionList],
    ) -> bool {
        self.prepare(extracted, texts, requirements, lists);
        self.solve(extracted, ROOT_ELEMENT, 0) != Satisfaction::Unsatisfied
    }

    /// Returns `None` if the event does not meet all requirements together. Otherwise, returns one list for each
    /// requirement: the numbers of those values of the field that are outside of all arrays or in an array element that
    /// the search chose. An empty list means that the requirement is met by the absence of the field.
    pub(super) fn witness(
        &mut self,
        extracted: &ExtractedValues,
        texts: SourceTexts<'_>,
        requirements: &[Requirement],
        lists: &[ConditionList],
    ) -> Option<Vec<Vec<u32>>> {
        if !self.find(extracted, texts, requirements, lists) {
            return None;
        }
        let counts = |element: u32| element == ROOT_ELEMENT || self.chosen.contains(&element);
        let of_requirement = |requirement: &Requirement| {
            let occurrences = extracted.occurrences(requirement.field);
            occurrences.filter(|(_, occurrence)| counts(occurrence.element)).map(|(number, _)| number).collect()
        };
        Some(requirements.iter().map(of_requirement).collect())
    }

    /// Collects the candidates of all requirements.
    fn prepare(
        &mut self,
        extracted: &ExtractedValues,
        texts: SourceTexts<'_>,
        requirements: &[Requirement],
        lists: &[ConditionList],
    ) {
        self.candidates.clear();
        self.open_fields.clear();
        self.chosen.clear();
        for requirement in requirements {
            let Some(list) = lists.get(requirement.list as usize) else { continue };
            let from = self.candidates.len();
            self.candidates.extend(extracted.occurrences(requirement.field).map(|(number, occurrence)| {
                CandidateValue {
                    number,
                    element: occurrence.element,
                    matched: list.matches(texts.value(extracted, occurrence)),
                }
            }));
            self.steps += (self.candidates.len() - from) as u64;
            self.open_fields.push(OpenField {
                from,
                to: self.candidates.len(),
                may_be_absent: list.may_be_absent,
                satisfied: false,
                array: NONE,
            });
        }
    }

    /// Searches the candidates within `element` for values that satisfy the fields `open_fields[base..]`. Fields whose
    /// candidates are in the same array are solved together: the elements of that array are tried one after another.
    /// Fields in different arrays do not depend on each other. So the work is the number of elements times the number
    /// of fields, and the recursion is as deep as the nesting of arrays.
    fn solve(&mut self, extracted: &ExtractedValues, element: u32, base: usize) -> Satisfaction {
        let chosen = self.chosen.len();
        let mut found = Satisfaction::ByAbsence;
        let end = self.open_fields.len();
        let mut is_in_array = false;
        for index in base..end {
            let Some(open) = self.open_fields.get(index).copied() else { return Satisfaction::Unsatisfied };
            let candidates = self.candidates.get(open.from..open.to).unwrap_or_default();
            let mut updated = OpenField { array: NONE, ..open };
            self.steps += 1;
            if candidates.is_empty() {
                if !open.may_be_absent && !open.satisfied {
                    return Satisfaction::Unsatisfied;
                }
            } else {
                let mut inside = None;
                for candidate in candidates {
                    self.steps += 1;
                    if candidate.element != element {
                        inside.get_or_insert(candidate.element);
                        continue;
                    }
                    updated.may_be_absent = false;
                    if candidate.matched {
                        updated.satisfied = true;
                        found = Satisfaction::ByValue;
                    }
                }
                match inside {
                    Some(inside) => {
                        updated.array = child_element(extracted, element, inside).map_or(NONE, |(_, array)| array);
                        is_in_array = true;
                    }
                    None if !updated.satisfied => return Satisfaction::Unsatisfied,
                    None => {}
                }
            }
            if let Some(open) = self.open_fields.get_mut(index) {
                *open = updated;
            }
        }
        if !is_in_array {
            return found;
        }
        // A field that is not satisfied yet needs a value in an element of its array, or an element from which the
        // field is absent. The first pass searches the arrays of these fields. The second pass searches the other
        // arrays, but only if no value was found in `element` yet.
        for needed in [true, false] {
            for index in base..end {
                let fields = self.open_fields.get(base..end).unwrap_or_default();
                let Some(array) = self.open_fields.get(index).map(|open| open.array) else { break };
                let in_array = |field: &OpenField| field.array == array;
                if array == NONE
                    || fields.iter().take(index - base).any(in_array)
                    || fields.iter().any(|field| in_array(field) && !field.satisfied) != needed
                    || (!needed && found == Satisfaction::ByValue)
                {
                    continue;
                }
                if self.solve_array(extracted, element, base..end, array) {
                    found = Satisfaction::ByValue;
                } else if needed {
                    self.chosen.truncate(chosen);
                    return Satisfaction::Unsatisfied;
                }
            }
        }
        found
    }

    /// Returns true if one element of an array satisfies all fields whose candidates are in that array, and at least
    /// one of these fields by a value. `open` is the range of the fields within `element`.
    fn solve_array(
        &mut self,
        extracted: &ExtractedValues,
        element: u32,
        open: std::ops::Range<usize>,
        array: u32,
    ) -> bool {
        // If a field with candidates in the array must have a value, only elements that contain a candidate of this
        // field are tried.
        let in_array = |field: &OpenField| field.array == array;
        let group = self.open_fields.get(open.clone()).unwrap_or_default();
        let needs_value = |field: &OpenField| in_array(field) && !field.may_be_absent && !field.satisfied;
        let required = group.iter().position(needs_value).map(|at| open.start + at);
        for lead in open.clone() {
            let Some(leading) = self.open_fields.get(lead).copied() else { return false };
            if !in_array(&leading) || required.is_some_and(|required| required != lead) {
                continue;
            }
            let mut at = leading.from;
            while at < leading.to {
                let Some(candidate) = self.candidates.get(at).copied() else { return false };
                at += 1;
                self.steps += 1;
                let Some((inner, _)) = child_element(extracted, element, candidate.element) else { continue };
                let Some(bounds) = extracted.elements.get(inner as usize) else { return false };
                let base = self.open_fields.len();
                for index in open.clone() {
                    let Some(outer) = self.open_fields.get(index).copied() else { return false };
                    if in_array(&outer) {
                        let from = self.first_at_or_after(outer.from, outer.to, bounds.first);
                        let to = self.first_at_or_after(from, outer.to, bounds.last);
                        self.open_fields.push(OpenField { from, to, ..outer });
                    }
                }
                let found = self.solve(extracted, inner, base);
                self.open_fields.truncate(base);
                if found == Satisfaction::ByValue {
                    self.chosen.push(inner);
                    return true;
                }
                at = self.first_at_or_after(at, leading.to, bounds.last);
            }
        }
        false
    }

    /// The index of the first candidate in `from..to` whose number is at least `number`; `to` if there is none.
    fn first_at_or_after(&self, from: usize, to: usize, number: u32) -> usize {
        from + self.candidates.get(from..to).unwrap_or_default().partition_point(|candidate| candidate.number < number)
    }
}

/// The number of elements that [`child_element`] skips, from the start of the outer element, before it follows the
/// parents of the inner element.
const SIBLINGS_SKIPPED_MAX: usize = 4;

/// Returns the element directly within `outer` that contains `inner`, and the field whose array that element is in.
/// Returns `None` if `inner` is not within `outer`, or is `outer` itself.
pub(super) fn child_element(extracted: &ExtractedValues, outer: u32, mut inner: u32) -> Option<(u32, u32)> {
    // Elements are numbered in the order of the text. In deeply nested arrays, a few steps from the first element
    // within `outer` are less work than following the parents of `inner`.
    let mut child = outer + 1;
    for _ in 0..SIBLINGS_SKIPPED_MAX {
        if inner < child {
            return None;
        }
        let element = extracted.elements.get(child as usize)?;
        if inner < element.end {
            return (element.parent == outer).then_some((child, element.field));
        }
        child = element.end;
    }
    loop {
        let element = extracted.elements.get(inner as usize)?;
        if element.parent == outer {
            return Some((inner, element.field));
        }
        inner = element.parent;
    }
}
