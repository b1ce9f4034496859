//! The baseline of the benches: a bare wasmtime loop over the same component with the same allocator settings. Each
//! call gets a fresh store and instance, unless a bench asks for [`Instances::Kept`]; there are no timeouts or limits,
//! and calls are synchronous. Events that the component publishes and lines that it logs are dropped.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use evoke_model::event::Event;
use wasmtime::component::{Component, HasSelf, Linker, ResourceTable};
use wasmtime::{Config, Enabled, Engine, PoolingAllocationConfig, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// The allocator of the `evoke` program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "function.rs"]
mod function;
#[path = "guest.rs"]
mod guest;
pub(crate) use function::{settings, spec};

mod bindings {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    wasmtime::component::bindgen!({
        path: "../sdk/wit",
        inline: "package evoke:bench; world guest {
            import evoke:function/bus@0.1.0;
            import wasi:config/store@0.2.0-rc.1;
            import wasi:logging/logging@0.1.0-draft;
            export evoke:function/handler@0.1.0;
        }",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}
use bindings::exports::evoke::function::handler::{Delivery, Event as GuestEvent};
use bindings::wasi::config::store::Error;
use bindings::wasi::logging::logging::Level;

/// A warm-up takes the time of the measurement divided by this.
pub(crate) const WARM_UP_DIVISOR: u32 = 8;

/// The event of every call.
pub(crate) const EVENT: &[u8] = br#"{"id":"1","source":"/shop/checkout","type":"order.placed","data":{"name":"Ada","customer":"c-1","total":12.5,"items":["a","b"]}}"#;

/// Writes a handwritten component that does nothing into a folder.
fn handwritten(folder: &Path) -> PathBuf {
    let text = include_str!("../../crates/sandbox/src/guest.wat")
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

/// Returns the components that are measured if the arguments name none: a handwritten one, which has the cheapest
/// possible call, and the smallest one of the Rust SDK.
pub(crate) fn default_components(folder: &Path) -> Vec<PathBuf> {
    vec![handwritten(folder), guest::component("fate-done")]
}

/// The result of a measurement: calls per second, and CPU time per call in µs. On a busy machine compare the CPU time:
/// it does not include the work of other processes.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) cpu_us: f64,
}

/// A running measurement, from [`Rate::start`] to [`Measuring::end`].
pub(crate) struct Measuring {
    started: Instant,
    cpu: f64,
}

impl Rate {
    pub(crate) fn start() -> Measuring {
        Measuring { started: Instant::now(), cpu: cpu_seconds() }
    }

    pub(crate) fn mean(rates: &[Rate]) -> Rate {
        let mean = |of: fn(&Rate) -> f64| rates.iter().map(of).sum::<f64>() / rates.len() as f64;
        Rate { per_second: mean(|rate| rate.per_second), cpu_us: mean(|rate| rate.cpu_us) }
    }
}

/// Measures both loops in alternation, because the speed of a shared machine changes from one second to the next.
/// Returns the columns of a row: both rates and their ratio, both CPU times and their ratio.
pub(crate) fn alternate(turns: usize, ours: impl Fn() -> Rate, theirs: impl Fn() -> Rate) -> String {
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

/// CPU time of this process in seconds, in steps of 10 ms: utime and stime of proc(5), which follow the name in
/// brackets.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// The host functions that the component may import. WASI is set up when a guest first calls it, so a guest without such
/// calls pays nothing for it.
#[derive(Default)]
struct Host {
    wasi: Option<(WasiCtx, ResourceTable)>,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let (ctx, table) = self.wasi.get_or_insert_with(|| (WasiCtx::builder().build(), ResourceTable::new()));
        WasiCtxView { ctx, table }
    }
}

impl bindings::evoke::function::types::Host for Host {}

impl bindings::evoke::function::bus::Host for Host {
    fn publish(&mut self, _: bindings::evoke::function::bus::Draft) -> Result<String, String> {
        Ok("e-1".to_owned())
    }
}

impl bindings::wasi::config::store::Host for Host {
    fn get(&mut self, _: String) -> Result<Option<String>, Error> {
        Ok(None)
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, Error> {
        Ok(Vec::new())
    }
}

impl bindings::wasi::logging::logging::Host for Host {
    fn log(&mut self, _: Level, _: String, _: String) {}
}

/// A component that is ready to be called in a bare wasmtime loop.
pub(crate) struct Bare {
    engine: Engine,
    pre: bindings::GuestPre<Host>,
}

/// Which instance a call gets.
#[derive(Clone, Copy)]
pub(crate) enum Instances {
    /// A fresh one.
    Fresh,
    /// The instance of the call before, so that almost only the guest's own code remains. This is no sandbox.
    #[allow(dead_code, reason = "only `sandbox` measures this")]
    Kept,
}

impl Instances {
    /// Returns the number of calls after which an instance is replaced.
    fn calls_each(self) -> u32 {
        match self {
            Instances::Fresh => 1,
            // The memory of a guest that never frees any has room for this many calls, and one new instance costs little
            // compared with them.
            Instances::Kept => 1024,
        }
    }
}

impl Bare {
    /// Returns `None` for a core module.
    pub(crate) fn new(component: &Path) -> Option<Self> {
        let binary = std::fs::read(component).unwrap();
        // Its version is 1; that of a component is another number.
        if binary.starts_with(b"\0asm\x01\0\0\0") {
            return None;
        }
        let mut pool = PoolingAllocationConfig::new();
        pool.pagemap_scan(Enabled::Auto).linear_memory_keep_resident(2 * 1024 * 1024).table_keep_resident(64 * 1024);
        pool.max_memories_per_component(100).max_tables_per_component(100).max_core_instances_per_component(100);
        let mut config = Config::new();
        config.allocation_strategy(pool).gc_support(false);
        let engine = Engine::new(&config).unwrap();
        let component = Component::new(&engine, binary).unwrap();
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker).unwrap();
        bindings::Guest::add_to_linker::<_, HasSelf<_>>(&mut linker, |host: &mut Host| host).unwrap();
        let pre = bindings::GuestPre::new(linker.instantiate_pre(&component).unwrap()).unwrap();
        Some(Self { engine, pre })
    }

    /// Measures the calls per second of `threads` threads. Each thread first does a warm-up, because the first use of
    /// memory costs extra time.
    pub(crate) fn measure(&self, instances: Instances, threads: usize, time: Duration) -> Rate {
        let warm = Barrier::new(threads + 1);
        let run = || {
            self.run(instances, &Rate::start(), time / WARM_UP_DIVISOR);
            warm.wait();
            self.run(instances, &Rate::start(), time)
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            warm.wait();
            let measuring = Rate::start();
            measuring.end(threads.into_iter().map(|t| t.join().unwrap()).sum())
        })
    }

    fn run(&self, instances: Instances, measuring: &Measuring, time: Duration) -> u32 {
        let event = Event::from_json(EVENT, |_| {}).unwrap();
        let mut current = None;
        let mut count = 0;
        while measuring.elapsed() < time {
            for call in count..count + 64 {
                if call % instances.calls_each() == 0 {
                    // It ends before the next instance is made. Otherwise each thread would have two instances, in turn.
                    current = None;
                }
                let (store, guest) = current.get_or_insert_with(|| {
                    let mut store = Store::new(&self.engine, Host::default());
                    let guest = self.pre.instantiate(&mut store).unwrap();
                    (store, guest)
                });
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
                guest.evoke_function_handler().call_handle(store, event, delivery).unwrap().unwrap();
            }
            count += 64;
        }
        count
    }
}
