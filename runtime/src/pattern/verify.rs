//! Whether one alternative of a pattern holds for an event.
//!
//! Each field that the alternative names takes one of the event's values that meets its conditions, or, with
//! `exists: false`, none. Values taken together never stand in different elements of one array, and a field that takes
//! none has no value that could stand together with those taken.

use super::condition::Leaf;
use super::extract::{Extract, NONE, OUTSIDE, Texts};

/// One field that an alternative names, and what it asks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) field: u32,
    /// Which of the leaves.
    pub(super) leaf: u32,
}

/// A value of the event at a needed field.
#[derive(Clone, Copy)]
struct Place {
    number: u32,
    element: u32,
    matched: bool,
}

/// A needed field within one array element: its places there are `from..to`.
#[derive(Clone, Copy)]
struct Open {
    from: usize,
    to: usize,
    absent: bool,
    /// The field of the array, right in the element, in whose elements the places are; `NONE` when that is settled.
    array: u32,
}

/// Buffers of the search, kept between events.
#[derive(Default)]
pub(super) struct Search {
    places: Vec<Place>,
    open: Vec<Open>,
}

/// What can be said within one array element.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Every field is satisfied and at least one by a value.
    Values,
    /// Every field is satisfied by its absence.
    Nothing,
    No,
}

/// Whether all needs are met together.
pub(super) fn holds(extract: &Extract, texts: Texts<'_>, needs: &[Need], leaves: &[Leaf], search: &mut Search) -> bool {
    let mut simple = true;
    let mut within_arrays = 0;
    for need in needs {
        let Some(leaf) = leaves.get(need.leaf as usize) else { return false };
        let (mut matched, mut any, mut within) = (false, false, false);
        for (_, occurrence) in extract.at(need.field) {
            any = true;
            within |= occurrence.element != OUTSIDE;
            if leaf.matches(texts.value(extract, occurrence)) {
                matched = true;
                break;
            }
        }
        let met = matched || (leaf.absent && !any);
        if !met && !leaf.absent {
            return false;
        }
        simple &= met;
        within_arrays += u32::from(within);
    }
    // Where at most one field's values stand in array elements, no two can be in different ones.
    if within_arrays <= 1 {
        return simple;
    }
    search.start(extract, texts, needs, leaves);
    search.solve(extract, OUTSIDE, 0) != Found::No
}

impl Search {
    fn start(&mut self, extract: &Extract, texts: Texts<'_>, needs: &[Need], leaves: &[Leaf]) {
        self.places.clear();
        self.open.clear();
        for need in needs {
            let Some(leaf) = leaves.get(need.leaf as usize) else { continue };
            let from = self.places.len();
            self.places.extend(extract.at(need.field).map(|(number, occurrence)| Place {
                number,
                element: occurrence.element,
                matched: leaf.matches(texts.value(extract, occurrence)),
            }));
            self.open.push(Open { from, to: self.places.len(), absent: leaf.absent, array: NONE });
        }
    }

    /// Solves the open fields from `base` on, whose places are those within `element`. Fields that go through the same
    /// array are solved together, in one element of it after the other; others do not touch each other. So the work is
    /// the number of elements times the number of fields, and the recursion as deep as the arrays.
    fn solve(&mut self, extract: &Extract, element: u32, base: usize) -> Found {
        let mut found = Found::Nothing;
        let end = self.open.len();
        for index in base..end {
            let Some(open) = self.open.get(index).copied() else { return Found::No };
            let places = self.places.get(open.from..open.to).unwrap_or_default();
            let mut settled = Open { array: NONE, ..open };
            if places.is_empty() {
                if !open.absent {
                    return Found::No;
                }
            } else if places.iter().any(|place| place.element == element && place.matched) {
                found = Found::Values;
            } else {
                let Some(inner) = places.iter().find(|place| place.element != element) else { return Found::No };
                settled.array = child(extract, element, inner.element).map_or(NONE, |(_, array)| array);
                settled.absent &= places.iter().all(|place| place.element != element);
                found = Found::Values;
            }
            if let Some(open) = self.open.get_mut(index) {
                *open = settled;
            }
        }
        for index in base..end {
            let Some(open) = self.open.get(index).copied() else { return Found::No };
            let first = !self.open.get(base..index).unwrap_or_default().iter().any(|it| it.array == open.array);
            if open.array != NONE && first && !self.solve_array(extract, element, base..end, open.array) {
                return Found::No;
            }
        }
        found
    }

    /// Whether one element of an array satisfies all the fields that go through it.
    fn solve_array(&mut self, extract: &Extract, element: u32, open: std::ops::Range<usize>, array: u32) -> bool {
        // A field that must have a value leads to the only elements worth a look.
        let through = |it: &Open| it.array == array;
        let group = self.open.get(open.clone()).unwrap_or_default();
        let required = group.iter().position(|it| through(it) && !it.absent).map(|at| open.start + at);
        for lead in open.clone() {
            let Some(leading) = self.open.get(lead).copied() else { return false };
            if !through(&leading) || required.is_some_and(|required| required != lead) {
                continue;
            }
            let mut at = leading.from;
            while at < leading.to {
                let Some(place) = self.places.get(at).copied() else { return false };
                at += 1;
                let Some((inner, _)) = child(extract, element, place.element) else { continue };
                let Some(bounds) = extract.elements.get(inner as usize) else { return false };
                let base = self.open.len();
                for index in open.clone() {
                    let Some(outer) = self.open.get(index).copied() else { return false };
                    if through(&outer) {
                        let from = self.seek(outer.from, outer.to, bounds.first);
                        let to = self.seek(from, outer.to, bounds.last);
                        self.open.push(Open { from, to, ..outer });
                    }
                }
                let found = self.solve(extract, inner, base);
                self.open.truncate(base);
                if found == Found::Values {
                    return true;
                }
                at = self.seek(at, leading.to, bounds.last);
            }
        }
        false
    }

    /// The first of the places that is not before an occurrence.
    fn seek(&self, from: usize, to: usize, number: u32) -> usize {
        from + self.places.get(from..to).unwrap_or_default().partition_point(|place| place.number < number)
    }
}

/// The element right within `outer` that holds `inner`, and the field of its array.
fn child(extract: &Extract, outer: u32, mut inner: u32) -> Option<(u32, u32)> {
    loop {
        let element = extract.elements.get(inner as usize)?;
        if element.parent == outer {
            return Some((inner, element.field));
        }
        inner = element.parent;
    }
}
