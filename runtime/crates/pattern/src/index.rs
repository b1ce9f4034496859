//! The index over all patterns of a matcher.
//!
//! An alternative is one combination of the `$or` entries of a pattern: a list of fields that must all match. Each
//! alternative is indexed by the conditions of one of its fields: the field that events are least likely to match. For
//! an event, the index returns a few alternatives, and only these are verified against the event.
//!
//! The posting list of a condition contains the alternatives that are indexed by this condition. When a posting list
//! becomes too long, a node replaces it. The node indexes the alternatives of the list by another of their fields.
//! Patterns that share one condition and differ in another are thus found by both conditions together. The time for an
//! event therefore depends on the number of patterns that it matches, and hardly on the number of all patterns.

use std::sync::OnceLock;

use super::access::{self, AccessPath, KeyKind};
use super::bulk::Bulk;
use super::condition::ConditionList;
use super::fields::Fields;
use super::hash::HashedMap;
use super::ranges::Ranges;
use super::verify::Requirement;

/// A posting list with more alternatives than this is replaced by a node. For shorter lists, verifying every
/// alternative is faster than another lookup.
const POSTINGS_MAX: usize = 8;
/// The largest number of nodes on the way to an alternative, the root node included. Each of these nodes indexes the
/// alternative by a different field.
const LEVELS_MAX: usize = 4;
/// Below the root node, a field with more conditions than this is not used to index an alternative. On each level, an
/// alternative has one posting for each condition of the chosen field, so the numbers of conditions multiply from level
/// to level. This limit bounds the product.
const FANOUT_MAX: usize = 4;

/// The number of the node where every lookup starts.
pub(super) const ROOT_NODE: u32 = 0;

/// The posting list of one condition: the numbers of the alternatives that are indexed by the condition.
pub(super) enum Postings {
    One(u32),
    Many(Vec<u32>),
    /// The number of the node that indexes the alternatives further.
    Node(u32),
}

/// A node of the index: a group of alternatives, indexed by the conditions of their fields.
#[derive(Default)]
pub(super) struct Node {
    /// One probe for each field that indexes alternatives in this node, sorted by field.
    pub(super) probes: Vec<Probe>,
    /// Alternatives of this node that no field can index. They are verified for every event that reaches the node.
    pub(super) always_verified: Vec<u32>,
    /// The fields by which the parent nodes have already indexed these alternatives.
    pub(super) used_fields: Vec<u32>,
    /// The alternatives inserted into this node and its child nodes. Empty for the root node, because that node
    /// contains all alternatives.
    pub(super) alternatives: Vec<u32>,
}

/// The lookups that a node does for each value of one field.
#[derive(Default)]
pub(super) struct Probe {
    pub(super) field: u32,
    /// Four kinds of keys are made from the whole value. The flag of a kind is true if the node has a key of that kind
    /// for this field.
    pub(super) text: bool,
    pub(super) number: bool,
    pub(super) literal: bool,
    pub(super) folded: bool,
    /// The other kinds of keys are made from a part of the value. For each kind: the lengths of the keys that the node
    /// has for this field, without duplicates, ascending.
    pub(super) prefixes: Vec<u32>,
    pub(super) suffixes: Vec<u32>,
    pub(super) folded_prefixes: Vec<u32>,
    pub(super) folded_suffixes: Vec<u32>,
    pub(super) grams: Vec<u32>,
    pub(super) blocks: Vec<u32>,
    pub(super) ranges: Ranges,
    /// The alternatives to verify when the field has any value.
    pub(super) present: Option<Postings>,
}

