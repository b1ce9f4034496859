//! Peers that send many requests at the same time over HTTP/2.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;

use super::*;

impl TestServer {
    async fn connect_http2<B>(&self) -> http2::SendRequest<B>
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    {
        let io = TokioIo::new(self.connect().await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    fn get(&self, path: &str) -> Request<Empty<Bytes>> {
        Request::get(format!("http://{}{path}", self.addr)).body(Empty::new()).unwrap()
    }
}

#[tokio::test]
async fn requests_beyond_the_first_of_each_connection_are_limited_over_all_connections() {
    let server = TestServer::open(Limits { further_streams_max: 20, ..Limits::default() }).await;
    let mut responses = FuturesUnordered::new();
    for _ in 0..2 {
        let sender = server.connect_http2().await;
        for _ in 0..16 {
            let mut sender = sender.clone();
            let request = server.get("/slow");
            responses.push(async move {
                let response = sender.send_request(request).await.unwrap();
                (response.status().as_u16(), response.headers().contains_key(RETRY_AFTER))
            });
        }
    }
    // The peer can have the first request of each of its 2 connections, and half of the limit of 20 further requests.
    // These 12 requests wait at the gate. The other 20 requests are refused immediately.
    for _ in 0..20 {
        assert_eq!(timeout(CLOSE_WAIT_MAX, responses.next()).await.unwrap(), Some((503, true)));
    }
    server.gate.add_permits(12);
    for _ in 0..12 {
        assert_eq!(timeout(CLOSE_WAIT_MAX, responses.next()).await.unwrap(), Some((200, false)));
    }
    assert_eq!((responses.len(), server.paths().len()), (0, 12));
}

#[tokio::test]
async fn a_refused_request_counts_until_its_body_has_arrived() {
    // The peer can have the first request of its connection, and half of the limit of 2 further requests.
    let server = TestServer::open(Limits { further_streams_max: 2, ..Limits::default() }).await;
    let mut sender = server.connect_http2().await;
    let request = |path: &str, body: BoxBody<Bytes, Infallible>| {
        Request::post(format!("http://{}{path}", server.addr)).body(body).unwrap()
    };
    let empty = || Empty::new().boxed();
    let (unfinished, end) =
        futures_util::stream::abortable(futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let refused = sender.send_request(request("/refused", BodyExt::boxed(StreamBody::new(unfinished)))).await.unwrap();
    assert_eq!(refused.status(), 404);
    let first = sender.send_request(request("/slow", empty()));
    assert_eq!(sender.send_request(request("/", empty())).await.unwrap().status(), 503);
    end.abort();
    timeout(CLOSE_WAIT_MAX, async {
        while sender.send_request(request("/", empty())).await.unwrap().status() != 200 {}
    })
    .await
    .unwrap();
    server.gate.add_permits(1);
    assert_eq!(first.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_peer_that_opens_no_window_for_a_response_is_disconnected() {
    let rate_min = MinRate { bytes_per_s: 1 << 20, ..Limits::default().rate_min };
    let limits = Limits { write_stall: SHORT, rate_min, ..Limits::default() };
    for path in ["/large", "/"] {
        let server = TestServer::open(limits).await;
        let mut client = http2::Builder::new(TokioExecutor::new());
        client.initial_stream_window_size(0);
        let (mut sender, connection) = client.handshake(TokioIo::new(server.connect().await)).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = server.get(path);
        let response = sender.send_request(request).await.unwrap();
        let ended = timeout(CLOSE_WAIT_MAX, connection).await;
        assert!(ended.is_ok(), "{path}: the connection should be closed");
        assert!(response.into_body().collect().await.is_err(), "{path}");
    }
}

#[tokio::test]
async fn a_large_response_arrives_completely_over_http_2() {
    let server = TestServer::open(Limits::default()).await;
    let mut sender = server.connect_http2().await;
    let request = server.get("/large");
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()["content-length"], (64 << 20).to_string());
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 64 << 20);
}

#[tokio::test]
async fn an_ambiguous_host_is_refused_over_http_2() {
    let server = TestServer::open(Limits::default()).await;
    let mut sender = server.connect_http2().await;
    let authority = server.addr.to_string();
    for (hosts, status) in [
        (&[][..], 200),
        (&[authority.as_str()], 200),
        (&["other.example"], 400),
        (&[authority.as_str(), authority.as_str()], 400),
        (&[authority.as_str(), "other.example"], 400),
    ] {
        let mut request = server.get("/");
        request.headers_mut().extend(hosts.iter().map(|host| (http::header::HOST, host.parse().unwrap())));
        assert_eq!(sender.send_request(request).await.unwrap().status(), status, "{hosts:?}");
    }
    for authority in ["user@a.example", "a!b"] {
        let request = Request::get(format!("http://{authority}/")).body(Empty::new()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 400, "{authority}");
    }
    assert_eq!(server.paths().len(), 2);
}
