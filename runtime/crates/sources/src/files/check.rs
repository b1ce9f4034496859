//! Checks the files and folders whose names occur in notifications.

use std::io;
use std::path::Path;
use std::sync::PoisonError;

use tokio::time::Instant;

use super::access::Access;
use super::confined::{Found, Root};
use super::name;
use super::scan::{self, Filter, ScanResult};
use super::version::Stamp;
use super::watch::{Hint, watch_each};
use super::{POLL_INTERVAL, Stopped, Worker};

/// The result of checking one name.
enum Checked {
    File(Stamp),
    Folder(ScanResult),
    Nothing,
    /// The file or folder could not be read, for this reason.
    Unread(String),
}

impl Worker {
    /// Checks the names in `hints`, and records the results and the hints in the tracker.
    pub(super) async fn check_hinted(&mut self, hints: Vec<(String, Hint)>) -> Result<(), Stopped> {
        let (filter, watch) = (self.filter.clone(), self.watch.clone());
        let checked = self.with_root(move |root, access| {
            let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
            let mut watch = watch_each(&mut watch);
            let mut checked = Vec::new();
            for (name, hint) in hints {
                if let Some(found) = check(root, &name, &filter, &mut watch, access)? {
                    checked.push((name, hint, found));
                }
            }
            Ok(checked)
        });
        let Some(checked) = checked.await? else { return Ok(()) };
        let now = Instant::now();
        for (name, hint, found) in checked {
            let below = self.observe(&name, found, now);
            match hint {
                Hint::Changed => {}
                Hint::Created => self.tracker.created(&name),
                Hint::Opened => self.tracker.opened(&name),
                Hint::Writing => self.tracker.writing(&name),
                Hint::Written => {
                    self.tracker.written(&name);
                    self.tracker.moved_here(below.iter().map(|(name, _)| name.as_str()));
                }
            }
        }
        Ok(())
    }

    /// Records the result of the check of a name. If the name is a folder, returns the files below it.
    fn observe(&mut self, name: &str, found: Checked, now: Instant) -> Vec<(String, Stamp)> {
        let (stamp, below) = match found {
            Checked::Unread(reason) => {
                self.problems.unreadable.replace(name, vec![(name.to_owned(), reason)], now);
                return Vec::new();
            }
            Checked::File(stamp) => (Some(stamp), ScanResult::default()),
            Checked::Folder(below) => (None, below),
            Checked::Nothing => (None, ScanResult::default()),
        };
        if let Some(reason) = below.unwatched {
            self.set_watch_problem(Some(reason));
            self.scan_at = self.scan_at.min(now + POLL_INTERVAL);
        }
        self.tracker.observe(name, stamp, now);
        self.tracker.observe_folder(name, &below.files, &below.unread, now);
        self.problems.unreadable.replace(name, below.unread, now);
        below.files
    }
}

/// Returns whether a name belongs to a file, a folder or neither; `None` if the filter does not include the name.
/// Returns an error if the source is stopped.
fn check(
    root: &Root,
    name: &str,
    filter: &Filter,
    watch: &mut dyn FnMut(&Path) -> Result<(), String>,
    access: &Access,
) -> io::Result<Option<Checked>> {
    let relative = name::path(name);
    let (is_file, is_folder) = (filter.includes(&relative), filter.enters(&relative));
    if !is_file && !is_folder {
        return Ok(None);
    }
    if let Some(reason) = scan::refusal(&relative) {
        return Ok(Some(Checked::Unread(reason)));
    }
    Ok(Some(match access.enter(name).and_then(|()| root.stat(&relative)) {
        Ok(Found::Folder) if is_folder => Checked::Folder(scan::scan(root, name, filter, watch, access)?),
        Ok(Found::File(info)) if is_file => Checked::File(info.stamp),
        Ok(Found::File(_) | Found::Folder | Found::Nothing) => Checked::Nothing,
        Err(error) => Checked::Unread(error.to_string()),
    }))
}
