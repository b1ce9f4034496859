//! The socket of a connection, with or without TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::paced::Paced;

/// The buffer space of one read, in bytes.
const READ_SIZE: usize = 1024;
/// Limits of [`Peeked::end_with`] for reading the bytes that the peer still sends.
const END_WAIT: Duration = Duration::from_millis(500);
const END_BYTES_MAX: usize = 64 * 1024;

/// A TCP connection whose first bytes can be read in advance.
pub(super) struct Peeked {
    tcp: Paced<TcpStream>,
    /// The bytes that were read in advance; the next reads return them first.
    head: Vec<u8>,
}

impl Peeked {
    pub(super) fn new(tcp: Paced<TcpStream>) -> Self {
        Self { tcp, head: Vec::new() }
    }

    /// Returns the bytes that were read and not consumed.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Reads more bytes into `head`, which then has at most `max` bytes. Returns false at the end of the stream, and if
    /// `head` already had `max` bytes.
    pub(super) async fn read_more(&mut self, max: usize) -> io::Result<bool> {
        let room = max.saturating_sub(self.head.len());
        self.head.reserve(room.min(READ_SIZE));
        Ok(room > 0 && (&mut self.tcp).take(room as u64).read_buf(&mut self.head).await? > 0)
    }

    /// Removes `length` bytes from the start of `head`.
    pub(super) fn consume(&mut self, length: usize) {
        self.head.drain(..length.min(self.head.len()));
    }

    /// Sends as many of the bytes as the socket accepts without blocking, and ends the stream. Then reads and drops the
    /// bytes that the peer still sends, within limits. If the socket were closed with unread bytes, the peer could lose
    /// the bytes that were sent to it.
    pub(super) async fn end_with(&mut self, bytes: &[u8]) {
        let _ = self.tcp.get_ref().try_write(bytes);
        self.head.clear();
        let _ = timeout(END_WAIT, async {
            self.tcp.shutdown().await?;
            let mut discarded = 0;
            while discarded < END_BYTES_MAX && self.read_more(READ_SIZE).await? {
                discarded += self.head.len();
                self.head.clear();
            }
            Ok::<_, io::Error>(())
        })
        .await;
    }
}

impl AsyncRead for Peeked {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            return Pin::new(&mut self.tcp).poll_read(cx, buf);
        }
        let length = self.head.len().min(buf.remaining());
        buf.put_slice(self.head.get(..length).unwrap_or_default());
        self.consume(length);
        if self.head.is_empty() {
            // Frees the memory of the buffer, which is not used again.
            self.head = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peeked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// A connection that is ready for HTTP. One type for connections with and without TLS, so that the code of the HTTP
/// server is compiled only once.
pub(super) enum Socket {
    Plain(Peeked),
    /// Boxed, because the state of TLS is large.
    Tls(Box<TlsStream<Peeked>>),
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_shutdown(cx),
        }
    }
}
