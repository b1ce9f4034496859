//! The processes of this machine. All monitors that read within one second share one scan of /proc.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;

/// How long the result of a scan is used. So even with a thousand monitors of processes, there is only one scan per
/// second.
const FRESH: Duration = Duration::from_secs(1);
/// Maximum number of processes that a scan reads.
const PROCESSES_MAX: usize = 65_536;
/// Maximum length of a command line; the rest is not read. Any user can give a process a command line of many
/// gigabytes, with `PR_SET_MM_MAP` of prctl(2).
const COMMAND_BYTES_MAX: u64 = 4_096;
/// Maximum length of /proc/PID/stat. The longest possible text is shorter.
const STAT_BYTES_MAX: u64 = 4_096;
/// Maximum memory of all processes of a scan. A scan that needs more fails, because a monitor must not report a process
/// as absent only because the scan did not reach it.
const SCAN_BYTES_MAX: usize = 32 << 20;

/// A running process.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Running {
    pub(super) pid: u32,
    /// Name of the process, at most 15 bytes.
    pub(super) name: Arc<str>,
    /// Command line, its arguments separated by spaces. Shared, because each monitor copies the processes that match.
    pub(super) command: Arc<str>,
    /// Start time of the process, in clock ticks since the boot.
    pub(super) started: u64,
    pub(super) memory_bytes: u64,
}

impl Running {
    /// Returns the name of the program file, from the first part of the command line.
    pub(super) fn program(&self) -> &str {
        let program = self.command.split(' ').next().unwrap_or_default();
        program.rsplit('/').next().unwrap_or_default()
    }
}

type Scan = Result<Arc<[Running]>, String>;

#[derive(Debug, Default)]
pub(super) struct Processes {
    last: Mutex<Option<(Instant, Scan)>>,
    /// Locked while a scan runs. A scan can hang, because the kernel reads a command line from the memory of its
    /// process, and this memory can be mapped from a file on a file system that hangs.
    scanning: Arc<tokio::sync::Mutex<()>>,
}

impl Processes {
    /// Waits while another scan runs. Returns the permission for a scan; `None` if the last scan is at most a second
    /// old. Callers wait here, and not on a thread of their own, so that a scan that hangs holds only one thread.
    pub(super) async fn permit(&self) -> Option<OwnedMutexGuard<()>> {
        if self.is_fresh() {
            return None;
        }
        let permit = self.scanning.clone().lock_owned().await;
        (!self.is_fresh()).then_some(permit)
    }

    /// Scans /proc. A scan takes milliseconds.
    pub(super) fn refresh(&self, permit: OwnedMutexGuard<()>) {
        let scan = scan(Path::new("/proc"));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), scan));
        drop(permit);
    }

    fn is_fresh(&self) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH)
    }

    /// Returns the processes of the last scan that match.
    pub(super) fn find(&self, matches: impl Fn(&Running) -> bool) -> Result<Vec<Running>, String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (_, scan) = last.ok_or("the processes were not read")?;
        Ok(scan?.iter().filter(|running| matches(running)).cloned().collect())
    }
}

/// Reads all processes. `folder` is /proc.
fn scan(folder: &Path) -> Scan {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let page_bytes = rustix::param::page_size() as u64;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let (mut all, mut bytes) = (Vec::new(), 0);
    // A process may end while it is read: `read` then returns `None`.
    for running in pids.take(PROCESSES_MAX).filter_map(|pid| read(&folder.join(pid.to_string()), pid, page_bytes)) {
        bytes += size_of::<Running>() + running.name.len() + running.command.len();
        if bytes > SCAN_BYTES_MAX {
            let mib = SCAN_BYTES_MAX >> 20;
            return Err(format!("the list of processes with their command lines is larger than {mib} MiB"));
        }
        all.push(running);
    }
    Ok(all.into())
}

/// Reads one process. `folder` is /proc/PID.
fn read(folder: &Path, pid: u32, page_bytes: u64) -> Option<Running> {
    // The kernel cuts names to 15 bytes, which can cut a UTF-8 character. Therefore the text may be invalid UTF-8.
    let stat = String::from_utf8_lossy(&read_start(&folder.join("stat"), STAT_BYTES_MAX)?).into_owned();
    let mut command = read_start(&folder.join("cmdline"), COMMAND_BYTES_MAX)?;
    while command.last() == Some(&0) {
        command.pop();
    }
    command.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
    parse(pid, &stat, &String::from_utf8_lossy(&command), page_bytes)
}

