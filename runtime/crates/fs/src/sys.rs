//! System calls for which no safe library exists. Only this module of the crate has unsafe code.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Takes a shared lock on a byte range of a file. While the lock lasts, no one else can lock the range exclusively.
/// Does not wait: if the range is already locked exclusively, the error has the kind `WouldBlock`.
///
/// The lock is an open file description lock (Linux, `F_OFD_SETLK`). It conflicts with POSIX locks, also with POSIX
/// locks of this process. Unlike a POSIX lock, it belongs to the descriptor: it ends when the descriptor and its copies
/// are closed. It does not end when the process closes another descriptor of the file.
pub fn lock_shared(file: impl AsFd, bytes: Range<i64>) -> io::Result<()> {
    set_lock(file, libc::F_RDLCK, bytes)
}

/// Releases the lock of [`lock_shared`] without closing the file. Closing the file would also release all POSIX locks
/// that this process holds on it.
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

/// Marks all open descriptors, except standard input, output and error, so that programs that this process starts do
/// not inherit them. This includes descriptors that this process itself inherited.
pub fn close_inherited_on_exec() -> io::Result<()> {
    mark_inherited()
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn mark_inherited() -> io::Result<()> {
    const CLOSE_ON_EXEC: libc::c_uint = 4; // CLOSE_RANGE_CLOEXEC
    // SAFETY: the call takes no pointers. With this flag, the call closes no descriptor now: it marks each open one,
    // and a later `exec` closes the marked ones.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, CLOSE_ON_EXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn mark_inherited() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Turns off huge pages (2 MiB) for this process and the programs that it starts. A huge page uses 2 MiB of memory even
/// if an allocator needs only a part of it.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn disable_huge_pages() -> io::Result<()> {
    let (disable, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: the call takes no pointers, and changes only how the system serves later page faults.
    let result = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, disable, none, none, none) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Does nothing: other systems have no such setting.
#[cfg(not(target_os = "linux"))]
pub fn disable_huge_pages() -> io::Result<()> {
    Ok(())
}

/// Sets the time slice of the current thread to 0.1 ms, the shortest that Linux allows (6.12 and later). When this
/// thread becomes ready to run, it interrupts threads with longer slices. With equal slices, it would wait until the
/// next timer interrupt of the kernel, up to 4 ms. A slice does not change the share of processor time that a thread
/// gets. Threads and programs that this thread starts get the usual slice. If the kernel refuses or ignores the
/// setting, the thread only waits for longer.
#[cfg(target_os = "linux")]
pub fn shorten_time_slice() {
    const SHORT_NANOS: u64 = 100_000;
    if let Some(attributes) = scheduling_attributes()
        && attributes.sched_policy == libc::SCHED_OTHER as u32
    {
        let sched_flags = attributes.sched_flags | libc::SCHED_FLAG_RESET_ON_FORK as u64;
        set_scheduling_attributes(&libc::sched_attr { sched_runtime: SHORT_NANOS, sched_flags, ..attributes });
    }
}

/// Does nothing: on other systems, a thread cannot change its time slice.
#[cfg(not(target_os = "linux"))]
pub fn shorten_time_slice() {}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn scheduling_attributes() -> Option<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>() as libc::c_uint;
    // SAFETY: all fields are integers.
    let mut attributes = unsafe { std::mem::zeroed::<libc::sched_attr>() };
    let (this_thread, flags): (libc::pid_t, libc::c_uint) = (0, 0);
    // SAFETY: the kernel writes at most `size` bytes, the size of the structure, which lives until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, this_thread, &raw mut attributes, size, flags) };
    (result == 0).then_some(attributes)
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn set_scheduling_attributes(attributes: &libc::sched_attr) {
    let (this_thread, flags): (libc::pid_t, libc::c_uint) = (0, 0);
    // SAFETY: the kernel only reads the structure, which lives until the call returns. If the call fails, nothing
    // changes.
    unsafe { libc::syscall(libc::SYS_sched_setattr, this_thread, &raw const *attributes, flags) };
}

/// The start of a file, mapped into memory (`MAP_SHARED`): the memory and the file have the same content.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping belongs to this value alone, and is only accessed through atomics.
#[allow(unsafe_code)]
unsafe impl Send for Mapping {}
// SAFETY: threads that share the mapping access it only through atomics.
#[allow(unsafe_code)]
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `words` words of 8 bytes of a file.
    #[allow(unsafe_code)]
    pub(crate) fn shared(file: impl AsFd, words: usize) -> io::Result<Self> {
        let (access, file) = (libc::PROT_READ | libc::PROT_WRITE, file.as_fd().as_raw_fd());
        // SAFETY: the kernel chooses the address, so no memory that is in use is replaced. The descriptor is open
        // during the call; the mapping does not need it afterwards.
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
        // SAFETY: the memory is mapped, aligned to pages and of this length until `self` is dropped. Other threads and
        // processes may change it at any time; atomics allow that.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Mapping {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: `shared` mapped exactly this range, and no reference to it is left. An error leaves the range mapped.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * size_of::<u64>()) };
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_short_time_slice_is_that_of_one_thread_and_changes_nothing_else() {
        let now = || scheduling_attributes().map(|now| (now.sched_policy, now.sched_nice, now.sched_runtime)).unwrap();
        std::thread::spawn(move || {
            let before = now();
            shorten_time_slice();
            let after = now();
            assert_eq!((after.0, after.1), (before.0, before.1));
            // Before Linux 6.12, the kernel ignores the slice.
            assert!(after.2 == 100_000 || after.2 == before.2, "{before:?} {after:?}");
            assert_eq!(std::thread::spawn(now).join().unwrap(), before);
        })
        .join()
        .unwrap();
    }
}
