//! Tests of HTTP/2: peers that become silent, and the texts of peers.

use http_body_util::combinators::UnsyncBoxBody;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::tls::{owner_trusting, signed_for};
use super::*;
use crate::connection::{Connection, PING_INTERVAL, PING_TIMEOUT};
use crate::request_body::{Sending, SentBody};
use crate::upload::REST_MAX;

/// The head of the frame SETTINGS without content (RFC 9113, section 6.5).
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A server with HTTP/2 over TLS, and an owner that may use it.
async fn start<F>(serve: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static) -> (Server, Owner, String)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (pem, config): (String, ServerConfig) = signed_for("localhost", &[b"h2"]);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = Server::start(move |stream| {
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream).await;
            }
        }
    })
    .await;
    let url = format!("https://localhost:{}", server.port);
    let owner = owner_trusting(&url, &pem);
    (server, owner, url)
}

/// Responds to `/silent` never, to `/half` with half a body, to `/slow` after a notification, and to others at once.
async fn respond(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, release: Arc<Notify>) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let release = release.clone();
        async move {
            let body: UnsyncBoxBody<Bytes, BodyError> = match request.uri().path() {
                "/silent" => std::future::pending().await,
                "/half" => {
                    let half = futures_util::stream::iter([Ok(http_body::Frame::data(Bytes::from_static(b"half")))]);
                    StreamBody::new(futures_util::StreamExt::chain(half, futures_util::stream::pending()))
                        .boxed_unsync()
                }
                "/slow" => {
                    release.notified().await;
                    full("slow")
                }
                _ => full("ok"),
            };
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        }
    });
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

/// Calls `/silent` or `/half` and returns the error.
async fn error_of(owner: &Owner, url: &str, limits: &Limits) -> Error {
    match owner.send(get(url), limits).await {
        Err(error) => error,
        Ok(response) => response.into_body().collect().await.err().unwrap(),
    }
}

#[tokio::test]
async fn after_a_time_out_other_calls_use_a_new_connection_and_running_calls_continue() {
    let release = Arc::new(Notify::new());
    let released = release.clone();
    let (server, owner, url) = start(move |stream| respond(stream, released.clone())).await;
    let long = Limits::within(60 * SECOND);
    let short = Duration::from_millis(100);
    let first_byte = Limits { first_byte_timeout: short, ..long.clone() };
    let between_bytes = Limits { between_bytes_timeout: short, ..long.clone() };
    for (path, kind) in [("silent", "first-byte-timeout"), ("silent", "deadline"), ("half", "between-bytes-timeout")] {
        assert_eq!(text(owner.send(get(&url), &long).await.unwrap()).await, "ok");
        let accepted = server.accepted();
        let slow = tokio::spawn({
            let (owner, request, limits) = (owner.clone(), get(&format!("{url}/slow")), long.clone());
            async move { text(owner.send(request, &limits).await.unwrap()).await }
        });
        // The connection is in the pool, so the time until the deadline is not needed for a handshake.
        let limits = match kind {
            "deadline" => Limits::within(short),
            "first-byte-timeout" => first_byte.clone(),
            _ => between_bytes.clone(),
        };
        assert_eq!(error_of(&owner, &format!("{url}/{path}"), &limits).await.kind(), kind);
        assert_eq!(text(owner.send(get(&url), &long).await.unwrap()).await, "ok");
        assert_eq!(server.accepted(), accepted + 1, "{kind}");
        release.notify_one();
        assert_eq!(slow.await.unwrap(), "slow");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_peer_is_silent_is_closed_during_a_request() {
    let (client, mut peer) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move {
        peer.write_all(&SETTINGS).await.unwrap();
        // The peer reads everything and sends nothing, not even the response to a ping.
        while peer.read_u8().await.is_ok() {}
    });
    let permits = Arc::new(Semaphore::new(1));
    let permit = permits.clone().try_acquire_owned().unwrap();
    let mut connection = Connection::start(client, true, permit).await.unwrap();
    let body = SentBody::new(empty(), None, Arc::default(), Arc::new(Sending::default()), None);
    let started = Instant::now();
    let request = Request::get("https://silent.test/").body(body).unwrap();
    let sent = tokio::time::timeout(60 * SECOND, connection.send(request)).await;
    let error = sent.expect("the connection is still open").err().unwrap();
    assert_eq!(Error::of_connection(error.error()), Error::Closed);
    let waited = started.elapsed();
    assert!((PING_INTERVAL + PING_TIMEOUT..PING_INTERVAL + PING_TIMEOUT + SECOND).contains(&waited), "{waited:?}");
    // The connection is closed: its permit is free.
    drop(permits.acquire().await.unwrap());
    let Connection::Http2(connection) = connection else { unreachable!() };
    assert!(connection.is_closed());
}

/// Responds to each request at once and takes no request body. Only the response to `/ended` ends.
async fn take_no_body(stream: TlsStream<TcpStream>) {
    let mut builder = h2::server::Builder::new();
    let mut connection = builder.initial_window_size(0).handshake::<_, Bytes>(stream).await.unwrap();
    let mut streams = Vec::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let is_end = request.uri().path() == "/ended";
        let stream = respond.send_response(http::Response::new(()), is_end).unwrap();
        // Otherwise, h2 resets the stream.
        streams.push((request, respond, stream));
    }
}

