//! Reads and opens files below a folder and never outside of it: every part of a path is opened on its own, and none
//! may be a symbolic link. A path component that is replaced by a link meanwhile is not followed either.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};

use super::version::Stamp;

/// For the folders of a path: opening needs no permission to list them, and causes no notification.
#[cfg(target_os = "linux")]
const TRAVERSE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const TRAVERSE: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// For reading the content of a regular file. Never waits, not even for a lease that another program holds.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The kind of file under a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A regular file.
    File(FileInfo),
    /// A folder.
    Folder,
    /// No file that counts: the path does not exist, or is a link, a pipe, a socket or a device.
    Nothing,
}

/// The metadata of a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileInfo {
    pub(super) id: FileId,
    pub(super) stamp: Stamp,
    /// The number of names of the file, here and anywhere else on its file system.
    pub(super) links: u64,
}

/// Device and inode of a file or folder: the same for every path to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    pub(super) device: u64,
    inode: u64,
}

impl FileId {
    #[allow(clippy::unnecessary_cast, reason = "the fields' types differ between systems")]
    pub(super) fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev as u64, inode: stat.st_ino as u64 }
    }
}

/// The open top folder; all paths are relative to it.
pub(super) struct Root {
    folder: OwnedFd,
    id: FileId,
}

impl Root {
    /// Opens the top folder. Its own path may contain links, because the manifest names it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let folder = rustix::fs::open(path, TRAVERSE, Mode::empty())?;
        let id = FileId::of(&fstat(&folder)?);
        Ok(Self { folder, id })
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { folder: self.folder.try_clone()?, id: self.id })
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// The descriptor of the top folder. Cannot be used to list the folder.
    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.folder
    }

    /// Opens a folder below for listing; the empty path is the top folder itself.
    pub(super) fn folder(&self, relative: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.parent(relative)? {
            Some((parent, last)) => Ok(openat(parent.as_ref().unwrap_or(&self.folder), last, flags, Mode::empty())?),
            None => Ok(openat(&self.folder, ".", flags, Mode::empty())?),
        }
    }

    /// Opens a regular file below. Any other kind of file is an error, and is not opened: opening a pipe would wake its
    /// writer, and opening a device may do anything.
    pub(super) fn file(&self, relative: &Path) -> io::Result<(File, FileInfo)> {
        let Some((parent, last)) = self.parent(relative)? else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let file = open_regular(parent.as_ref().unwrap_or(&self.folder).as_fd(), &last)?;
        match found(&fstat(&file)?) {
            Found::File(info) => Ok((file, info)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Returns the kind of file under a path.
    pub(super) fn stat(&self, relative: &Path) -> io::Result<Found> {
        let stat = match self.parent(relative) {
            Ok(None) => return Ok(Found::Folder),
            Ok(Some((parent, last))) => {
                statat(parent.as_ref().unwrap_or(&self.folder), last, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(io::Error::from)
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
            let flags = TRAVERSE | OFlags::NOFOLLOW;
            parent = Some(openat(parent.as_ref().unwrap_or(&self.folder), *folder, flags, Mode::empty())?);
        }
        Ok(Some((parent, PathBuf::from(last))))
    }
}

/// Opens a regular file in a folder. The name is looked up once, with a descriptor that opens nothing (`O_PATH`): a
/// name that is replaced after that has no effect.
#[cfg(target_os = "linux")]
fn open_regular(folder: impl AsFd + Copy, name: &Path) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    let pinned = openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&pinned)?;
    if !matches!(found(&stat), Found::File(_)) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let link = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    let file = match rustix::fs::open(link, READ, Mode::empty()) {
        // Without `/proc`.
        Err(rustix::io::Errno::NOENT) => openat(folder, name, READ | OFlags::NOFOLLOW, Mode::empty())?,
        file => file?,
    };
    if FileId::of(&fstat(&file)?) == FileId::of(&stat) {
        Ok(File::from(file))
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

#[cfg(not(target_os = "linux"))]
fn open_regular(folder: impl AsFd + Copy, name: &Path) -> io::Result<File> {
    let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if !matches!(found(&stat), Found::File(_)) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = openat(folder, name, READ | OFlags::NOFOLLOW, Mode::empty())?;
    if FileId::of(&fstat(&file)?) == FileId::of(&stat) {
        Ok(File::from(file))
    } else {
        Err(io::ErrorKind::NotFound.into())
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

/// Returns the kind of file according to its metadata.
pub(super) fn found(stat: &Stat) -> Found {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Found::File(FileInfo::of(stat)),
        FileType::Directory => Found::Folder,
        _ => Found::Nothing,
    }
}

impl FileInfo {
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the fields' types differ between systems")]
    fn of(stat: &Stat) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        let stamp = Stamp {
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            mtime_ns: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime_ns: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            inode: stat.st_ino as u64,
        };
        Self { id: FileId::of(stat), stamp, links: stat.st_nlink as u64 }
    }
}
