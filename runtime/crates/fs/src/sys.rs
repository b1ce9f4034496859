//! The system calls that no safe library offers. The only unsafe code of this crate.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

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
