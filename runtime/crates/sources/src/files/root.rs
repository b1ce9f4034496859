//! The top folder of a source, identified by device and inode. Another folder that gets the same path is not read.
//!
//! The first folder that the source finds at the path is its folder until the source ends. The source keeps a
//! descriptor of the folder open, so that no new folder can get the same inode number. The source reads another folder
//! only after the operator has accepted it by a reload or a restart. There are two reasons. First, a user who may
//! rename the folder could put in its place a folder whose files this user may not read. Second, after a file system is
//! unmounted, its path leads to an empty folder, and all files would count as removed.

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::confined::Root;

/// The path of the top folder, and the folder that was first found there.
pub(super) struct PinnedRoot {
    path: PathBuf,
    pinned: Mutex<Option<Root>>,
}

/// Why the top folder cannot be used now.
#[derive(Debug)]
pub(super) enum RootError {
    /// The folder cannot be opened, or the scan or reading of the folder failed.
    Unreadable(io::Error),
    /// The path leads to another folder; the text describes that folder.
    Replaced(&'static str),
}

impl PinnedRoot {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, pinned: Mutex::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the folder. The first successful call decides which folder all later calls must find.
    pub(super) fn open(&self) -> Result<Root, RootError> {
        let root = Root::open(&self.path).map_err(RootError::Unreadable)?;
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        match &*pinned {
            Some(pinned) if pinned.id() == root.id() => {}
            Some(_) if self.path.is_symlink() => return Err(RootError::Replaced("a link to another folder")),
            Some(pinned) if pinned.id().device() != root.id().device() => {
                return Err(RootError::Replaced("a folder on another file system, as after an unmount"));
            }
            Some(_) => return Err(RootError::Replaced("another folder")),
            None => *pinned = Some(root.try_clone().map_err(RootError::Unreadable)?),
        }
        Ok(root)
    }

    /// Returns a path in `/proc` that always leads to the pinned folder, also if the configured path now leads to
    /// another folder. Returns the configured path if the system has no such path. The path is valid as long as `self`
    /// exists.
    pub(super) fn stable_path(&self) -> PathBuf {
        let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let stable = pinned.as_ref().and_then(|pinned| {
            let path = PathBuf::from(format!("/proc/self/fd/{}", pinned.descriptor().as_raw_fd()));
            Root::open(&path).is_ok_and(|root| root.id() == pinned.id()).then_some(path)
        });
        stable.unwrap_or_else(|| self.path.clone())
    }
}

impl RootError {
    /// Returns true if only a reload, a restart or the return of the original folder ends the problem.
    pub(super) fn needs_reload(&self) -> bool {
        matches!(self, Self::Replaced(_))
    }

    /// Describes the error for users.
    pub(super) fn describe(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Unreadable(error) => {
                format!("cannot open the folder `{path}`: {error}; the source tries again every second")
            }
            Self::Replaced(by) => format!(
                "the folder `{path}` was replaced by {by}, and the source does not read the new folder: put the \
                 original folder back, or reload or restart Evoke to accept the new folder"
            ),
        }
    }
}
