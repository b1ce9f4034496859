//! The parent's side: starts the compiler process, waits for it within the time limit, and reports how it ended.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::cancel::Cancelled;
use super::input::Input;
use super::limits::{CompileLimits, Refusal, output_bytes_max};
use super::output::{Output, Report, bounded};
use crate::threads::processors;

/// Limit on the part of the compiler's standard error that is kept for messages, in bytes.
const PRINTED_BYTES_MAX: usize = 4 * 1024;

/// Why a component was not compiled.
#[derive(Debug)]
pub(crate) enum CompileError {
    /// The file is not a valid component. The message continues a sentence that starts with the file's name.
    Invalid(String),
    /// The file is larger than this limit, in bytes. The text form has a lower limit than the binary form.
    TooLarge(u64),
    /// Compiling the component exceeds a limit, or makes the compiler crash.
    Refused(Refusal),
    /// The machine failed, not the component. Another try may succeed.
    Machine(String),
}

/// How components are compiled.
#[derive(Debug)]
pub struct Compiler {
    pub(crate) limits: CompileLimits,
    program: Program,
    /// Number of running compilations.
    running: AtomicU32,
}

#[derive(Debug)]
enum Program {
    /// The program whose hidden command `compile-component` calls [`super::run_child`].
    Process(PathBuf),
    #[cfg(any(test, feature = "test-util"))]
    InProcess,
}

impl Compiler {
    /// Compiles in child processes of the running program, which must call [`super::run_child`] for its command
    /// `compile-component`.
    pub fn this_program(limits: CompileLimits) -> Self {
        // On Linux, this path is the running program, even after its file was replaced by another version.
        let linux = Path::new("/proc/self/exe");
        let program = if linux.exists() { Some(linux.to_owned()) } else { std::env::current_exe().ok() };
        Self::program(program.unwrap_or_else(|| "evoke".into()), limits)
    }

    /// Compiles in child processes of the program at this path.
    pub fn program(program: PathBuf, limits: CompileLimits) -> Self {
        Self { limits, program: Program::Process(program), running: AtomicU32::new(0) }
    }

    /// Compiles in this process, without limits. Unit tests and fuzz targets have no program that could be the child.
    #[cfg(any(test, feature = "test-util"))]
    pub fn in_process() -> Self {
        Self { limits: CompileLimits::DEFAULT, program: Program::InProcess, running: AtomicU32::new(0) }
    }

    /// Compiles a component into `output`, an empty file. Blocks until the compilation ends, reaches a limit or is
    /// cancelled. Returns the output, which contains a compiled component.
    pub(crate) fn compile(
        &self,
        input: &Input,
        output: &File,
        cancelled: Option<&Cancelled>,
    ) -> Result<Output, CompileError> {
        let running = Running::new(&self.running);
        match &self.program {
            Program::Process(program) => {
                let arguments = self.arguments(input, running.threads());
                let child = start(program, arguments, input, output);
                let child = child.map_err(|error| machine("the compiler process cannot be started", &error))?;
                self.wait(child, input, cancelled)?;
            }
            #[cfg(any(test, feature = "test-util"))]
            Program::InProcess => compile_here(input, output),
        }
        let end = output.metadata().map_err(|error| machine("the compiler's output cannot be read", &error))?.len();
        let read = Output::read(output, end).filter(|_| end <= output_bytes_max(input.bytes));
        let incomplete = "the compiler process ended before it wrote all of its output";
        let read = read.ok_or_else(|| CompileError::Machine(incomplete.into()))?;
        match read.report {
            Report::Compiled(_) => Ok(read),
            Report::Invalid(message) => Err(CompileError::Invalid(bounded(&message))),
            Report::TooLarge(max) => Err(CompileError::TooLarge(max)),
            Report::Refused(refusal) => Err(CompileError::Refused(refusal)),
        }
    }

    fn arguments(&self, input: &Input, threads: usize) -> Vec<OsString> {
        let options = [
            ("--memory", self.limits.memory),
            ("--cpu-seconds", self.limits.cpu_seconds()),
            ("--output-bytes", output_bytes_max(input.bytes)),
            ("--threads", threads as u64),
            ("--parent", std::process::id().into()),
        ];
        let options = options.into_iter().flat_map(|(name, value)| [name.into(), value.to_string().into()]);
        ["compile-component".into()].into_iter().chain(options).collect()
    }

    /// Waits until the process has ended. Returns an error unless it exits with success.
    fn wait(&self, mut child: Process, input: &Input, cancelled: Option<&Cancelled>) -> Result<(), CompileError> {
        let deadline = Instant::now().checked_add(self.limits.wall_time());
        let (end, printed) = watch(&mut child.stderr, deadline, cancelled);
        let status = child.end().map_err(|error| machine("cannot wait for the compiler process", &error))?;
        let text = bounded(&String::from_utf8_lossy(&printed));
        match end {
            End::Closed if status.success() => {
                if !text.is_empty() {
                    tracing::warn!("a component was compiled with a warning: {text}");
                }
                Ok(())
            }
            End::Closed => Err(self.failure(status, &text, input)),
            // The process has not reached its limit on processor time, so other processes kept it from running.
            End::TimedOut => Err(CompileError::Machine(format!(
                "compiling took longer than {} s although it used less than {} s of processor time; the machine is too \
                 busy, try again",
                self.limits.wall_time().as_secs(),
                self.limits.cpu_seconds()
            ))),
            End::Cancelled => Err(CompileError::Machine("compiling was cancelled".into())),
        }
    }

