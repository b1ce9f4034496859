//! The lookup of one event in the index. Every alternative that the index finds is verified against the event.

use super::access::{self, KeyKind};
use super::cidr::Address;
use super::condition::Value;
use super::extract::{ExtractedValues, SourceTexts};
use super::hash;
use super::index::{Alternative, Index, Node, Postings, Probe, ROOT_NODE};
use super::number::NumberRef;
use super::text::fold_into;
use super::verify::{self, Search};

/// The buffers and the result of a lookup, reused between events.
///
/// Each event has a number, its epoch. To mark an alternative or a node as visited, the lookup stores the epoch of the
/// current event in these buffers. Marks of earlier events have other epochs, so the buffers are not cleared between
/// events.
#[derive(Default)]
pub(super) struct LookupBuffers {
    /// The epoch of the current event.
    epoch: u32,
    alternative_epochs: Vec<u32>,
    node_epochs: Vec<u32>,
    group_epochs: Vec<u32>,
    /// The case-folded text of the current value.
    folded: String,
    search: Search,
    /// The owners of the alternatives that match. An owner occurs several times if several of its alternatives match.
    pub(super) owners: Vec<u32>,
}

impl LookupBuffers {
    /// The number of steps of all verifications so far.
    #[cfg(test)]
    pub(super) fn steps(&self) -> u64 {
        self.search.steps
    }
}

/// An event with more value units ([`ExtractedValues::value_units`]) than this is large; see
/// [`Lookup::verify_directly`].
const LARGE_EVENT_UNITS: usize = 1024;
/// For a large event, a node does no lookups if at most this many of its alternatives are not verified yet: these
/// alternatives are verified directly. If the whole matcher has at most this many patterns, all of them are verified
/// directly for a large event.
const DIRECT_MAX: usize = 16;
/// The limits from which all alternatives of a pattern are verified together, in one pass over the event (see `bulk`).
/// Below them, verifying one alternative after another is less work. Each pair has two minimums, as binary logarithms:
/// the first for the cost of the pattern, the second for this cost times the value units of the event
/// ([`ExtractedValues::value_units`]). It is enough to reach both minimums of one pair. The second pair is for the
/// largest events.
const BULK_MIN: [(u8, u32); 2] = [(6, 16), (3, 20)];

/// The lookup of one event.
pub(super) struct Lookup<'a> {
    pub(super) index: &'a Index,
    pub(super) extracted: &'a ExtractedValues,
    pub(super) texts: SourceTexts<'a>,
    /// [`ExtractedValues::value_units`] of the event.
    pub(super) value_units: usize,
    pub(super) buffers: &'a mut LookupBuffers,
}

