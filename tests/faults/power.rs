//! Acknowledged means on disk: what was recorded beneath the program is cut off anywhere, and nothing that it
//! acknowledged before is lost.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use evoke::clock::Clock;
use evoke::event::Event;
use evoke::store::sqlite::SqliteStore;
use evoke::store::{EventFilter, Store};
use serde_json::Value;
use tempfile::TempDir;

use super::disk::Disk;
use super::items::{Items, manifest};
use super::random::{Random, size};
use super::shim::Shim;
use super::trace::{FileId, Record, Trace};
use crate::support::Evoke;

const CLIENTS: usize = 4;

/// Sends items from several clients, singly and in batches; all must be accepted.
fn send_all(items: &Items, address: &str, count: usize) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let next = &next;
            scope.spawn(move || {
                let mut random = Random::new(items.seed + client as u64);
                loop {
                    let wanted = if random.percent(50) { 1 } else { 1 + random.below(12) };
                    let first = next.fetch_add(wanted, Ordering::Relaxed);
                    let numbers: Vec<usize> = (first..count.min(first + wanted)).collect();
                    if numbers.is_empty() {
                        return;
                    }
                    let answer = items.send(address, &numbers).unwrap();
                    assert_eq!(answer.status, 202, "{answer:?}");
                }
            });
        }
    });
}

/// One run of the program with this many items, from an empty folder to its end, as it was recorded.
fn record(items: &Items, count: usize) -> (Evoke, Trace) {
    let mut evoke = Evoke::with(&manifest());
    let path = evoke.path("trace");
    let shim = Shim::beneath(&evoke).recording(path.clone());
    evoke.try_up(&[], shim.environment()).unwrap();
    send_all(items, evoke.http(), count);
    assert!(evoke.stop().success(), "{}", evoke.log());
    let trace = Trace::read(&path);
    (evoke, trace)
}

/// The items that an answer acknowledges.
pub(super) fn acknowledged(text: &str) -> impl Iterator<Item = usize> + '_ {
    text.split("\"id\":\"").skip(1).filter_map(|rest| Items::number(rest.split('"').next()?))
}

/// What the write-ahead log holds for good: the items in every transaction whose commit was synced, before a sync of
/// any file failed.
#[derive(Default)]
pub(super) struct Committed {
    log: Option<FileId>,
    folders: BTreeSet<FileId>,
    /// Whether the frame whose header came last ends a transaction; its page comes next.
    ends: bool,
    open: BTreeSet<usize>,
    /// Transactions that ended and are not synced.
    unsynced: Vec<BTreeSet<usize>>,
    /// Syncs that are under way, and how many of these each covers.
    syncing: Vec<(u64, usize)>,
    failed: bool,
    pub(super) synced: BTreeSet<usize>,
}

impl Committed {
    pub(super) fn apply(&mut self, record: &Record, trace: &Trace) {
        match record {
            Record::Opened { file, name } if name == "evoke.db-wal" => self.log = Some(*file),
            Record::Opened { file, name } if name.is_empty() || name == ".." => drop(self.folders.insert(*file)),
            Record::Written { file, bytes, .. } if self.log == Some(*file) => {
                let bytes = &trace.bytes[bytes.clone()];
                match bytes.len() {
                    24 => self.ends = bytes[4..8] != [0; 4],
                    32 => {}
                    _ => {
                        let text = String::from_utf8_lossy(bytes);
                        let ids =
                            text.match_indices("item-").filter_map(|(at, _)| Items::number(text.get(at..at + 12)?));
                        self.open.extend(ids);
                        if self.ends {
                            self.unsynced.push(std::mem::take(&mut self.open));
                        }
                    }
                }
            }
            Record::Syncing { file, serial } if self.log == Some(*file) => {
                self.syncing.push((*serial, self.unsynced.len()));
            }
            Record::Synced { ok: false, file, .. } if !self.folders.contains(file) => self.failed = true,
            Record::Synced { file, serial, ok: true } if self.log == Some(*file) && !self.failed => {
                let at = self.syncing.iter().position(|(s, _)| s == serial).unwrap();
                let (_, covered) = self.syncing.remove(at);
                self.synced.extend(self.unsynced.drain(..covered.min(self.unsynced.len())).flatten());
            }
            _ => {}
        }
    }
}

