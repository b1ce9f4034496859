//! A copy of a component file in memory. The parent and the compiler process use the same copy, so the bytes whose
//! digest is checked are the bytes that are compiled, even if the file changes in between.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use super::limits::COMPONENT_SIZE_MAX;

/// A copy of a component file, not parsed.
pub(crate) struct Input {
    /// The copy, in a file without a name ([`memory_file`]).
    file: File,
    /// SHA-256 of the content.
    pub(crate) sha256: [u8; 32],
    /// Size in bytes.
    pub(crate) bytes: u64,
}

impl Input {
    /// Copies a component file; `None` if it is larger than [`COMPONENT_SIZE_MAX`].
    pub(crate) fn read(path: &Path) -> io::Result<Option<Self>> {
        let mut source = evoke_fs::open_regular(path)?.take(COMPONENT_SIZE_MAX + 1);
        let mut file = memory_file("evoke-component")?;
        let (mut digest, mut bytes, mut buffer) = (Sha256::new(), 0_u64, vec![0; 64 * 1024]);
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let part = buffer.get(..count).unwrap_or_default();
            digest.update(part);
            file.write_all(part)?;
            bytes += part.len() as u64;
        }
        Ok((bytes <= COMPONENT_SIZE_MAX).then(|| Self { file, sha256: digest.finalize().into(), bytes }))
    }

    /// Returns a descriptor of the content, positioned at its start.
    pub(super) fn reader(&self) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        Ok(file)
    }
}

/// Creates an empty file without a name: on Linux in memory, elsewhere in the folder for temporary files.
pub(crate) fn memory_file(name: &str) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?.into());
    #[cfg(not(target_os = "linux"))]
    {
        let _ = name;
        tempfile::tempfile()
    }
}

/// Opens a file of the cache for reading. Fails if the path is a symbolic link, or if it is not a regular file. Does
/// not wait, even if the path is a named pipe that has no writer.
pub(crate) fn open_cached(path: &Path) -> io::Result<File> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).map_err(io::Error::other)?;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file")),
    }
}
