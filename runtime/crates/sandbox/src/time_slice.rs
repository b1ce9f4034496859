//! The time slice of a thread: for how long the kernel lets it compute while other threads wait for the processor.
//!
//! A guest that computes for long gets the longest slice. So threads that become ready, such as those of connections and
//! of the store, interrupt it at once (Linux 6.12 and later). With equal slices they would wait until the next timer
//! interrupt of the kernel, up to 4 ms, several times for one request. A slice does not change the share of the
//! processor that a thread gets, so no guest starves, also beside the load of other programs.

#[cfg(target_os = "linux")]
pub(super) use linux::LongSlice;
#[cfg(not(target_os = "linux"))]
pub(super) use other::LongSlice;

#[cfg(target_os = "linux")]
mod linux {
    use std::marker::PhantomData;

    use libc::{SYS_sched_getattr, SYS_sched_setattr, sched_attr};

    /// The longest time slice that the kernel takes.
    const LONG_NANOS: u64 = 100_000_000;

    /// Gives the current thread a long time slice until it is dropped. If the kernel refuses that, attempts that compute
    /// delay other threads for longer, and nothing else is different.
    pub(crate) struct LongSlice {
        /// The attributes to restore; `None` if they were not changed.
        before: Option<sched_attr>,
        /// The slice belongs to the thread that created it.
        not_send: PhantomData<*const ()>,
    }

    impl LongSlice {
        pub(crate) fn start() -> Self {
            // A policy that the operator chose stays as it is.
            let before = attributes().filter(|before| before.sched_policy == libc::SCHED_OTHER as u32);
            let before = before.filter(|before| set(&sched_attr { sched_runtime: LONG_NANOS, ..*before }));
            Self { before, not_send: PhantomData }
        }
    }

    impl Drop for LongSlice {
        fn drop(&mut self) {
            if let Some(before) = &self.before {
                set(before);
            }
        }
    }

    /// Returns the scheduling attributes of the current thread.
    #[allow(unsafe_code, reason = "a system call without a safe binding")]
    pub(crate) fn attributes() -> Option<sched_attr> {
        let size = size_of::<sched_attr>() as libc::c_uint;
        // SAFETY: all fields are integers.
        let mut attributes = unsafe { std::mem::zeroed::<sched_attr>() };
        let (this_thread, flags): (libc::pid_t, libc::c_uint) = (0, 0);
        // SAFETY: the kernel writes at most `size` bytes, the size of the structure, which lives until the call returns.
        let result = unsafe { libc::syscall(SYS_sched_getattr, this_thread, &raw mut attributes, size, flags) };
        (result == 0).then_some(attributes)
    }

    /// Sets the scheduling attributes of the current thread. Returns false if the kernel refuses them.
    #[allow(unsafe_code, reason = "a system call without a safe binding")]
    fn set(attributes: &sched_attr) -> bool {
        let (this_thread, flags): (libc::pid_t, libc::c_uint) = (0, 0);
        // SAFETY: the kernel only reads the structure, which lives until the call returns.
        unsafe { libc::syscall(SYS_sched_setattr, this_thread, &raw const *attributes, flags) == 0 }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    /// Other systems have no time slice that a thread could change.
    pub(crate) struct LongSlice;

    impl LongSlice {
        pub(crate) fn start() -> Self {
            Self
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::linux::{LongSlice, attributes};

    #[test]
    fn a_long_slice_ends_with_its_guard_and_changes_nothing_else() {
        let now = || attributes().map(|attributes| (attributes.sched_runtime, attributes.sched_nice)).unwrap();
        let before = now();
        let slice = LongSlice::start();
        let during = now();
        drop(slice);
        assert_eq!(now(), before);
        assert_eq!(during.1, before.1);
        // Before Linux 6.12, threads have no time slice of their own.
        assert!(before.0 == 0 || during.0 > before.0, "{before:?} {during:?}");
    }
}
