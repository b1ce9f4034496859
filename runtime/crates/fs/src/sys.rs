//! The system calls that no safe library offers. The only unsafe code of this crate.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Takes a shared lock on a byte range of a file, which excludes exclusive locks of others. Does not wait: the error has
/// the kind `WouldBlock` if the range is locked exclusively.
///
/// The lock is an open file description lock (Linux, `F_OFD_SETLK`), which conflicts with POSIX locks, also with those
/// of this process, but it belongs to the descriptor: it ends when the descriptor and its copies are closed, and not
/// when the process closes another descriptor of the file.
pub fn lock_shared(file: impl AsFd, bytes: Range<i64>) -> io::Result<()> {
    set_lock(file, libc::F_RDLCK, bytes)
}

/// Releases the lock of [`lock_shared`] without closing the file: to close it would also drop the POSIX locks of this
/// process.
pub fn unlock(file: impl AsFd, bytes: Range<i64>) -> io::Result<()> {
    set_lock(file, libc::F_UNLCK, bytes)
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
#[allow(clippy::unnecessary_cast, reason = "the constants' types differ between systems")]
fn set_lock(file: impl AsFd, kind: libc::c_int, bytes: Range<i64>) -> io::Result<()> {
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: bytes.start,
        l_len: bytes.end - bytes.start,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open for the duration of the call, because it is borrowed. The kernel only reads the
    // structure, which lives until the call returns.
    let result = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn set_lock(_: impl AsFd, _: libc::c_int, _: Range<i64>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Makes the system close all descriptors except standard input, output and error in every program that this process
/// starts, also descriptors that this process inherited and does not know.
pub fn close_inherited_on_exec() -> io::Result<()> {
    mark_inherited()
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn mark_inherited() -> io::Result<()> {
    const CLOSE_ON_EXEC: libc::c_uint = 4; // CLOSE_RANGE_CLOEXEC
    // SAFETY: the call takes no pointers. With this flag it closes no descriptor, and only changes what a later `exec`
    // does with those that exist now.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, CLOSE_ON_EXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn mark_inherited() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Makes the system give this process, and the programs that it starts, memory in small pages only. A huge page (2 MiB)
/// counts as used as a whole, also if an allocator uses a part of it.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn disable_huge_pages() -> io::Result<()> {
    let (disable, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: the call takes no pointers, and changes only how the system serves later page faults.
    let result = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, disable, none, none, none) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Other systems have no such setting.
#[cfg(not(target_os = "linux"))]
pub fn disable_huge_pages() -> io::Result<()> {
    Ok(())
}

/// The start of a file in memory, shared with the file.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping belongs to this value alone, and is only accessed through atomics.
#[allow(unsafe_code)]
unsafe impl Send for Mapping {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `words` words of a file.
    #[allow(unsafe_code)]
    pub(crate) fn shared(file: impl AsFd, words: usize) -> io::Result<Self> {
        let (access, file) = (libc::PROT_READ | libc::PROT_WRITE, file.as_fd().as_raw_fd());
        // SAFETY: the kernel chooses the address, so no memory that is in use is replaced. The descriptor is open during
        // the call; the mapping does not need it afterwards.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), words * size_of::<u64>(), access, libc::MAP_SHARED, file, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { start, words })
    }

    #[allow(unsafe_code)]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the memory is mapped, aligned to pages and of this length until `self` is dropped. Others may change it
        // at any time, which atomics allow.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Mapping {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the range is that of `shared`, and no reference to it is left. An error leaves the range mapped.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * size_of::<u64>()) };
    }
}