/// Reads at most the first `max` bytes of a file.
fn read_start(path: &Path, max: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(max).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Parses /proc/PID/stat (proc_pid_stat(5)). The name is in parentheses and may contain any character. The state is the
/// third field, the start time the 22nd, and the number of resident pages the 24th. Returns `None` for a zombie,
/// because it does not run any more.
fn parse(pid: u32, stat: &str, command: &str, page_bytes: u64) -> Option<Running> {
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1.into();
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X" | "x") {
        return None;
    }
    let pages: u64 = fields.get(21)?.parse().ok()?;
    let memory_bytes = pages.saturating_mul(page_bytes);
    Some(Running { pid, name, command: command.into(), started: fields.get(19)?.parse().ok()?, memory_bytes })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Stdio;

    use super::*;

    const STAT: &str = "7 (a) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 1000 3 0";

    #[tokio::test]
    async fn the_own_process_is_found_with_its_memory() {
        let processes = Processes::default();
        processes.refresh(processes.permit().await.unwrap());
        assert!(processes.permit().await.is_none(), "the scan is fresh");
        let found = processes.find(|running| running.pid == std::process::id()).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].memory_bytes > 100_000 && found[0].started > 0, "{found:?}");
        assert!(!found[0].program().is_empty());
    }

    #[test]
    fn a_process_whose_name_is_cut_within_a_character_is_found() {
        let folder = tempfile::tempdir().unwrap();
        // The kernel keeps 15 bytes of the name. The last of them is the first half of the `ö`.
        let program = folder.path().join("aaaaaaaaaaaaaaö-worker");
        std::fs::copy("/bin/cat", &program).unwrap();
        let mut command = std::process::Command::new(&program);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Wait for output of the program: from then on, its command line is set.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let found = read(&Path::new("/proc").join(child.id().to_string()), child.id(), 4_096);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.map(|running| running.program().to_owned()).as_deref(), Some("aaaaaaaaaaaaaaö-worker"));
    }

    #[test]
    fn a_command_line_of_a_terabyte_is_cut() {
        let proc = tempfile::tempdir().unwrap();
        let folder = proc.path().join("7");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("stat"), STAT).unwrap();
        let mut command = File::create(folder.join("cmdline")).unwrap();
        command.write_all(b"/bin/a\0-x\0").unwrap();
        // The rest is a hole, which reads as zeros and takes no space.
        command.set_len(1 << 40).unwrap();
        let found = scan(proc.path()).unwrap();
        assert_eq!(found.iter().map(|running| &*running.command).collect::<Vec<_>>(), ["/bin/a -x"]);
    }

    #[test]
    fn a_scan_of_too_many_long_command_lines_fails() {
        let proc = tempfile::tempdir().unwrap();
        let folder = proc.path().join("process");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("stat"), STAT).unwrap();
        // Each of these bytes is invalid UTF-8 and becomes a character of three bytes.
        std::fs::write(folder.join("cmdline"), [0xff; 8_000]).unwrap();
        let each = size_of::<Running>() + 1 + 3 * 4_096;
        let fitting = SCAN_BYTES_MAX / each;
        (1..=fitting).for_each(|pid| std::os::unix::fs::symlink(&folder, proc.path().join(pid.to_string())).unwrap());
        assert_eq!(scan(proc.path()).unwrap().len(), fitting);
        std::os::unix::fs::symlink(&folder, proc.path().join("9999")).unwrap();
        assert!(scan(proc.path()).unwrap_err().contains("larger than 32 MiB"));
    }

    #[test]
    fn names_may_contain_parentheses_and_zombies_do_not_run() {
        let stat = |state: &str| format!("7 (a) b) {state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 1000 3 0");
        let running = parse(7, &stat("S"), "/bin/a -x", 4_096).unwrap();
        assert_eq!((&*running.name, running.started, running.memory_bytes), ("a) b", 4_242, 12_288));
        assert_eq!(parse(7, &stat("Z"), "", 4_096), None);
    }
}
