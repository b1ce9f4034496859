//! The admin API, the command line and the page over a large store. Each list and filter must give its first rows, or
//! news of its progress, within [`GOAL`]; the memory of the process must not grow. The table shows both, and marks what
//! took longer. The promise is for ten million events; the default is a small store:
//!
//! `EVOKE_CONSOLE_EVENTS=10000000 tests/console/run large -- --ignored --nocapture`
//!
//! This takes half an hour on two cores, and 8 GB in the folder for temporary files (`TMPDIR`). With
//! `EVOKE_SHOTS=DIR`, screenshots of the lists and the graph are written there.

mod api;
mod command;
mod fill;
mod page;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::fill::Filled;
use crate::support::{Evoke, TIMEOUT};

/// How long a list may take until it shows something, and how long it may be silent after that.
const GOAL: Duration = Duration::from_millis(300);
const PAINT_GOAL: Duration = Duration::from_secs(1);
/// Anonymous memory that the lists may add to that of a process that has just started, in KiB: a busy machine frees late.
const MEMORY_MAX_KIB: u64 = 192 * 1024;

/// How a response arrived.
#[derive(Debug, Default, Clone, Copy)]
struct Timing {
    /// When its first part was there.
    first: Duration,
    /// The longest time without another part.
    pause: Duration,
    /// When its end was there.
    all: Duration,
}

/// Times the parts of a response as they arrive.
struct Timer {
    started: Instant,
    last: Instant,
    first: Option<Duration>,
    pause: Duration,
}

impl Timer {
    fn start() -> Self {
        let now = Instant::now();
        Self { started: now, last: now, first: None, pause: Duration::ZERO }
    }

    fn part(&mut self) {
        let now = Instant::now();
        match self.first {
            None => self.first = Some(now - self.started),
            Some(_) => self.pause = self.pause.max(now - self.last),
        }
        self.last = now;
    }

    fn end(self) -> Timing {
        let all = self.started.elapsed();
        let pause = if self.first.is_some() { self.pause.max(self.last.elapsed()) } else { Duration::ZERO };
        Timing { first: self.first.unwrap_or(all), pause, all }
    }
}

/// The table of results, and the memory of the process meanwhile.
struct Report {
    memory: Arc<Memory>,
    slow: Vec<String>,
}

impl Report {
    fn head(&self, name: &str) {
        println!("\n{name:<64} {:>9} {:>9} {:>9} {:>7} {:>8}", "first ms", "pause ms", "all ms", "rows", "peak MiB");
    }

    fn row(&mut self, name: &str, timing: Timing, rows: u64) {
        let Timing { first, pause, all } = timing;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let is_slow = first > GOAL || pause > GOAL;
        let mark = if is_slow { "  over" } else { "" };
        let peak = self.memory.take_peak() / 1024;
        println!("{name:<64} {:>9.1} {:>9.1} {:>9.1} {rows:>7} {peak:>8}{mark}", ms(first), ms(pause), ms(all));
        if is_slow {
            self.slow.push(name.to_owned());
        }
        assert!(first < TIMEOUT, "{name}: {timing:?}");
    }
}

/// Reads the memory of a process ten times a second, until it is dropped.
struct Memory {
    process: u32,
    peak_kib: AtomicU64,
    highest_kib: AtomicU64,
    is_stopping: AtomicBool,
}

impl Memory {
    fn watch(process: u32) -> Arc<Self> {
        let memory = Arc::new(Self {
            process,
            peak_kib: AtomicU64::default(),
            highest_kib: AtomicU64::default(),
            is_stopping: AtomicBool::default(),
        });
        let watched = memory.clone();
        std::thread::spawn(move || {
            while !watched.is_stopping.load(Ordering::Relaxed) {
                watched.read();
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        memory
    }

    /// Returns the anonymous memory, which is without the files that the process has mapped.
    fn read(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
        let kib = line.trim().trim_end_matches(" kB").parse().unwrap_or_default();
        self.peak_kib.fetch_max(kib, Ordering::Relaxed);
        self.highest_kib.fetch_max(kib, Ordering::Relaxed);
        kib
    }

    /// Returns the highest value since the last call.
    fn take_peak(&self) -> u64 {
        let now = self.read();
        self.peak_kib.swap(now, Ordering::Relaxed).max(now)
    }

    /// Returns the time on processors that the process has used.
    fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process)).unwrap();
        // After the name in parentheses: the 14th and 15th field of proc_pid_stat(5), in ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = [11, 12].into_iter().map(|at: usize| fields[at].parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of a large store"]
async fn each_list_and_filter_of_a_large_store_shows_rows_or_progress_in_flat_memory() {
    let count: u64 = std::env::var("EVOKE_CONSOLE_EVENTS").map_or(20_000, |count| count.parse().unwrap());
    let mut evoke = Evoke::up(fill::MANIFEST).await;
    let filled = Filled::fill(&evoke, count).await;
    let started = Instant::now();
    evoke.restart().await;
    println!("started again after a kill in {:.2} s", started.elapsed().as_secs_f64());
    let memory = Memory::watch(evoke.process_id());
    let before = memory.read();
    let mut report = Report { memory: memory.clone(), slow: Vec::new() };

    api::measure(&evoke, &filled, &mut report).await;
    api::leave(&evoke, &memory).await;
    command::measure(&evoke, &filled, &mut report);
    page::measure(&evoke, &filled, &mut report).await;

    let (after, highest) = (memory.read(), memory.highest_kib.load(Ordering::Relaxed));
    println!("\nmemory: {} MiB before, {} MiB at most, {} MiB after", before / 1024, highest / 1024, after / 1024);
    match report.slow.len() {
        0 => println!("everything showed something within {} ms, and went on", GOAL.as_millis()),
        many => println!("{many} over {} ms: {}", GOAL.as_millis(), report.slow.join("; ")),
    }
    memory.is_stopping.store(true, Ordering::Relaxed);
    assert!(highest < before + MEMORY_MAX_KIB, "{before} KiB before, {highest} KiB at most");
}
