//! The yardstick: a bare wasmtime loop over the same component, with the same allocator settings: a fresh store and
//! instance for each call, no time-out, no limits, no log, synchronous.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use evoke::event::Event;
use evoke::sandbox::{Grants, Spec};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, Engine, PoolingAllocationConfig, Store};

#[path = "guest.rs"]
mod guest;

mod bindings {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    wasmtime::component::bindgen!({
        path: "../sdk/wit",
        inline: "package evoke:bench; world guest { import evoke:function/bus@0.1.0; export evoke:function/handler@0.1.0; }",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}
use bindings::exports::evoke::function::handler::{Delivery, Event as GuestEvent};

/// The part of the time of a measurement that goes before it.
pub(crate) const WARMING: u32 = 8;

/// What every call is given.
pub(crate) const EVENT: &[u8] = br#"{"id":"1","source":"/shop/checkout","type":"order.placed","data":{"customer":"c-1","total":12.5,"items":["a","b"]}}"#;

/// A component by hand that does nothing, written into a folder.
fn by_hand(folder: &Path) -> PathBuf {
    let text = include_str!("../../src/sandbox/guest.wat")
        .replace("{PAGES}", "17")
        .replace("{IMPORTS}", "")
        .replace("{REALLOC}", "")
        .replace("{LIFT}", "")
        .replace("{CORE}", r#"(func (export "handle") (param i32) (result i32) (i32.const 1024))"#);
    let lines = text.lines().filter(|line| !line.ends_with(";; wasi"));
    let path = folder.join("by-hand.wat");
    std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    path
}

/// What is measured when nothing is named: a component by hand, than which none is cheaper to call, and the smallest
/// that the Rust SDK makes.
pub(crate) fn yardsticks(folder: &Path) -> Vec<PathBuf> {
    vec![by_hand(folder), guest::component("fate-done")]
}

/// The same component as a function of Evoke's.
pub(crate) fn spec(component: &Path, grants: Grants) -> Spec {
    Spec {
        name: "bench/guest".into(),
        uri: "/bench/guest".into(),
        component: component.to_owned(),
        digest: None,
        timeout: Duration::from_secs(5),
        memory: 64 * 1024 * 1024,
        grants,
    }
}

/// What was measured: how many a second, and how much processor time each took. On a busy machine the second is the
/// one to compare: it does not count what others took.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) cpu_us: f64,
}

/// Starts with `Rate::start`, ends with `end`.
pub(crate) struct Measuring {
    started: Instant,
    cpu: f64,
}

impl Rate {
    pub(crate) fn start() -> Measuring {
        Measuring { started: Instant::now(), cpu: cpu_seconds() }
    }

    /// Of several runs.
    fn mean(rates: &[Rate]) -> Rate {
        let mean = |of: fn(&Rate) -> f64| rates.iter().map(of).sum::<f64>() / rates.len() as f64;
        Rate { per_second: mean(|rate| rate.per_second), cpu_us: mean(|rate| rate.cpu_us) }
    }
}

/// Measures two things in turns, as how fast a shared machine is changes from one second to the next, and puts both side
/// by side: a second each and their ratio, processor time each and its ratio.
pub(crate) fn in_turns(turns: usize, ours: impl Fn() -> Rate, theirs: impl Fn() -> Rate) -> String {
    let (ours, theirs): (Vec<_>, Vec<_>) = (0..turns).map(|_| (ours(), theirs())).unzip();
    let (ours, theirs) = (Rate::mean(&ours), Rate::mean(&theirs));
    format!(
        "{:>10.0} {:>10.0} {:>6.2}   {:.2} and {:.2} µs, ratio {:.2}",
        ours.per_second,
        theirs.per_second,
        ours.per_second / theirs.per_second,
        ours.cpu_us,
        theirs.cpu_us,
        theirs.cpu_us / ours.cpu_us
    )
}

impl Measuring {
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn end(&self, count: u32) -> Rate {
        let count = f64::from(count);
        let per_second = count / self.started.elapsed().as_secs_f64();
        Rate { per_second, cpu_us: (cpu_seconds() - self.cpu) * 1e6 / count }
    }
}

/// Processor time of this process, in steps of 10 ms: utime and stime of proc(5), behind the name in brackets.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// The loop.
pub(crate) struct Bare {
    engine: Engine,
    pre: bindings::GuestPre<()>,
}

impl Bare {
    pub(crate) fn new(component: &Path) -> Self {
        let mut pool = PoolingAllocationConfig::new();
        pool.pagemap_scan(Enabled::Auto).linear_memory_keep_resident(2 * 1024 * 1024).table_keep_resident(64 * 1024);
        let mut config = Config::new();
        config.allocation_strategy(pool);
        let engine = Engine::new(&config).unwrap();
        let component = Component::from_file(&engine, component).unwrap();
        let mut linker = Linker::new(&engine);
        linker.define_unknown_imports_as_traps(&component).unwrap();
        let pre = bindings::GuestPre::new(linker.instantiate_pre(&component).unwrap()).unwrap();
        Self { engine, pre }
    }

    /// Calls a second of so many threads, when they are warm: a thread pays for memory that it never had.
    pub(crate) fn measure(&self, threads: usize, time: Duration) -> Rate {
        let warm = Barrier::new(threads + 1);
        let run = || {
            self.run(&Rate::start(), time / WARMING);
            warm.wait();
            self.run(&Rate::start(), time)
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            warm.wait();
            let measuring = Rate::start();
            measuring.end(threads.into_iter().map(|t| t.join().unwrap()).sum())
        })
    }

    fn run(&self, measuring: &Measuring, time: Duration) -> u32 {
        let event = Event::from_json(EVENT, |_| {}).unwrap();
        let mut count = 0;
        while measuring.elapsed() < time {
            for _ in 0..64 {
                let mut store = Store::new(&self.engine, ());
                let guest = self.pre.instantiate(&mut store).unwrap();
                let event = GuestEvent {
                    id: &event.id,
                    source: &event.source,
                    type_: &event.type_,
                    subject: None,
                    time: None,
                    datacontenttype: None,
                    dataschema: None,
                    extensions: &[],
                    data: event.data.as_bytes(),
                };
                let delivery = Delivery { id: "d-1", attempt: 1, deadline_ms: 5_000, replay: false, trigger: "t" };
                guest.evoke_function_handler().call_handle(&mut store, event, delivery).unwrap().unwrap();
            }
            count += 64;
        }
        count
    }
}
