//! The data that a thread with disk work shares with the task of its source: whether to stop, and which file or folder
//! (entry) the thread accesses now. If the file system of an entry does not respond, the source abandons the thread and
//! skips the entry.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// The entries that are skipped because they do not respond. For each entry, an abandoned thread is still waiting; the
/// flag becomes true when that thread ends.
#[derive(Clone, Default)]
pub(super) struct Stuck(BTreeMap<String, Arc<AtomicBool>>);

/// Maximum number of abandoned threads of one source that have not ended yet. Once there are this many, the source does
/// not skip a further entry that does not respond, but waits for it.
const STUCK_MAX: usize = 8;

impl Stuck {
    /// Adds the entry that `access` waits for. Returns false if this entry is the top folder, or if there are
    /// [`STUCK_MAX`] entries already.
    pub(super) fn add(&mut self, access: &Access) -> bool {
        let name = access.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_added = !name.is_empty() && self.0.len() < STUCK_MAX;
        if is_added {
            self.0.insert(name, access.is_finished.clone());
        }
        is_added
    }

    /// Removes the entries that have responded by now. Returns true if an entry was removed.
    pub(super) fn remove_finished(&mut self) -> bool {
        let before = self.0.len();
        self.0.retain(|_, is_finished| !is_finished.load(Ordering::Acquire));
        self.0.len() < before
    }

    /// Returns true if the entry `name`, or a folder that contains it, is skipped.
    fn contains(&self, mut name: &str) -> bool {
        loop {
            if self.0.contains_key(name) {
                return true;
            }
            match name.rsplit_once('/') {
                Some((folder, _)) => name = folder,
                None => return false,
            }
        }
    }
}

/// The state of one piece of disk work. Clones share the state.
#[derive(Clone, Default)]
pub(super) struct Access {
    pub(super) stop: CancellationToken,
    stuck: Arc<Stuck>,
    /// The name of the entry that the thread accesses now.
    place: Arc<Mutex<String>>,
    steps: Arc<AtomicU64>,
    is_finished: Arc<AtomicBool>,
}

impl Access {
    pub(super) fn new(stop: CancellationToken, stuck: &Stuck) -> Self {
        Self { stop, stuck: Arc::new(stuck.clone()), ..Self::default() }
    }

    /// Records that the thread now accesses an entry. Must be called before each access. Returns an error for an entry
    /// that is skipped because it does not respond.
    pub(super) fn enter(&self, name: &str) -> io::Result<()> {
        if !self.stuck.0.is_empty() && self.stuck.contains(name) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "its file system does not respond"));
        }
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        place.clear();
        place.push_str(name);
        drop(place);
        self.step();
        Ok(())
    }

    /// Records that the work makes progress: the entry responded.
    pub(super) fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns a number that changes while the work makes progress.
    pub(super) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    pub(super) fn finish(&self) {
        self.is_finished.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_does_not_respond_is_skipped_with_everything_in_it_until_it_responds() {
        let mut stuck = Stuck::default();
        let waiting = Access::default();
        assert!(!stuck.add(&waiting), "the top folder must not be skipped");
        waiting.enter("a/mount").unwrap();
        assert!(stuck.add(&waiting) && !stuck.remove_finished());
        let access = Access::new(CancellationToken::new(), &stuck);
        for (name, responds) in [("a", true), ("a/mount", false), ("a/mount/deep/file", false), ("a/mount2", true)] {
            assert_eq!(access.enter(name).is_ok(), responds, "{name}");
        }
        waiting.finish();
        assert!(stuck.remove_finished());
        assert!(Access::new(CancellationToken::new(), &stuck).enter("a/mount").is_ok());
    }

    #[test]
    fn few_threads_are_left_behind() {
        let mut stuck = Stuck::default();
        let added = (0..20).filter(|n| {
            let access = Access::default();
            access.enter(&n.to_string()).unwrap();
            stuck.add(&access)
        });
        assert_eq!(added.count(), STUCK_MAX);
    }
}
