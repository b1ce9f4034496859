//! Tests with hostile peers against the real server, with raw bytes over loopback. The time limits are short and pass
//! in real time, because sockets ignore a paused clock. On a slow machine, an operation can take longer than its
//! limit, but no test fails because of that.

use std::sync::Mutex;

use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;

mod default_limits;
mod proxies;
mod slow;
mod streams;
mod tls;

/// The longest wait for a connection to be closed.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(100);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

struct TestServer {
    addr: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<usize>,
    /// The paths of all requests so far.
    paths: Arc<Mutex<Vec<String>>>,
    /// Each permit lets one request for `/slow` or `/kept` finish.
    gate: Arc<Semaphore>,
}

impl TestServer {
    async fn open(limits: Limits) -> Self {
        Self::open_with(limits, |listener| listener).await
    }

    async fn open_with(limits: Limits, change: impl FnOnce(Listener) -> Listener) -> Self {
        let listener = change(Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap());
        let addr = listener.local_addr().unwrap();
        let (paths, gate, stop) = (Arc::default(), Arc::new(Semaphore::new(0)), CancellationToken::new());
        let service = service(Arc::clone(&paths), gate.clone());
        let served = tokio::spawn(listener.serve(service, limits, stop.clone()));
        Self { addr, stop, served, paths, gate }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Sends `bytes` and reads until the server closes the connection.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut peer = self.connect().await;
        peer.write_all(bytes).await.unwrap();
        until_closed(&mut peer).await
    }

    fn paths(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }
}

/// Returns a service that records the path of each request. For `/refused`, it returns 404 without reading the body.
/// For other paths, it reads the body and returns the length of the body as text; for `/kept`, it protects the
/// connection meanwhile. The response headers contain the
/// address of the peer and the principal of the peer's certificate.
fn service(
    paths: Arc<Mutex<Vec<String>>>,
    gate: Arc<Semaphore>,
) -> impl Fn(Request<RequestBody>, SocketAddr) -> futures_util::future::BoxFuture<'static, Response<Full<Bytes>>> {
    move |request, peer| {
        let (paths, gate) = (paths.clone(), gate.clone());
        let certificate = request.extensions().get::<ClientCertificate>().cloned();
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let handle = request.extensions().get::<ConnectionHandle>();
            let _kept = handle.filter(|_| path == "/kept").map(ConnectionHandle::keep);
            paths.lock().unwrap().push(path.clone());
            if path == "/refused" {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::NOT_FOUND;
                return response;
            }
            let (status, text) = match request.into_body().collect().await {
                Ok(body) => (StatusCode::OK, format!("<{}>", body.to_bytes().len())),
                Err(BodyError::Slow) => (StatusCode::REQUEST_TIMEOUT, "slow".to_owned()),
                Err(BodyError::Broken(_)) => (StatusCode::BAD_REQUEST, "broken".to_owned()),
            };
            if path == "/slow" || path == "/kept" {
                gate.acquire().await.unwrap().forget();
            }
            let text = if path == "/large" { "x".repeat(64 * 1024 * 1024) } else { text };
            let mut response = Response::new(Full::from(text));
            *response.status_mut() = status;
            response.headers_mut().insert("peer", peer.ip().to_string().parse().unwrap());
            if let Some(certificate) = certificate {
                response.headers_mut().insert("client", certificate.principal().parse().unwrap());
            }
            response
        })
    }
}

async fn until_closed(peer: &mut TcpStream) -> String {
    let mut response = Vec::new();
    // A reset after the response is as acceptable as a normal end.
    let _ = timeout(CLOSE_WAIT_MAX, peer.read_to_end(&mut response)).await.expect("the connection should be closed");
    String::from_utf8_lossy(&response).into_owned()
}

async fn until(peer: &mut TcpStream, end: &str) -> String {
    let mut response = Vec::new();
    timeout(CLOSE_WAIT_MAX, async {
        while !String::from_utf8_lossy(&response).contains(end) {
            assert_ne!(peer.read_buf(&mut response).await.unwrap(), 0, "closed early: {response:?}");
        }
    })
    .await
    .expect("a response should arrive");
    String::from_utf8_lossy(&response).into_owned()
}