impl Lookup<'_> {
    /// Finds all alternatives that match, and stores their owners in the buffers.
    pub(super) fn run(&mut self) {
        let epoch = self.extracted.epoch();
        if epoch < self.buffers.epoch {
            // The epoch counter has wrapped around, so the stored epochs are meaningless.
            self.buffers.alternative_epochs.clear();
            self.buffers.node_epochs.clear();
            self.buffers.group_epochs.clear();
        }
        self.buffers.epoch = epoch;
        self.buffers
            .alternative_epochs
            .resize(self.index.alternatives.len().max(self.buffers.alternative_epochs.len()), 0);
        self.buffers.node_epochs.resize(self.index.nodes.len().max(self.buffers.node_epochs.len()), 0);
        self.buffers.owners.clear();
        if self.value_units > LARGE_EVENT_UNITS && self.index.groups.len() <= DIRECT_MAX {
            (0..self.index.alternatives.len() as u32).for_each(|alternative| self.verify(alternative));
        } else {
            self.visit_node(ROOT_NODE);
        }
    }

    /// If the event is large and only a few alternatives of a node are not verified yet, verifies them directly and
    /// returns true. Otherwise returns false, because the node's lookups are less work. Without this function, a
    /// pattern whose alternatives are in many nodes would cause lookups of the same long text or array in each of these
    /// nodes.
    fn verify_directly(&mut self, node: &Node) -> bool {
        if self.value_units <= LARGE_EVENT_UNITS || node.alternatives.is_empty() {
            return false;
        }
        let epochs = &self.buffers.alternative_epochs;
        let is_open = |alternative: &&u32| epochs.get(**alternative as usize) != Some(&self.buffers.epoch);
        let open: Vec<u32> = node.alternatives.iter().filter(is_open).take(DIRECT_MAX + 1).copied().collect();
        if open.len() > DIRECT_MAX {
            return false;
        }
        open.into_iter().for_each(|alternative| self.verify(alternative));
        true
    }

    /// Marks an entry as visited by the current event. Returns true the first time.
    fn mark_visited(epochs: &mut [u32], at: u32, epoch: u32) -> bool {
        epochs.get_mut(at as usize).is_some_and(|mark| std::mem::replace(mark, epoch) != epoch)
    }

    /// Looks up the fields of the event in a node, at most once for each event.
    fn visit_node(&mut self, number: u32) {
        if !Self::mark_visited(&mut self.buffers.node_epochs, number, self.buffers.epoch) {
            return;
        }
        let Some(node) = self.index.nodes.get(number as usize) else { return };
        if self.verify_directly(node) {
            return;
        }
        node.always_verified.iter().for_each(|alternative| self.verify(*alternative));
        let present_fields = &self.extracted.present_fields;
        if node.probes.len() <= present_fields.len() {
            node.probes.iter().for_each(|probe| self.probe(number, probe));
            return;
        }
        for field in present_fields {
            if let Ok(at) = node.probes.binary_search_by_key(field, |probe| probe.field)
                && let Some(probe) = node.probes.get(at)
            {
                self.probe(number, probe);
            }
        }
    }

    /// Looks up every value of one field.
    fn probe(&mut self, node: u32, probe: &Probe) {
        let (extracted, texts) = (self.extracted, self.texts);
        let mut has_value = false;
        let mut bounds = None;
        for (_, occurrence) in extracted.occurrences(probe.field) {
            has_value = true;
            match texts.value(extracted, occurrence) {
                Value::Text(text) => self.probe_text(node, probe, text),
                Value::Number(NumberRef { decimal, .. }) => {
                    if probe.number {
                        self.follow_key(node, probe.field, KeyKind::Number, 0, hash::words(decimal.words()));
                    }
                    if probe.ranges.len() > 0 {
                        let text = texts.text(extracted, occurrence);
                        probe.ranges.find(text, |alternative| self.verify(alternative));
                        let (least, greatest) = bounds.get_or_insert((decimal, decimal));
                        (*least, *greatest) = ((*least).min(decimal), (*greatest).max(decimal));
                    }
                }
                Value::Null if probe.literal => self.follow_key(node, probe.field, KeyKind::Literal, 0, 0),
                Value::Bool(bool) if probe.literal => {
                    self.follow_key(node, probe.field, KeyKind::Literal, 0, 1 + u64::from(bool));
                }
                Value::Null | Value::Bool(_) => {}
            }
        }
        if let Some((least, greatest)) = bounds {
            probe.ranges.find_one_sided(least, greatest, |alternative| self.verify(alternative));
        }
        if let (true, Some(postings)) = (has_value, &probe.present) {
            self.follow(postings);
        }
    }

    /// Looks up one string.
    fn probe_text(&mut self, node: u32, probe: &Probe, text: &str) {
        let field = probe.field;
        let bytes = text.as_bytes();
        if probe.text {
            self.follow_key(node, field, KeyKind::Text, 0, hash::bytes(bytes));
        }
        self.probe_affixes(node, field, bytes, (KeyKind::Prefix, &probe.prefixes), (KeyKind::Suffix, &probe.suffixes));
        for length in &probe.grams {
            for gram in bytes.windows(*length as usize) {
                self.follow_key(node, field, KeyKind::Gram, *length, hash::bytes(gram));
            }
        }
        if let (false, Some(address)) = (probe.blocks.is_empty(), Address::parse(text)) {
            for length in &probe.blocks {
                let (v6, bits) =
                    length.checked_sub(access::V6_LENGTH_OFFSET).map_or((false, *length), |bits| (true, bits));
                if v6 == address.is_v6 {
                    self.follow_key(
                        node,
                        field,
                        KeyKind::Block,
                        *length,
                        hash::words(address.prefix_words(bits as u8)),
                    );
                }
            }
        }
        if probe.needs_folding() {
            let mut folded = std::mem::take(&mut self.buffers.folded);
            fold_into(&mut folded, text);
            let bytes = folded.as_bytes();
            if probe.folded {
                self.follow_key(node, field, KeyKind::Folded, bytes.len() as u32, hash::bytes(bytes));
            }
            let prefixes = (KeyKind::FoldedPrefix, &*probe.folded_prefixes);
            self.probe_affixes(node, field, bytes, prefixes, (KeyKind::FoldedSuffix, &probe.folded_suffixes));
            self.buffers.folded = folded;
        }
    }

    /// Looks up the starts and ends of a text. `prefixes` and `suffixes` are pairs: the kind of the keys, and the
    /// lengths to look up, ascending and in bytes.
    fn probe_affixes(
        &mut self,
        node: u32,
        field: u32,
        text: &[u8],
        prefixes: (KeyKind, &[u32]),
        suffixes: (KeyKind, &[u32]),
    ) {
        for length in prefixes.1 {
            let Some(part) = text.get(..*length as usize) else { break };
            self.follow_key(node, field, prefixes.0, *length, hash::bytes(part));
        }
        for length in suffixes.1 {
            let Some(start) = text.len().checked_sub(*length as usize) else { break };
            let part = text.get(start..).unwrap_or_default();
            self.follow_key(node, field, suffixes.0, *length, hash::bytes(part));
        }
    }

    /// Follows the posting list of a key, if the index has the key.
    #[inline]
    fn follow_key(&mut self, node: u32, field: u32, kind: KeyKind, length: u32, hash: u64) {
        let index = self.index;
        if let Some(postings) = index.table.get(&access::table_key(node, field, kind, length, hash)) {
            self.follow(postings);
        }
    }

    fn follow(&mut self, postings: &Postings) {
        match postings {
            Postings::One(alternative) => self.verify(*alternative),
            Postings::Many(alternatives) => alternatives.iter().for_each(|alternative| self.verify(*alternative)),
            Postings::Node(node) => self.visit_node(*node),
        }
    }

    /// Verifies an alternative, at most once for each event, and adds its owner to the result when it matches.
    fn verify(&mut self, number: u32) {
        if !Self::mark_visited(&mut self.buffers.alternative_epochs, number, self.buffers.epoch) {
            return;
        }
        let index = self.index;
        let Some(alternative) = index.alternatives.get(number as usize) else { return };
        if alternative.live && self.is_bulk(alternative) {
            self.verify_all(number, alternative.owner);
        } else if alternative.live
            && let Some(requirements) = index.requirements.get(alternative.from as usize..alternative.to as usize)
            && verify::alternative_matches(
                self.extracted,
                self.texts,
                requirements,
                &index.lists,
                &mut self.buffers.search,
            )
        {
            self.buffers.owners.push(alternative.owner);
        }
    }

    /// `alternative` belongs to a pattern. Returns true if it is less work to verify all alternatives of that pattern
    /// together than one after another; see [`BULK_MIN`].
    fn is_bulk(&self, alternative: &Alternative) -> bool {
        let work_log2 = u32::from(alternative.cost_log2) + self.value_units.checked_ilog2().unwrap_or(0);
        BULK_MIN.iter().any(|(cost_min, work_min)| alternative.cost_log2 >= *cost_min && work_log2 >= *work_min)
    }

    /// Verifies, at most once for each event, all alternatives of the pattern that `alternative` belongs to.
    #[cold]
    fn verify_all(&mut self, alternative: u32, owner: u32) {
        let index = self.index;
        let group = index.group_of(alternative);
        self.buffers.group_epochs.resize(index.groups.len().max(self.buffers.group_epochs.len()), 0);
        if !Self::mark_visited(&mut self.buffers.group_epochs, group, self.buffers.epoch) {
            return;
        }
        for alternative in index.alternatives_of(group) {
            Self::mark_visited(&mut self.buffers.alternative_epochs, alternative, self.buffers.epoch);
        }
        if let Some(bulk) = index.bulk(group)
            && bulk.verify(self.extracted, self.texts, &mut self.buffers.search.steps).is_some()
        {
            self.buffers.owners.push(owner);
        }
    }
}
