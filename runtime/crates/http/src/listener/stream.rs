//! The stream of a connection that the HTTP server reads and writes. The stream replaces the rest of an ambiguous
//! request by invalid bytes, so that the HTTP parser rejects the request.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::body::Activity;
use super::framing::FramingFilter;
use super::notice::Notice;
use super::tls::{self, HANDSHAKE_RECORD};

/// In place of the rest of an ambiguous request, the parser receives these bytes, and then the end of the stream. In a
/// head, the NUL is invalid, and the empty line makes the parser evaluate the head immediately; in a chunked body, the
/// end of the stream is invalid. In both cases, the server sends 400 and closes the connection.
const INVALID_REQUEST: &[u8] = b"\0\r\n\r\n";

pub(super) struct Stream<T> {
    io: T,
    filter: FramingFilter,
    /// The unread rest of [`INVALID_REQUEST`]. `None` until a request is ambiguous.
    invalid_rest: Option<&'static [u8]>,
    activity: Arc<watch::Sender<Activity>>,
    /// The last value of [`Activity::is_in_head`].
    is_in_head: bool,
    /// The peer of a connection without TLS, until its first bytes have arrived.
    plain_peer: Option<SocketAddr>,
}

impl<T> Stream<T> {
    /// `plain_peer` is the peer of a connection without TLS: a TLS handshake on it is logged.
    pub(super) fn new(io: T, activity: Arc<watch::Sender<Activity>>, plain_peer: Option<SocketAddr>) -> Self {
        let filter = FramingFilter::default();
        Self { io, filter, invalid_rest: None, activity, is_in_head: false, plain_peer }
    }

    /// Reports a change of [`Activity::is_in_head`].
    fn report_head(&mut self) {
        let is_in_head = self.filter.is_in_head();
        if is_in_head != self.is_in_head {
            self.is_in_head = is_in_head;
            self.activity.send_modify(|activity| activity.is_in_head = is_in_head);
        }
    }
}

/// Logs that a client speaks TLS to a port without TLS, if `first` is the first byte of a TLS handshake.
fn note_handshake(first: u8, peer: SocketAddr) {
    static NOTICE: Notice = Notice::new();
    if first == HANDSHAKE_RECORD {
        NOTICE.log(|others| {
            tracing::warn!("{peer} sent a TLS handshake, but this port has no TLS{others}; {}", tls::HOW_TO_ENABLE);
        });
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.invalid_rest.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            let read = buf.filled().get(before..).unwrap_or_default();
            if let (Some(peer), Some(&first)) = (self.plain_peer, read.first()) {
                self.plain_peer = None;
                note_handshake(first, peer);
            }
            let Err(good) = self.filter.advance(read) else {
                self.report_head();
                return Poll::Ready(Ok(()));
            };
            buf.set_filled(before + good);
        }
        let invalid_rest = self.invalid_rest.unwrap_or(INVALID_REQUEST);
        let (now, later) = invalid_rest.split_at(invalid_rest.len().min(buf.remaining()));
        buf.put_slice(now);
        self.invalid_rest = Some(later);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
