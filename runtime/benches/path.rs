//! The whole path: accept → match → dispatch → run → complete, over the memory store and over SQLite with fsync,
//! each over the bare wasmtime loop of `support/bare.rs` on two threads with the same component.
//!
//! `cargo bench -p evoke --bench path [-- --smoke]`. 64 producers offer one event after another, as HTTP clients
//! would; the clock runs until the last delivery is done.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use evoke::bus::{Bus, Limits, Offer, Target};
use evoke::clock::Clock;
use evoke::dispatcher::{self, Dispatcher, Ran, Runner, Worker};
use evoke::event::Event;
use evoke::outcome::RetryPolicy;
use evoke::pattern::Pattern;
use evoke::router::Router;
use evoke::sandbox::{self, Grants, Sandbox, Settings};
use evoke::store::Store;
use evoke::store::memory::MemoryStore;
use evoke::store::sqlite::SqliteStore;
use evoke::telemetry::FunctionMetrics;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

#[path = "support/bare.rs"]
mod bare;
use bare::{Bare, EVENT};

const PRODUCERS: u32 = 64;

struct Sandboxed {
    function: Arc<sandbox::Function>,
    logs: sandbox::LogSink,
    clock: Clock,
}

impl Runner for Sandboxed {
    fn run(&self, call: dispatcher::Call) -> BoxFuture<'_, Ran> {
        let call = sandbox::Call {
            event: call.event,
            delivery_id: call.delivery_id.into(),
            attempt: call.attempt,
            replay: false,
            trigger: call.trigger,
            logs: self.logs.clone(),
            clock: self.clock.clone(),
        };
        async move {
            let ran = self.function.run(call).await;
            Ran { outcome: ran.outcome, published: ran.published, duration: ran.duration }
        }
        .boxed()
    }
}

fn main() {
    let smoke = std::env::args().any(|a| a == "--smoke") || !std::env::args().any(|a| a == "--bench");
    let (count, time) = if smoke { (500, Duration::from_millis(50)) } else { (200_000, Duration::from_secs(3)) };
    let dir = tempfile::tempdir().unwrap();
    let component = bare::by_hand(dir.path());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).event_interval(7).enable_all().build().unwrap();
    let bare = Bare::new(&component).measure(2, time);
    println!("{:<8} {:>12} {:>12} {:>6}", "store", "events/s", "bare/s", "ratio");
    for name in ["memory", "sqlite"] {
        let sandbox = Sandbox::new(Settings { cache_dir: dir.path().join("cache"), concurrency: 64 }).unwrap();
        let clock = Clock::system();
        let store: Arc<dyn Store> = match name {
            "memory" => Arc::new(MemoryStore::new(clock.clone())),
            _ => Arc::new(SqliteStore::open(&dir.path().join("data"), clock.clone()).unwrap()),
        };
        let ours = runtime.block_on(path(&sandbox, &component, store.clone(), clock, count));
        println!("{name:<8} {ours:>12.0} {bare:>12.0} {:>6.2}", ours / bare);
        runtime.block_on(async { store.close().await.unwrap() });
    }
}

/// Events a second through the whole path.
async fn path(sandbox: &Sandbox, component: &std::path::Path, store: Arc<dyn Store>, clock: Clock, count: u32) -> f64 {
    let spec = bare::spec(component, Grants::default());
    let function = sandbox.load(&spec).await.unwrap();
    let id = store.register(vec!["bench/guest".into()]).await.unwrap()[0];
    let mut router = Router::default();
    let pattern = Pattern::parse(
        &serde_json::json!({ "type": ["order.placed"], "data": { "total": [{ "numeric": [">", 0] }] } }),
    );
    router.add(id, "on[0]".into(), None, Some(&pattern.unwrap()));
    let bus = Bus::new(store.clone(), router, Limits::default());
    let dispatcher = Dispatcher::start(&store, bus.clone(), clock.clone(), 64);
    let runner = Arc::new(Sandboxed { function, logs: Arc::new(|_| {}), clock });
    let metrics = Arc::new(FunctionMetrics::new("bench/guest".into()));
    dispatcher.set_functions(vec![Worker { id, concurrency: 64, retry: RetryPolicy::default(), runner, metrics }]);

    let started = Instant::now();
    let next = Arc::new(AtomicU32::new(0));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            let (bus, next) = (bus.clone(), next.clone());
            tokio::spawn(async move {
                let template = Event::from_json(EVENT, |_| {}).unwrap();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let event = Event { id: n.to_string(), ..template.clone() };
                    bus.accept(Offer { events: vec![event], target: Target::Matching, marks: vec![] }).await.unwrap();
                }
            })
        })
        .collect();
    for producer in producers {
        producer.await.unwrap();
    }
    while store.pending() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let rate = f64::from(count) / started.elapsed().as_secs_f64();
    dispatcher.drain(Duration::from_secs(1)).await;
    rate
}
