//! 1,000 functions: the start time, the memory of an idle function, and the latency of its first call.
//!
//! `cargo bench -p evoke --bench many [-- --smoke]`. Each function is a separate component (the same code with another
//! digest), so each is compiled, cached and loaded separately. The `evoke` program starts twice: the first start
//! compiles the components, the second loads them from the cache. The memory of the functions is the difference to a
//! process without functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

#[path = "support/load.rs"]
mod load;
#[path = "support/server.rs"]
mod server;
use load::{Connection, Target, percentile};
use server::Server;

fn main() {
    let smoke = std::env::args().any(|a| a == "--smoke") || !std::env::args().any(|a| a == "--bench");
    let count = if smoke { 5 } else { 1_000 };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("evoke.yaml"), "evoke: 1\napp: bench\nfunctions: {}\n").unwrap();
    let without = Server::evoke(folder.path(), &[]).settled_memory();
    println!("without functions: {without}");
    for (component, trigger) in [
        ("http-hello", "http: { path: /PATH, methods: [GET] }"),
        ("charge", "http: { path: /PATH, type: order.placed }"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &server::component(component), trigger, count);
        let compiled_in = Server::evoke(folder.path(), &[]).up_in;
        let evoke = Server::evoke(folder.path(), &[]);
        let idle = evoke.settled_memory();
        println!(
            "{component}: {count} functions started in {:.2?} from the cache, in {compiled_in:.2?} without",
            evoke.up_in
        );
        println!("  idle: {idle}; per function {}", idle.over(&without).of_each(count));
        if component == "http-hello" {
            // The percentiles exclude the very first call, which includes one-time costs of the process.
            let latencies = calls(&evoke, count);
            let [first, second] =
                [&latencies.0, &latencies.1].map(|latencies| [50.0, 99.0].map(|p| percentile(latencies, p)));
            println!(
                "  first call of each: p50 {:.3?}, p99 {:.3?}; second: p50 {:.3?}, p99 {:.3?}",
                first[0], first[1], second[0], second[1]
            );
            println!("  first / second: p50 {:.2}, p99 {:.2}", ratio(first[0], second[0]), ratio(first[1], second[1]));
            println!("  after all calls: {}", evoke.settled_memory());
        }
    }
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

/// Writes `count` distinct components, and a manifest with a function for each.
fn write(folder: &Path, component: &Path, trigger: &str, count: usize) {
    let bytes = std::fs::read(component).unwrap();
    let mut manifest = "evoke: 1\napp: bench\nfunctions:\n".to_owned();
    for n in 0..count {
        // Append a custom section: id 0, its size, and a name of 8 bytes without content.
        let distinct = [&bytes[..], &[0, 9, 8], format!("{n:08}").as_bytes()].concat();
        std::fs::write(folder.join(format!("f{n}.wasm")), distinct).unwrap();
        let trigger = trigger.replace("PATH", &format!("f{n}"));
        let allow = if trigger.contains("type") { "\n    allow: { publish: [\"*\"] }" } else { "" };
        write!(manifest, "  f{n}:\n    component: f{n}.wasm\n    on: [{{ {trigger} }}]{allow}\n").unwrap();
    }
    std::fs::write(folder.join("evoke.yaml"), manifest).unwrap();
}

/// Calls every function twice. Returns the latencies of the first and of the second calls in nanoseconds, ascending.
fn calls(evoke: &Server, count: usize) -> (Vec<u64>, Vec<u64>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::open(evoke.http).await.unwrap();
        let mut round = async || {
            let mut latencies_ns = Vec::new();
            for n in 0..count {
                let sent = std::time::Instant::now();
                connection.exchange(&Target::get(evoke.http, &format!("/f{n}"))).await.unwrap();
                latencies_ns.push(sent.elapsed().as_nanos() as u64);
            }
            latencies_ns.sort_unstable();
            latencies_ns
        };
        (round().await, round().await)
    })
}
