//! The cost of state: events for which a function reads state, writes it and publishes, relative to events for which
//! the same function does nothing. Runs the `evoke` program, with fsync.
//!
//! `cargo bench -p evoke --bench state [-- --smoke]`. Events are sent in batches, so that accepting them costs little.
//! The time ends when the last delivery is done. There are 1,000 keys, as many as a shop has customers: with a single
//! key, the attempts would run one after another, and the bench would measure the ordering and not the speed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[path = "support/server.rs"]
mod server;
use server::Server;

const MANIFEST: &str = "
evoke: 1
app: bench
sources:
  in: { http: { path: /in, type: count } }
functions:
  counter:
    component: COMPONENT
    concurrency: 64
    on: [{ source: in }]
    allow: { state: true, publish: [counted] }
";

const BATCH: usize = 500;
const KEYS: usize = 1_000;

fn main() {
    let smoke = std::env::args().any(|a| a == "--smoke") || !std::env::args().any(|a| a == "--bench");
    let (rounds, count) = if smoke { (1, 1_000) } else { (6, 20_000) };
    let folder = tempfile::tempdir().unwrap();
    let component = server::component("counter");
    std::fs::write(folder.path().join("evoke.yaml"), MANIFEST.replace("COMPONENT", component.to_str().unwrap()))
        .unwrap();
    let evoke = Server::evoke(folder.path(), &[]);
    let token = std::fs::read_to_string(folder.path().join(".evoke/admin.token")).unwrap();
    let status = Status {
        url: format!("http://{}/api/v1/status", evoke.admin.unwrap()),
        authorization: format!("Bearer {}", token.trim()),
    };
    let (mut idle, mut busy) = (Cost::default(), Cost::default());
    for round in 0..=rounds {
        for (name, cost) in [("idle", &mut idle), ("busy", &mut busy)] {
            let measured = run(&evoke, &status, &format!("{round}-{name}"), name == "idle", count);
            // The first round warms up.
            if round > 0 {
                cost.add(&measured);
            }
        }
    }
    println!("{:<28} {:>10} {:>13}", "function does", "events/s", "cpu µs/event");
    idle.print("nothing");
    busy.print("state and a publish");
    println!("ratio: {:.2} of the time, {:.2} of the CPU time", busy.wall() / idle.wall(), busy.cpu() / idle.cpu());
}

/// Sends `count` events and waits until all are done.
fn run(evoke: &Server, status: &Status, name: &str, idle: bool, count: usize) -> Cost {
    let batches: Vec<String> = (0..count / BATCH)
        .map(|batch| {
            let event = |n| {
                json!({ "specversion": "1.0", "id": format!("{name}-{n}"), "source": "/bench/in", "type": "count",
                        "data": { "key": format!("k{}", n % KEYS), "idle": idle } })
            };
            Value::Array((batch * BATCH..(batch + 1) * BATCH).map(event).collect()).to_string()
        })
        .collect();
    let (started, before) = (Instant::now(), evoke.cpu());
    for batch in batches {
        let response = ureq::post(format!("http://{}/in", evoke.http))
            .header("content-type", "application/cloudevents-batch+json")
            .send(batch);
        assert!(response.unwrap().status().is_success());
    }
    while pending(status) > 0 {
        std::thread::sleep(Duration::from_millis(2));
    }
    Cost { count, wall: started.elapsed(), cpu: evoke.cpu() - before }
}

/// The address of the status in the admin API, and the header that the request needs.
struct Status {
    url: String,
    authorization: String,
}

fn pending(status: &Status) -> u64 {
    let response = ureq::get(&status.url).header("authorization", &status.authorization).call();
    let status: Value = response.unwrap().body_mut().read_json().unwrap();
    status["pending"].as_u64().unwrap()
}

#[derive(Default)]
struct Cost {
    count: usize,
    wall: Duration,
    cpu: Duration,
}

impl Cost {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.wall += other.wall;
        self.cpu += other.cpu;
    }

    /// Wall-clock seconds per event.
    fn wall(&self) -> f64 {
        self.wall.as_secs_f64() / self.count as f64
    }

    /// CPU seconds per event.
    fn cpu(&self) -> f64 {
        self.cpu.as_secs_f64() / self.count as f64
    }

    fn print(&self, name: &str) {
        println!("{name:<28} {:>10.0} {:>13.1}", 1.0 / self.wall(), self.cpu() * 1e6);
    }
}
