//! The latency of one event, on an idle system and while 64 guests compute without end. Two latencies are measured:
//! from the POST to the entry of the event's handler, which includes the fsync, and from the POST to the 202.
//!
//! `cargo bench -p evoke --bench rest [-- --smoke]`. The `evoke` program receives one event at a time. Two pauses of 10
//! ms after each event give it time to be completely done before the next event. The handler publishes the time of its
//! entry from the clock of the machine. So the latency includes the request, the commit, the dispatch, the start of a
//! fresh instance and the call of the handler.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[path = "support/load.rs"]
mod load;
#[path = "support/server.rs"]
mod server;
use load::{Connection, Target, percentile};
use server::Server;

const MANIFEST: &str = "
evoke: 1
app: bench
functions:
  entered:
    component: COMPONENT
    on: [{ http: { path: /, type: order.placed } }]
    allow: { publish: [entered] }
  spinning:
    component: SPINNING
    on: [{ http: { path: /spin, type: lab.spin } }]
    concurrency: 64
    timeout: 10m
    retry: { attempts: 1 }
";
/// The number of guests that compute without end.
const SPINNING: usize = 64;
const PAUSE: Duration = Duration::from_millis(10);

fn main() {
    let smoke = std::env::args().any(|a| a == "--smoke") || !std::env::args().any(|a| a == "--bench");
    let (warm_up, events) = if smoke { (1, 5) } else { (50, 1_000) };
    let components = ["entry-time", "fate-timeout"].map(server::component);
    println!("{:<36} {:>8} {:>8} {:>8}", "", "p50 ms", "p90 ms", "p99 ms");
    let disk = tempfile::tempdir().unwrap();
    let [entered, accepted, synced] = measure(disk.path(), &components, 0, warm_up, events);
    let ratio = |p| percentile(&entered, p).as_secs_f64() / percentile(&synced, p).as_secs_f64();
    println!("{:<36} {:>8.2} {:>8.2} {:>8.2}", "entry / fsync", ratio(50.0), ratio(90.0), ratio(99.0));
    println!("beside {SPINNING} guests that compute");
    let busy = tempfile::tempdir().unwrap();
    let [_, beside, _] = measure(busy.path(), &components, SPINNING, warm_up, events);
    let ratio = |p| percentile(&beside, p).as_secs_f64() / percentile(&accepted, p).as_secs_f64();
    println!("{:<36} {:>8.2} {:>8.2} {:>8.2}", "POST to 202 / the same at rest", ratio(50.0), ratio(90.0), ratio(99.0));
    // A file system in memory needs no disk, so this latency is Evoke's own.
    if let Ok(memory) = tempfile::tempdir_in("/dev/shm") {
        println!("without a disk, in /dev/shm");
        measure(memory.path(), &components, 0, warm_up, events);
    }
}

/// Returns three lists of latencies in nanoseconds, ascending: from the POST to the entry of the handler, from the POST
/// to its response, and, for comparison, of a write with its fsync. Meanwhile, `spinning` guests compute.
fn measure(
    folder: &Path,
    [component, spin]: &[PathBuf; 2],
    spinning: usize,
    warm_up: usize,
    events: usize,
) -> [Vec<u64>; 3] {
    let manifest =
        MANIFEST.replace("COMPONENT", component.to_str().unwrap()).replace("SPINNING", spin.to_str().unwrap());
    std::fs::write(folder.join("evoke.yaml"), manifest).unwrap();
    let evoke = Server::evoke(folder, &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut sent_us = HashMap::new();
    let (mut answered, mut synced) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        let body = r#"{"customer":"c-1","total":12.5,"items":["a","b"]}"#;
        let target = Target::post(evoke.http, "/", body, 202);
        let mut connection = Connection::open(evoke.http).await.unwrap();
        let spin = Target::post(evoke.http, "/spin", "{}", 202);
        for _ in 0..spinning {
            connection.exchange(&spin).await.unwrap();
        }
        for event in 0..warm_up + events {
            let (at_us, sent) = (unix_us(), Instant::now());
            let response = connection.exchange(&target).await.unwrap();
            let latency = sent.elapsed();
            let response: serde_json::Value = serde_json::from_slice(response).unwrap();
            if event >= warm_up {
                sent_us.insert(response["events"][0]["id"].as_str().unwrap().to_owned(), at_us);
                answered.push(nanos(latency));
            }
            tokio::time::sleep(PAUSE).await;
            synced.push(nanos(fsync(folder)));
            tokio::time::sleep(PAUSE).await;
        }
    });
    let entered: Vec<u64> = evoke
        .events(folder, "entered", 2 * (warm_up + events))
        .iter()
        .filter_map(|event| {
            let sent_us = sent_us.get(event["data"][0].as_str()?)?;
            Some(event["data"][1].as_u64()?.saturating_sub(*sent_us) * 1_000)
        })
        .collect();
    assert_eq!(entered.len(), events, "every event reached its handler");

    let mut all = [entered, answered, synced];
    for (name, latencies) in
        ["POST to handler entry", "POST to 202", "a write of 4 KiB and its fsync"].iter().zip(&mut all)
    {
        latencies.sort_unstable();
        let [p50, p90, p99] = [50.0, 90.0, 99.0].map(|p| percentile(latencies, p).as_secs_f64() * 1e3);
        println!("{name:<36} {p50:>8.3} {p90:>8.3} {p99:>8.3}");
    }
    all
}

fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// Measures a write of 4 KiB and its fsync, the cost of the disk alone.
fn fsync(folder: &Path) -> Duration {
    let mut file = std::fs::File::options().create(true).append(true).open(folder.join("fsync")).unwrap();
    let started = Instant::now();
    file.write_all(&[7; 4096]).unwrap();
    file.sync_data().unwrap();
    started.elapsed()
}
