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
    let body = SentBody::new(empty(), None, Arc::default(), Arc::new(Sending::default()));
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