#[tokio::test]
async fn ambiguous_requests_get_one_400_and_are_closed() {
    let server = TestServer::open(Limits::default()).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for head in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n",
        "GET / HTTP/1.1\r\nhOST: a\\b\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: <a>\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    ] {
        let response = server.exchange(format!("{head}{smuggled}").as_bytes()).await;
        assert!(response.starts_with("HTTP/1.1 400 "), "{head:?}: {response}");
        assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{head:?}: {response}");
    }
    assert_eq!(server.paths(), [""; 0]);
}

#[tokio::test]
async fn chunked_bodies_with_broken_framing_never_become_the_next_request() {
    let server = TestServer::open(Limits::default()).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for chunks in [
        "+3\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3;a\rb\r\nabc\r\n0\r\n\r\n",
        "3 ;a\n\r\nabc\r\n0\r\n\r\n",
        "00000000000000003\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nX: y\n\r\n",
        "3\r\nabc\r\n0\r\n\n",
        "3\r\nabc\n0\r\n\r\n",
        "g\r\n",
        "\r\n",
    ] {
        let head = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let response = server.exchange(format!("{head}{chunks}{smuggled}").as_bytes()).await;
        assert!(response.starts_with("HTTP/1.1 400 "), "{chunks:?}: {response}");
        assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{chunks:?}: {response}");
    }
    assert!(server.paths().iter().all(|path| path == "/a"));
}

#[tokio::test]
async fn a_flood_of_chunk_extensions_is_cut_off() {
    let server = TestServer::open(Limits::default()).await;
    let mut peer = server.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let flood = format!("1;{}\r\na\r\n", "x".repeat(1_000)).repeat(1_000);
    peer.write_all(head.as_bytes()).await.unwrap();
    let _ = peer.write_all(flood.as_bytes()).await;
    assert!(server.paths().len() <= 1);
    until_closed(&mut peer).await;
}

#[tokio::test]
async fn pipelined_requests_get_responses_in_order_each_for_its_own_body() {
    let server = TestServer::open(Limits::default()).await;
    let requests = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n\n\n\n\
        POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\n\n\r\n0\r\n\r\n\
        GET /c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let response = server.exchange(requests.as_bytes()).await;
    assert_eq!(server.paths(), ["/a", "/b", "/c"]);
    let at = |text| response.find(text).unwrap_or_else(|| panic!("{text} in {response}"));
    assert!(at("<3>") < at("<2>") && at("<2>") < at("<0>"));
}

#[tokio::test]
async fn a_head_larger_than_its_limit_is_refused() {
    let server = TestServer::open(Limits::default()).await;
    let one = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(40 * 1024));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(101));
    for head in [one, many] {
        let response = server.exchange(head.as_bytes()).await;
        assert!(response.starts_with("HTTP/1.1 431 ") || response.is_empty(), "{response}");
    }
    assert_eq!(server.paths(), [""; 0]);
}

#[tokio::test]
async fn connections_without_a_request_are_closed_in_time() {
    let server = TestServer::open(Limits { idle: SHORT, write_stall: SHORT, ..Limits::default() }).await;
    let unfinished_headers = [PREFACE, b"\0\0\x01\x01\x01\0\0\0\x01\x82"].concat();
    let beginnings: [&[u8]; 6] =
        [b"", b"PRI", b"GET / HTTP/1.1\r\nHost: a\r\nX", b"POST", PREFACE, &unfinished_headers];
    for beginning in beginnings {
        let started = Instant::now();
        server.exchange(beginning).await;
        assert!(started.elapsed() >= SHORT / 2, "{beginning:?} was closed too early");
    }
    assert_eq!(server.paths(), [""; 0]);
}

