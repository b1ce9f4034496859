//! The whole pipeline: accept → match → dispatch → run → complete, with the memory store, and with SQLite and fsync.
//! The rates are relative to the bare wasmtime loop of `support/bare.rs` on two threads with the same component.
//!
//! `cargo bench -p evoke --bench path [-- [--smoke] [--store=memory|sqlite|norecord] [COMPONENT…]]`. 64 producers offer
//! events one by one, as HTTP clients would. At most `IN_FLIGHT_MAX` events are between their acceptance and the end of
//! their attempt, as in a system that keeps up with its load. The measurement ends when the last delivery is done. The
//! first run is a warm-up, because the first use of memory costs extra time. Then the pipeline and the bare loop are
//! measured in alternation, because the speed of a shared machine changes from one second to the next. Without
//! arguments the components are a handwritten one and the smallest of the Rust SDK. The `handle` of a given component
//! may log and call WASI; it has no grant to publish.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use evoke_core::bus::{Bus, Limits, Offer};
use evoke_core::dispatcher;
use evoke_core::dispatcher::{AttemptResult, Dispatcher, FunctionSpec, Runner};
use evoke_core::router::Router;
use evoke_model::clock::Clock;
use evoke_model::event::Event;
use evoke_model::outcome::RetryPolicy;
use evoke_pattern::Pattern;
use evoke_sandbox::{self as sandbox, Grants, Outside, Sandbox};
use evoke_store::Store;
use evoke_store::memory::MemoryStore;
use evoke_store::running::{NoRunningLog, RunningLog};
use evoke_store_sqlite::SqliteStore;
use evoke_store_sqlite::running::RunningFile;
use evoke_telemetry::FunctionMetrics;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

#[path = "support/bare.rs"]
mod bare;
use bare::{Bare, EVENT, Instances, Rate};

const PRODUCERS: u32 = 64;
/// Fewer events than the dispatcher keeps in memory for one function, so that no delivery is read back from the store.
const IN_FLIGHT_MAX: usize = 240;
/// The number of permits that are acquired and released at a time, so that waiting for permits costs little.
const PERMITS_AT_ONCE: u32 = 4;

struct Sandboxed {
    function: Arc<sandbox::Function>,
    in_flight: Arc<Semaphore>,
    ran: AtomicU32,
    logs: sandbox::LogSink,
    clock: Clock,
}

impl Runner for Sandboxed {
    fn run(&self, call: dispatcher::Call) -> BoxFuture<'_, AttemptResult> {
        let call = sandbox::Call {
            event: call.event,
            trace: None,
            delivery_id: call.delivery_id.into(),
            attempt: call.attempt,
            replay: false,
            hops: 0,
            trigger: call.trigger,
            state: None,
            logs: self.logs.clone(),
            clock: self.clock.clone(),
            outside: Outside::Live,
        };
        async move {
            let ran = self.function.run(call).await;
            if self.ran.fetch_add(1, Ordering::Relaxed) % PERMITS_AT_ONCE == PERMITS_AT_ONCE - 1 {
                self.in_flight.add_permits(PERMITS_AT_ONCE as usize);
            }
            AttemptResult {
                outcome: ran.outcome,
                published: ran.published,
                state: ran.state,
                duration: ran.duration,
                note: None,
                recording: None,
                responded: false,
            }
        }
        .boxed()
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let smoke = arguments.iter().any(|a| a == "--smoke") || !arguments.iter().any(|a| a == "--bench");
    let (count, time, turns) =
        if smoke { (500, Duration::from_millis(50), 1) } else { (100_000, Duration::from_secs(1), 4) };
    let dir = tempfile::tempdir().unwrap();
    let mut components: Vec<PathBuf> = arguments.iter().filter(|a| !a.starts_with("--")).map(PathBuf::from).collect();
    if components.is_empty() {
        components = bare::default_components(dir.path());
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).event_interval(7).enable_all().build().unwrap();
    println!("{:<16} {:<8} {:>10} {:>10} {:>6}   CPU time each", "component", "store", "events/s", "bare/s", "ratio");
    for component in &components {
        let bare = Bare::new(component).expect("a component");
        let label = component.file_stem().unwrap().to_string_lossy();
        for name in ["memory", "sqlite", "norecord"] {
            if arguments.iter().any(|a| a.strip_prefix("--store=").is_some_and(|only| only != name)) {
                continue;
            }
            let sandbox = Sandbox::new(bare::settings(dir.path().join("cache"))).unwrap();
            let measure = || {
                let clock = Clock::system();
                let data = tempfile::tempdir_in(dir.path()).unwrap();
                let store: Arc<dyn Store> = match name {
                    "memory" => Arc::new(MemoryStore::new(clock.clone())),
                    _ => Arc::new(SqliteStore::open(data.path(), clock.clone()).unwrap()),
                };
                // With `sqlite`, running attempts are recorded in a file, as the `evoke` program does. `norecord` is
                // SQLite without this record, and shows the price of the record.
                let running: Arc<dyn RunningLog> = match name {
                    "sqlite" => {
                        let (file, _) = RunningFile::open(data.path()).unwrap();
                        file.begin(128).unwrap();
                        Arc::new(file)
                    }
                    _ => Arc::new(NoRunningLog),
                };
                let pipeline = run_pipeline(&sandbox, component, store.clone(), running, clock, count);
                let rate = runtime.block_on(pipeline);
                runtime.block_on(async { store.close().await.unwrap() });
                rate
            };
            measure();
            let both = bare::alternate(turns, measure, || bare.measure(Instances::Fresh, 2, time));
            println!("{label:<16} {name:<8} {both}");
        }
    }
}

