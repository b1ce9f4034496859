//! The cost of the sandbox: attempts per second with `Function::run`, relative to the bare wasmtime loop of
//! `support/bare.rs`.
//!
//! `cargo bench -p evoke --bench sandbox [-- [--smoke] [COMPONENT…]]`. Without arguments the components are a
//! handwritten one and the smallest of the Rust SDK. The `handle` of a given component may publish, log and call WASI; its
//! event has the data `{"name": "Ada", …}`, so the functions of `evoke new` can be measured. The last column is the CPU
//! time of a call in an instance that is kept: the guest's own code, below which no attempt can come. A program (a core
//! module) is measured alone, because bare wasmtime runs no programs as functions. `--smoke` only shows that the bench
//! runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evoke_model::clock::Clock;
use evoke_model::event::Event;
use evoke_model::outcome::Outcome;
use evoke_sandbox::{Call, Function, Grants, Outside, Sandbox};
use tokio::runtime::Runtime;

#[path = "support/bare.rs"]
mod bare;
use bare::{Bare, EVENT, Instances, Rate, WARM_UP_DIVISOR};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs benches too, without `--bench`.
    let smoke = arguments.iter().any(|a| a == "--smoke") || !arguments.iter().any(|a| a == "--bench");
    let (time, turns) = if smoke { (Duration::from_millis(50), 1) } else { (Duration::from_millis(500), 4) };
    let dir = tempfile::tempdir().unwrap();
    let mut components: Vec<PathBuf> = arguments.iter().filter(|a| !a.starts_with("--")).map(PathBuf::from).collect();
    if components.is_empty() {
        components = bare::default_components(dir.path());
    }
    let sandbox = Sandbox::new(bare::settings(dir.path().join("cache"))).unwrap();
    println!(
        "{:<16} {:>7} {:>10} {:>10} {:>6}   CPU time each, and in one instance",
        "component", "threads", "attempts/s", "bare/s", "ratio"
    );
    for component in &components {
        let function = load(&sandbox, component);
        let bare = Bare::new(component);
        for threads in [1, 2] {
            let ours = || measure_sandbox(&function, threads, time);
            let row = match &bare {
                Some(bare) => {
                    let both = bare::alternate(turns, ours, || bare.measure(Instances::Fresh, threads, time));
                    format!("{both}, {:.2} µs", bare.measure(Instances::Kept, threads, time).cpu_us)
                }
                None => {
                    let ours = Rate::mean(&(0..turns).map(|_| ours()).collect::<Vec<_>>());
                    format!("{:>10.0} {:>10} {:>6}   {:.2} µs", ours.per_second, "-", "-", ours.cpu_us)
                }
            };
            let name = component.file_stem().unwrap().to_string_lossy();
            println!("{name:<16} {threads:>7} {row}");
        }
    }
}

fn load(sandbox: &Sandbox, component: &Path) -> Arc<Function> {
    let spec = bare::spec(component.to_owned(), Grants { publish: vec!["*".into()], ..Grants::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(sandbox.load(&spec)).unwrap_or_else(|e| panic!("{e}"))
}

/// Measures the attempts per second of `threads` tasks after a warm-up. Each task runs on its own thread, one attempt
/// at a time.
fn measure_sandbox(function: &Arc<Function>, threads: usize, time: Duration) -> Rate {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    run(&runtime, function, threads, time / WARM_UP_DIVISOR);
    run(&runtime, function, threads, time)
}

fn run(runtime: &Runtime, function: &Arc<Function>, threads: usize, time: Duration) -> Rate {
    let event = Arc::new(Event::from_json(EVENT, |_| {}).unwrap());
    let measuring = Arc::new(Rate::start());
    let tasks: Vec<_> = (0..threads)
        .map(|_| {
            let (function, event, measuring) = (function.clone(), event.clone(), measuring.clone());
            runtime.spawn(async move {
                let logs: evoke_sandbox::LogSink = Arc::new(|_| {});
                let (clock, trigger, delivery_id): (_, Arc<str>, Arc<str>) =
                    (Clock::system(), "t".into(), "d-1".into());
                let mut count = 0u32;
                while measuring.elapsed() < time {
                    for _ in 0..64 {
                        let attempt = function
                            .run(Call {
                                event: event.clone(),
                                trace: None,
                                delivery_id: delivery_id.clone(),
                                attempt: 1,
                                replay: false,
                                hops: 0,
                                trigger: trigger.clone(),
                                state: None,
                                logs: logs.clone(),
                                clock: clock.clone(),
                                outside: Outside::Live,
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
    measuring.end(count)
}
