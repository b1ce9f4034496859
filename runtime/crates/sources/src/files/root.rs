//! The top folder, pinned by device and inode: another folder under the same path is not read.
//!
//! The first folder that is found under the path is the source's folder until the source ends. A descriptor of the
//! folder stays open meanwhile, so that no new folder can get the same inode number. A replacement, even an honest one,
//! is not accepted without the operator: a producer who may rename the folder could put another folder of the same
//! owner in its place, and below an unmounted file system lies an empty folder, whose missing files would all count as
//! removed.

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
    /// The folder or something that belongs to it cannot be read.
    Unreadable(io::Error),
    /// The path leads to another folder; with a description of that folder.
    Replaced(&'static str),
}

impl PinnedRoot {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, pinned: Mutex::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the folder, and pins it at the first call.
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

    /// Returns a path that leads to the pinned folder even if its own path now leads to another one. If the system has
    /// no such path, returns the folder's own path. The path is valid as long as this value exists.
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
    /// Whether only a reload or a restart ends the problem, unless the original folder comes back.
    pub(super) fn needs_reload(&self) -> bool {
        matches!(self, Self::Replaced(_))
    }

    /// Describes the error for users.
    pub(super) fn describe(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Unreadable(error) => {
                format!("cannot open the folder `{path}`, the source keeps trying: {error}")
            }
            Self::Replaced(by) => format!(
                "the folder `{path}` was replaced by {by}, which the source does not read: put the original folder \
                 back, or reload or restart Evoke to accept the new one"
            ),
        }
    }
}
