//! Looking at and opening what is below a folder without ever leaving it: every part of a path is opened on its own,
//! and none may be a symbolic link. A path that is swapped for a link in between is not followed either.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, statat};

use super::version::Stamp;

/// For folders on the way: no right to list them is needed, and no watcher is told.
#[cfg(target_os = "linux")]
const ON_THE_WAY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const ON_THE_WAY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What is found under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A regular file.
    File(Stamp),
    /// A folder.
    Folder,
    /// Nothing that counts: it is not there, or is a link, a pipe, a socket or a device.
    Nothing,
}

/// The folder that everything is below of.
pub(super) struct Root(OwnedFd);

impl Root {
    /// Opens the folder. It may itself be reached over links: the manifest names it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens a folder below to list it; the empty path is the root itself.
    pub(super) fn folder(&self, relative: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.parent(relative)? {
            Some((parent, last)) => Ok(openat(parent.as_ref().unwrap_or(&self.0), last, flags, Mode::empty())?),
            None => Ok(openat(&self.0, ".", flags, Mode::empty())?),
        }
    }

    /// Opens a regular file below. Never blocks on a pipe, and refuses what is no regular file.
    pub(super) fn file(&self, relative: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Some((parent, last)) = self.parent(relative)? else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let file = File::from(openat(parent.as_ref().unwrap_or(&self.0), last, flags, Mode::empty())?);
        match found(&rustix::fs::fstat(&file)?) {
            Found::File(_) => Ok(file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// What is there under a path.
    pub(super) fn look(&self, relative: &Path) -> io::Result<Found> {
        let stat = match self.parent(relative) {
            Ok(None) => return Ok(Found::Folder),
            Ok(Some((parent, last))) => {
                statat(parent.as_ref().unwrap_or(&self.0), last, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)
            }
            Err(error) => Err(error),
        };
        match stat {
            Ok(stat) => Ok(found(&stat)),
            Err(error) if is_absence(&error) => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }

    /// The folder that a path is in (`None` stands for the root) and its last part; `None` for the empty path.
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
            parent = Some(openat(parent.as_ref().unwrap_or(&self.0), *folder, ON_THE_WAY, Mode::empty())?);
        }
        Ok(Some((parent, PathBuf::from(last))))
    }
}

/// Whether an error means that there is nothing to be opened under the path.
pub(super) fn is_absence(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error.kind() == io::ErrorKind::NotFound
        || [Errno::LOOP, Errno::NOTDIR, Errno::NXIO]
            .iter()
            .any(|absent| error.raw_os_error() == Some(absent.raw_os_error()))
}

/// What a file's metadata say that it is.
pub(super) fn found(stat: &Stat) -> Found {
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
