//! A simulated disk that loses as much as a real disk may lose in a power cut.
//!
//! Bytes that were written to a file before its last successful sync began survive a power cut. Of later writes any
//! part may survive, in sectors of 512 bytes and in any order; a file may also have its new length without its new
//! bytes, which are then zeros. Changes of names take effect in order, and are durable only after a sync of their
//! folder.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;

use super::random::Random;
use super::trace::{FileId, Record, Trace};

const SECTOR: usize = 512;

/// Replays a [`Trace`] and knows which of its changes are durable.
pub(super) struct Disk<'a> {
    trace: &'a Trace,
    nodes: HashMap<FileId, Node>,
    names: Folder,
    /// The parent of the data folder. Its only entry is the data folder, under the empty name.
    parent: Folder,
}

/// A file.
#[derive(Default)]
struct Node {
    durable: Vec<u8>,
    /// The number of changes that are durable.
    durable_count: usize,
    pending: VecDeque<Change>,
    /// For each running sync, by serial number: the number of changes that it covers.
    syncing: HashMap<u64, usize>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Range<usize> },
    Truncate(usize),
}

#[derive(Default)]
struct Folder {
    durable: BTreeMap<String, FileId>,
    durable_count: usize,
    pending: VecDeque<NameChange>,
    syncing: HashMap<u64, usize>,
}

#[derive(Clone)]
enum NameChange {
    Link(String, FileId),
    Unlink(String),
    Rename(String, String),
}

impl<'a> Disk<'a> {
    /// An empty disk.
    pub(super) fn new(trace: &'a Trace) -> Self {
        Self { trace, nodes: HashMap::new(), names: Folder::default(), parent: Folder::default() }
    }

    /// Applies the next record of the trace.
    pub(super) fn apply(&mut self, record: &Record) {
        match record {
            Record::Opened { file, name } => {
                if !["", ".."].contains(&name.as_str()) {
                    self.names.pending.push_back(NameChange::Link(name.clone(), *file));
                    self.nodes.insert(*file, Node::default());
                }
            }
            Record::Written { file, offset, bytes } => {
                self.node(*file).pending.push_back(Change::Write { offset: *offset, bytes: bytes.clone() });
            }
            Record::Truncated { file, length } => self.node(*file).pending.push_back(Change::Truncate(*length)),
            Record::Syncing { file, serial } => {
                if let Some(folder) = self.folder(*file) {
                    folder.syncing.insert(*serial, folder.durable_count + folder.pending.len());
                } else {
                    let node = self.node(*file);
                    node.syncing.insert(*serial, node.durable_count + node.pending.len());
                }
            }
            Record::Synced { file, serial, ok } => {
                assert!(ok, "a trace with a failed sync cannot be replayed");
                let trace = self.trace;
                if let Some(folder) = self.folder(*file) {
                    folder.synced(*serial);
                } else {
                    self.node(*file).synced(*serial, trace);
                }
            }
            Record::Unlinked { name } => self.names.pending.push_back(NameChange::Unlink(name.clone())),
            Record::Renamed { from, to } => {
                self.names.pending.push_back(NameChange::Rename(from.clone(), to.clone()));
            }
            Record::FolderCreated { name } if name.is_empty() => {
                self.parent.pending.push_back(NameChange::Link(String::new(), 0));
            }
            Record::FolderCreated { .. } | Record::Sent { .. } => {}
        }
    }

    fn node(&mut self, file: FileId) -> &mut Node {
        self.nodes.get_mut(&file).expect("the file was opened before")
    }

    /// Returns the folder with this id, or `None` if the id is a file.
    fn folder(&mut self, file: FileId) -> Option<&mut Folder> {
        if self.nodes.contains_key(&file) {
            return None;
        }
        let parent = self
            .trace
            .records
            .iter()
            .any(|r| matches!(r, Record::Opened { file: f, name } if *f == file && name == ".."));
        Some(if parent { &mut self.parent } else { &mut self.names })
    }

    /// Returns one possible content of the data folder after a power cut now, by file name: empty if the folder
    /// itself is lost.
    pub(super) fn after_power_cut(&self, random: &mut Random) -> BTreeMap<String, Vec<u8>> {
        if self.parent.after_power_cut(random).is_empty() {
            return BTreeMap::new();
        }
        let names = self.names.after_power_cut(random);
        names.into_iter().map(|(name, file)| (name, self.nodes[&file].after_power_cut(self.trace, random))).collect()
    }
}

impl Folder {
    fn synced(&mut self, serial: u64) {
        let covered = self.syncing.remove(&serial).unwrap_or_default();
        while self.durable_count < covered {
            let Some(change) = self.pending.pop_front() else { break };
            change.apply(&mut self.durable);
            self.durable_count += 1;
        }
    }

