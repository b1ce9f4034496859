//! Runs a program with a fixed environment, a time-out and limited output.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::timeout;

/// Maximum length of the output; the rest is read and dropped.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// The environment variables of a program that a check runs. The program inherits no others.
const ENVIRONMENT: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C")];

/// The result of a program that ended before the time-out.
#[derive(Debug)]
pub(super) struct Ended {
    /// The exit code; `None` if a signal ended the program.
    pub(super) code: Option<i32>,
    /// The standard output, or the standard error if the standard output is blank.
    pub(super) output: String,
}

/// The process group of a program and its children. Dropping this value kills them all.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // An error means that all processes of the group have ended.
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// Runs a program until it ends, and then kills its remaining children. After the time-out, or when the future is
/// dropped, kills the program and its children.
pub(super) async fn run(command: &[String], time: Duration) -> Result<Ended, String> {
    let (program, arguments) = command.split_first().ok_or("there is nothing to run")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(ENVIRONMENT)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Creates a new process group, so that the children can be killed together with the program.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let group = Group(pid.ok_or("the program has no process number")?);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended = async {
        let (stdout, stderr, status) = tokio::join!(read(stdout), read(stderr), async {
            let status = child.wait().await;
            // Kill the remaining children: as long as they run, they keep the output open.
            drop(group);
            status
        });
        let output = if stdout.iter().all(u8::is_ascii_whitespace) { stderr } else { stdout };
        let code = status.map_err(|error| format!("cannot wait for {program}: {error}"))?.code();
        Ok(Ended { code, output: String::from_utf8_lossy(&output).into_owned() })
    };
    timeout(time, ended).await.unwrap_or_else(|_| Err(format!("the program did not end within {time:?}")))
}

/// Reads a stream to its end. Returns at most the first [`OUTPUT_BYTES_MAX`] bytes.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut stream) = stream else { return Vec::new() };
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 8 * 1024]);
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let room = OUTPUT_BYTES_MAX - kept.len();
        kept.extend_from_slice(buffer.get(..read.min(room)).unwrap_or_default());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, time: Duration) -> Result<Ended, String> {
        run(&["sh", "-c", script].map(str::to_owned), time).await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_program_ends_with_its_code_and_output() {
        let ended = sh("echo out; echo err >&2; exit 2", LONG).await.unwrap();
        assert_eq!((ended.code, ended.output.as_str()), (Some(2), "out\n"));
        let ended = sh("echo err >&2; exit 3", LONG).await.unwrap();
        assert_eq!((ended.code, ended.output.as_str()), (Some(3), "err\n"));
        assert!(run(&["/no/such/program".to_owned()], LONG).await.unwrap_err().contains("cannot run"));
    }

    #[tokio::test]
    async fn the_environment_is_clean() {
        let ended = sh("env | cut -d= -f1 | sort | tr '\\n' ' '; pwd", LONG).await.unwrap();
        // The shell itself adds some variables, such as PWD.
        assert!(!ended.output.contains("HOME") && !ended.output.contains("CARGO"), "{}", ended.output);
        assert!(ended.output.contains("PATH") && ended.output.ends_with("/\n"), "{}", ended.output);
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let started = std::time::Instant::now();
        assert!(sh(&script, Duration::from_millis(500)).await.unwrap_err().contains("did not end"));
        assert!(started.elapsed() < LONG);
        let child = std::fs::read_to_string(&file).unwrap();
        assert_gone(child.trim());
    }

    #[tokio::test]
    async fn a_child_that_stays_behind_is_killed_and_not_waited_for() {
        let started = std::time::Instant::now();
        let ended = sh("sleep 1000 & echo $!", LONG).await.unwrap();
        assert_eq!(ended.code, Some(0));
        assert!(started.elapsed() < LONG);
        assert_gone(ended.output.trim());
    }

    /// Waits until a process has ended.
    fn assert_gone(pid: &str) {
        let until = std::time::Instant::now() + LONG;
        let is_running = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        while is_running() {
            assert!(std::time::Instant::now() < until, "the process {pid} still runs");
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn endless_output_is_bounded() {
        let ended = sh("yes | head -c 10000000; exit 1", LONG).await.unwrap();
        assert_eq!((ended.code, ended.output.len()), (Some(1), OUTPUT_BYTES_MAX));
        assert!(sh("yes", Duration::from_millis(300)).await.is_err());
    }
}
