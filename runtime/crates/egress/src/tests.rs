//! Tests with real servers on loopback, in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

use evoke_model::destination::Destination;
use evoke_telemetry::{Metrics, OutboundOutcome};

use super::*;

mod http2;
mod limits;
mod tls;

const SECOND: Duration = Duration::from_secs(1);

/// A server that passes each connection to a function.
struct Server {
    port: u16,
    /// The number of accepted connections.
    accepted: Arc<AtomicUsize>,
}

impl Server {
    async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, accepted) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let count = accepted.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream));
            }
        });
        Self { port, accepted }
    }

    /// Starts a server that responds to each request with the same bytes, and sends the heads of the requests to
    /// `seen`.
    async fn answering(answer: &'static str, seen: tokio::sync::mpsc::UnboundedSender<String>) -> Self {
        Self::start(move |mut stream| {
            let seen = seen.clone();
            async move {
                while let Some(head) = read_head(&mut stream).await {
                    let _ = seen.send(head);
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        })
        .await
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// Reads the head of a request; `None` at the end of the connection.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

fn client() -> (Client, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    (Client::new(Handle::current(), metrics.clone()), metrics)
}

/// Returns an owner that may send requests to `url` on loopback.
fn owner_of(url: &str) -> Owner {
    owner_with(url, |_| {})
}

fn owner_with(url: &str, change: impl FnOnce(&mut Grant)) -> Owner {
    let mut grant = Grant::new(Destination::parse(url).unwrap());
    grant.addresses = vec!["127.0.0.1".parse().unwrap()];
    change(&mut grant);
    client().0.owner("shop/charge", vec![grant])
}

fn get(url: &str) -> Request<RequestBody> {
    Request::get(url).body(empty()).unwrap()
}

async fn text(response: http::Response<ResponseBody>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn a_granted_request_is_answered_and_the_connection_is_used_again() {
    let (seen, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::answering(OK, seen).await;
    let owner = owner_of(&server.url());
    for _ in 0..3 {
        let response = owner.send(get(&format!("{}/prices?a=1", server.url())), &Limits::within(SECOND)).await.unwrap();
        assert_eq!(text(response).await, "ok");
        let head = requests.recv().await.unwrap();
        assert!(head.starts_with("GET /prices?a=1 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: 127.0.0.1:{}\r\n", server.port)), "{head}");
    }
    assert!(server.accepted() <= 2, "{}", server.accepted());
}

#[tokio::test]
async fn without_a_grant_nothing_is_connected_and_the_message_has_the_line_to_add() {
    let (seen, _requests) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::answering(OK, seen).await;
    let (client, metrics) = client();
    let owner = client.owner("shop/charge", vec![Grant::new(Destination::parse("https://api.example").unwrap())]);
    let error = owner.send(get(&server.url()), &Limits::within(SECOND)).await.err().unwrap();
    assert!(error.to_string().contains(&format!("`http: [\"{}\"]`", server.url())), "{error}");
    assert!(error.is_refusal());
    // A grant without `addresses` does not allow an address of this machine.
    let owner = client.owner("shop/charge", vec![Grant::new(Destination::parse(&server.url()).unwrap())]);
    let error = owner.send(get(&server.url()), &Limits::within(SECOND)).await.err().unwrap();
    assert!(matches!(error, Error::AddressRefused { .. }), "{error:?}");
    let expected = format!("`{{ url: \"{}\", addresses: [\"127.0.0.1\"] }}`", server.url());
    assert!(error.to_string().contains(&expected), "{error}");
    assert_eq!(server.accepted(), 0);
    assert_eq!(metrics.outbound("shop/charge", "127.0.0.1").requests(OutboundOutcome::Refused).get(), 1);
    assert_eq!(metrics.outbound("shop/charge", "(not granted)").requests(OutboundOutcome::Refused).get(), 1);
}

#[tokio::test]
async fn a_target_with_credentials_or_without_a_host_is_invalid() {
    let owner = owner_of("http://127.0.0.1:1");
    for uri in ["http://user:secret@127.0.0.1:1/", "/path"] {
        let error = owner.send(get(uri), &Limits::within(SECOND)).await.err().unwrap();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let connect = Request::builder().method("CONNECT").uri("127.0.0.1:1").body(empty()).unwrap();
    assert!(matches!(owner.send(connect, &Limits::within(SECOND)).await.err(), Some(Error::Invalid(_))));
}

#[tokio::test]
async fn a_method_that_returns_the_headers_of_the_grant_is_refused() {
    let (seen, _requests) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::answering(OK, seen).await;
    let owner = owner_with(&server.url(), |grant| {
        grant.headers = vec![("authorization".parse().unwrap(), HeaderValue::from_static("Bearer s3cret"))];
    });
    for method in ["TRACE", "trace", "TRACK"] {
        let request = Request::builder().method(method).uri(server.url()).body(empty()).unwrap();
        let error = owner.send(request, &Limits::within(SECOND)).await.err().unwrap();
        assert!(matches!(error, Error::Invalid(_)) && error.is_refusal(), "{method}: {error:?}");
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn headers_of_the_grant_replace_those_of_the_request_and_connection_headers_are_removed() {
    let (seen, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::answering(OK, seen).await;
    let owner = owner_with(&server.url(), |grant| {
        grant.headers = vec![("authorization".parse().unwrap(), HeaderValue::from_static("Bearer s3cret"))];
    });
    let request = Request::get(server.url())
        .header("authorization", "Bearer forged")
        .header("host", "evil.test")
        .header("connection", "x-hop, upgrade")
        .header("x-hop", "1")
        .header("upgrade", "websocket")
        .header("proxy-authorization", "Basic eA==")
        .header("x-kept", "1")
        .body(empty())
        .unwrap();
    owner.send(request, &Limits::within(SECOND)).await.unwrap();
    let head = requests.recv().await.unwrap();
    for absent in ["forged", "evil.test", "x-hop", "upgrade", "proxy-authorization"] {
        assert!(!head.contains(absent), "{absent} in {head}");
    }
    assert!(head.contains("authorization: Bearer s3cret\r\n") && head.contains("x-kept: 1\r\n"), "{head}");
}

#[tokio::test]
async fn a_redirect_is_returned_and_not_followed() {
    let answer = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let (seen, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::answering(answer, seen).await;
    let owner = owner_of(&server.url());
    let response = owner.send(get(&server.url()), &Limits::within(SECOND)).await.unwrap();
    assert_eq!(response.status(), 302);
    assert!(requests.recv().await.is_some());
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_dead_pooled_connection_is_replaced_and_a_sent_request_is_not_sent_again() {
    let server = Server::start(|mut stream| async move {
        // The server sends one response, then closes the connection without announcing it.
        read_head(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
    })
    .await;
    let owner = owner_of(&server.url());
    for _ in 0..20 {
        let response = owner.send(get(&server.url()), &Limits::within(SECOND)).await;
        // A request over the dead connection may have reached the server, so it is not sent again.
        match response {
            Ok(response) => assert_eq!(text(response).await, "ok"),
            Err(error) => assert_eq!(error, Error::Closed),
        }
    }
    let received = Arc::new(AtomicUsize::new(0));
    let count = received.clone();
    let server = Server::start(move |mut stream| {
        let count = count.clone();
        async move {
            read_head(&mut stream).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let owner = owner_of(&server.url());
    assert_eq!(owner.send(get(&server.url()), &Limits::within(SECOND)).await.err(), Some(Error::Closed));
    assert_eq!(received.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_rest_of_a_request_is_sent_although_its_response_came_early_and_another_call_followed() {
    // More bytes than the buffers of the sockets can hold.
    const SIZE: usize = 32 << 20;
    let (received, mut sizes) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |mut stream| {
        let received = received.clone();
        async move {
            let head = read_head(&mut stream).await.unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
            if head.starts_with("GET") {
                return;
            }
            // The calls of POST and GET end during this pause.
            tokio::time::sleep(SECOND / 2).await;
            let mut body = vec![0; SIZE];
            let read = stream.read_exact(&mut body).await;
            received.send(read.map_err(|error| error.kind())).unwrap();
        }
    })
    .await;
    let owner = owner_of(&server.url());
    let post = Request::post(server.url()).body(full(vec![b'x'; SIZE])).unwrap();
    assert_eq!(text(owner.send(post, &Limits::within(60 * SECOND)).await.unwrap()).await, "ok");
    assert_eq!(text(owner.send(get(&server.url()), &Limits::within(60 * SECOND)).await.unwrap()).await, "ok");
    assert_eq!(server.accepted(), 2);
    assert_eq!(sizes.recv().await, Some(Ok(SIZE)));
}

#[tokio::test]
async fn a_body_that_the_peer_does_not_read_after_its_response_holds_its_call_and_only_for_a_while() {
    let server = Server::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let owner = owner_of(&server.url());
    let (limits, memory) = (Limits::within(60 * SECOND), Arc::new(()));
    // More bytes than the buffers of the sockets can hold.
    let post =
        Request::post(server.url()).extension(UntilSent(memory.clone())).body(full(vec![b'x'; 32 << 20])).unwrap();
    owner.0.calls.forget_permits(CALLS_MAX - 1);
    assert_eq!(text(owner.send(post, &limits).await.unwrap()).await, "ok");
    assert_eq!(Arc::strong_count(&memory), 2, "the body is in memory");
    assert_eq!(owner.send(get(&server.url()), &limits).await.err(), Some(Error::TooManyCalls));
    tokio::time::pause();
    let call = tokio::time::timeout(upload::REST_MAX + SECOND, owner.0.calls.acquire()).await;
    drop(call.expect("the body is still in memory").unwrap());
    assert_eq!(Arc::strong_count(&memory), 1);
    tokio::time::resume();
    assert_eq!(text(owner.send(get(&server.url()), &limits).await.unwrap()).await, "ok");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn connections_end_with_their_owner_and_with_an_unread_response() {
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |mut stream| {
        let ended = ended.clone();
        async move {
            while read_head(&mut stream).await.is_some() {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            }
            let _ = ended.send(());
        }
    })
    .await;
    let owner = owner_of(&server.url());
    let response = owner.send(get(&server.url()), &Limits::within(SECOND)).await.unwrap();
    assert_eq!(text(response).await, "ok");
    drop(owner);
    ends.recv().await.unwrap();
    let owner = owner_of(&server.url());
    drop(owner.send(get(&server.url()), &Limits::within(SECOND)).await.unwrap());
    ends.recv().await.unwrap();
}
