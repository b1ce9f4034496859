//! Many patterns at once: each alternative of a pattern is filed under the conditions of one field, the ones that an
//! event is least likely to meet, and only what an event leads to is verified.
//!
//! Where many alternatives share such a condition, their posting list becomes a node of its own, which files them under
//! another of their fields. So patterns that are told apart by two fields together are found by two fields together,
//! and an event's cost follows what it matches, not how many patterns there are.

use super::access::{self, Access, GRAM, Kind};
use super::cidr::Address;
use super::condition::{Leaf, Value};
use super::event::{Extract, Texts};
use super::fields::Fields;
use super::hash::{self, HashedMap};
use super::ranges::Ranges;
use super::text::fold_into;
use super::verify::{self, Need, Search};

/// A longer posting list becomes a node. Short lists are verified faster than looked up.
const CROWD: usize = 8;
/// How many fields in a row may file an alternative.
const LEVELS: usize = 4;
/// Below the first level a field with more conditions than this files nothing, so that an alternative with many long
/// lists is not multiplied out.
const SPREAD: usize = 4;

const TOP: u32 = 0;

/// The alternatives that one condition leads to.
enum Postings {
    One(u32),
    Many(Box<Vec<u32>>),
    Node(u32),
}

/// A step of the index.
#[derive(Default)]
struct Node {
    /// By field.
    probes: Vec<Probe>,
    /// Alternatives that no field files here: verified whenever an event gets here.
    always: Vec<u32>,
    /// The fields that led here.
    used: Vec<u32>,
    /// How many alternatives are in it.
    len: usize,
}

/// What to look up for the values of one field.
#[derive(Default)]
struct Probe {
    field: u32,
    text: bool,
    number: bool,
    literal: bool,
    folded: bool,
    gram: bool,
    /// The lengths of what is looked up, each once, ascending.
    prefixes: Vec<u32>,
    suffixes: Vec<u32>,
    folded_prefixes: Vec<u32>,
    folded_suffixes: Vec<u32>,
    blocks: Vec<u32>,
    ranges: Ranges,
    present: Option<Postings>,
}

impl Probe {
    fn note(&mut self, kind: Kind, length: u32) {
        let lengths = match kind {
            Kind::Text => return self.text = true,
            Kind::Number => return self.number = true,
            Kind::Literal => return self.literal = true,
            Kind::Folded => return self.folded = true,
            Kind::Gram => return self.gram = true,
            Kind::Prefix => &mut self.prefixes,
            Kind::Suffix => &mut self.suffixes,
            Kind::FoldedPrefix => &mut self.folded_prefixes,
            Kind::FoldedSuffix => &mut self.folded_suffixes,
            Kind::Block => &mut self.blocks,
        };
        if let Err(at) = lengths.binary_search(&length) {
            lengths.insert(at, length);
        }
    }

    fn folds(&self) -> bool {
        self.folded || !self.folded_prefixes.is_empty() || !self.folded_suffixes.is_empty()
    }
}

/// One alternative of a pattern: all its needs must be met.
struct Branch {
    owner: u32,
    from: u32,
    to: u32,
    live: bool,
}

/// All alternatives, and the way to them.
pub(super) struct Index {
    pub(super) fields: Fields,
    branches: Vec<Branch>,
    needs: Vec<Need>,
    leaves: Vec<Leaf>,
    nodes: Vec<Node>,
    table: HashedMap<Postings>,
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

    pub(super) fn leaves(&self) -> &[Leaf] {
        &self.leaves
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
                paths.map(|path| path.weight() + self.load(node, need.field, &path)).sum()
            };
            // What patterns say about deeper fields usually tells them apart better than attributes do.
            let shallow = u32::MAX - self.fields.depth(need.field);
            if best.as_ref().is_none_or(|(least, level, _)| (cost, shallow) < (*least, *level)) {
                best = Some((cost, shallow, *need));
            }
        }
        best.map(|(_, _, need)| need)
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
            Access::Present => match &mut probe.present {
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
                *postings = Postings::Many(Box::new(vec![*first, branch]));
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
        let crowd = std::mem::take(&mut **branches);
        *postings = Postings::Node(next);
        let used = at.used.iter().copied().chain([field]).collect();
        self.nodes.push(Node { used, ..Node::default() });
        Some((next, crowd))
    }
}

/// Buffers of a match, and the owners found by it.
#[derive(Default)]
pub(super) struct Marks {
    epoch: u32,
    branches: Vec<u32>,
    nodes: Vec<u32>,
    folded: String,
    search: Search,
    /// The owners whose patterns match; one with several matching alternatives is there several times.
    pub(super) owners: Vec<u32>,
}

/// One event's way through the index.
pub(super) struct Lookup<'a> {
    pub(super) index: &'a Index,
    pub(super) extract: &'a Extract,
    pub(super) texts: Texts<'a>,
    pub(super) marks: &'a mut Marks,
}

