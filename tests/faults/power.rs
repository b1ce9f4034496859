//! Power cuts: the disk operations of a run are recorded and cut off at any point. No item that was acknowledged before
//! the cut is lost.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use evoke_model::clock::Clock;
use evoke_model::event::Event;
use evoke_model::{EventFilter, Seq};
use evoke_store::{InspectionStore, Store};
use evoke_store_sqlite::SqliteStore;
use serde_json::Value;
use tempfile::TempDir;

use super::disk::Disk;
use super::items::{Items, manifest};
use super::neighbours::Neighbours;
use super::random::{Random, size};
use super::shim::{Shim, WallClock};
use super::trace::{FileId, Record, Trace};
use crate::support::{Evoke, OnDrop};

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
                    // Evoke responds with 503 while another program has locked the store.
                    let mut response = items.send(address, &numbers).unwrap();
                    while response.status == 503 {
                        response = items.send(address, &numbers).unwrap();
                    }
                    assert_eq!(response.status, 202, "{response:?}");
                }
            });
        }
    });
}

/// Records a complete run with `count` items, from an empty folder to the exit. The neighbours change no file of the
/// store, so the record is complete.
fn record(items: &Items, count: usize, neighbours: Option<&Neighbours>) -> (Evoke, Trace) {
    let mut evoke = Evoke::with(&manifest());
    let path = evoke.path("trace");
    let (clock, database) = (WallClock::of(&evoke), evoke.path(".evoke/evoke.db"));
    let shim = Shim::for_data_of(&evoke).recording(path.clone()).with_clock(&clock);
    evoke.try_up(&[], shim.environment()).unwrap();
    std::thread::scope(|scope| {
        // Otherwise the thread of the neighbours never ends when an assertion fails.
        let _stop = neighbours.map(|neighbours| OnDrop(|| neighbours.stop()));
        if let Some(neighbours) = neighbours {
            scope.spawn(|| neighbours.run(&database, &clock, items.seed));
            neighbours.lock_once(&database);
        }
        send_all(items, evoke.http(), count);
    });
    assert!(evoke.stop().success(), "{}", evoke.log());
    let trace = Trace::read(&path);
    (evoke, trace)
}

/// The items that a response acknowledges.
pub(super) fn acknowledged_items(text: &str) -> impl Iterator<Item = usize> + '_ {
    text.split("\"id\":\"").skip(1).filter_map(|rest| Items::number(rest.split('"').next()?))
}

/// Tracks which items are durable in the WAL: those of every transaction whose commit was synced. After a failed sync
/// of any file no more items become durable.
#[derive(Default)]
pub(super) struct WalTracker {
    wal: Option<FileId>,
    folders: BTreeSet<FileId>,
    /// True if the last frame header marks the end of a transaction. The page of the frame is written next.
    is_commit_frame: bool,
    /// The items of the transaction that has not ended yet.
    current: BTreeSet<usize>,
    /// The items of each transaction that has ended and is not synced.
    unsynced: Vec<BTreeSet<usize>>,
    /// Running syncs: the serial number, and how many entries of `unsynced` the sync covers.
    syncing: Vec<(u64, usize)>,
    sync_failed: bool,
    pub(super) synced: BTreeSet<usize>,
}

