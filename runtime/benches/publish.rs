//! An HTTP component that publishes an event for each request, relative to requests for which the same component
//! publishes nothing. The store is in memory, so the ratio shows the cost of Evoke and not that of a disk.
//!
//! `cargo bench -p evoke --bench publish [-- --smoke]`. The two kinds of requests alternate, against one listener and
//! one function. The clients run in the same process and take the same share of the CPU in both cases.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use evoke_core::bus::{Amount, Bus, Limits, Offer, Target};
use evoke_core::router::Router;
use evoke_http::listener;
use evoke_http::listener::Listener;
use evoke_http::source::{Endpoint, EnteredThrough, HandlerError, Http, HttpSource, Payload, RequestHandler, Routes};
use evoke_model::clock::Clock;
use evoke_sandbox::{Function, Grants, HttpAnswer, HttpCall, Sandbox};
use evoke_store::memory::MemoryStore;
use evoke_store::{EventStore, Store};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

#[path = "support/function.rs"]
mod function;
#[path = "support/guest.rs"]
mod guest;
#[path = "support/load.rs"]
mod load;
use load::{Load, Target as Requests};

/// The allocator of the `evoke` program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BODY: &str = r#"{"customer":"c-1","total":12.5,"items":["a","b"]}"#;
const URI: &str = "/bench/web/http-1";

/// Handles requests as the program does, without its metrics and its record of running work.
struct Web {
    function: Arc<Function>,
    bus: Bus,
    permits: Arc<Semaphore>,
}

impl std::fmt::Debug for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Web")
    }
}

impl RequestHandler for Web {
    fn handle(&self, request: Request<Payload>) -> BoxFuture<'_, Result<Response<Payload>, HandlerError>> {
        async move {
            let permit = self.permits.clone().acquire_owned().await.unwrap();
            let origin = request.extensions().get::<EnteredThrough>().unwrap().origin;
            let id = uuid::Uuid::now_v7().to_string().into();
            let (held, logs) = (Box::new(permit), Arc::new(|_| {}));
            let call = HttpCall { request, trace: None, hops: 0, id, held, logs, clock: Clock::system() };
            let HttpAnswer { response, published } = self.function.call_http(call).await.unwrap();
            if !published.is_empty() {
                self.bus.accept(Offer { events: published, origin, ..Offer::default() }).await?;
            }
            Ok(response.map(BodyExt::boxed_unsync))
        }
        .boxed()
    }
}

fn main() {
    let smoke = std::env::args().any(|a| a == "--smoke") || !std::env::args().any(|a| a == "--bench");
    let (turns, time) = if smoke { (1, Duration::from_millis(100)) } else { (6, Duration::from_secs(1)) };
    let dir = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::new(function::settings(dir.path().join("cache"))).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let grants = Grants { publish: vec!["*".into()], ..Grants::default() };
    let spec = function::spec(guest::component("http-publish"), grants);
    let function = runtime.block_on(sandbox.load(&spec)).unwrap_or_else(|e| panic!("{e}"));
    println!("{:>11} {:>12} {:>12} {:>6}", "connections", "publishing/s", "others/s", "ratio");
    for connections in [16, 64] {
        let [ours, theirs] = runtime.block_on(measure(function.clone(), connections, turns, time));
        println!("{connections:>11} {ours:>12.0} {theirs:>12.0} {:>6.2}", ours / theirs);
    }
}

/// Returns the requests per second: first of those that publish an event, then of those that do not.
async fn measure(function: Arc<Function>, connections: usize, turns: u32, time: Duration) -> [f64; 2] {
    let clock = Clock::system();
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let limits = Limits { backlog_max: Amount { deliveries: u64::MAX, bytes: u64::MAX }, ..Limits::default() };
    let bus = Bus::new(store.clone(), Router::default(), limits);
    let source = HttpSource::at("/");
    let origin = store.register_origins(vec![URI.to_owned()]).await.unwrap()[0];
    let permits = Arc::new(Semaphore::new(connections));
    let web = Web { function, bus: bus.clone(), permits };
    let mut endpoint = Endpoint::new(&source, URI, origin, Target::Matching);
    endpoint.handler = Some(Arc::new(web));
    let http = Http::new(bus, clock, Routes::new([endpoint]).unwrap());
    let (listener, stop) = (Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap(), CancellationToken::new());
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(http.serve(listener, listener::Limits::default(), stop.clone()));
    let (mut publishing, mut others) = (Load::default(), Load::default());
    for turn in 0..=turns {
        for (path, total) in [("/", &mut publishing), ("/?none", &mut others)] {
            let load = Load::run(&Requests::post(address, path, BODY, 202), connections, time).await;
            assert_eq!(load.errors, 0, "{path}: {:?}", load.error);
            // The first turn warms up.
            if turn > 0 {
                total.add(load);
            }
        }
    }
    assert!(store.newest().borrow().0 > 0, "nothing was stored");
    stop.cancel();
    server.await.unwrap();
    store.close().await.unwrap();
    [publishing.rate(), others.rate()]
}