impl Probe {
    /// Adds the kind and length of a new key to the lookups.
    fn register(&mut self, kind: KeyKind, length: u32) {
        let lengths = match kind {
            KeyKind::Text => return self.text = true,
            KeyKind::Number => return self.number = true,
            KeyKind::Literal => return self.literal = true,
            KeyKind::Folded => return self.folded = true,
            KeyKind::Prefix => &mut self.prefixes,
            KeyKind::Suffix => &mut self.suffixes,
            KeyKind::FoldedPrefix => &mut self.folded_prefixes,
            KeyKind::FoldedSuffix => &mut self.folded_suffixes,
            KeyKind::Gram => &mut self.grams,
            KeyKind::Block => &mut self.blocks,
        };
        if let Err(position) = lengths.binary_search(&length) {
            lengths.insert(position, length);
        }
    }

    /// Returns true if a lookup needs the case-folded text.
    pub(super) fn needs_folding(&self) -> bool {
        self.folded || !self.folded_prefixes.is_empty() || !self.folded_suffixes.is_empty()
    }
}

/// One alternative of a pattern. An event matches the alternative if it meets all requirements together.
pub(super) struct Alternative {
    /// The number of the key under which the matcher holds the pattern.
    pub(super) owner: u32,
    /// The requirements are `from..to` of `Index::requirements`.
    pub(super) from: u32,
    pub(super) to: u32,
    /// The cost of the whole pattern (the sum of [`ConditionList::cost`] over all its alternatives), as a binary
    /// logarithm, rounded up.
    pub(super) cost_log2: u8,
    /// False after the pattern was removed.
    pub(super) live: bool,
}

/// All alternatives of one pattern.
pub(super) struct Group {
    /// The first alternative of the group. The group ends before the first alternative of the next group.
    pub(super) first: u32,
    /// The form in which all alternatives are verified together; prepared at the first use.
    bulk: OnceLock<Box<Bulk>>,
}

/// All alternatives of a matcher and the nodes that find them.
pub(super) struct Index {
    pub(super) fields: Fields,
    pub(super) alternatives: Vec<Alternative>,
    pub(super) groups: Vec<Group>,
    pub(super) requirements: Vec<Requirement>,
    pub(super) lists: Vec<ConditionList>,
    pub(super) nodes: Vec<Node>,
    /// The posting lists of all nodes, by [`access::table_key`].
    pub(super) table: HashedMap<Postings>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            fields: Fields::default(),
            alternatives: Vec::new(),
            groups: Vec::new(),
            requirements: Vec::new(),
            lists: Vec::new(),
            nodes: vec![Node::default()],
            table: HashedMap::default(),
        }
    }
}

impl Index {
    pub(super) fn add_list(&mut self, list: ConditionList) -> u32 {
        self.lists.push(list);
        self.lists.len() as u32 - 1
    }

    /// Begins a pattern: the alternatives that are added next belong to this pattern.
    pub(super) fn begin_group(&mut self) {
        self.groups.push(Group { first: self.alternatives.len() as u32, bulk: OnceLock::new() });
    }

    /// Adds an alternative of the current pattern; returns its number. For `cost_log2`, see [`Alternative::cost_log2`].
    pub(super) fn add_alternative(
        &mut self,
        owner: u32,
        cost_log2: u8,
        requirements: impl Iterator<Item = Requirement>,
    ) -> u32 {
        let alternative = self.alternatives.len() as u32;
        let from = self.requirements.len() as u32;
        self.requirements.extend(requirements);
        let to = self.requirements.len() as u32;
        self.alternatives.push(Alternative { owner, from, to, cost_log2, live: true });
        self.insert_at(ROOT_NODE, alternative);
        alternative
    }

    /// The number of the pattern that an alternative belongs to. Patterns are numbered in the order of insertion.
    pub(super) fn group_of(&self, alternative: u32) -> u32 {
        self.groups.partition_point(|group| group.first <= alternative).saturating_sub(1) as u32
    }

    /// The numbers of the alternatives of a pattern.
    pub(super) fn alternatives_of(&self, group: u32) -> std::ops::Range<u32> {
        let first = |group: usize| self.groups.get(group).map_or(self.alternatives.len() as u32, |group| group.first);
        first(group as usize)..first(group as usize + 1)
    }

