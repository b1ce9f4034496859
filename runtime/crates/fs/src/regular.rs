//! Opens regular files. Never waits for the other end of a named pipe, and never opens a device.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat};

use super::{FileId, is_reserved};

/// Opens a regular file for reading. Follows symbolic links. All files whose paths a user configured are opened with
/// this function.
///
/// # Errors
/// Errors of the operating system; `IsADirectory` for a folder; `InvalidInput` for a pipe, a socket or a device;
/// `PermissionDenied` for a file of an open store (see [`super::reserve`]). The message of the error gives the reason.
pub fn open_regular(path: &Path) -> io::Result<File> {
    open_below(CWD, path, OFlags::empty())
}

/// Opens a regular file for reading, like [`open_regular`]. A relative `path` starts in `folder`. `more` adds flags for
/// opening: with [`OFlags::NOFOLLOW`], the last part of the path must not be a symbolic link.
pub fn open_below(folder: impl AsFd, path: &Path, more: OFlags) -> io::Result<File> {
    let pinned = pin(folder.as_fd(), path, more)?;
    let stat = fstat(&pinned)?;
    check(&stat)?;
    open_pinned(&pinned, FileId::of(&stat), || {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | more;
        Ok(openat(folder.as_fd(), path, flags, Mode::empty())?)
    })
}

/// Opens a file with `O_PATH` (Linux): the descriptor allows checks, but no reads or writes. Opening with `O_PATH`
/// never waits for the other end of a pipe, and has no effect on a device. Closing the descriptor does not release the
/// POSIX locks that the process holds on the file.
#[cfg(target_os = "linux")]
fn pin(folder: impl AsFd, path: &Path, more: OFlags) -> io::Result<OwnedFd> {
    Ok(openat(folder, path, OFlags::PATH | OFlags::CLOEXEC | more, Mode::empty())?)
}

#[cfg(not(target_os = "linux"))]
fn pin(folder: impl AsFd, path: &Path, more: OFlags) -> io::Result<OwnedFd> {
    let follow = if more.contains(OFlags::NOFOLLOW) {
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW
    } else {
        rustix::fs::AtFlags::empty()
    };
    check(&rustix::fs::statat(&folder, path, follow)?)?;
    Ok(openat(folder, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | more, Mode::empty())?)
}

/// Opens the file of the descriptor `pinned` (see [`pin`]) again, for reading. If there is no `/proc`, opens the file
/// with `by_name`, and returns an error if this is no longer the file `id`.
fn open_pinned(pinned: &OwnedFd, id: FileId, by_name: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<File> {
    use std::os::fd::AsRawFd as _;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let link = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    match rustix::fs::open(link, flags, Mode::empty()) {
        Ok(file) => Ok(File::from(file)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
            let file = File::from(by_name()?);
            let found = FileId::of_open(&file)?;
            if found == id {
                return Ok(file);
            }
            if is_reserved(found) {
                // A file of the store got this name since the check. Closing its descriptor would release the locks of
                // the store, therefore the descriptor stays open until the process ends.
                std::mem::forget(file);
            }
            Err(io::Error::new(io::ErrorKind::NotFound, "another file got this name while Evoke opened it; try again"))
        }
        Err(error) => Err(error.into()),
    }
}

fn check(stat: &Stat) -> io::Result<()> {
    let refuse = |kind, what: &str| Err(io::Error::new(kind, format!("it is {what}, not a regular file")));
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if is_reserved(FileId::of(stat)) => {
            let message = "it belongs to the store of the running Evoke; only the store may open it";
            Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
        }
        FileType::RegularFile => Ok(()),
        FileType::Directory => refuse(io::ErrorKind::IsADirectory, "a folder"),
        FileType::Symlink => Err(rustix::io::Errno::LOOP.into()),
        FileType::Fifo => refuse(io::ErrorKind::InvalidInput, "a named pipe"),
        FileType::Socket => refuse(io::ErrorKind::InvalidInput, "a socket"),
        _ => refuse(io::ErrorKind::InvalidInput, "a device"),
    }
}

/// Reads a regular file of at most `max` bytes.
///
/// # Errors
/// The errors of [`open_regular`]; `FileTooLarge` if the file has more than `max` bytes (at most `max` + 1 bytes are
/// read).
pub fn read_at_most(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let message = format!("it is larger than the limit of {max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// Reads a regular file of at most `max` bytes as UTF-8.
///
/// # Errors
/// The errors of [`read_at_most`]; `InvalidData` if the file is not UTF-8.
pub fn read_text(path: &Path, max: u64) -> io::Result<String> {
    String::from_utf8(read_at_most(path, max)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not valid UTF-8"))
}

#[cfg(test)]
mod tests;
