//! A log that was torn, or damaged: all that was committed before is there, the last commit whole or not at all; and where
//! a commit is damaged that was not the last, that is told.

use std::collections::BTreeSet;
use std::path::Path;

use evoke::event::Data;
use evoke::store::sqlite::check_folder;
use evoke::store::{EventFilter, Store};
use tempfile::TempDir;

use super::random::{Random, long, size};
use super::specimen::{self, event, new, to};
use crate::support::PATIENCE;

const HEADER: usize = 32;
const FRAME: usize = 24 + 4096;
/// Events of the last commit, which is one call.
const LAST: usize = 3;
const BEFORE: usize = 8;

/// A store after a crash: nothing of its log is in the file yet.
struct Crashed {
    _folder: TempDir,
    file: Vec<u8>,
    log: Vec<u8>,
    /// Where commits end in the log.
    ends: Vec<usize>,
}

fn data(n: usize) -> Data {
    Data::Text(format!("payload of event {n}, ").repeat(1 + n * 20 % 97))
}

impl Crashed {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let store = specimen::open(folder.path()).unwrap();
        let function = store.register(vec!["lab/one".into()]).await.unwrap()[0];
        let offer = |n: usize| new(event(&n.to_string(), data(n)), vec![to(function, Some("key"))]);
        for n in 0..BEFORE {
            store.accept(vec![offer(n)], vec![]).await.unwrap();
        }
        store.accept((BEFORE..BEFORE + LAST).map(offer).collect(), vec![]).await.unwrap();
        // Taken while it is open: as a crash leaves it.
        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        let (file, log) = (read("evoke.db"), read("evoke.db-wal"));
        let frames = (0..(log.len() - HEADER) / FRAME).map(|n| HEADER + n * FRAME);
        let ends = frames.filter(|at| log[at + 4..at + 8] != [0; 4]).map(|at| at + FRAME).collect();
        Self { _folder: folder, file, log, ends }
    }

    /// Where the last commit begins and ends.
    fn last(&self) -> (usize, usize) {
        (self.ends[self.ends.len() - 2], self.ends[self.ends.len() - 1])
    }

    /// A folder with the file and this log.
    fn with(&self, log: &[u8]) -> TempDir {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("evoke.db"), &self.file).unwrap();
        std::fs::write(folder.path().join("evoke.db-wal"), log).unwrap();
        folder
    }
}

/// How many events the store serves, each of which must be what was accepted, in order. `Err` when it does not open.
async fn served(folder: &Path) -> Result<usize, String> {
    let store = specimen::open(folder).map_err(|error| error.to_string())?;
    let all = EventFilter { after: Some(0), limit: 100, ..EventFilter::default() };
    let events = store.events(all).await.unwrap();
    for (n, stored) in events.iter().enumerate() {
        assert_eq!(stored.damage, None);
        assert_eq!((stored.event.id.as_str(), &stored.event.data), (n.to_string().as_str(), &data(n)));
        assert_eq!(store.deliveries(stored.seq).await.unwrap().len(), 1);
    }
    let problems = store.check().await.unwrap().problems;
    assert!(problems.is_empty(), "{problems:#?}");
    store.close().await.unwrap();
    Ok(events.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_cut_at_every_byte_of_its_last_commit_loses_that_commit_at_most() {
    let crashed = Crashed::new().await;
    let (from, end) = crashed.last();
    assert_eq!(end, crashed.log.len());
    // In the short form all of the heads of frames and their ends, and some of the pages between.
    let in_short =
        |cut: &usize| (cut - HEADER) % FRAME < 26 || (cut - HEADER) % FRAME > FRAME - 3 || cut.is_multiple_of(13);
    let cuts: Vec<usize> = (from..=end).filter(|cut| long() || in_short(cut)).collect();
    let mut opened = 0;
    for &cut in &cuts {
        let folder = crashed.with(&crashed.log[..cut]);
        let expected = if cut == end { BEFORE + LAST } else { BEFORE };
        // Reading is enough to see what is there; opening, which writes, is tried at some, and in full in the long form.
        let report = check_folder(folder.path()).unwrap();
        assert_eq!((report.problems, report.totals.events), (vec![], expected as u64), "cut at {cut}");
        if long() || cut.is_multiple_of(50) || cut + 100 > end {
            assert_eq!(served(folder.path()).await, Ok(expected), "cut at {cut}");
            opened += 1;
        }
    }
    println!("{} cuts of a commit of {} bytes, {opened} of them opened: 0 lost, 0 halves", cuts.len(), end - from);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_a_flipped_bit_loses_its_last_commit_or_says_that_it_is_damaged() {
    let seed = Random::seed("flips in the log");
    let mut random = Random::new(seed);
    let crashed = Crashed::new().await;
    let (last, end) = crashed.last();
    let mut told = BTreeSet::new();
    let flips: Vec<usize> = if long() { (0..end).collect() } else { some(&crashed, &mut random) };
    for at in &flips {
        let bit = random.below(8);
        let mut log = crashed.log.clone();
        log[*at] ^= 1 << bit;
        let folder = crashed.with(&log);
        let words = || format!("bit {bit} of byte {at}; EVOKE_SEED={seed}");
        match served(folder.path()).await {
            Ok(there) if there == BEFORE + LAST => {}
            // It cannot be told from a commit that was torn.
            Ok(there) => {
                assert!(*at >= last && there == BEFORE, "{there} are served, and nothing is said: {}", words());
            }
            Err(message) => {
                assert!(
                    message.contains("evoke.db-wal is damaged") && message.contains("truncate"),
                    "{message}: {}",
                    words()
                );
                told.insert(*at);
                let report = check_folder(folder.path()).unwrap();
                assert!(report.problems[0].contains("evoke.db-wal is damaged"), "{:?}", report.problems);
            }
        }
    }
    assert!(told.len() > size(100, 1_000), "{} were told", told.len());
    println!("{} flips in a log of {end} bytes, {} told", flips.len(), told.len());
}

/// Bytes of the header, of the heads of frames, and of anywhere.
fn some(crashed: &Crashed, random: &mut Random) -> Vec<usize> {
    let mut some: Vec<usize> = (0..HEADER).collect();
    some.extend(
        (HEADER..crashed.log.len())
            .step_by(FRAME)
            .flat_map(|at| [at, at + 4, at + 7, at + 9, at + 14, at + 17, at + 22]),
    );
    some.extend((0..200).map(|_| random.below(crashed.log.len())));
    some
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_damaged_log_says_to_do_brings_back_all_before_the_damage() {
    let crashed = Crashed::new().await;
    let third_from_the_end = crashed.ends[crashed.ends.len() - 4];
    let mut log = crashed.log.clone();
    log[third_from_the_end + 100] ^= 1;
    let folder = crashed.with(&log);
    let message = served(folder.path()).await.unwrap_err();
    let length: usize = message.rsplit_once("truncate -s ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(length, third_from_the_end, "{message}");
    let log = std::fs::File::options().write(true).open(folder.path().join("evoke.db-wal")).unwrap();
    log.set_len(length as u64).unwrap();
    let opened = tokio::time::timeout(PATIENCE, served(folder.path())).await.unwrap();
    assert_eq!(opened, Ok(BEFORE - 2));
}