#[tokio::test]
async fn a_peer_that_responds_and_takes_no_body_holds_no_more_bodies_than_calls_and_only_for_a_while() {
    let (server, owner, url) = start(take_no_body).await;
    let limits = Limits::within(60 * SECOND);
    let memory = Arc::new(());
    let post = |path: &str| {
        let request = Request::post(format!("{url}/{path}")).extension(UntilSent(memory.clone()));
        request.body(full(vec![b'x'; 1 << 20])).unwrap()
    };
    owner.0.calls.forget_permits(CALLS_MAX - 2);
    assert_eq!(text(owner.send(post("ended"), &limits).await.unwrap()).await, "");
    drop(owner.send(post("open"), &limits).await.unwrap());
    assert_eq!(Arc::strong_count(&memory), 3, "both bodies are in memory");
    assert_eq!(owner.send(post("ended"), &limits).await.err(), Some(Error::TooManyCalls));
    assert_eq!(server.accepted(), 2, "the connection with the first body was shared");
    tokio::time::pause();
    let calls = tokio::time::timeout(REST_MAX + SECOND, owner.0.calls.acquire_many(2)).await;
    drop(calls.expect("the bodies are still in memory").unwrap());
    assert_eq!(Arc::strong_count(&memory), 1);
    tokio::time::resume();
    assert_eq!(text(owner.send(get(&format!("{url}/ended")), &limits).await.unwrap()).await, "");
    assert_eq!(server.accepted(), 3);
}

#[tokio::test]
async fn a_connection_whose_peer_takes_each_body_is_shared_further() {
    let (server, owner, url) = start(|stream| async move {
        let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
            let size = request.into_body().collect().await.unwrap().to_bytes().len();
            Ok::<_, std::convert::Infallible>(http::Response::new(full(size.to_string())))
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    })
    .await;
    let limits = Limits::within(60 * SECOND);
    for size in [1, 1 << 10, 1 << 20, 1] {
        let post = Request::post(&url).body(full(vec![b'x'; size])).unwrap();
        assert_eq!(text(owner.send(post, &limits).await.unwrap()).await, size.to_string());
        assert_eq!(owner.0.calls.available_permits(), CALLS_MAX);
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn the_text_with_which_a_peer_ends_a_connection_is_in_no_message() {
    let (_server, owner, url) = start(|mut stream| async move {
        stream.write_all(&SETTINGS).await.unwrap();
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        let text = b"hunter2 ".repeat(2000);
        let length = u32::try_from(8 + text.len()).unwrap().to_be_bytes();
        // GOAWAY (RFC 9113, section 6.8): the last stream is 0, and the reason is ENHANCE_YOUR_CALM.
        let goaway = [&length[1..], &[7, 0, 0, 0, 0, 0], &[0; 4], &[0, 0, 0, 11], &text].concat();
        stream.write_all(&goaway).await.unwrap();
        while stream.read_u8().await.is_ok() {}
    })
    .await;
    let error = owner.send(get(&url), &Limits::within(5 * SECOND)).await.err().unwrap();
    let message = error.to_string();
    assert!(message.starts_with("the peer violates HTTP: http2 error: GOAWAY received: "), "{message}");
    assert!(!message.contains("hunter2") && message.len() < 200, "{message}");
}
