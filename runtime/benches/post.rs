//! A durable POST: 202 after the fsync, over the same listener that answers 202 without storing anything.
//!
//! `cargo bench -p evoke --bench post [-- --smoke]`. The clients keep their connections and send one order after
//! another; they run in the same process and take their share of both cores, from both servers alike.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evoke::bus::{Amount, Bus, Limits, Target};
use evoke::clock::Clock;
use evoke::listener::{self, Listener};
use evoke::router::Router;
use evoke::source::http::{Endpoint, Http, Routes};
use evoke::store::Store;
use evoke::store::sqlite::SqliteStore;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

const BODY: &str =
    r#"{"customer":"c-1","total":12.5,"items":["a","b"],"note":"as large as an ordinary order is, more or less"}"#;

fn main() {
    let smoke = std::env::args().any(|a| a == "--smoke") || !std::env::args().any(|a| a == "--bench");
    let time = Duration::from_millis(if smoke { 100 } else { 4_000 });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("{:>11} {:>12} {:>12} {:>8} {:>8} {:>6}", "connections", "durable/s", "bare/s", "p50", "p99", "ratio");
    for connections in [1, 16, 64] {
        let durable = runtime.block_on(durable(connections, time));
        let bare = runtime.block_on(bare(connections, time));
        let (ours, theirs) = (durable.rate(), bare.rate());
        let [p50, p99] = [50, 99].map(|p| format!("{:.2}ms", durable.percentile(p).as_secs_f64() * 1e3));
        println!("{connections:>11} {ours:>12.0} {theirs:>12.0} {p50:>8} {p99:>8} {:>6.2}", ours / theirs);
    }
}

async fn durable(connections: usize, time: Duration) -> Load {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(dir.path(), clock.clone()).unwrap());
    let limits = Limits { backlog_max: Amount { deliveries: u64::MAX, bytes: u64::MAX }, ..Limits::default() };
    let bus = Bus::new(store.clone(), Router::default(), limits);
    let endpoint = Endpoint {
        path: "/checkout".into(),
        methods: vec![http::Method::POST],
        type_: Some("order.placed".into()),
        body_max: 1 << 20,
        uri: "/bench/checkout".into(),
        target: Target::Matching,
        answerer: None,
    };
    let http = Http::new(bus, clock, Routes::new([endpoint]).unwrap());
    let (listener, stop) = (Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap(), CancellationToken::new());
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(http.serve(listener, listener::Limits::default(), stop.clone()));
    let load = Load::run(address, connections, time).await;
    stop.cancel();
    server.await.unwrap();
    store.close().await.unwrap();
    load
}

async fn bare(connections: usize, time: Duration) -> Load {
    let (listener, stop) = (Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap(), CancellationToken::new());
    let address = listener.local_addr().unwrap();
    let answer = |request: http::Request<listener::RequestBody>, _peer| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), BODY.len());
        let answer =
            r#"{"accepted":1,"events":[{"id":"01a20b8c-aadf-71e9-9ffd-86f325738db5","seq":5,"duplicate":false}]}"#;
        http::Response::builder().status(202).body(Full::new(Bytes::from_static(answer.as_bytes()))).unwrap()
    };
    let stopped = stop.clone();
    let server = tokio::spawn(async move { listener.serve(answer, listener::Limits::default(), stopped).await });
    let load = Load::run(address, connections, time).await;
    stop.cancel();
    server.await.unwrap();
    load
}

/// What clients saw: how long each of their requests took.
struct Load {
    took: Vec<Duration>,
    time: Duration,
}

impl Load {
    async fn run(address: SocketAddr, connections: usize, time: Duration) -> Self {
        let started = Instant::now();
        let clients: Vec<_> = (0..connections).map(|_| tokio::spawn(client(address, started, time))).collect();
        let mut took = Vec::new();
        for client in clients {
            took.append(&mut client.await.unwrap());
        }
        took.sort_unstable();
        Self { took, time: started.elapsed() }
    }

    fn rate(&self) -> f64 {
        self.took.len() as f64 / self.time.as_secs_f64()
    }

    fn percentile(&self, percent: usize) -> Duration {
        self.took[(self.took.len() - 1) * percent / 100]
    }
}

async fn client(address: SocketAddr, started: Instant, time: Duration) -> Vec<Duration> {
    let request = format!(
        "POST /checkout HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut took, mut buffer) = (Vec::new(), vec![0; 4096]);
    while started.elapsed() < time {
        let sent = Instant::now();
        stream.write_all(request.as_bytes()).await.unwrap();
        // Both servers answer with less than one segment.
        let read = stream.read(&mut buffer).await.unwrap();
        let answer = &buffer[..read];
        assert!(answer.starts_with(b"HTTP/1.1 202 ") && answer.ends_with(b"}"), "{}", String::from_utf8_lossy(answer));
        took.push(sent.elapsed());
    }
    took
}