    /// Returns why the process did not exit with success.
    fn failure(&self, status: ExitStatus, printed: &str, input: &Input) -> CompileError {
        let signal = status.signal().and_then(Signal::from_named_raw);
        let refused = match signal {
            Some(Signal::XCPU) => Some(Refusal::Time(self.limits.cpu_seconds())),
            Some(Signal::XFSZ) => Some(Refusal::Output(output_bytes_max(input.bytes))),
            // Rust's standard library prints this before it aborts because memory ran out.
            Some(Signal::ABORT) if printed.contains("memory allocation of ") => {
                Some(Refusal::Memory(self.limits.memory))
            }
            Some(Signal::ABORT | Signal::SEGV | Signal::BUS | Signal::ILL | Signal::FPE | Signal::TRAP) => {
                let text = if printed.is_empty() { status.to_string() } else { printed.to_owned() };
                Some(Refusal::Crash(text))
            }
            _ => None,
        };
        match refused {
            Some(refusal) => CompileError::Refused(refusal),
            None if status.code().is_some() => CompileError::Machine(printed.to_owned()),
            None => CompileError::Machine(format!(
                "the compiler process was ended from outside, by another process or the kernel ({status}); the machine \
                 may be out of memory"
            )),
        }
    }
}

fn machine(what: &str, error: &io::Error) -> CompileError {
    CompileError::Machine(format!("{what}: {error}"))
}

/// Counts a compilation while it runs.
struct Running<'a> {
    all: &'a AtomicU32,
    /// Number of running compilations when this one started, including this one.
    count: u32,
}

impl<'a> Running<'a> {
    fn new(all: &'a AtomicU32) -> Self {
        Self { all, count: all.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// Returns the number of threads to compile with. A component that is compiled alone uses all processors.
    /// Components that are compiled at the same time share the processors.
    fn threads(&self) -> usize {
        processors().div_ceil(self.count) as usize
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A compiler process. Dropping it ends the process.
struct Process {
    child: Child,
    stderr: ChildStderr,
}

impl Process {
    /// Ends the process if it still runs, and returns how it ended.
    fn end(&mut self) -> io::Result<ExitStatus> {
        // Killing a process that is already exiting does not change its status.
        let _ = self.child.kill();
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn start(program: &Path, arguments: Vec<OsString>, input: &Input, output: &File) -> io::Result<Process> {
    let mut command = Command::new(program);
    command
        .arg0("evoke")
        .args(arguments)
        .env_clear()
        // The value is in KiB, so this is 64 MiB. By default, the allocator reserves 1 GiB at the start. The limit on
        // memory is set later and does not count this memory, so the process could use 1 GiB more than the limit.
        .env("MIMALLOC_ARENA_RESERVE", "65536")
        .current_dir("/")
        // A process group of its own, so that Ctrl-C reaches only the parent. The child ends when the parent ends.
        .process_group(0)
        .stdin(input.reader()?)
        .stdout(output.try_clone()?)
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    match child.stderr.take() {
        Some(stderr) => Ok(Process { child, stderr }),
        None => Err(io::Error::other("it has no standard error")),
    }
}

/// How the wait for a process ended.
enum End {
    /// The process has closed its standard error, so it is exiting.
    Closed,
    TimedOut,
    Cancelled,
}

/// Reads the standard error of the process until it exits, the deadline is reached or the compilation is cancelled.
/// Returns which of these happened, and the first bytes that were printed.
fn watch(stderr: &mut ChildStderr, deadline: Option<Instant>, cancelled: Option<&Cancelled>) -> (End, Vec<u8>) {
    let mut printed = Vec::new();
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return (End::TimedOut, printed);
        }
        let (readable, is_cancelled) = match ready(stderr, cancelled, left) {
            Ok(ready) => ready,
            // A signal has interrupted the wait. Any other error would repeat, so the wait ends as if the deadline was
            // reached.
            Err(ErrorKind::Interrupted) => continue,
            Err(_) => return (End::TimedOut, printed),
        };
        if is_cancelled {
            return (End::Cancelled, printed);
        }
        if readable {
            let mut part = [0; 1024];
            match stderr.read(&mut part) {
                Ok(0) => return (End::Closed, printed),
                Ok(count) => {
                    let room = PRINTED_BYTES_MAX - printed.len();
                    printed.extend_from_slice(part.get(..count.min(room)).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return (End::Closed, printed),
            }
        }
    }
}

/// Waits until one of the two descriptors is ready. The first result is true if `stderr` has data or was closed. The
/// second result is true if `cancelled` was closed.
fn ready(
    stderr: &ChildStderr,
    cancelled: Option<&Cancelled>,
    left: Option<Duration>,
) -> Result<(bool, bool), ErrorKind> {
    let mut both = vec![PollFd::new(stderr, PollFlags::IN)];
    both.extend(cancelled.map(|cancelled| PollFd::new(cancelled, PollFlags::IN)));
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    poll(&mut both, left.as_ref()).map_err(|error| error.kind())?;
    let mut happened = both.iter().map(|fd| !fd.revents().is_empty());
    Ok((happened.next().unwrap_or_default(), happened.next().unwrap_or_default()))
}

#[cfg(any(test, feature = "test-util"))]
#[allow(clippy::unwrap_used)]
fn compile_here(input: &Input, mut output: &File) {
    let mut component = Vec::new();
    input.reader().unwrap().read_to_end(&mut component).unwrap();
    let engine = super::super::engine::compiler().unwrap();
    let (artefact, report) = super::translate::translate(&engine, component, CompileLimits::DEFAULT.memory);
    super::output::write(&mut output, &artefact, &report).unwrap();
}