    fn after_power_cut(&self, random: &mut Random) -> BTreeMap<String, FileId> {
        let mut names = self.durable.clone();
        let surviving = random.below(self.pending.len() + 1);
        self.pending.iter().take(surviving).for_each(|change| change.apply(&mut names));
        names
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, FileId>) {
        match self {
            Self::Link(name, file) => drop(names.insert(name.clone(), *file)),
            Self::Unlink(name) => drop(names.remove(name)),
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

impl Node {
    fn synced(&mut self, serial: u64, trace: &Trace) {
        let covered = self.syncing.remove(&serial).unwrap_or_default();
        while self.durable_count < covered {
            let Some(change) = self.pending.pop_front() else { break };
            match change {
                Change::Write { offset, bytes } => write(&mut self.durable, offset, &trace.bytes[bytes]),
                Change::Truncate(length) => self.durable.resize(length, 0),
            }
            self.durable_count += 1;
        }
    }

    fn after_power_cut(&self, trace: &Trace, random: &mut Random) -> Vec<u8> {
        let mut content = self.durable.clone();
        // The pending changes survive entirely, not at all, up to some moment, or in random sectors. `first` is the
        // number of changes that survive whole, `share` the percentage of sectors of the others.
        let (first, share) = match random.below(4) {
            0 => (self.pending.len(), 0),
            1 => (0, 0),
            2 => (random.below(self.pending.len() + 1), 0),
            _ => (0, [5, 50, 95][random.below(3)]),
        };
        for (at, change) in self.pending.iter().enumerate() {
            // The write during which the power failed is torn.
            let share = if at < first {
                100
            } else if at == first && first > 0 {
                50
            } else {
                share
            };
            match change {
                Change::Truncate(length) if random.percent(share) => content.resize(*length, 0),
                Change::Truncate(_) => {}
                Change::Write { offset, bytes } => {
                    write_some_sectors(&mut content, *offset, &trace.bytes[bytes.clone()], share, random);
                }
            }
        }
        if random.percent(25) {
            // The new length is durable, the bytes are not.
            let end = self.pending.iter().map(|change| match change {
                Change::Write { offset, bytes } => offset + bytes.len(),
                Change::Truncate(_) => 0,
            });
            let end = end.max().unwrap_or_default();
            content.resize(content.len().max(end), 0);
        }
        content
    }
}

/// Writes each sector with a probability of `share` percent.
fn write_some_sectors(content: &mut Vec<u8>, offset: usize, bytes: &[u8], share: u32, random: &mut Random) {
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes.len().min((offset + at) / SECTOR * SECTOR + SECTOR - offset);
        if random.percent(share) {
            write(content, offset + at, &bytes[at..end]);
        }
        at = end;
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace() -> Trace {
        let bytes = [vec![1; 1024], vec![2; 1024]].concat();
        let opened = |file, name: &str| Record::Opened { file, name: name.into() };
        let write = |bytes| Record::Written { file: 1, offset: 0, bytes };
        let (syncing, synced) =
            (|file, serial| Record::Syncing { file, serial }, |file, serial| Record::Synced { file, serial, ok: true });
        let records = vec![
            Record::FolderCreated { name: String::new() },
            opened(9, ".."),
            syncing(9, 1),
            synced(9, 1),
            opened(1, "db"),
            opened(8, ""),
            syncing(8, 2),
            synced(8, 2),
            write(0..1024),
            syncing(1, 3),
            write(1024..2048),
            synced(1, 3),
        ];
        Trace { bytes, records }
    }

    /// All contents that the file may have after a power cut behind so many records. `None`: the file is lost.
    fn possible_contents(records: usize) -> std::collections::BTreeSet<Option<Vec<u8>>> {
        let trace = trace();
        let mut disk = Disk::new(&trace);
        trace.records[..records].iter().for_each(|record| disk.apply(record));
        (0..500).map(|seed| disk.after_power_cut(&mut Random::new(seed)).remove("db")).collect()
    }

    #[test]
    fn synced_bytes_survive_and_any_sector_of_later_writes_may_survive() {
        let (zeros, ones, twos) = (vec![0; 512], vec![1; 512], vec![2; 512]);
        assert!(
            possible_contents(4).contains(&None) && possible_contents(7).contains(&None),
            "a name that was not synced may be lost"
        );
        assert!(!possible_contents(8).contains(&None));
        // Written but not synced: nothing, everything, either sector, or only the length.
        let unsynced = possible_contents(9);
        for expected in [vec![], [&*ones, &ones].concat(), ones.clone(), [&*zeros, &ones].concat(), vec![0; 1024]] {
            assert!(unsynced.contains(&Some(expected)));
        }
        // A write that begins after the start of a sync is not covered by it.
        let synced = possible_contents(12);
        for first in [&ones, &twos] {
            for second in [&ones, &twos] {
                assert!(synced.contains(&Some([&**first, second].concat())));
            }
        }
        assert_eq!(synced.len(), 4);
    }
}
