//! Reads and opens files below a folder and never outside of it. Every part of a path is opened separately and must not
//! be a symbolic link. So a link is not followed even if another program puts it in place of a folder or file at the
//! same time.
//!
//! The folder and the files of an open store of this process ([`evoke_fs::reserve`]) are never entered or opened, under
//! whatever name. They count as missing.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};

use super::version::Stamp;
use evoke_fs::{FileId, is_reserved, open_below};

/// Flags for opening the folders of a path. Opening with these flags needs no permission to list the folders, and
/// causes no notification.
#[cfg(target_os = "linux")]
const TRAVERSE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const TRAVERSE: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// The kind of file under a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    File(FileInfo),
    Folder,
    /// No file that may become an event: the path does not exist, is a link, a pipe, a socket or a device, or belongs
    /// to the store.
    Nothing,
}

/// The metadata of a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileInfo {
    pub(super) id: FileId,
    pub(super) stamp: Stamp,
    /// The number of hard links to the file, in this folder and elsewhere on its file system.
    pub(super) links: u64,
}

/// The open top folder; all paths are relative to it.
pub(super) struct Root {
    folder: OwnedFd,
    id: FileId,
}

impl Root {
    /// Opens the top folder. Its path comes from the manifest, so it may contain links.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let folder = rustix::fs::open(path, TRAVERSE, Mode::empty())?;
        let stat = fstat(&folder)?;
        if is_store(&stat) {
            return Err(io::Error::other("it is the data folder of this Evoke; files in it never become events"));
        }
        Ok(Self { folder, id: FileId::of(&stat) })
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { folder: self.folder.try_clone()?, id: self.id })
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Returns the descriptor of the top folder. The descriptor cannot be used to list the folder.
    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.folder
    }

    /// Opens a subfolder for listing; the empty path is the top folder itself.
    pub(super) fn folder(&self, relative: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = match self.parent(relative)? {
            Some((parent, last)) => Some(enter(parent.as_ref().unwrap_or(&self.folder), &last)?),
            None => None,
        };
        Ok(openat(folder.as_ref().unwrap_or(&self.folder), ".", flags, Mode::empty())?)
    }

    /// Opens a regular file below the top folder. Returns an error for any other kind of file without opening it:
    /// opening a pipe would wake its writer, and opening a device can have any effect. A file of the store is not
    /// opened either.
    pub(super) fn file(&self, relative: &Path) -> io::Result<(File, FileInfo)> {
        let Some((parent, last)) = self.parent(relative)? else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let opened = open_below(parent.as_ref().unwrap_or(&self.folder), &last, OFlags::NOFOLLOW);
        // An error without an error number comes from `open_below`: the file is not regular or belongs to the store.
        let file = opened
            .map_err(|error| if error.raw_os_error().is_none() { io::ErrorKind::NotFound.into() } else { error })?;
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

    /// Opens the parent folder of a path. Returns the parent (`None` if it is the top folder) and the last part of the
    /// path. Returns `None` for the empty path.
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
            parent = Some(enter(parent.as_ref().unwrap_or(&self.folder), Path::new(folder))?);
        }
        Ok(Some((parent, PathBuf::from(last))))
    }
}

/// Opens a subfolder, so that its entries can be opened or listed. Returns an error for the folder of a store.
fn enter(parent: &OwnedFd, name: &Path) -> io::Result<OwnedFd> {
    let folder = openat(parent, name, TRAVERSE | OFlags::NOFOLLOW, Mode::empty())?;
    if is_store(&fstat(&folder)?) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(folder)
}

/// Returns true if an error means that no file or folder exists at the path: the path is missing, or a part of it is a
/// link or not a folder.
pub(super) fn is_missing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error.kind() == io::ErrorKind::NotFound
        || [Errno::LOOP, Errno::NOTDIR, Errno::NXIO]
            .iter()
            .any(|absent| error.raw_os_error() == Some(absent.raw_os_error()))
}

/// Returns true if the metadata belongs to the folder or a file of an open store.
pub(super) fn is_store(stat: &Stat) -> bool {
    is_reserved(FileId::of(stat))
}

/// Returns the kind of file according to its metadata.
pub(super) fn found(stat: &Stat) -> Found {
    if is_store(stat) {
        return Found::Nothing;
    }
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
