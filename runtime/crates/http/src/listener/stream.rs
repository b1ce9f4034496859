//! The TCP stream that the HTTP server reads and writes: it makes ambiguous requests invalid, and fails when the peer
//! accepts no bytes for too long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::framing::FramingFilter;

/// The bytes that replace the rest of an ambiguous request, followed by the end of the stream. A NUL is valid nowhere
/// in a head, and the empty line makes the parser evaluate at once: it sends 400 and closes. Within a chunked body the
/// end of the stream has the same effect.
const INVALID_REQUEST: &[u8] = b"\0\r\n\r\n";

pub(super) struct Stream {
    tcp: TcpStream,
    filter: FramingFilter,
    /// The unread rest of [`INVALID_REQUEST`], once a request was ambiguous.
    invalid_rest: Option<&'static [u8]>,
    stall: Duration,
    /// Set while the peer accepts no bytes.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, stall: Duration) -> Self {
        Self { tcp, filter: FramingFilter::default(), invalid_rest: None, stall, timer: None }
    }

    fn check_stall<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.timer = None;
            return written;
        }
        let stall = self.stall;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer accepts no bytes of the response")))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.invalid_rest.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
            let read = buf.filled().get(before..).unwrap_or_default();
            let Err(good) = self.filter.advance(read) else { return Poll::Ready(Ok(())) };
            buf.set_filled(before + good);
        }
        let invalid_rest = self.invalid_rest.unwrap_or(INVALID_REQUEST);
        let (now, later) = invalid_rest.split_at(invalid_rest.len().min(buf.remaining()));
        buf.put_slice(now);
        self.invalid_rest = Some(later);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.check_stall(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.check_stall(cx, written)
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