#[test]
fn every_acknowledgement_comes_after_the_sync_of_its_commit() {
    let seed = Random::seed("acknowledgements");
    let count = size(1_000, 10_000);
    let items = Items::plain(seed, 100, 1_000);
    let (_evoke, trace) = record(&items, count);
    let mut committed = Committed::default();
    let mut answered = BTreeSet::new();
    for record in &trace.records {
        committed.apply(record, &trace);
        if let Record::Sent { text } = record {
            let numbers: BTreeSet<usize> = acknowledged(text).collect();
            let early: Vec<_> = numbers.difference(&committed.synced).collect();
            assert!(early.is_empty(), "{early:?} were acknowledged before they were synced; EVOKE_SEED={seed}");
            answered.extend(numbers);
        }
    }
    assert_eq!(answered.len(), count);
    println!("{count} acknowledgements, 0 early");
}

/// Where to cut: anywhere, right behind an acknowledgement, or while the log is copied into the database.
fn cuts(trace: &Trace, count: usize, random: &mut Random) -> Vec<usize> {
    let database = trace.file("evoke.db");
    let of = |wanted: &dyn Fn(&Record) -> bool| -> Vec<usize> {
        trace.records.iter().enumerate().filter(|(_, record)| wanted(record)).map(|(at, _)| at + 1).collect()
    };
    let anywhere: Vec<usize> = (0..=trace.records.len()).collect();
    let sent = of(&|record| matches!(record, Record::Sent { .. }));
    let copied = of(&|record| matches!(record, Record::Written { file, .. } if *file == database));
    assert!(copied.len() > 1_000, "the log was hardly copied into the database: {}", copied.len());
    // The way from an empty folder to the first commit is short, and every step of it counts.
    let beginning: Vec<usize> = (0..60).collect();
    let mut cuts: Vec<usize> = (0..count)
        .map(|n| {
            let places = [&anywhere, &sent, &copied, &beginning][n % 4];
            places[random.below(places.len())]
        })
        .collect();
    cuts.sort_unstable();
    cuts
}

#[test]
fn a_power_cut_anywhere_loses_nothing_acknowledged() {
    let seed = Random::seed("power cuts");
    let count = size(60, 1_000);
    let items = Items { retries: 5, ..Items::plain(seed, 50, 6_000) };
    let (evoke, trace) = record(&items, 1_000);
    let mut random = Random::new(seed);
    let mut disk = Disk::new(&trace);
    let mut owed = BTreeSet::new();
    let mut done = 0;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (n, cut) in cuts(&trace, count, &mut random).into_iter().enumerate() {
        for record in &trace.records[done..cut] {
            disk.apply(record);
            if let Record::Sent { text } = record {
                owed.extend(acknowledged(text));
            }
        }
        done = cut;
        let folder = TempDir::new().unwrap();
        for (name, content) in disk.after_power_cut(&mut random) {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let words = || format!("cut {n} after record {cut}; EVOKE_SEED={seed}");
        // Some are opened by the program itself, which goes on where it was.
        if n % 20 == 7 {
            assert_goes_on(&evoke, &items, folder.path(), &owed, &words());
        } else {
            runtime.block_on(assert_whole(&items, folder.path(), &owed, &words()));
        }
    }
    println!("{count} cuts over {} records, {} acknowledged, 0 lost", trace.records.len(), owed.len());
}

/// The store opens, is sound, and has everything that is owed.
async fn assert_whole(items: &Items, folder: &Path, owed: &BTreeSet<usize>, words: &str) {
    let store = SqliteStore::open(folder, Clock::system()).unwrap_or_else(|e| panic!("{e}; {words}"));
    let report = store.check().await.unwrap();
    assert!(report.problems.is_empty(), "{:#?}; {words}", report.problems);
    let all = EventFilter { after: Some(0), limit: usize::MAX, ..EventFilter::default() };
    let events = store.events(all).await.unwrap();
    let data = |event: &Event| serde_json::from_slice::<Value>(event.data.as_bytes()).unwrap();
    let pairs = events.iter().map(|stored| (stored.event.type_.as_str(), data(&stored.event)));
    items.verify(owed, pairs);
    store.close().await.unwrap();
}

/// The program starts, finishes what it finds, and every item has gone all the way once.
fn assert_goes_on(before: &Evoke, items: &Items, folder: &Path, owed: &BTreeSet<usize>, words: &str) {
    let mut evoke = Evoke::with(&manifest());
    evoke.take_compiled(&before.path(".evoke/compiled"));
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), evoke.path(".evoke").join(entry.file_name())).unwrap();
    }
    evoke.try_up(&[], &[]).unwrap_or_else(|status| panic!("{status}: {}; {words}", evoke.log()));
    evoke.settle();
    let by_type = evoke.verify(items, owed);
    assert!(by_type.values().all(|numbers| *numbers == by_type["item"]), "not all went all the way; {words}");
    assert!(evoke.stop().success());
    evoke.stdout(&["check"]);
}
