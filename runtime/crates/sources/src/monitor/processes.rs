//! The processes of this machine. All monitors that read within one second share one scan of /proc.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the result of a scan is used. So even with a thousand monitors of processes, there is only one scan per
/// second.
const FRESH: Duration = Duration::from_secs(1);
/// Maximum number of processes that a scan reads.
const PROCESSES_MAX: usize = 65_536;
/// Maximum length of a command line; the rest is ignored.
const COMMAND_BYTES_MAX: usize = 4_096;

/// A running process.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Running {
    pub(super) pid: u32,
    /// Name of the process, at most 15 bytes.
    pub(super) name: String,
    /// Command line, its arguments separated by spaces.
    pub(super) command: String,
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
pub(super) struct Processes(Mutex<Option<(Instant, Scan)>>);

impl Processes {
    /// Scans /proc if the last scan is older than a second. A scan takes milliseconds.
    pub(super) fn refresh(&self) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_fresh(&last) {
            *last = Some((Instant::now(), scan()));
        }
    }

    /// Returns true if the last scan is at most a second old. Returns false without waiting while a scan runs.
    pub(super) fn is_fresh(&self) -> bool {
        self.0.try_lock().is_ok_and(|last| is_fresh(&last))
    }

    /// Returns the processes of the last scan that match.
    pub(super) fn find(&self, matches: impl Fn(&Running) -> bool) -> Result<Vec<Running>, String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (_, scan) = last.ok_or("the processes were not read")?;
        Ok(scan?.iter().filter(|running| matches(running)).cloned().collect())
    }
}

fn is_fresh(last: &Option<(Instant, Scan)>) -> bool {
    last.as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH)
}

fn scan() -> Scan {
    let entries = std::fs::read_dir("/proc").map_err(|error| format!("cannot read /proc: {error}"))?;
    let page_bytes = rustix::param::page_size() as u64;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // A process may end while it is read: `read` then returns `None`.
    Ok(pids.take(PROCESSES_MAX).filter_map(|pid| read(pid, page_bytes)).collect())
}

fn read(pid: u32, page_bytes: u64) -> Option<Running> {
    // The kernel cuts names to 15 bytes, which can cut a UTF-8 character. Therefore the text may be invalid UTF-8.
    let stat = String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/stat")).ok()?).into_owned();
    let mut command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    command.truncate(COMMAND_BYTES_MAX);
    while command.last() == Some(&0) {
        command.pop();
    }
    command.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
    parse(pid, &stat, String::from_utf8_lossy(&command).into_owned(), page_bytes)
}

/// Parses /proc/PID/stat (proc_pid_stat(5)). The name is in parentheses and may contain any character. The state is the
/// third field, the start time the 22nd, and the number of resident pages the 24th. Returns `None` for a zombie,
/// because it does not run any more.
fn parse(pid: u32, stat: &str, command: String, page_bytes: u64) -> Option<Running> {
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X" | "x") {
        return None;
    }
    let pages: u64 = fields.get(21)?.parse().ok()?;
    let memory_bytes = pages.saturating_mul(page_bytes);
    Some(Running { pid, name, command, started: fields.get(19)?.parse().ok()?, memory_bytes })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::Stdio;

    use super::*;

    #[test]
    fn the_own_process_is_found_with_its_memory() {
        let processes = Processes::default();
        processes.refresh();
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
        let found = read(child.id(), 4_096);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.map(|running| running.program().to_owned()).as_deref(), Some("aaaaaaaaaaaaaaö-worker"));
    }

    #[test]
    fn names_may_contain_parentheses_and_zombies_do_not_run() {
        let stat = |state: &str| format!("7 (a) b) {state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 1000 3 0");
        let running = parse(7, &stat("S"), "/bin/a -x".to_owned(), 4_096).unwrap();
        assert_eq!((running.name.as_str(), running.started, running.memory_bytes), ("a) b", 4_242, 12_288));
        assert_eq!(parse(7, &stat("Z"), String::new(), 4_096), None);
    }
}
