//! The identity of a file.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::Stat;

/// Device and inode of a file. Two paths with the same identity lead to the same file, for example hard links, bind
/// mounts, and paths through symbolic links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Returns the identity of the file that has this metadata.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the fields' types differ between systems")]
    pub fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev as u64, inode: stat.st_ino as u64 }
    }

    /// Returns the number of the device, which differs between mounted file systems.
    pub fn device(self) -> u64 {
        self.device
    }

    /// Returns the identity of an open file.
    pub fn of_open(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::of(&rustix::fs::fstat(file)?))
    }

    /// Returns the identity of the file at a path. Follows symbolic links. Does not open the file.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&rustix::fs::stat(path)?))
    }
}
