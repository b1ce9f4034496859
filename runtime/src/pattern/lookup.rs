//! One event's way through the index: what its values lead to, verified.

use super::access::{self, Kind};
use super::cidr::Address;
use super::condition::Value;
use super::extract::{Extract, Texts};
use super::hash;
use super::index::{Index, Postings, Probe, TOP};
use super::text::fold_into;
use super::verify::{self, Search};

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
        for length in &probe.grams {
            for gram in bytes.windows(*length as usize) {
                self.look(node, field, Kind::Gram, *length, hash::bytes(gram));
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
