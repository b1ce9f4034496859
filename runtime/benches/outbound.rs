//! The cost of an outbound request. The bench compares an attempt of a function that sends one GET to a server on this
//! machine with the same GET of a bare hyper client. Two more rows show where the time goes: the HTTP client of
//! functions, used without a function, and an attempt that sends no request.
//!
//! `cargo bench -p evoke --bench outbound [-- --smoke]`. Each client keeps its connection open and sends one request
//! at a time. The measurements alternate, so that each sees the same machine. `--smoke` only shows that the bench runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evoke_egress::{Client, Grant, Limits, Owner, empty};
use evoke_model::clock::Clock;
use evoke_model::destination::Destination;
use evoke_model::event::Event;
use evoke_model::outcome::Outcome;
use evoke_sandbox::{Call, Function, Grants, Outside, Sandbox};
use evoke_telemetry::Spans;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

/// The allocator of the `evoke` program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "support/function.rs"]
mod function;
#[path = "support/guest.rs"]
mod guest;

/// The number of requests that one side sends before the next side has its turn.
const TURN: usize = 50;

fn main() {
    let smoke = std::env::args().any(|a| a == "--smoke") || !std::env::args().any(|a| a == "--bench");
    let turns = if smoke { 1 } else { 100 };
    let dir = tempfile::tempdir().unwrap();
    let component = guest::component("fetch");
    let address = serve();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let client = Client::new(runtime.handle().clone(), Arc::default());
    let settings = function::settings(dir.path().join("cache"));
    let sandbox = Sandbox::with_client(settings, client.clone(), Spans::default()).unwrap();
    let mut grant = Grant::new(Destination::parse(&format!("http://{address}")).unwrap());
    grant.addresses = vec![address.ip().into()];
    let owner = client.owner("bench/client", vec![grant.clone()]);
    let spec = function::spec(component, Grants { http: vec![grant], ..Grants::default() });
    let function = runtime.block_on(sandbox.load(&spec)).unwrap_or_else(|e| panic!("{e}"));
    let url = format!("http://{address}/");
    let [with_request, without] = [url.as_str(), ""].map(|url| {
        let event = format!(r#"{{"id":"1","source":"/bench/in","type":"t","data":"{url}"}}"#);
        Arc::new(Event::from_json(event.as_bytes(), |_| {}).unwrap())
    });

    let mut times: [Vec<Duration>; 4] = Default::default();
    let mut connection = runtime.block_on(runtime.spawn(connect(address))).unwrap();
    for turn in 0..=turns {
        let bare;
        (connection, bare) = runtime.block_on(runtime.spawn(measure_bare(connection, address))).unwrap();
        let on_guest_threads = sandbox.guest_threads();
        let client = runtime.block_on(on_guest_threads.spawn(measure_client(owner.clone(), url.clone()))).unwrap();
        let [empty, request] = [&without, &with_request].map(|event| {
            let attempts = on_guest_threads.spawn(measure_function(function.clone(), event.clone()));
            runtime.block_on(attempts).unwrap()
        });
        // The first turn is the warm-up.
        if turn > 0 {
            times.iter_mut().zip([bare, client, empty, request]).for_each(|(all, turn)| all.extend(turn));
        }
    }
    println!("{:<40} {:>8} {:>8} {:>8}", "", "p50 µs", "p90 µs", "p99 µs");
    let names = ["a bare hyper client", "the client of functions", "a function without a request"];
    let mut names = names.into_iter().chain(["a function with one request"]);
    let [bare, client, empty, request] = times.map(|mut times| {
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e6;
        print_row(names.next().unwrap_or_default(), [at(50), at(90), at(99)], 1);
        [at(50), at(90), at(99)]
    });
    let ratio = |of: [f64; 3]| [of[0] / bare[0], of[1] / bare[1], of[2] / bare[2]];
    print_row("ratio: the client", ratio(client), 2);
    print_row("ratio: the request inside the function", ratio([0, 1, 2].map(|at| request[at] - empty[at])), 2);
    // Even if the guest's calls of the host took no time, an attempt would take as long as both together. This is a
    // bound for p50 only.
    print_row("ratio: least possible", ratio([0, 1, 2].map(|at| bare[at] + empty[at])), 2);
    print_row("ratio: the whole function", ratio(request), 2);
}

fn print_row(name: &str, values: [f64; 3], decimals: usize) {
    let [p50, p90, p99] = values;
    println!("{name:<40} {p50:>8.decimals$} {p90:>8.decimals$} {p99:>8.decimals$}");
}

/// Starts a server that responds to each request with a small body, on a thread of its own.
fn serve() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let respond = service_fn(|_| async {
                    Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"a small body"))))
                });
                let mut server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), respond));
            }
        });
    });
    address
}

type Connection = hyper::client::conn::http1::SendRequest<Empty<Bytes>>;

async fn connect(address: SocketAddr) -> Connection {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn measure_bare(mut connection: Connection, address: SocketAddr) -> (Connection, Vec<Duration>) {
    let mut times = Vec::with_capacity(TURN);
    for _ in 0..TURN {
        let started = Instant::now();
        let request = http::Request::get("/").header("host", address.to_string()).body(Empty::new()).unwrap();
        connection.ready().await.unwrap();
        let response = connection.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
        times.push(started.elapsed());
    }
    (connection, times)
}

async fn measure_client(owner: Owner, url: String) -> Vec<Duration> {
    let mut times = Vec::with_capacity(TURN);
    for _ in 0..TURN {
        let started = Instant::now();
        let request = http::Request::get(&url).body(empty()).unwrap();
        let response = owner.send(request, &Limits::within(Duration::from_secs(5))).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
        times.push(started.elapsed());
    }
    times
}

async fn measure_function(function: Arc<Function>, event: Arc<Event>) -> Vec<Duration> {
    let mut times = Vec::with_capacity(TURN);
    for _ in 0..TURN {
        let started = Instant::now();
        let call = Call {
            event: event.clone(),
            trace: None,
            delivery_id: "d-1".into(),
            attempt: 1,
            replay: false,
            hops: 0,
            trigger: "in".into(),
            state: None,
            logs: Arc::new(|_| {}),
            clock: Clock::system(),
            outside: Outside::Live,
        };
        let attempt = function.run(call).await;
        assert_eq!(attempt.outcome, Outcome::Done);
        times.push(started.elapsed());
    }
    times
}
