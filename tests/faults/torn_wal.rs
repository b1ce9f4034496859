//! A torn or damaged WAL: all earlier commits survive, and the last commit survives entirely or not at all. Damage in
//! any commit but the last is reported.

use std::collections::BTreeSet;
use std::path::Path;

use evoke_model::event::Data;
use evoke_model::{EventFilter, Seq};
use evoke_store::{DeliveryStore, EventStore, InspectionStore, Store};
use evoke_store_sqlite::check_folder;
use tempfile::TempDir;

use super::random::{Random, is_long_form, size};
use super::sample_store::{self, delivery_to, event, new_event};
use crate::support::TIMEOUT;

/// The bytes of the WAL header.
const HEADER: usize = 32;
/// The bytes of a WAL frame: its header and a page.
const FRAME: usize = 24 + 4096;
/// Events of the last commit, accepted in one call.
const LAST: usize = 3;
/// Events of earlier commits, each accepted in a call of its own.
const BEFORE: usize = 8;

/// The files of a store after a crash. No commit of the WAL has been copied into the database file yet.
struct CrashedStore {
    _folder: TempDir,
    file: Vec<u8>,
    wal: Vec<u8>,
    /// The offsets in the WAL at which commits end, ascending.
    commit_ends: Vec<usize>,
}

fn data(n: usize) -> Data {
    Data::Text(format!("payload of event {n}, ").repeat(1 + n * 20 % 97))
}

impl CrashedStore {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let store = sample_store::open(folder.path()).unwrap();
        let function = store.register(vec!["lab/one".into()]).await.unwrap()[0];
        let offer = |n: usize| new_event(event(&n.to_string(), data(n)), vec![delivery_to(function, Some("key"))]);
        for n in 0..BEFORE {
            store.accept(vec![offer(n)], vec![]).await.unwrap();
        }
        store.accept((BEFORE..BEFORE + LAST).map(offer).collect(), vec![]).await.unwrap();
        // Read while the store is open: a crash leaves the same files.
        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        let (file, wal) = (read("evoke.db"), read("evoke.db-wal"));
        let frames = (0..(wal.len() - HEADER) / FRAME).map(|n| HEADER + n * FRAME);
        let commit_ends = frames.filter(|at| wal[at + 4..at + 8] != [0; 4]).map(|at| at + FRAME).collect();
        Self { _folder: folder, file, wal, commit_ends }
    }

    /// The offsets at which the last commit begins and ends.
    fn last_commit(&self) -> (usize, usize) {
        (self.commit_ends[self.commit_ends.len() - 2], self.commit_ends[self.commit_ends.len() - 1])
    }

    /// Creates a folder with the database file and this WAL.
    fn folder_with_wal(&self, wal: &[u8]) -> TempDir {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("evoke.db"), &self.file).unwrap();
        std::fs::write(folder.path().join("evoke.db-wal"), wal).unwrap();
        folder
    }
}

