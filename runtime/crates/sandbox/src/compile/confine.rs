//! Restricts the compiler process to its work: reading standard input, computing, and writing standard output and
//! standard error.
//!
//! The restrictions by system:
//!
//! - On every Unix: limits on address space, processor time and the size of written files; no core dump; no new
//!   descriptors, so no new files, no sockets and no connections.
//! - On Linux also: the process ends when its parent ends. If memory runs out, the kernel ends this process first. A
//!   filter allows only the system calls that computing needs, and allows reading and writing only on the three
//!   standard descriptors. The filter applies to all threads and cannot be removed.
//!
//! On a kernel without such filters, only the limits protect the machine, and the parent logs a warning.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The descriptors of the process: standard input, standard output and standard error.
const DESCRIPTORS: u64 = 3;

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Memory that the process may take in addition to the memory that it already has, in bytes.
    pub(super) memory: u64,
    pub(super) cpu_seconds: u64,
    /// Size of the output file, in bytes.
    pub(super) output_bytes: u64,
}

/// Sets the limits permanently. Must be called after all threads were started and before any input is read. Returns a
/// warning if the system calls are not filtered.
pub(super) fn confine(limits: Limits) -> io::Result<Option<String>> {
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let Limits { memory, cpu_seconds, output_bytes } = limits;
    let (address_space, data) = memory_taken();
    for (resource, limit) in [
        (Resource::As, address_space.saturating_add(memory)),
        // An allocator may already have reserved address space, from which it takes memory later. Only this limit
        // counts that memory.
        (Resource::Data, data.saturating_add(memory)),
        (Resource::Cpu, cpu_seconds),
        (Resource::Fsize, output_bytes),
        (Resource::Core, 0),
        (Resource::Nofile, DESCRIPTORS),
    ] {
        // Processor time has two limits. At the lower one, the kernel sends SIGXCPU, which shows the parent what
        // happened. At the higher one, a second later, the kernel sends SIGKILL.
        let last = if resource == Resource::Cpu { limit.saturating_add(1) } else { limit };
        // If the process was started with a stricter limit, that limit stays.
        let at_most = |limit: u64| Some(getrlimit(resource).maximum.map_or(limit, |maximum| maximum.min(limit)));
        setrlimit(resource, Rlimit { current: at_most(limit), maximum: at_most(last) })?;
    }
    #[cfg(target_os = "linux")]
    return Ok(filter::install().err().map(|error| format!("the compiler's system calls are not filtered: {error}")));
    #[cfg(not(target_os = "linux"))]
    Ok(Some("the compiler's system calls are not filtered, because only Linux can filter them".into()))
}

/// Ends this process when its parent ends. Fails if the parent has ended already.
pub(super) fn end_with_parent(parent: u32) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now == Some(parent) { Ok(()) } else { Err(io::Error::other("the parent process has ended")) }
}

/// Makes this process the first that the kernel ends when memory runs out.
pub(super) fn end_first_without_memory() {
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

/// Returns the current sizes of the address space and the data of this process, in bytes; zero where the system does
/// not report them.
fn memory_taken() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    let bytes = |name| kib(name).unwrap_or_default().saturating_mul(1024);
    (bytes("VmSize:"), bytes("VmData:"))
}

#[cfg(target_os = "linux")]
mod filter {
    use std::collections::BTreeMap;

    use libc::{MAP_ANONYMOUS, c_int, c_long};
    use seccompiler::SeccompCmpArgLen::Dword;
    use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
    use seccompiler::{BpfProgram, SeccompAction, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};

    /// System calls that are allowed with any arguments: for memory, locks, existing threads, signals of this process,
    /// and time.
    const ALLOWED: [c_long; 33] = [
        libc::SYS_brk,
        libc::SYS_clock_getres,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_close,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_fstat,
        libc::SYS_futex,
        libc::SYS_getcpu,
        libc::SYS_getpid,
        libc::SYS_getrandom,
        libc::SYS_getrusage,
        libc::SYS_gettid,
        libc::SYS_gettimeofday,
        libc::SYS_lseek,
        libc::SYS_madvise,
        libc::SYS_membarrier,
        libc::SYS_mincore,
        libc::SYS_mprotect,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_nanosleep,
        libc::SYS_restart_syscall,
        libc::SYS_rseq,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_yield,
        libc::SYS_set_robust_list,
        libc::SYS_sigaltstack,
        libc::SYS_statx,
    ];

    pub(super) fn install() -> Result<(), seccompiler::Error> {
        let when = |argument: u8, operator: SeccompCmpOp, value: c_int| {
            let condition = SeccompCondition::new(argument, Dword, operator, u64::from(value.cast_unsigned()))?;
            SeccompRule::new(vec![condition])
        };
        let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = ALLOWED.map(|call| (call, Vec::new())).into();
        let this_process = c_int::try_from(std::process::id()).unwrap_or_default();
        rules.extend([
            (libc::SYS_read, vec![when(0, Eq, 0)?]),
            (libc::SYS_write, vec![when(0, Eq, 1)?, when(0, Eq, 2)?]),
            (libc::SYS_writev, vec![when(0, Eq, 1)?, when(0, Eq, 2)?]),
            // Only for memory: no file can be mapped.
            (libc::SYS_mmap, vec![when(3, MaskedEq(u64::from(MAP_ANONYMOUS.cast_unsigned())), MAP_ANONYMOUS)?]),
            // `abort` sends a signal to its own thread.
            (libc::SYS_tgkill, vec![when(0, Eq, this_process)?]),
        ]);
        let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let arch = std::env::consts::ARCH.try_into()?;
        let program: BpfProgram = SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)?.try_into()?;
        seccompiler::apply_filter_all_threads(&program)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use rustix::fs::{fcntl_getfl, fcntl_setfl};

    use super::*;

    /// Set in the process that the test starts, which runs the same test and confines itself.
    const IS_CHILD: &str = "EVOKE_TEST_CONFINED";
    const REFUSED: i32 = 77;

    /// With `fcntl`, a process could have signals sent to other processes of its user: F_SETOWN, F_SETSIG and O_ASYNC.
    #[test]
    fn a_confined_process_cannot_change_its_descriptors() {
        if std::env::var_os(IS_CHILD).is_none() {
            let mut test = Command::new(std::env::current_exe().unwrap());
            test.args(["--exact", "compile::confine::tests::a_confined_process_cannot_change_its_descriptors"]);
            let output = test.arg("--nocapture").env(IS_CHILD, "1").output().unwrap();
            assert_eq!(output.status.code(), Some(REFUSED), "{output:?}");
            return;
        }
        let flags = fcntl_getfl(io::stdout()).unwrap();
        let warning = confine(Limits { memory: 1 << 30, cpu_seconds: 60, output_bytes: 1 << 20 }).unwrap();
        assert_eq!(warning, None);
        let result = fcntl_setfl(io::stdout(), flags);
        std::process::exit(if result == Err(rustix::io::Errno::PERM) { REFUSED } else { 1 });
    }
}
