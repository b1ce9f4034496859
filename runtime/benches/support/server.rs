//! Servers as child processes: the real Evoke, and `wasmtime serve`.
#![allow(dead_code)]

#[path = "guest.rs"]
mod guest;
pub(crate) use guest::component;

use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The maximum start time of a server, long enough to compile 1,000 functions.
const START_TIMEOUT: Duration = Duration::from_secs(900);

/// A server process, killed on drop.
pub(crate) struct Server {
    process: Child,
    pub(crate) http: SocketAddr,
    /// The address of the admin API; `None` for another program than Evoke.
    pub(crate) admin: Option<SocketAddr>,
    /// The time from the start of the process until it listens.
    pub(crate) up_in: Duration,
}

impl Server {
    /// Starts Evoke in a folder that has an `evoke.yaml`, and waits until it is ready.
    pub(crate) fn evoke(folder: &Path, arguments: &[&str]) -> Self {
        let listen = folder.join(".evoke/listen.json");
        let _ = std::fs::remove_file(&listen);
        let log = std::fs::File::create(folder.join("up.log")).unwrap();
        let started = Instant::now();
        let mut process = Command::new(program())
            .args(["up", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        loop {
            let text = std::fs::read_to_string(&listen).unwrap_or_default();
            if let Ok(listen) = serde_json::from_str::<serde_json::Value>(&text) {
                let address = |name: &str| listen[name].as_str().unwrap().parse().unwrap();
                let (http, admin) = (address("http"), Some(address("admin")));
                return Self { process, http, admin, up_in: started.elapsed() };
            }
            let ended = process.try_wait().unwrap();
            let log = || std::fs::read_to_string(folder.join("up.log")).unwrap_or_default();
            assert!(ended.is_none() && started.elapsed() < START_TIMEOUT, "evoke is not up ({ended:?}): {}", log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Starts `wasmtime serve`, from the variable `WASMTIME` or else from the `PATH`. Also returns its version. Returns
    /// `None` if there is no such program.
    pub(crate) fn wasmtime(component: &Path, arguments: &[&str]) -> Option<(Self, String)> {
        let program = std::env::var_os("WASMTIME").map_or("wasmtime".into(), PathBuf::from);
        let version = Command::new(&program).arg("--version").output().ok()?;
        let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
        let started = Instant::now();
        let mut process = Command::new(program)
            .args(["serve", "--addr", "127.0.0.1:0"])
            .args(arguments)
            .arg(component)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let mut lines = BufReader::new(process.stderr.take()?).lines();
        let address = lines.find_map(|line| {
            let line = line.ok()?;
            let (_, rest) = line.split_once("http://")?;
            rest.trim_end_matches('/').parse().ok()
        });
        let Some(http) = address else { panic!("wasmtime serve did not print its address") };
        // Keep reading the server's output, so that a full pipe never blocks the server.
        std::thread::spawn(move || lines.for_each(drop));
        Some((Self { process, http, admin: None, up_in: started.elapsed() }, version))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The CPU time of all threads of the process so far.
    pub(crate) fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name of the process may contain spaces; utime and stime are fields 14 and 15, in ticks of 10 ms.
        let (_, rest) = text.rsplit_once(") ").unwrap();
        let ticks = |field: usize| rest.split(' ').nth(field - 3).unwrap().parse::<u64>().unwrap();
        Duration::from_millis(10 * (ticks(14) + ticks(15)))
    }

    /// Waits until the resident size of the process changes by less than 1 MiB within half a second. Returns the memory
    /// of the process.
    pub(crate) fn settled_memory(&self) -> Memory {
        let mut last = Memory::of(self.pid());
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let now = Memory::of(self.pid());
            if now.resident.abs_diff(last.resident) < 1024 * 1024 {
                return now;
            }
            last = now;
        }
    }

    /// The last events of a type, as `evoke events` prints them.
    pub(crate) fn events(&self, folder: &Path, type_: &str, limit: usize) -> Vec<serde_json::Value> {
        let limit = limit.to_string();
        let output = Command::new(program())
            .args(["events", "--json", "--type", type_, "--limit", &limit])
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Memory of a process in bytes, from `/proc/PID/smaps_rollup`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// All resident memory, including pages of files that the kernel can drop at any time.
    pub(crate) resident: u64,
    /// Private memory that no file backs.
    pub(crate) anonymous: u64,
}

impl Memory {
    fn of(pid: u32) -> Self {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
        };
        Self { resident: bytes("Rss:"), anonymous: bytes("Anonymous:") }
    }

    /// Returns the difference to the memory of another process.
    pub(crate) fn over(&self, other: &Self) -> Self {
        let resident = self.resident.saturating_sub(other.resident);
        Self { resident, anonymous: self.anonymous.saturating_sub(other.anonymous) }
    }

    /// Returns the memory per function, for `count` functions.
    pub(crate) fn of_each(&self, count: usize) -> Self {
        Self { resident: self.resident / count as u64, anonymous: self.anonymous / count as u64 }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB resident ({} KiB of it anonymous)", self.resident / 1024, self.anonymous / 1024)
    }
}

/// The `evoke` program, or the build that the variable `EVOKE` names.
fn program() -> PathBuf {
    std::env::var_os("EVOKE").map_or_else(|| env!("CARGO_BIN_EXE_evoke").into(), PathBuf::from)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