/// Measures the events per second through the whole pipeline.
async fn run_pipeline(
    sandbox: &Sandbox,
    component: &std::path::Path,
    store: Arc<dyn Store>,
    running: Arc<dyn RunningLog>,
    clock: Clock,
    count: u32,
) -> Rate {
    let spec = bare::spec(component.to_owned(), Grants::default());
    let function = sandbox.load(&spec).await.unwrap();
    let id = store.register(vec!["bench/guest".into()]).await.unwrap()[0];
    let mut router = Router::default();
    let pattern = Pattern::parse(
        &serde_json::json!({ "type": ["order.placed"], "data": { "total": [{ "numeric": [">", 0] }] } }),
    );
    router.add(id, "on[0]".into(), None, Some(&pattern.unwrap()));
    let bus = Bus::new(store.clone(), router, Limits::default());
    let exits = std::collections::BTreeMap::new();
    let dispatcher = Dispatcher::start_recorded(
        store.clone(),
        bus.clone(),
        clock.clone(),
        64,
        running,
        exits,
        tokio::runtime::Handle::current(),
    );
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let (ran, logs) = (AtomicU32::new(0), Arc::new(|_| {}));
    let runner = Arc::new(Sandboxed { function, in_flight: in_flight.clone(), ran, logs, clock });
    let metrics = Arc::new(FunctionMetrics::new("bench/guest".into()));
    dispatcher.set_functions(vec![FunctionSpec {
        id,
        concurrency: 64,
        retry: RetryPolicy::default(),
        runner,
        metrics,
    }]);

    let measuring = Rate::start();
    let next = Arc::new(AtomicU32::new(0));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            let (bus, next, in_flight) = (bus.clone(), next.clone(), in_flight.clone());
            tokio::spawn(async move {
                let template = Event::from_json(EVENT, |_| {}).unwrap();
                loop {
                    let first = next.fetch_add(PERMITS_AT_ONCE, Ordering::Relaxed);
                    if first >= count {
                        return;
                    }
                    in_flight.acquire_many(PERMITS_AT_ONCE).await.unwrap().forget();
                    for n in first..count.min(first + PERMITS_AT_ONCE) {
                        let event = Event { id: n.to_string(), ..template.clone() };
                        bus.accept(Offer { events: vec![event], ..Offer::default() }).await.unwrap();
                    }
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
    let rate = measuring.end(count);
    dispatcher.drain(Duration::from_secs(1)).await;
    rate
}
