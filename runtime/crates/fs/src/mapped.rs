//! Writes to the start of a file through a memory mapping. A write needs no system call, and the written bytes survive
//! a crash of the process.

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;

use super::sys::Mapping;

/// The start of a file, mapped into memory (`MAP_SHARED`). A write is immediately in the page cache of the kernel.
/// Therefore it survives a crash of this process, but not a power cut.
#[derive(Debug)]
pub struct MappedFile(Mapping);

impl MappedFile {
    /// Maps the first `length` bytes of `file`, rounded down to a multiple of 8 bytes. The disk space of these bytes
    /// must be allocated: the kernel kills the process (SIGBUS) if the process writes to a page for which the disk has
    /// no space. The kernel also kills the process if the file was truncated after this call, and the process writes
    /// beyond the new end of the file. Only the owner of the file can truncate it.
    ///
    /// Returns `None` if the file is shorter than `length`, or if its file system may need more space even for a write
    /// into allocated space. In these cases, and after an error, the caller must write with system calls.
    pub fn map(file: &File, length: usize) -> io::Result<Option<Self>> {
        if file.metadata()?.len() < length as u64 || !overwrites_in_place(file)? {
            return Ok(None);
        }
        Mapping::shared(file, length / size_of::<u64>()).map(|mapping| Some(Self(mapping)))
    }

    /// Writes `bytes` at the offset `at`. Returns false and writes nothing if the offset or the length is not a
    /// multiple of 8, or if the range is not within the mapped part.
    pub fn write(&self, bytes: &[u8], at: usize) -> bool {
        const WORD: usize = size_of::<u64>();
        let (first, count) = (at / WORD, bytes.len() / WORD);
        let words = self.0.words().get(first..first.saturating_add(count));
        let Some(words) = words.filter(|_| at.is_multiple_of(WORD) && bytes.len().is_multiple_of(WORD)) else {
            return false;
        };
        for (word, bytes) in words.iter().zip(bytes.chunks_exact(WORD)) {
            let value = bytes.try_into().map(u64::from_ne_bytes).unwrap_or_default();
            word.store(value, Ordering::Release);
        }
        true
    }
}

/// Returns true if the file system overwrites allocated space in place. Such a write cannot fail on a full disk. A file
/// system that copies on write, such as Btrfs, allocates new space for each write.
#[cfg(target_os = "linux")]
fn overwrites_in_place(file: &File) -> io::Result<bool> {
    const EXT4: u64 = 0xEF53;
    Ok(u64::try_from(rustix::fs::fstatfs(file)?.f_type).is_ok_and(|kind| kind == EXT4))
}

#[cfg(not(target_os = "linux"))]
fn overwrites_in_place(_: &File) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_reaches_the_file_at_once_and_nothing_is_written_outside() {
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 4096], 0).unwrap();
        let Some(mapped) = MappedFile::map(&file, 1024).unwrap() else {
            assert!(!overwrites_in_place(&file).unwrap());
            return;
        };
        assert!(mapped.write(&[1; 16], 1008));
        let mut content = [0; 4096];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut content, 0).unwrap();
        assert_eq!(content[..1008], [7; 1008]);
        assert_eq!(content[1008..1024], [1; 16]);
        assert_eq!(content[1024..], [7; 3072]);
        for (bytes, at) in [(16, 1016), (16, 1024), (8, 4), (7, 0), (8, usize::MAX - 7)] {
            assert!(!mapped.write(&vec![9; bytes], at), "a write of {bytes} bytes at {at} must fail");
        }
    }

    #[test]
    fn a_file_that_is_too_short_is_not_mapped() {
        let file = tempfile::tempfile().unwrap();
        assert!(MappedFile::map(&file, 1024).unwrap().is_none());
    }
}