    /// Returns the alternatives of a pattern, prepared to be verified together in one pass over an event.
    pub(super) fn bulk(&self, group: u32) -> Option<&Bulk> {
        let bulk = &self.groups.get(group as usize)?.bulk;
        let all = self.alternatives_of(group).map(|alternative| self.requirements(alternative));
        Some(bulk.get_or_init(|| Box::new(Bulk::new(all, &self.lists))))
    }

    /// Excludes an alternative from all later matches. Its postings remain until the matcher rebuilds the index.
    pub(super) fn disable(&mut self, alternative: u32) {
        if let Some(alternative) = self.alternatives.get_mut(alternative as usize) {
            alternative.live = false;
        }
    }

    pub(super) fn requirements(&self, alternative: u32) -> &[Requirement] {
        self.alternatives
            .get(alternative as usize)
            .and_then(|alternative| self.requirements.get(alternative.from as usize..alternative.to as usize))
            .unwrap_or_default()
    }

    pub(super) fn list(&self, list: u32) -> Option<&ConditionList> {
        self.lists.get(list as usize)
    }

    /// Adds an alternative to a node. If a posting list becomes too long, replaces the list with a node.
    fn insert_at(&mut self, node: u32, alternative: u32) {
        let chosen = self.choose_field(node, alternative);
        let Some(entry) = self.nodes.get_mut(node as usize) else { return };
        if node != ROOT_NODE {
            entry.alternatives.push(alternative);
        }
        let Some(requirement) = chosen else { return entry.always_verified.push(alternative) };
        // The list of conditions is taken out of the index, so that the index can change while the list is read.
        // Afterwards the list is put back.
        let Some(list) = self.lists.get_mut(requirement.list as usize).map(std::mem::take) else { return };
        let mut pending = Vec::new();
        for path in access::paths(&list).into_iter().flatten() {
            let path = self.least_used_gram(node, requirement.field, path);
            pending.extend(self.add_posting(node, requirement.field, &path, alternative));
        }
        if let Some(slot) = self.lists.get_mut(requirement.list as usize) {
            *slot = list;
        }
        for (node, alternatives) in pending {
            alternatives.into_iter().for_each(|alternative| self.insert_at(node, alternative));
        }
    }

    /// Chooses the field by which a node indexes an alternative: the field with the lowest estimated cost. The cost
    /// grows with the share of events that meet the field's conditions, and with the number of other alternatives that
    /// have the same conditions. Returns `None` when no field can index the alternative.
    fn choose_field(&self, node: u32, alternative: u32) -> Option<Requirement> {
        let entry = self.nodes.get(node as usize)?;
        let mut best: Option<(usize, u32, Requirement)> = None;
        for requirement in self.requirements(alternative) {
            let list = self.lists.get(requirement.list as usize)?;
            let count = list.conditions.len();
            if entry.used_fields.contains(&requirement.field) || (!entry.used_fields.is_empty() && count > FANOUT_MAX) {
                continue;
            }
            let Some(paths) = access::paths(list) else { continue };
            let cost = if count > 32 {
                count * 16 // for a long list, the length is a good enough estimate and cheap
            } else {
                let paths = paths.map(|path| self.least_used_gram(node, requirement.field, path));
                paths.map(|path| path.weight() + self.posting_count(node, requirement.field, &path)).sum()
            };
            // At equal cost, prefer the deeper field: it usually distinguishes patterns better than an attribute does.
            let shallow = u32::MAX - self.fields.depth(requirement.field);
            if best.as_ref().is_none_or(|(least, level, _)| (cost, shallow) < (*least, *level)) {
                best = Some((cost, shallow, *requirement));
            }
        }
        best.map(|(_, _, requirement)| requirement)
    }