#[tokio::test]
async fn an_http_2_peer_that_only_sends_pings_is_closed_in_time() {
    let server = TestServer::open(Limits { idle: SHORT, ..Limits::default() }).await;
    let mut peer = server.connect().await;
    peer.write_all(PREFACE).await.unwrap();
    let (mut reader, mut writer) = peer.split();
    let pings = async {
        while writer.write_all(b"\0\0\x08\x06\0\0\0\0\0pingping").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let mut sink = vec![0; 64 * 1024];
    let responses = async { while reader.read(&mut sink).await.is_ok_and(|length| length > 0) {} };
    timeout(CLOSE_WAIT_MAX, async { tokio::join!(pings, responses) }).await.expect("the connection should be closed");
}

#[tokio::test]
async fn a_peer_that_only_sends_empty_lines_is_closed_in_time() {
    let server = TestServer::open(Limits { idle: SHORT, ..Limits::default() }).await;
    let mut peer = server.connect().await;
    let (mut reader, mut writer) = peer.split();
    let lines = async {
        while writer.write_all(b"\r\n").await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let mut response = Vec::new();
    let closed = async {
        tokio::select! { _ = reader.read_to_end(&mut response) => {}, () = lines => {} }
    };
    timeout(CLOSE_WAIT_MAX, closed).await.expect("the connection should be closed");
}

#[tokio::test]
async fn a_request_is_not_idle_however_long_it_takes() {
    let server = TestServer::open(Limits { idle: SHORT, ..Limits::default() }).await;
    let mut peer = server.connect().await;
    peer.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    sleep(SHORT * 3).await; // longer than the idle limit, which must not apply
    server.gate.add_permits(1);
    assert!(until(&mut peer, "<0>").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_slow_body_times_out() {
    let pausing = Limits { body_idle: SHORT, ..Limits::default() };
    let endless = Limits { body_idle: CLOSE_WAIT_MAX, body_total: SHORT, ..Limits::default() };
    for limits in [pausing, endless] {
        let server = TestServer::open(limits).await;
        let response = server.exchange(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n123").await;
        assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
    }
}

/// Sends a body byte by byte until the server responds, and returns the beginning of the response.
async fn send_body_byte_by_byte(server: &TestServer) -> Vec<u8> {
    let mut peer = server.connect().await;
    peer.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n").await.unwrap();
    let (mut reader, mut writer) = peer.split();
    let mut response = Vec::new();
    let drips = async {
        while writer.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(CLOSE_WAIT_MAX, async {
        tokio::select! { _ = reader.read_buf(&mut response) => {}, () = drips => {} }
    })
    .await
    .expect("the server should respond");
    response
}

#[tokio::test]
async fn a_body_sent_byte_by_byte_has_a_total_time_limit() {
    let server = TestServer::open(Limits { body_idle: CLOSE_WAIT_MAX, body_total: SHORT, ..Limits::default() }).await;
    let response = send_body_byte_by_byte(&server).await;
    assert!(response.starts_with(b"HTTP/1.1 408 "));
}

#[tokio::test]
async fn a_peer_that_reads_no_response_is_disconnected() {
    let server = TestServer::open(Limits { idle: SHORT, write_stall: SHORT, ..Limits::default() }).await;
    let mut peer = server.connect().await;
    peer.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    while server.paths().is_empty() {
        tokio::task::yield_now().await;
    }
    server.stop.cancel();
    // The drain limit is 10 s, so only the write stall limit can end the connection sooner.
    timeout(CLOSE_WAIT_MAX, server.served).await.expect("the connection should be closed").unwrap();
}

#[tokio::test]
async fn an_http_2_request_gets_a_response() {
    let server = TestServer::open(Limits::default()).await;
    let mut peer = server.connect().await;
    // A HEADERS frame with the flags END_STREAM and END_HEADERS: `:method` GET, `:scheme` http, `:path` /,
    // `:authority` a.
    peer.write_all(&[PREFACE, b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a"].concat()).await.unwrap();
    until(&mut peer, "<0>").await;
    assert_eq!(server.paths(), ["/"]);
}

#[tokio::test]
async fn floods_of_http_2_control_frames_end_the_connection() {
    let server = TestServer::open(Limits::default()).await;
    let head = b"\x82\x86\x84\x41\x01a";
    let mut rapid_reset = PREFACE.to_vec();
    let mut empty_data = [PREFACE, b"\0\0\x06\x01\x04\0\0\0\x01", head].concat();
    let mut continuations = [PREFACE, b"\0\0\x06\x01\0\0\0\0\x01", head].concat();
    for stream in (1_u32..20_000).step_by(2) {
        rapid_reset.extend([&b"\0\0\x06\x01\x05"[..], &stream.to_be_bytes(), head].concat());
        rapid_reset.extend([&b"\0\0\x04\x03\0"[..], &stream.to_be_bytes(), b"\0\0\0\x08"].concat());
        empty_data.extend(b"\0\0\0\0\0\0\0\0\x01");
        continuations.extend(b"\0\0\0\x09\0\0\0\0\x01");
    }
    for (name, flood) in [("rapid reset", rapid_reset), ("empty DATA", empty_data), ("CONTINUATION", continuations)] {
        let mut peer = server.connect().await;
        let started = Instant::now();
        let (mut reader, mut writer) = peer.split();
        let send = async {
            let _ = writer.write_all(&flood).await;
        };
        let mut response = Vec::new();
        let (read, ()) = timeout(CLOSE_WAIT_MAX, async { tokio::join!(reader.read_to_end(&mut response), send) })
            .await
            .unwrap_or_else(|_| panic!("{name} is not closed after {:?}", started.elapsed()));
        let _ = read;
    }
}

#[tokio::test]
async fn there_are_never_more_connections_than_the_limit() {
    let server = TestServer::open(Limits { connections_max: 2, ..Limits::default() }).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut peer = server.connect().await;
        peer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        until(&mut peer, "<0>").await;
        held.push(peer);
    }
    let response = until_closed(&mut server.connect().await).await;
    assert!(response.starts_with("HTTP/1.1 503 ") && response.contains("retry-after: 5"), "{response}");
    // The permit of a closed connection is free as soon as the server has noticed the close.
    drop(held.pop());
    timeout(CLOSE_WAIT_MAX, async {
        while !server.exchange(b"GET / HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 200 ") {}
    })
    .await
    .expect("a connection should be accepted again");
}

#[tokio::test]
async fn a_request_in_flight_gives_way_to_a_new_connection_unless_the_service_keeps_its_connection() {
    let server = TestServer::open(Limits { connections_max: 2, replaces_oldest: true, ..Limits::default() }).await;
    let mut peers = Vec::new();
    for path in ["/kept", "/slow"] {
        let mut peer = server.connect().await;
        peer.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        peers.push(peer);
        while server.paths().len() < peers.len() {
            tokio::task::yield_now().await;
        }
    }
    assert!(server.exchange(b"GET / HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 200 "));
    assert_eq!(until_closed(&mut peers[1]).await, "");
    server.gate.add_permits(1);
    until(&mut peers[0], "<0>").await;
}

#[tokio::test]
async fn the_stop_waits_for_requests_in_flight_and_accepts_no_more() {
    let server = TestServer::open(Limits::default()).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut idle, "<0>").await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    while server.paths().len() < 2 {
        tokio::task::yield_now().await;
    }
    server.stop.cancel();
    assert_eq!(until_closed(&mut idle).await, "");
    assert!(TcpStream::connect(server.addr).await.is_err());
    server.gate.add_permits(1);
    assert!(until_closed(&mut busy).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(server.served.await.unwrap(), 0);
}

#[tokio::test]
async fn a_request_that_outlasts_the_drain_is_cut_off_and_counted() {
    let server = TestServer::open(Limits { drain: SHORT, ..Limits::default() }).await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    while server.paths().is_empty() {
        tokio::task::yield_now().await;
    }
    server.stop.cancel();
    assert_eq!(timeout(CLOSE_WAIT_MAX, server.served).await.expect("the drain should end").unwrap(), 1);
}

#[tokio::test]
async fn an_axum_router_is_served_within_the_same_limits() {
    use hyper::service::Service as _;

    let router = axum::Router::new().route("/echo", axum::routing::post(|body: String| async move { body }));
    let router = hyper_util::service::TowerToHyperService::new(router);
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let service = move |request: Request<RequestBody>, _| {
        let response = router.call(request);
        async move { response.await.unwrap_or_else(|never| match never {}) }
    };
    tokio::spawn(listener.serve(service, Limits::default(), CancellationToken::new()));
    let request = b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    peer.write_all(request).await.unwrap();
    assert!(until_closed(&mut peer).await.ends_with("\r\n\r\nhello"));
}
