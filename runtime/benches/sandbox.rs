//! What the sandbox costs: attempts a second with `Function::run`, over a bare wasmtime loop (fresh store and
//! instance, no time-out, no limits, no log, synchronous) with the same allocator settings and the same component.
//!
//! `cargo bench -p evoke --bench sandbox [-- [--smoke] [COMPONENT…]]`. Without a component: the one by hand that the
//! unit tests use; the `handle` of one that is named may not call its imports. `--smoke` takes a moment and only shows that it works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evoke::clock::Clock;
use evoke::event::Event;
use evoke::outcome::Outcome;
use evoke::sandbox::{Call, Function, Grants, Sandbox, Settings, Spec};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, Engine, PoolingAllocationConfig, Store};

mod bindings {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    wasmtime::component::bindgen!({
        path: "../sdk/wit",
        inline: "package evoke:bench; world guest { import evoke:function/bus@0.1.0; export evoke:function/handler@0.1.0; }",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}
use bindings::exports::evoke::function::handler::{Delivery, Event as GuestEvent};

const EVENT: &[u8] = br#"{"id":"1","source":"/shop/checkout","type":"order.placed","data":{"customer":"c-1","total":12.5,"items":["a","b"]}}"#;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs benches too, without `--bench`.
    let smoke = arguments.iter().any(|a| a == "--smoke") || !arguments.iter().any(|a| a == "--bench");
    let time = Duration::from_millis(if smoke { 50 } else { 2_000 });
    let dir = tempfile::tempdir().unwrap();
    let mut components: Vec<PathBuf> = arguments.iter().filter(|a| !a.starts_with("--")).map(PathBuf::from).collect();
    if components.is_empty() {
        let text = include_str!("../src/sandbox/guest.wat")
            .replace("{PAGES}", "17")
            .replace("{IMPORTS}", "")
            .replace("{REALLOC}", "")
            .replace("{LIFT}", "")
            .replace("{CORE}", r#"(func (export "handle") (param i32) (result i32) (i32.const 1024))"#);
        let path = dir.path().join("by-hand.wat");
        std::fs::write(&path, text).unwrap();
        components.push(path);
    }
    let sandbox = Sandbox::new(Settings { cache_dir: dir.path().join("cache"), concurrency: 64 }).unwrap();
    println!("{:<24} {:>7} {:>12} {:>12} {:>6}", "component", "threads", "attempts/s", "bare/s", "ratio");
    for component in &components {
        let function = load(&sandbox, component);
        let bare = Bare::new(component);
        for threads in [1, 2] {
            let ours = ours(&function, threads, time);
            let theirs = bare.measure(threads, time);
            let name = component.file_stem().unwrap().to_string_lossy();
            println!("{name:<24} {threads:>7} {ours:>12.0} {theirs:>12.0} {:>6.2}", ours / theirs);
        }
    }
}

fn load(sandbox: &Sandbox, component: &Path) -> Arc<Function> {
    let spec = Spec {
        name: "bench/guest".into(),
        uri: "/bench/guest".into(),
        component: component.to_owned(),
        digest: None,
        timeout: Duration::from_secs(5),
        memory: 64 * 1024 * 1024,
        grants: Grants { publish: vec!["*".into()], ..Grants::default() },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(sandbox.load(&spec)).unwrap_or_else(|e| panic!("{e}"))
}

/// Attempts a second of `threads` tasks, each on its thread, one attempt after another.
fn ours(function: &Arc<Function>, threads: usize, time: Duration) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    let event = Arc::new(Event::from_json(EVENT, |_| {}).unwrap());
    let started = Instant::now();
    let tasks: Vec<_> = (0..threads)
        .map(|_| {
            let (function, event) = (function.clone(), event.clone());
            runtime.spawn(async move {
                let logs: evoke::sandbox::LogSink = Arc::new(|_| {});
                let (clock, trigger, delivery_id): (_, Arc<str>, Arc<str>) =
                    (Clock::system(), "t".into(), "d-1".into());
                let mut count = 0u32;
                while started.elapsed() < time {
                    for _ in 0..64 {
                        let attempt = function
                            .run(Call {
                                event: event.clone(),
                                delivery_id: delivery_id.clone(),
                                attempt: 1,
                                replay: false,
                                trigger: trigger.clone(),
                                logs: logs.clone(),
                                clock: clock.clone(),
                            })
                            .await;
                        assert_eq!(attempt.outcome, Outcome::Done);
                    }
                    count += 64;
                    tokio::task::yield_now().await;
                }
                count
            })
        })
        .collect();
    let count: u32 = tasks.into_iter().map(|t| runtime.block_on(t).unwrap()).sum();
    f64::from(count) / started.elapsed().as_secs_f64()
}

struct Bare {
    engine: Engine,
    pre: bindings::GuestPre<()>,
}

impl Bare {
    fn new(component: &Path) -> Self {
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

    fn measure(&self, threads: usize, time: Duration) -> f64 {
        let started = Instant::now();
        let count: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| self.run(started, time))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        f64::from(count) / started.elapsed().as_secs_f64()
    }

    fn run(&self, started: Instant, time: Duration) -> u32 {
        let event = Event::from_json(EVENT, |_| {}).unwrap();
        let mut count = 0;
        while started.elapsed() < time {
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
