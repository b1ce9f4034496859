//! Many patterns at once: each alternative of a pattern is filed under the conditions of one field, the ones that an
//! event is least likely to meet, and only what an event leads to is verified.
//!
//! Where many alternatives share such a condition, their posting list becomes a node of its own, which files them under
//! another of their fields. So patterns that are told apart by two fields together are found by two fields together,
//! and an event's cost follows what it matches, not how many patterns there are.

use super::access::{self, Access, Kind};
use super::condition::Leaf;
use super::fields::Fields;
use super::hash::HashedMap;
use super::ranges::Ranges;
use super::verify::Need;

/// A longer posting list becomes a node. Short lists are verified faster than looked up.
const CROWD: usize = 8;
/// How many fields in a row may file an alternative.
const LEVELS: usize = 4;
/// Below the first level a field with more conditions than this files nothing, so that an alternative with many long
/// lists is not multiplied out.
const SPREAD: usize = 4;

pub(super) const TOP: u32 = 0;

/// The alternatives that one condition leads to.
pub(super) enum Postings {
    One(u32),
    Many(Vec<u32>),
    Node(u32),
}

/// A step of the index.
#[derive(Default)]
pub(super) struct Node {
    /// By field.
    pub(super) probes: Vec<Probe>,
    /// Alternatives that no field files here: verified whenever an event gets here.
    pub(super) always: Vec<u32>,
    /// The fields that led here.
    pub(super) used: Vec<u32>,
    /// How many alternatives are in it.
    pub(super) len: usize,
}

/// What to look up for the values of one field.
#[derive(Default)]
pub(super) struct Probe {
    pub(super) field: u32,
    pub(super) text: bool,
    pub(super) number: bool,
    pub(super) literal: bool,
    pub(super) folded: bool,
    /// The lengths of what is looked up, each once, ascending.
    pub(super) prefixes: Vec<u32>,
    pub(super) suffixes: Vec<u32>,
    pub(super) folded_prefixes: Vec<u32>,
    pub(super) folded_suffixes: Vec<u32>,
    pub(super) grams: Vec<u32>,
    pub(super) blocks: Vec<u32>,
    pub(super) ranges: Ranges,
    pub(super) present: Option<Postings>,
}

impl Probe {
    fn note(&mut self, kind: Kind, length: u32) {
        let lengths = match kind {
            Kind::Text => return self.text = true,
            Kind::Number => return self.number = true,
            Kind::Literal => return self.literal = true,
            Kind::Folded => return self.folded = true,
            Kind::Prefix => &mut self.prefixes,
            Kind::Suffix => &mut self.suffixes,
            Kind::FoldedPrefix => &mut self.folded_prefixes,
            Kind::FoldedSuffix => &mut self.folded_suffixes,
            Kind::Gram => &mut self.grams,
            Kind::Block => &mut self.blocks,
        };
        if let Err(at) = lengths.binary_search(&length) {
            lengths.insert(at, length);
        }
    }

    pub(super) fn folds(&self) -> bool {
        self.folded || !self.folded_prefixes.is_empty() || !self.folded_suffixes.is_empty()
    }
}

/// One alternative of a pattern: all its needs must be met.
pub(super) struct Branch {
    pub(super) owner: u32,
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) live: bool,
}

/// All alternatives, and the way to them.
pub(super) struct Index {
    pub(super) fields: Fields,
    pub(super) branches: Vec<Branch>,
    pub(super) needs: Vec<Need>,
    pub(super) leaves: Vec<Leaf>,
    pub(super) nodes: Vec<Node>,
    pub(super) table: HashedMap<Postings>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            fields: Fields::default(),
            branches: Vec::new(),
            needs: Vec::new(),
            leaves: Vec::new(),
            nodes: vec![Node::default()],
            table: HashedMap::default(),
        }
    }
}

impl Index {
    pub(super) fn add_leaf(&mut self, leaf: Leaf) -> u32 {
        self.leaves.push(leaf);
        self.leaves.len() as u32 - 1
    }

    /// Files an alternative; returns its number.
    pub(super) fn add_branch(&mut self, owner: u32, needs: impl Iterator<Item = Need>) -> u32 {
        let branch = self.branches.len() as u32;
        let from = self.needs.len() as u32;
        self.needs.extend(needs);
        self.branches.push(Branch { owner, from, to: self.needs.len() as u32, live: true });
        self.file(TOP, branch);
        branch
    }

    /// From now on the alternative never matches. What led to it stays until the matcher is rebuilt.
    pub(super) fn kill(&mut self, branch: u32) {
        if let Some(branch) = self.branches.get_mut(branch as usize) {
            branch.live = false;
        }
    }

    pub(super) fn needs(&self, branch: u32) -> &[Need] {
        self.branches
            .get(branch as usize)
            .and_then(|branch| self.needs.get(branch.from as usize..branch.to as usize))
            .unwrap_or_default()
    }

    pub(super) fn leaf(&self, leaf: u32) -> Option<&Leaf> {
        self.leaves.get(leaf as usize)
    }

