//! Collects the alternatives that cannot match in an array element, because they need a field that has no value there.

use super::or_into;

/// For each of several fields, the set of the alternatives that need a value of the field. [`AbsentFields::collect`]
/// unites the sets of all fields that are not in its argument `present`. The time for this depends mainly on the length
/// of `present`.
pub(super) struct AbsentFields {
    count: usize,
    /// The length of a set of alternatives in words.
    words: usize,
    /// A tree of sets. The set of node `n` is the union of the sets of the nodes `2 n` and `2 n + 1`. The set of node
    /// `count + f` is that of field `f`.
    nodes: Vec<u64>,
}

impl AbsentFields {
    pub(super) fn new(count: usize, words: usize) -> Self {
        Self { count, words, nodes: vec![0; 2 * count * words] }
    }

    /// Sets the alternatives of a field. Call [`AbsentFields::finish`] after the last field.
    pub(super) fn set(&mut self, field: usize, alternatives: &[u64]) {
        let from = (self.count + field) * self.words;
        if let Some(node) = self.nodes.get_mut(from..from + self.words) {
            node.copy_from_slice(alternatives);
        }
    }

    pub(super) fn finish(&mut self) {
        for node in (1..self.count).rev() {
            let (upper, lower) = self.nodes.split_at_mut(2 * node * self.words);
            let Some(union) = upper.get_mut(node * self.words..(node + 1) * self.words) else { return };
            union.iter_mut().for_each(|word| *word = 0);
            lower.chunks_exact(self.words.max(1)).take(2).for_each(|child| or_into(union, child));
        }
    }

    /// Adds to the set `union` the alternatives of each field that is not in the sorted list `present`. Returns the
    /// number of steps.
    pub(super) fn collect(&self, present: &[u32], union: &mut [u64]) -> u64 {
        let (mut from, mut steps) = (0, 0);
        for to in present.iter().map(|field| *field as usize).chain([self.count]) {
            steps += self.collect_range(from, to, union);
            from = to + 1;
        }
        steps
    }

    fn collect_range(&self, from: usize, to: usize, union: &mut [u64]) -> u64 {
        let (mut from, mut to) = (from + self.count, to + self.count);
        let mut steps = 1;
        let mut add = |node: usize| {
            steps += self.words as u64;
            or_into(union, self.nodes.get(node * self.words..(node + 1) * self.words).unwrap_or_default());
        };
        while from < to {
            if from % 2 == 1 {
                add(from);
                from += 1;
            }
            if to % 2 == 1 {
                to -= 1;
                add(to);
            }
            (from, to) = (from / 2, to / 2);
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_union_has_the_alternatives_of_all_other_fields() {
        for count in 1..12_usize {
            let mut absent = AbsentFields::new(count, 2);
            (0..count).for_each(|field| absent.set(field, &[1 << field, 2 << field]));
            absent.finish();
            for some in 0..1_u64 << count {
                let present: Vec<u32> = (0..count as u32).filter(|field| some >> field & 1 == 1).collect();
                let mut union = [0, 0];
                absent.collect(&present, &mut union);
                let rest = !some & ((1 << count) - 1);
                assert_eq!(union, [rest, rest * 2], "{count} fields, {present:?}");
            }
        }
    }
}