/// Opens the store and returns the number of events. Asserts that they are the accepted events in order, and that
/// `check` finds no problem. Returns the error text if the store does not open.
async fn event_count(folder: &Path) -> Result<usize, String> {
    let store = sample_store::open(folder).map_err(|error| error.to_string())?;
    let all = EventFilter { after: Some(Seq(0)), limit: 100, ..EventFilter::default() };
    let events = store.events(all).await.unwrap();
    for (n, stored) in events.iter().enumerate() {
        let stored = stored.as_ref().unwrap();
        assert_eq!((stored.event.id.as_str(), &stored.event.data), (n.to_string().as_str(), &data(n)));
        assert_eq!(store.deliveries(stored.seq).await.unwrap().len(), 1);
    }
    let problems = store.check().await.unwrap().problems;
    assert!(problems.is_empty(), "{problems:#?}");
    store.close().await.unwrap();
    Ok(events.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wal_cut_at_any_byte_of_its_last_commit_loses_only_that_commit() {
    let crashed = CrashedStore::new().await;
    let (from, end) = crashed.last_commit();
    assert_eq!(end, crashed.wal.len());
    // The short form cuts at all bytes around the frame headers, and at every 13th byte of the pages between.
    let in_short_form =
        |cut: &usize| (cut - HEADER) % FRAME < 26 || (cut - HEADER) % FRAME > FRAME - 3 || cut.is_multiple_of(13);
    let cuts: Vec<usize> = (from..=end).filter(|cut| is_long_form() || in_short_form(cut)).collect();
    let mut opened = 0;
    for &cut in &cuts {
        let folder = crashed.folder_with_wal(&crashed.wal[..cut]);
        let expected = if cut == end { BEFORE + LAST } else { BEFORE };
        // `check` only reads, so it is cheap. The short form opens the store, which writes, only at some of the cuts.
        let report = check_folder(folder.path()).unwrap();
        assert_eq!((report.problems, report.totals.events), (vec![], expected as u64), "cut at {cut}");
        if is_long_form() || cut.is_multiple_of(50) || cut + 100 > end {
            assert_eq!(event_count(folder.path()).await, Ok(expected), "cut at {cut}");
            opened += 1;
        }
    }
    println!("{} cuts of a commit of {} bytes, {opened} of them opened: 0 lost, 0 partial", cuts.len(), end - from);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_wal_loses_only_the_last_commit_or_is_reported() {
    let seed = Random::seed("flips in the log");
    let mut random = Random::new(seed);
    let crashed = CrashedStore::new().await;
    let (last_begin, end) = crashed.last_commit();
    let mut reported = BTreeSet::new();
    let flips: Vec<usize> = if is_long_form() { (0..end).collect() } else { chosen_bytes(&crashed, &mut random) };
    for at in &flips {
        let bit = random.below(8);
        let mut wal = crashed.wal.clone();
        wal[*at] ^= 1 << bit;
        let folder = crashed.folder_with_wal(&wal);
        let context = || format!("bit {bit} of byte {at}; EVOKE_SEED={seed}");
        match event_count(folder.path()).await {
            Ok(count) if count == BEFORE + LAST => {}
            // Damage in the last commit cannot be distinguished from a torn commit.
            Ok(count) => {
                assert!(
                    *at >= last_begin && count == BEFORE,
                    "{count} events are served without an error: {}",
                    context()
                );
            }
            Err(message) => {
                assert!(
                    message.contains("evoke.db-wal is damaged") && message.contains("truncate"),
                    "{message}: {}",
                    context()
                );
                reported.insert(*at);
                let report = check_folder(folder.path()).unwrap();
                assert!(report.problems[0].contains("evoke.db-wal is damaged"), "{:?}", report.problems);
            }
        }
    }
    assert!(reported.len() > size(100, 1_000), "only {} flips were reported", reported.len());
    println!("{} flips in a WAL of {end} bytes, {} reported", flips.len(), reported.len());
}

/// The bytes to damage in the short form: the WAL header, the frame headers, and random bytes.
fn chosen_bytes(crashed: &CrashedStore, random: &mut Random) -> Vec<usize> {
    let mut chosen: Vec<usize> = (0..HEADER).collect();
    chosen.extend(
        (HEADER..crashed.wal.len())
            .step_by(FRAME)
            .flat_map(|at| [at, at + 4, at + 7, at + 9, at + 14, at + 17, at + 22]),
    );
    chosen.extend((0..200).map(|_| random.below(crashed.wal.len())));
    chosen
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suggested_repair_of_a_damaged_wal_restores_all_commits_before_the_damage() {
    let crashed = CrashedStore::new().await;
    let third_from_the_end = crashed.commit_ends[crashed.commit_ends.len() - 4];
    let mut wal = crashed.wal.clone();
    wal[third_from_the_end + 100] ^= 1;
    let folder = crashed.folder_with_wal(&wal);
    let message = event_count(folder.path()).await.unwrap_err();
    let length: usize = message.rsplit_once("truncate -s ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(length, third_from_the_end, "{message}");
    let wal = std::fs::File::options().write(true).open(folder.path().join("evoke.db-wal")).unwrap();
    wal.set_len(length as u64).unwrap();
    let opened = tokio::time::timeout(TIMEOUT, event_count(folder.path())).await.unwrap();
    assert_eq!(opened, Ok(BEFORE - 2));
}
