//! Reads and opens files below a folder and never outside of it: every part of a path is opened on its own, and none
//! may be a symbolic link. A path component that is replaced by a link meanwhile is not followed either.
//!
//! The folder and the files of an open store of this process ([`evoke_fs::reserve`]) are never entered or opened, under
//! whatever name: they count as absent.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};

use super::version::Stamp;
use evoke_fs::{FileId, is_reserved, open_below};

/// For the folders of a path: opening needs no permission to list them, and causes no notification.
#[cfg(target_os = "linux")]
const TRAVERSE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const TRAVERSE: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The kind of file under a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A regular file, with its metadata.
    File(Stamp),
    /// A folder.
    Folder,
    /// No file that counts: the path does not exist, or is a link, a pipe, a socket or a device, or belongs to the store.
    Nothing,
}

/// The open top folder; all paths are relative to it.
pub(super) struct Root(OwnedFd);

impl Root {
    /// Opens the top folder. Its own path may contain links, because the manifest names it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        if is_store(&fstat(&root)?) {
            return Err(io::Error::other("it is the data folder of this Evoke, whose files are never events"));
        }
        Ok(Self(root))
    }

    /// Opens a folder below for listing; the empty path is the top folder itself.
    pub(super) fn folder(&self, relative: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.parent(relative)? {
            Some((parent, last)) => Ok(openat(parent.as_ref().unwrap_or(&self.0), last, flags, Mode::empty())?),
            None => Ok(openat(&self.0, ".", flags, Mode::empty())?),
        }
    }

    /// Opens a regular file below. Never blocks on a pipe; any other kind of file is an error.
    pub(super) fn file(&self, relative: &Path) -> io::Result<File> {
        let Some((parent, last)) = self.parent(relative)? else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let opened = open_below(parent.as_ref().unwrap_or(&self.0), &last, OFlags::NOFOLLOW);
        // An error without a number is not one of the system: the path leads to no file that counts.
        opened.map_err(|error| if error.raw_os_error().is_none() { io::ErrorKind::NotFound.into() } else { error })
    }

    /// Returns the kind of file under a path.
    pub(super) fn stat(&self, relative: &Path) -> io::Result<Found> {
        let stat = match self.parent(relative) {
            Ok(None) => return Ok(Found::Folder),
            Ok(Some((parent, last))) => {
                statat(parent.as_ref().unwrap_or(&self.0), last, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)
            }
            Err(error) => Err(error),
        };
        match stat {
            Ok(stat) => Ok(found(&stat)),
            Err(error) if is_missing(&error) => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Returns the opened parent folder of a path (`None` for the top folder) and the last part of the path; `None` for
    /// the empty path.
    fn parent(&self, relative: &Path) -> io::Result<Option<(Option<OwnedFd>, PathBuf)>> {
        let mut parts = Vec::new();
        for part in relative.components() {
            match part {
                Component::Normal(part) => parts.push(part),
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            }
        }
        let Some((last, folders)) = parts.split_last() else { return Ok(None) };
        let mut parent: Option<OwnedFd> = None;
        for folder in folders {
            let next = openat(parent.as_ref().unwrap_or(&self.0), *folder, TRAVERSE, Mode::empty())?;
            if is_store(&fstat(&next)?) {
                return Err(io::ErrorKind::NotFound.into());
            }
            parent = Some(next);
        }
        Ok(Some((parent, PathBuf::from(last))))
    }
}

/// Whether an error means that the path leads to no file that could be opened.
pub(super) fn is_missing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error.kind() == io::ErrorKind::NotFound
        || [Errno::LOOP, Errno::NOTDIR, Errno::NXIO]
            .iter()
            .any(|absent| error.raw_os_error() == Some(absent.raw_os_error()))
}

/// Returns true if metadata is that of the folder or of a file of an open store.
pub(super) fn is_store(stat: &Stat) -> bool {
    is_reserved(FileId::of(stat))
}

/// Returns the kind of file according to its metadata.
pub(super) fn found(stat: &Stat) -> Found {
    if is_store(stat) {
        return Found::Nothing;
    }
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Found::File(stamp(stat)),
        FileType::Directory => Found::Folder,
        _ => Found::Nothing,
    }
}

#[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the fields' types differ between systems")]
fn stamp(stat: &Stat) -> Stamp {
    let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    Stamp {
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mtime_ns: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        ctime_ns: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        inode: stat.st_ino as u64,
    }
}
