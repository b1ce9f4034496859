//! Two comparisons. First: a durable POST (202 after the fsync), relative to a POST that the same kind of listener
//! answers with 202 without storing anything. Second: a durable POST whose signature is verified, relative to a durable
//! POST without a signature. The bench fails if a signature costs more than a tenth of the rate.
//!
//! `cargo bench -p evoke --bench post [-- --smoke]`. The clients keep their connections open and send orders one by
//! one. They run in the same process and take the same share of the CPU from both servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evoke_core::bus::{Amount, Bus, Limits, Target};
use evoke_core::router::Router;
use evoke_http::listener;
use evoke_http::listener::Listener;
use evoke_http::source::auth::{Auth, Guard, SecretAuth};
use evoke_http::source::{Endpoint, Http, HttpSource, Routes};
use evoke_manifest::{SecretList, SecretRef};
use evoke_model::clock::Clock;
use evoke_store::Store;
use evoke_store_sqlite::SqliteStore;
use http_body_util::{BodyExt, Full};
use tokio_util::sync::CancellationToken;

#[path = "support/load.rs"]
mod load;
use load::{Load, Target as Requests};

/// The allocator of the `evoke` program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BODY: &str =
    r#"{"customer":"c-1","total":12.5,"items":["a","b"],"note":"as large as an ordinary order is, more or less"}"#;

fn main() {
    let smoke = std::env::args().any(|a| a == "--smoke") || !std::env::args().any(|a| a == "--bench");
    let time = Duration::from_millis(if smoke { 100 } else { 4_000 });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("{:>11} {:>12} {:>12} {:>8} {:>8} {:>6}", "connections", "durable/s", "bare/s", "p50", "p99", "ratio");
    for connections in [1, 16, 64] {
        let durable = runtime.block_on(durable(connections, time, false));
        let bare = runtime.block_on(bare(connections, time));
        let (ours, theirs) = (durable.rate(), bare.rate());
        let [p50, p99] = [50.0, 99.0].map(|p| format!("{:.2}ms", durable.percentile(p).as_secs_f64() * 1e3));
        assert_eq!((durable.errors, bare.errors), (0, 0));
        println!("{connections:>11} {ours:>12.0} {theirs:>12.0} {p50:>8} {p99:>8} {:>6.2}", ours / theirs);
    }
    println!("\n{:>11} {:>12} {:>12} {:>6}", "connections", "verified/s", "open/s", "ratio");
    for connections in [1, 16, 64] {
        // Alternating rounds: a change of the machine's speed affects both.
        let (mut verified, mut open) = (Vec::new(), Vec::new());
        for _ in 0..if smoke { 1 } else { ROUNDS } {
            for (auth, rates) in [(true, &mut verified), (false, &mut open)] {
                let load = runtime.block_on(durable(connections, time / 2, auth));
                assert_eq!(load.errors, 0);
                rates.push(load.rate());
            }
        }
        let [verified, open] = [verified, open].map(median);
        println!("{connections:>11} {verified:>12.0} {open:>12.0} {:>6.2}", verified / open);
        assert!(smoke || verified >= 0.9 * open, "a signature costs more than a tenth");
    }
}

/// The number of rounds with signatures, and of rounds without.
const ROUNDS: usize = 5;

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// The secret with which requests are signed.
const SECRET: &str = "a long random value of the bench";

fn signature() -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("sha256={}", evoke_model::hex(ring::hmac::sign(&key, BODY.as_bytes()).as_ref()))
}

async fn durable(connections: usize, time: Duration, is_verified: bool) -> Load {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(dir.path(), clock.clone()).unwrap());
    let limits = Limits { backlog_max: Amount { deliveries: u64::MAX, bytes: u64::MAX }, ..Limits::default() };
    let bus = Bus::new(store.clone(), Router::default(), limits);
    let auth =
        is_verified.then(|| Auth::Github(SecretAuth { secret: SecretList::one(SecretRef::Env("SECRET".into())) }));
    let source = HttpSource { type_: Some("order.placed".into()), auth, ..HttpSource::at("/checkout") };
    let uri = "/bench/checkout";
    let origin = store.register_origins(vec![uri.to_owned()]).await.unwrap()[0];
    let mut endpoint = Endpoint::new(&source, uri, origin, Target::Matching);
    if let Some(auth) = &source.auth {
        let guard = Guard::new(auth, Arc::default(), |_, _| Ok(SECRET.to_owned()));
        endpoint.auth = Some(Arc::new(guard.unwrap()));
    }
    let http = Http::new(bus, clock, Routes::new([endpoint]).unwrap());
    let (listener, stop) = (Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap(), CancellationToken::new());
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(http.serve(listener, listener::Limits::default(), stop.clone()));
    let mut requests = Requests::post(address, "/checkout", BODY, 202);
    if is_verified {
        requests = requests.with_header("x-hub-signature-256", &signature());
    }
    let load = Load::run(&requests, connections, time).await;
    stop.cancel();
    server.await.unwrap();
    store.close().await.unwrap();
    load
}

async fn bare(connections: usize, time: Duration) -> Load {
    let (listener, stop) = (Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap(), CancellationToken::new());
    let address = listener.local_addr().unwrap();
    let handler = |request: http::Request<listener::RequestBody>, _peer| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), BODY.len());
        let receipt =
            r#"{"accepted":1,"events":[{"id":"01a20b8c-aadf-71e9-9ffd-86f325738db5","seq":5,"duplicate":false}]}"#;
        http::Response::builder().status(202).body(Full::new(Bytes::from_static(receipt.as_bytes()))).unwrap()
    };
    let stopped = stop.clone();
    let server = tokio::spawn(async move { listener.serve(handler, listener::Limits::default(), stopped).await });
    let load = Load::run(&Requests::post(address, "/checkout", BODY, 202), connections, time).await;
    stop.cancel();
    server.await.unwrap();
    load
}