impl WalTracker {
    pub(super) fn apply(&mut self, record: &Record, trace: &Trace) {
        match record {
            Record::Opened { file, name } if name == "evoke.db-wal" => self.wal = Some(*file),
            Record::Opened { file, name } if name.is_empty() || name == ".." => drop(self.folders.insert(*file)),
            Record::Written { file, bytes, .. } if self.wal == Some(*file) => {
                let bytes = &trace.bytes[bytes.clone()];
                match bytes.len() {
                    24 => self.is_commit_frame = bytes[4..8] != [0; 4],
                    32 => {}
                    _ => {
                        let text = String::from_utf8_lossy(bytes);
                        let ids =
                            text.match_indices("item-").filter_map(|(at, _)| Items::number(text.get(at..at + 12)?));
                        self.current.extend(ids);
                        if self.is_commit_frame {
                            self.unsynced.push(std::mem::take(&mut self.current));
                        }
                    }
                }
            }
            Record::Syncing { file, serial } if self.wal == Some(*file) => {
                self.syncing.push((*serial, self.unsynced.len()));
            }
            Record::Synced { ok: false, file, .. } if !self.folders.contains(file) => self.sync_failed = true,
            Record::Synced { file, serial, ok: true } if self.wal == Some(*file) && !self.sync_failed => {
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
    let (_evoke, trace) = record(&items, count, None);
    let mut wal = WalTracker::default();
    let mut acknowledged = BTreeSet::new();
    for record in &trace.records {
        wal.apply(record, &trace);
        if let Record::Sent { text } = record {
            let numbers: BTreeSet<usize> = acknowledged_items(text).collect();
            let early: Vec<_> = numbers.difference(&wal.synced).collect();
            assert!(early.is_empty(), "{early:?} were acknowledged before they were synced; EVOKE_SEED={seed}");
            acknowledged.extend(numbers);
        }
    }
    assert_eq!(acknowledged.len(), count);
    println!("{count} acknowledgements, 0 early");
}

/// Chooses where to cut: anywhere, right after a response, during a checkpoint, or before the first commit.
fn cuts(trace: &Trace, count: usize, random: &mut Random) -> Vec<usize> {
    let database = trace.file("evoke.db");
    let of = |wanted: &dyn Fn(&Record) -> bool| -> Vec<usize> {
        trace.records.iter().enumerate().filter(|(_, record)| wanted(record)).map(|(at, _)| at + 1).collect()
    };
    let anywhere: Vec<usize> = (0..=trace.records.len()).collect();
    let sent = of(&|record| matches!(record, Record::Sent { .. }));
    let checkpoints = of(&|record| matches!(record, Record::Written { file, .. } if *file == database));
    assert!(checkpoints.len() > 1_000, "too few writes by checkpoints: {}", checkpoints.len());
    // The few steps from an empty folder to the first commit are tested most densely.
    let beginning: Vec<usize> = (0..60).collect();
    let mut cuts: Vec<usize> = (0..count)
        .map(|n| {
            let places = [&anywhere, &sent, &checkpoints, &beginning][n % 4];
            places[random.below(places.len())]
        })
        .collect();
    cuts.sort_unstable();
    cuts
}

#[test]
fn a_power_cut_anywhere_loses_nothing_acknowledged() {
    cut_power("power cuts", size(60, 1_000), None);
}

/// Power cuts while another program opens, closes and locks the store, and while the wall clock jumps.
#[test]
fn a_power_cut_loses_nothing_while_the_store_is_locked_and_the_clock_jumps() {
    cut_power("power cuts with neighbours", size(30, 1_000), Some(&Neighbours::default()));
}

fn cut_power(name: &str, count: usize, neighbours: Option<&Neighbours>) {
    let seed = Random::seed(name);
    let items = Items { retries: 5, ..Items::plain(seed, 50, 6_000) };
    let (evoke, trace) = record(&items, 1_000, neighbours);
    let mut random = Random::new(seed);
    let mut disk = Disk::new(&trace);
    let mut acknowledged = BTreeSet::new();
    let mut applied = 0;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (n, cut) in cuts(&trace, count, &mut random).into_iter().enumerate() {
        for record in &trace.records[applied..cut] {
            disk.apply(record);
            if let Record::Sent { text } = record {
                acknowledged.extend(acknowledged_items(text));
            }
        }
        applied = cut;
        let folder = TempDir::new().unwrap();
        for (name, content) in disk.after_power_cut(&mut random) {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let context = || format!("cut {n} after record {cut}; EVOKE_SEED={seed}");
        // Some folders are opened by the program itself, which resumes the work.
        if n % 20 == 7 {
            assert_resumes(&evoke, &items, folder.path(), &acknowledged, &context());
        } else {
            runtime.block_on(assert_consistent(&items, folder.path(), &acknowledged, &context()));
        }
    }
    println!(
        "EVOKE_SEED={seed}: {count} cuts over {} records, {} acknowledged, 0 lost{}",
        trace.records.len(),
        acknowledged.len(),
        neighbours.map(|neighbours| format!("; {}", neighbours.summary())).unwrap_or_default()
    );
}

/// Asserts that the store opens, passes `check`, and has every acknowledged item.
async fn assert_consistent(items: &Items, folder: &Path, acknowledged: &BTreeSet<usize>, context: &str) {
    let store = SqliteStore::open(folder, Clock::system()).unwrap_or_else(|e| panic!("{e}; {context}"));
    let report = store.check().await.unwrap();
    assert!(report.problems.is_empty(), "{:#?}; {context}", report.problems);
    let all = EventFilter { after: Some(Seq(0)), limit: usize::MAX, ..EventFilter::default() };
    let events = store.events(all).await.unwrap();
    let data = |event: &Event| serde_json::from_slice::<Value>(event.data.as_bytes()).unwrap();
    let pairs = events
        .iter()
        .map(|stored| stored.as_ref().unwrap())
        .map(|stored| (stored.event.type_.as_str(), data(&stored.event)));
    items.verify(acknowledged, pairs);
    store.close().await.unwrap();
}

/// Asserts that the program starts and handles the pending deliveries, and that every stored item passes all functions
/// once.
fn assert_resumes(recorded: &Evoke, items: &Items, folder: &Path, acknowledged: &BTreeSet<usize>, context: &str) {
    let mut evoke = Evoke::with(&manifest());
    evoke.copy_compiled_cache(&recorded.path(".evoke/compiled"));
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), evoke.path(".evoke").join(entry.file_name())).unwrap();
    }
    evoke.try_up(&[], &[]).unwrap_or_else(|status| panic!("{status}: {}; {context}", evoke.log()));
    evoke.settle();
    let by_type = evoke.verify(items, acknowledged);
    assert!(
        by_type.values().all(|numbers| *numbers == by_type["item"]),
        "not every item passed all functions; {context}"
    );
    assert!(evoke.stop().success());
    evoke.stdout(&["check"]);
}