impl Lookup<'_> {
    /// Finds the owners of all alternatives that hold.
    pub(super) fn run(&mut self) {
        let epoch = self.extract.epoch();
        if epoch < self.marks.epoch {
            // The counter of events began anew.
            self.marks.branches.clear();
            self.marks.nodes.clear();
        }
        self.marks.epoch = epoch;
        self.marks.branches.resize(self.index.branches.len().max(self.marks.branches.len()), 0);
        self.marks.nodes.resize(self.index.nodes.len().max(self.marks.nodes.len()), 0);
        self.marks.owners.clear();
        self.visit(TOP);
    }

    /// Whether this is the first time that the current event gets there.
    fn first(marks: &mut [u32], at: u32, epoch: u32) -> bool {
        marks.get_mut(at as usize).is_some_and(|mark| std::mem::replace(mark, epoch) != epoch)
    }

    fn visit(&mut self, number: u32) {
        if !Self::first(&mut self.marks.nodes, number, self.marks.epoch) {
            return;
        }
        let Some(node) = self.index.nodes.get(number as usize) else { return };
        node.always.iter().for_each(|branch| self.candidate(*branch));
        let touched = &self.extract.touched;
        if node.probes.len() <= touched.len() {
            node.probes.iter().for_each(|probe| self.probe(number, probe));
            return;
        }
        for field in touched {
            if let Ok(at) = node.probes.binary_search_by_key(field, |probe| probe.field)
                && let Some(probe) = node.probes.get(at)
            {
                self.probe(number, probe);
            }
        }
    }

    fn probe(&mut self, node: u32, probe: &Probe) {
        let (extract, texts) = (self.extract, self.texts);
        let mut any = false;
        for (_, occurrence) in extract.at(probe.field) {
            any = true;
            match texts.value(extract, occurrence) {
                Value::Text(text) => self.probe_text(node, probe, text),
                Value::Number(number) => {
                    if probe.number {
                        self.look(node, probe.field, Kind::Number, 0, hash::words(number.words()));
                    }
                    if probe.ranges.len() > 0 {
                        let text = texts.text(extract, occurrence);
                        probe.ranges.find(number, text, |branch| self.candidate(branch));
                    }
                }
                Value::Null if probe.literal => self.look(node, probe.field, Kind::Literal, 0, 0),
                Value::Bool(bool) if probe.literal => {
                    self.look(node, probe.field, Kind::Literal, 0, 1 + u64::from(bool));
                }
                Value::Null | Value::Bool(_) => {}
            }
        }
        if let (true, Some(postings)) = (any, &probe.present) {
            self.follow(postings);
        }
    }

    fn probe_text(&mut self, node: u32, probe: &Probe, text: &str) {
        let field = probe.field;
        let bytes = text.as_bytes();
        if probe.text {
            self.look(node, field, Kind::Text, 0, hash::bytes(bytes));
        }
        self.parts(node, field, bytes, (Kind::Prefix, &probe.prefixes), (Kind::Suffix, &probe.suffixes));
        if probe.gram {
            for gram in bytes.windows(GRAM) {
                self.look(node, field, Kind::Gram, GRAM as u32, hash::bytes(gram));
            }
        }
        if let (false, Some(address)) = (probe.blocks.is_empty(), Address::parse(text)) {
            for length in &probe.blocks {
                let (v6, bits) = length.checked_sub(access::V6).map_or((false, *length), |bits| (true, bits));
                if v6 == address.v6 {
                    self.look(node, field, Kind::Block, *length, hash::words(address.block(bits as u8)));
                }
            }
        }
        if probe.folds() {
            let mut folded = std::mem::take(&mut self.marks.folded);
            fold_into(&mut folded, text);
            let bytes = folded.as_bytes();
            if probe.folded {
                self.look(node, field, Kind::Folded, bytes.len() as u32, hash::bytes(bytes));
            }
            let prefixes = (Kind::FoldedPrefix, &*probe.folded_prefixes);
            self.parts(node, field, bytes, prefixes, (Kind::FoldedSuffix, &probe.folded_suffixes));
            self.marks.folded = folded;
        }
    }

    fn parts(&mut self, node: u32, field: u32, text: &[u8], prefixes: (Kind, &[u32]), suffixes: (Kind, &[u32])) {
        for length in prefixes.1 {
            let Some(part) = text.get(..*length as usize) else { break };
            self.look(node, field, prefixes.0, *length, hash::bytes(part));
        }
        for length in suffixes.1 {
            let Some(start) = text.len().checked_sub(*length as usize) else { break };
            let part = text.get(start..).unwrap_or_default();
            self.look(node, field, suffixes.0, *length, hash::bytes(part));
        }
    }

    #[inline]
    fn look(&mut self, node: u32, field: u32, kind: Kind, length: u32, hash: u64) {
        let index = self.index;
        if let Some(postings) = index.table.get(&access::key(node, field, kind, length, hash)) {
            self.follow(postings);
        }
    }

    fn follow(&mut self, postings: &Postings) {
        match postings {
            Postings::One(branch) => self.candidate(*branch),
            Postings::Many(branches) => branches.iter().for_each(|branch| self.candidate(*branch)),
            Postings::Node(node) => self.visit(*node),
        }
    }

    /// Verifies an alternative, once an event.
    fn candidate(&mut self, number: u32) {
        if !Self::first(&mut self.marks.branches, number, self.marks.epoch) {
            return;
        }
        let index = self.index;
        let Some(branch) = index.branches.get(number as usize) else { return };
        if branch.live
            && let Some(needs) = index.needs.get(branch.from as usize..branch.to as usize)
            && verify::holds(self.extract, self.texts, needs, &index.leaves, &mut self.marks.search)
        {
            self.marks.owners.push(branch.owner);
        }
    }
}
