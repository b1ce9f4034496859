//! Which threads the kernel runs first: those of the host and of short attempts, before those of attempts that compute
//! for long.
//!
//! On a machine whose processors all compute, a thread that becomes ready otherwise waits for a time slice of some
//! milliseconds, several times for one request. A long attempt gives way in two ways: its share of a contended processor
//! is a tenth of that of another thread (a nice value of 10 more), and the other threads have a shorter time slice, for
//! which the kernel (Linux 6.12 and later) interrupts it at once.

/// The time slice of the other threads. The kernel takes 0.1 ms to 100 ms; its default is about 3 ms.
const SLICE_NANOS: u64 = 500_000;
/// Added to the nice value for long attempts.
const NICE_MORE: i32 = 10;
const NICE_MAX: i32 = 19;

/// Lets this thread, and those that it starts, run before attempts that compute for long. Called at the start of the
/// process.
pub fn run_before_long_attempts() {
    change(0, SLICE_NANOS);
}

/// Makes this thread give way to all others.
pub(super) fn give_way() {
    // A slice of 0 is the kernel's default.
    change(NICE_MORE, 0);
}

/// Changes the nice value and the time slice of this thread. If the operator chose another scheduling policy, it stays as
/// it is. Without the change, requests take longer beside attempts that compute, and nothing else is different.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn change(nice_more: i32, slice_nanos: u64) {
    let size = size_of::<libc::sched_attr>() as libc::c_uint;
    let (this_thread, flags): (libc::pid_t, libc::c_uint) = (0, 0);
    let mut attributes = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `size` bytes, the size of the structure, which lives until the call returns.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, this_thread, &raw mut attributes, size, flags) };
    if read != 0 || attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return;
    }
    attributes.size = size;
    attributes.sched_nice = (attributes.sched_nice + nice_more).min(NICE_MAX);
    attributes.sched_runtime = slice_nanos;
    // SAFETY: the kernel only reads the structure, which lives until the call returns.
    let changed = unsafe { libc::syscall(libc::SYS_sched_setattr, this_thread, &raw const attributes, flags) };
    if changed != 0 {
        tracing::debug!("cannot set the priority of a thread: {}", std::io::Error::last_os_error());
    }
}

#[cfg(not(target_os = "linux"))]
fn change(_: i32, _: u64) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn a_long_attempt_has_a_higher_nice_value_than_the_thread_that_started_its_threads() {
        let nice = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let (_, fields) = stat.rsplit_once(") ").unwrap();
            fields.split(' ').nth(16).unwrap().parse::<i32>().unwrap()
        };
        let before = nice();
        let after = std::thread::spawn(move || {
            super::give_way();
            nice()
        });
        assert_eq!(after.join().unwrap(), (before + super::NICE_MORE).min(super::NICE_MAX));
        assert_eq!(nice(), before);
    }
}
