//! Bits that flip on disk: whatever of the file they hit, nothing is ever said that was not written. It is either of no
//! consequence, or told with the name of the file.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use evoke::store::Store;
use evoke::store::sqlite::{backup, check_folder};
use tempfile::TempDir;

use super::random::{Random, long};
use super::specimen::{self, Contents};
use crate::support::PATIENCE;

const PAGE: usize = 4096;

/// What came of a flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Harmless,
    Told,
}

#[test]
fn a_flipped_bit_anywhere_in_the_file_is_harmless_or_told_and_nothing_wrong_is_ever_served() {
    let seed = Random::seed("flips");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = TempDir::new().unwrap();
    runtime.block_on(specimen::make(folder.path()));
    let file = std::fs::read(folder.path().join("evoke.db")).unwrap();
    let original = runtime.block_on(async {
        let store = specimen::open(folder.path()).unwrap();
        let contents = Contents::of(&store).await;
        store.close().await.unwrap();
        contents
    });
    assert!(original.damaged.is_empty(), "{original:#?}");
    for what in ["event ", "delivery ", "attempt ", "ready ", "due ", "state ", "key ", "mark ", "replay "] {
        assert!(original.items.keys().any(|name| name.starts_with(what)), "there is no {what}: {original:#?}");
    }
    let flips = places(&file, &mut Random::new(seed));
    let (next, told) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let (done, judged) = mpsc::channel();
        for _ in 0..2 {
            let (done, next, flips, file, original) = (done.clone(), &next, &flips, &file, &original);
            scope.spawn(move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                while let Some(&(at, bit)) = flips.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let folder = TempDir::new().unwrap();
                    let mut damaged = file.clone();
                    damaged[at] ^= 1 << bit;
                    let is_sampled = at.is_multiple_of(8);
                    let judge = judge(folder.path(), &damaged, original, is_sampled);
                    done.send((at, bit, runtime.block_on(judge))).unwrap();
                }
            });
        }
        drop(done);
        let mut wrong = Vec::new();
        for _ in 0..flips.len() {
            // Whoever hangs or panics never comes.
            let (at, bit, fate) = judged.recv_timeout(PATIENCE).expect("a flip was judged in time");
            match fate {
                Ok(fate) => drop(told.fetch_add(usize::from(fate == Fate::Told), Ordering::Relaxed)),
                Err(what) => wrong.push(format!("bit {bit} of byte {at} (page {}): {what}", at / PAGE + 1)),
            }
        }
        assert!(wrong.is_empty(), "{} of {}: {:#?}; EVOKE_SEED={seed}", wrong.len(), flips.len(), wrong);
    });
    println!(
        "{} flips in {} bytes: {} told, the others harmless, 0 wrong, 0 unseen",
        flips.len(),
        file.len(),
        told.into_inner()
    );
}

/// Which bits flip: in the long form one of every byte; else some of anywhere, and more of the heads of pages.
fn places(file: &[u8], random: &mut Random) -> Vec<(usize, usize)> {
    if long() {
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

/// What a store with this file says, and whether it says that it is damaged.
async fn judge(folder: &Path, file: &[u8], original: &Contents, copies: bool) -> Result<Fate, String> {
    let path = folder.join("evoke.db");
    std::fs::write(&path, file).unwrap();
    let name = path.to_str().unwrap();
    let mut told = Vec::new();
    match check_folder(folder) {
        Ok(report) if report.problems.is_empty() => {}
        Ok(report) => told.push(report.problems.join("; ")),
        Err(error) => told.push(error.to_string()),
    }
    if let Some(silent) = told.iter().find(|words| !words.contains(name)) {
        return Err(format!("what `check` says does not name the file: {silent}"));
    }
    if copies {
        let to = folder.join("copy");
        std::fs::create_dir(&to).unwrap();
        if backup(folder, &to.join("evoke.db")).is_ok() {
            let copy = specimen::open(&to).map_err(|e| format!("the copy does not open: {e}"))?;
            let contents = Contents::of(&copy).await;
            if !contents.is(original) {
                return Err(format!("a backup was made that is not whole: {:?}", contents.wrong(original)));
            }
        }
    }
    match specimen::open(folder) {
        Err(error) if error.to_string().contains(name) => Ok(Fate::Told),
        Err(error) => Err(format!("the error does not name the file: {error}")),
        Ok(store) => {
            let contents = Contents::of(&store).await;
            let wrong = contents.wrong(original);
            let _ = store.close().await;
            if !wrong.is_empty() {
                return Err(format!("served: {wrong:?}"));
            }
            if let Some((what, words)) =
                contents.damaged.iter().find(|(_, words)| !words.contains("evoke.db") && !words.contains("is corrupt"))
            {
                return Err(format!("{what} is damaged and the words do not say so: {words}"));
            }
            match (told.is_empty(), contents.is(original)) {
                (false, _) => Ok(Fate::Told),
                (true, true) => Ok(Fate::Harmless),
                (true, false) => Err(format!("`check` sees nothing: {:?}", contents.missing(original))),
            }
        }
    }
}