    fn file(&mut self, node: u32, branch: u32) {
        let chosen = self.choose(node, branch);
        let Some(at) = self.nodes.get_mut(node as usize) else { return };
        at.len += 1;
        let Some(need) = chosen else { return at.always.push(branch) };
        // The leaf is lent out while the index grows, and put back.
        let Some(leaf) = self.leaves.get_mut(need.leaf as usize).map(std::mem::take) else { return };
        let mut crowds = Vec::new();
        for access in access::paths(&leaf).into_iter().flatten() {
            let access = self.lightest(node, need.field, access);
            crowds.extend(self.post(node, need.field, &access, branch));
        }
        if let Some(place) = self.leaves.get_mut(need.leaf as usize) {
            *place = leaf;
        }
        for (node, branches) in crowds {
            branches.into_iter().for_each(|branch| self.file(node, branch));
        }
    }

    /// The field that files an alternative at a node: the one that fewest events and fewest other alternatives have
    /// in common with it.
    fn choose(&self, node: u32, branch: u32) -> Option<Need> {
        let at = self.nodes.get(node as usize)?;
        let mut best: Option<(usize, u32, Need)> = None;
        for need in self.needs(branch) {
            let leaf = self.leaves.get(need.leaf as usize)?;
            let count = leaf.conditions.len();
            if at.used.contains(&need.field) || (!at.used.is_empty() && count > SPREAD) {
                continue;
            }
            let Some(paths) = access::paths(leaf) else { continue };
            let cost = if count > 32 {
                count * 16 // long lists are judged by their length
            } else {
                let lightest = paths.map(|path| self.lightest(node, need.field, path));
                lightest.map(|path| path.weight() + self.load(node, need.field, &path)).sum()
            };
            // What patterns say about deeper fields usually tells them apart better than attributes do.
            let shallow = u32::MAX - self.fields.depth(need.field);
            if best.as_ref().is_none_or(|(least, level, _)| (cost, shallow) < (*least, *level)) {
                best = Some((cost, shallow, *need));
            }
        }
        best.map(|(_, _, need)| need)
    }

    /// Of a literal the part that leads to the fewest alternatives so far; other access paths as they are.
    fn lightest<'a>(&self, node: u32, field: u32, access: Access<'a>) -> Access<'a> {
        let Access::Grams { literal, length } = access else { return access };
        let grams = access::grams(literal, length);
        grams.min_by_key(|gram| self.load(node, field, gram)).unwrap_or(Access::Present)
    }

    fn len(&self, postings: &Postings) -> usize {
        match postings {
            Postings::One(_) => 1,
            Postings::Many(branches) => branches.len(),
            Postings::Node(node) => self.nodes.get(*node as usize).map_or(0, |node| node.len),
        }
    }

    /// How many alternatives an access path leads to already.
    fn load(&self, node: u32, field: u32, access: &Access<'_>) -> usize {
        let probe = || {
            let probes = &self.nodes.get(node as usize)?.probes;
            probes.get(probes.binary_search_by_key(&field, |probe| probe.field).ok()?)
        };
        match access {
            Access::Key { kind, length, hash } => {
                let key = access::key(node, field, *kind, *length, *hash);
                self.table.get(&key).map_or(0, |postings| self.len(postings))
            }
            Access::Range(_) => probe().map_or(0, |probe| probe.ranges.len()),
            Access::Grams { .. } => 0,
            Access::Present => probe().and_then(|it| it.present.as_ref()).map_or(0, |postings| self.len(postings)),
        }
    }

    /// Files an alternative under one condition; hands back what a new node has to file, or one that an old has to.
    fn post(&mut self, node: u32, field: u32, access: &Access<'_>, branch: u32) -> Option<(u32, Vec<u32>)> {
        let next = self.nodes.len() as u32;
        let at = self.nodes.get_mut(node as usize)?;
        let place = match at.probes.binary_search_by_key(&field, |probe| probe.field) {
            Ok(place) => place,
            Err(place) => {
                at.probes.insert(place, Probe { field, ..Probe::default() });
                place
            }
        };
        let probe = at.probes.get_mut(place)?;
        let postings = match access {
            Access::Range(range) => {
                probe.ranges.insert(range, branch);
                return None;
            }
            // A literal is filed under one of its parts, never as a whole.
            Access::Present | Access::Grams { .. } => match &mut probe.present {
                Some(postings) => postings,
                empty => {
                    *empty = Some(Postings::One(branch));
                    return None;
                }
            },
            Access::Key { kind, length, hash } => {
                probe.note(*kind, *length);
                match self.table.entry(access::key(node, field, *kind, *length, *hash)) {
                    std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                    std::collections::hash_map::Entry::Vacant(entry) => {
                        entry.insert(Postings::One(branch));
                        return None;
                    }
                }
            }
        };
        let branches = match postings {
            // A list may name the same value twice.
            Postings::One(first) if *first == branch => return None,
            Postings::One(first) => {
                *postings = Postings::Many(vec![*first, branch]);
                return None;
            }
            Postings::Node(node) => return Some((*node, vec![branch])),
            Postings::Many(branches) => branches,
        };
        if branches.last() != Some(&branch) {
            branches.push(branch);
        }
        if branches.len() <= CROWD || at.used.len() + 1 >= LEVELS {
            return None;
        }
        let crowd = std::mem::take(branches);
        *postings = Postings::Node(next);
        let used = at.used.iter().copied().chain([field]).collect();
        self.nodes.push(Node { used, ..Node::default() });
        Some((next, crowd))
    }
}
