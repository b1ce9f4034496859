//! Bit flips in the database file: a flip is either harmless or reported with the name of the file. The store never
//! returns data that was not written.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use evoke_store::Store;
use evoke_store_sqlite::{backup, check_folder};
use tempfile::TempDir;

use super::random::{Random, is_long_form};
use super::sample_store::{self, Contents};
use crate::support::TIMEOUT;

const PAGE: usize = 4096;

/// The effect of a flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Harmless,
    Reported,
}

#[test]
fn a_flipped_bit_anywhere_is_harmless_or_reported_and_wrong_data_is_never_served() {
    let seed = Random::seed("flips");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = TempDir::new().unwrap();
    runtime.block_on(sample_store::create(folder.path()));
    let file = std::fs::read(folder.path().join("evoke.db")).unwrap();
    let original = runtime.block_on(async {
        let store = sample_store::open(folder.path()).unwrap();
        let contents = Contents::of(&store).await;
        store.close().await.unwrap();
        contents
    });
    assert!(original.damaged.is_empty(), "{original:#?}");
    for kind in ["event ", "delivery ", "attempt ", "ready ", "due ", "state ", "key ", "mark ", "replay "] {
        assert!(
            original.items.keys().any(|name| name.starts_with(kind)),
            "the sample store has no {kind}: {original:#?}"
        );
    }
    let flips = places(&file, &mut Random::new(seed));
    let (next, reported) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let (done, results) = mpsc::channel();
        for _ in 0..2 {
            let (done, next, flips, file, original) = (done.clone(), &next, &flips, &file, &original);
            scope.spawn(move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                while let Some(&(at, bit)) = flips.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let folder = TempDir::new().unwrap();
                    let mut damaged = file.clone();
                    damaged[at] ^= 1 << bit;
                    let is_sampled = at.is_multiple_of(8);
                    let effect = effect_of_flip(folder.path(), &damaged, original, is_sampled);
                    done.send((at, bit, runtime.block_on(effect))).unwrap();
                }
            });
        }
        drop(done);
        let mut wrong = Vec::new();
        for _ in 0..flips.len() {
            // A thread that hangs or panics sends nothing.
            let (at, bit, effect) = results.recv_timeout(TIMEOUT).expect("a flip was examined in time");
            match effect {
                Ok(effect) => drop(reported.fetch_add(usize::from(effect == Effect::Reported), Ordering::Relaxed)),
                Err(error) => wrong.push(format!("bit {bit} of byte {at} (page {}): {error}", at / PAGE + 1)),
            }
        }
        assert!(wrong.is_empty(), "{} of {}: {:#?}; EVOKE_SEED={seed}", wrong.len(), flips.len(), wrong);
    });
    println!(
        "{} flips in {} bytes: {} reported, the others harmless, 0 served wrong data, 0 undetected",
        flips.len(),
        file.len(),
        reported.into_inner()
    );
}

/// Chooses the flips as pairs of byte and bit. Long form: one random bit of every byte. Short form: random bytes, and
/// more of them in the page headers and the first 100 bytes.
fn places(file: &[u8], random: &mut Random) -> Vec<(usize, usize)> {
    if is_long_form() {
        return (0..file.len()).map(|at| (at, random.below(8))).collect();
    }
    let mut places = Vec::new();
    for _ in 0..300 {
        places.push((random.below(file.len()), random.below(8)));
    }
    for page in 0..file.len() / PAGE {
        places.push((page * PAGE + random.below(8), random.below(8)));
        places.push((page * PAGE + 8 + random.below(40), random.below(8)));
    }
    for at in 0..100 {
        places.push((at, random.below(8)));
    }
    places
}

/// Examines a store with this database file through `check`, `backup` (if `try_backup`) and all reads. Returns an error
/// if any of them returns wrong data or does not detect the damage.
async fn effect_of_flip(folder: &Path, file: &[u8], original: &Contents, try_backup: bool) -> Result<Effect, String> {
    let path = folder.join("evoke.db");
    std::fs::write(&path, file).unwrap();
    let name = path.to_str().unwrap();
    let mut reports = Vec::new();
    match check_folder(folder) {
        Ok(report) if report.problems.is_empty() => {}
        Ok(report) => reports.push(report.problems.join("; ")),
        Err(error) => reports.push(error.to_string()),
    }
    if let Some(report) = reports.iter().find(|report| !report.contains(name)) {
        return Err(format!("the report of `check` does not name the file: {report}"));
    }
    if try_backup {
        let to = folder.join("copy");
        std::fs::create_dir(&to).unwrap();
        if backup(folder, &to.join("evoke.db")).is_ok() {
            let copy = sample_store::open(&to).map_err(|e| format!("the copy does not open: {e}"))?;
            let contents = Contents::of(&copy).await;
            if !contents.equals(original) {
                return Err(format!("`backup` made a copy with wrong data: {:?}", contents.wrong(original)));
            }
        }
    }
    match sample_store::open(folder) {
        Err(error) if error.to_string().contains(name) => Ok(Effect::Reported),
        Err(error) => Err(format!("the error does not name the file: {error}")),
        Ok(store) => {
            let contents = Contents::of(&store).await;
            let wrong = contents.wrong(original);
            let _ = store.close().await;
            if !wrong.is_empty() {
                return Err(format!("served wrong data: {wrong:?}"));
            }
            if let Some((item, message)) = contents
                .damaged
                .iter()
                .find(|(_, message)| !message.contains("evoke.db") && !message.contains("is corrupt"))
            {
                return Err(format!("{item} is damaged, and its message does not say so: {message}"));
            }
            match (reports.is_empty(), contents.equals(original)) {
                (false, _) => Ok(Effect::Reported),
                (true, true) => Ok(Effect::Harmless),
                (true, false) => Err(format!("`check` does not detect the damage: {:?}", contents.missing(original))),
            }
        }
    }
}