    /// Replaces [`AccessPath::Grams`] by the key of the n-gram that has the fewest postings so far. Returns other paths
    /// unchanged.
    fn least_used_gram<'a>(&self, node: u32, field: u32, path: AccessPath<'a>) -> AccessPath<'a> {
        let AccessPath::Grams { literal, length } = path else { return path };
        let grams = access::grams(literal, length);
        grams.min_by_key(|gram| self.posting_count(node, field, gram)).unwrap_or(AccessPath::Present)
    }

    fn len(&self, postings: &Postings) -> usize {
        match postings {
            Postings::One(_) => 1,
            Postings::Many(alternatives) => alternatives.len(),
            Postings::Node(node) => self.nodes.get(*node as usize).map_or(0, |node| node.alternatives.len()),
        }
    }

    /// The number of alternatives already indexed by an access path.
    fn posting_count(&self, node: u32, field: u32, path: &AccessPath<'_>) -> usize {
        let probe = || {
            let probes = &self.nodes.get(node as usize)?.probes;
            probes.get(probes.binary_search_by_key(&field, |probe| probe.field).ok()?)
        };
        match path {
            AccessPath::Key { kind, length, hash } => {
                let key = access::table_key(node, field, *kind, *length, *hash);
                self.table.get(&key).map_or(0, |postings| self.len(postings))
            }
            AccessPath::Range(_) => probe().map_or(0, |probe| probe.ranges.len()),
            AccessPath::Grams { .. } => 0,
            AccessPath::Present => {
                probe().and_then(|probe| probe.present.as_ref()).map_or(0, |postings| self.len(postings))
            }
        }
    }

    /// Adds an alternative to the posting list of one condition. If a node has replaced the list, or replaces it now
    /// because the list is too long, returns the node and the alternatives that the caller must insert into the node.
    fn add_posting(
        &mut self,
        node: u32,
        field: u32,
        path: &AccessPath<'_>,
        alternative: u32,
    ) -> Option<(u32, Vec<u32>)> {
        let next = self.nodes.len() as u32;
        let entry = self.nodes.get_mut(node as usize)?;
        let position = match entry.probes.binary_search_by_key(&field, |probe| probe.field) {
            Ok(position) => position,
            Err(position) => {
                entry.probes.insert(position, Probe { field, ..Probe::default() });
                position
            }
        };
        let probe = entry.probes.get_mut(position)?;
        let postings = match path {
            AccessPath::Range(range) => {
                probe.ranges.insert(range, alternative);
                return None;
            }
            // `Grams` does not occur here: `least_used_gram` has replaced it by the key of one n-gram.
            AccessPath::Present | AccessPath::Grams { .. } => match &mut probe.present {
                Some(postings) => postings,
                empty => {
                    *empty = Some(Postings::One(alternative));
                    return None;
                }
            },
            AccessPath::Key { kind, length, hash } => {
                probe.register(*kind, *length);
                match self.table.entry(access::table_key(node, field, *kind, *length, *hash)) {
                    std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                    std::collections::hash_map::Entry::Vacant(entry) => {
                        entry.insert(Postings::One(alternative));
                        return None;
                    }
                }
            }
        };
        let alternatives = match postings {
            // The list of conditions has the same value twice.
            Postings::One(first) if *first == alternative => return None,
            Postings::One(first) => {
                *postings = Postings::Many(vec![*first, alternative]);
                return None;
            }
            Postings::Node(node) => return Some((*node, vec![alternative])),
            Postings::Many(alternatives) => alternatives,
        };
        if alternatives.last() != Some(&alternative) {
            alternatives.push(alternative);
        }
        if alternatives.len() <= POSTINGS_MAX || entry.used_fields.len() + 1 >= LEVELS_MAX {
            return None;
        }
        let overflow = std::mem::take(alternatives);
        *postings = Postings::Node(next);
        let used_fields = entry.used_fields.iter().copied().chain([field]).collect();
        self.nodes.push(Node { used_fields, ..Node::default() });
        Some((next, overflow))
    }
}
