//! Opens a connection: reads the header of the PROXY protocol, and makes the TLS handshake. Each of these steps is only
//! done if it is configured. One time limit applies to both steps together.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::timeout;

use evoke_telemetry::{ConnectionMetrics, ConnectionRefusal};

use super::connections::ConnectionPermit;
use super::limits::Limits;
use super::notice::Notice;
use super::paced::Paced;
use super::proxies::{Client, HEADER_MAX, Parsed, Proxies, parse};
use super::socket::{Peeked, Socket};
use super::tls::{ClientCertificate, HANDSHAKE_RECORD, Tls};

/// The response to a connection that would exceed a limit on the number of connections.
const TOO_MANY_CONNECTIONS: &str =
    "HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
/// The response to a request without TLS on a port with TLS.
const NEEDS_TLS: &str = r#"{"type":"about:blank","title":"Bad Request","status":400,"detail":"this port requires TLS; use https:// in place of http://"}"#;
/// The most bytes that are read to recognise a request without TLS.
const FIRST_BYTES_MAX: usize = 4096;

/// The steps of a connection before HTTP: the PROXY header and TLS.
#[derive(Debug, Clone, Default)]
pub(super) struct Opening {
    pub(super) tls: Option<Tls>,
    pub(super) proxies: Arc<Proxies>,
    pub(super) metrics: Arc<ConnectionMetrics>,
}

/// A connection that is ready for HTTP.
pub(super) struct Opened {
    pub(super) socket: Socket,
    pub(super) client: Client,
    pub(super) certificate: Option<ClientCertificate>,
}

/// Why a connection was closed before HTTP.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("the connection broke off before HTTP began: {0}")]
    Ended(#[from] io::Error),
    #[error("{0}")]
    ProxyHeader(&'static str),
    #[error("its client already has the maximum number of connections")]
    TooMany,
    #[error("the client sent data without TLS, but this port requires TLS")]
    PlainHttp,
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    #[error("the TLS handshake took too long")]
    Slow,
}

/// A connection that cannot be opened.
struct Unopened {
    error: OpenError,
    /// The response to send before the connection is closed.
    response: Option<Box<(Peeked, String)>>,
}

impl From<OpenError> for Unopened {
    fn from(error: OpenError) -> Self {
        Self { error, response: None }
    }
}

impl From<io::Error> for Unopened {
    fn from(error: io::Error) -> Self {
        OpenError::Ended(error).into()
    }
}

impl OpenError {
    fn refusal(&self) -> Option<ConnectionRefusal> {
        Some(match self {
            // This is not a refusal: perhaps the peer only checked whether the port is open.
            Self::Ended(_) => return None,
            Self::ProxyHeader(_) => ConnectionRefusal::ProxyHeader,
            Self::TooMany => ConnectionRefusal::Limit,
            Self::PlainHttp => ConnectionRefusal::PlainHttp,
            Self::Handshake(_) => ConnectionRefusal::Handshake,
            Self::Slow => ConnectionRefusal::SlowHandshake,
        })
    }
}

impl Opening {
    /// Refuses a connection that would exceed a limit, and counts the refusal. On a port without TLS, also sends a 503,
    /// if the socket accepts the bytes without blocking.
    pub(super) fn refuse(&self, tcp: &TcpStream, peer: SocketAddr) {
        self.metrics.refused(ConnectionRefusal::Limit).increment();
        tracing::debug!("refused a connection from {peer}: too many are open, in total or from this client");
        if self.tls.is_none() {
            let _ = tcp.try_write(TOO_MANY_CONNECTIONS.as_bytes());
        }
    }

    /// Returns the opened connection, or `None` if the connection was closed. A closed connection is counted as
    /// refused, unless the peer broke it off.
    pub(super) async fn open(
        &self,
        tcp: TcpStream,
        peer: SocketAddr,
        permit: &ConnectionPermit,
        limits: &Limits,
    ) -> Option<Opened> {
        let socket = Peeked::new(Paced::new(tcp, limits));
        if self.tls.is_none() && !self.proxies.has_header(peer.ip()) {
            let client = Client::of_connection(peer, false, false);
            return Some(Opened { socket: Socket::Plain(socket), client, certificate: None });
        }
        permit.begin_handshake();
        let opened = timeout(limits.handshake, self.handshake(socket, peer, permit)).await;
        permit.end_handshake();
        let Unopened { error, response } = match opened {
            Ok(Ok(opened)) => return Some(opened),
            Ok(Err(unopened)) => unopened,
            Err(_) => OpenError::Slow.into(),
        };
        if let Some(refusal) = error.refusal() {
            self.metrics.refused(refusal).increment();
        }
        if let OpenError::ProxyHeader(reason) = &error {
            static NOTICE: Notice = Notice::new();
            NOTICE.log(|others| tracing::warn!("a connection from the proxy {peer} was closed{others}: {reason}"));
        } else {
            tracing::debug!("the connection from {peer} was closed: {error}");
        }
        if let Some(response) = response {
            let (mut socket, text) = *response;
            socket.end_with(text.as_bytes()).await;
        }
        None
    }

    async fn handshake(
        &self,
        mut socket: Peeked,
        peer: SocketAddr,
        permit: &ConnectionPermit,
    ) -> Result<Opened, Unopened> {
        let named = if self.proxies.has_header(peer.ip()) { read_proxy_header(&mut socket).await? } else { None };
        let client = named.unwrap_or(peer);
        if named.is_some() && !permit.move_to(client.ip()) {
            let response = self.tls.is_none().then(|| Box::new((socket, TOO_MANY_CONNECTIONS.to_owned())));
            return Err(Unopened { error: OpenError::TooMany, response });
        }
        let of_client = |is_tls| Client::of_connection(client, is_tls, named.is_some());
        let Some(tls) = &self.tls else {
            return Ok(Opened { socket: Socket::Plain(socket), client: of_client(false), certificate: None });
        };
        while socket.head().is_empty() {
            if !socket.read_more(FIRST_BYTES_MAX).await? {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        if let Some(&first) = socket.head().first()
            && first != HANDSHAKE_RECORD
        {
            // Data that begins with a letter is most likely an HTTP request, so it gets an HTTP response.
            let response = first.is_ascii_alphabetic().then(|| {
                let length = NEEDS_TLS.len();
                let text = format!(
                    "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\ncontent-length: {length}\r\n\
                     connection: close\r\n\r\n{NEEDS_TLS}"
                );
                Box::new((socket, text))
            });
            return Err(Unopened { error: OpenError::PlainHttp, response });
        }
        let stream = tls.acceptor().accept(socket).await.map_err(OpenError::Handshake)?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = shown.map(ClientCertificate::new);
        Ok(Opened { socket: Socket::Tls(Box::new(stream)), client: of_client(true), certificate })
    }
}

/// Reads the header of the PROXY protocol. Returns the address of the client, if the proxy names one.
async fn read_proxy_header(socket: &mut Peeked) -> Result<Option<SocketAddr>, OpenError> {
    loop {
        match parse(socket.head()) {
            Parsed::Complete { client, length } => {
                socket.consume(length);
                return Ok(client);
            }
            Parsed::Invalid(reason) => return Err(OpenError::ProxyHeader(reason)),
            Parsed::Incomplete => {
                if !socket.read_more(HEADER_MAX).await? {
                    // A proxy that only checks whether the port is open sends nothing.
                    let is_silent = socket.head().is_empty();
                    let ended = OpenError::Ended(io::ErrorKind::UnexpectedEof.into());
                    return Err(if is_silent { ended } else { OpenError::ProxyHeader("its PROXY header is cut off") });
                }
            }
        }
    }
}
