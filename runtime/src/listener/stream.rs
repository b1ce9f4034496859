//! A TCP connection as the HTTP server sees it: ambiguous requests become invalid ones, and a peer that takes nothing
//! is given up.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::strict::Strict;

/// What the parser is given instead of the rest of an ambiguous request, before the end of the stream. A NUL is
/// valid nowhere in a head, and the empty line has the parser look at once: it answers 400 and closes. Within a
/// chunked body the end of the stream does the same.
const SPOILT: &[u8] = b"\0\r\n\r\n";

pub(super) struct Stream {
    tcp: TcpStream,
    strict: Strict,
    /// What is left of [`SPOILT`], once a request was ambiguous.
    spoilt: Option<&'static [u8]>,
    stall: Duration,
    /// Set while the peer takes nothing.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, stall: Duration) -> Self {
        Self { tcp, strict: Strict::default(), spoilt: None, stall, timer: None }
    }

    fn in_time<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.timer = None;
            return written;
        }
        let stall = self.stall;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes no answer")))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.spoilt.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
            let read = buf.filled().get(before..).unwrap_or_default();
            let Err(good) = self.strict.pass(read) else { return Poll::Ready(Ok(())) };
            buf.set_filled(before + good);
        }
        let spoilt = self.spoilt.unwrap_or(SPOILT);
        let (now, later) = spoilt.split_at(spoilt.len().min(buf.remaining()));
        buf.put_slice(now);
        self.spoilt = Some(later);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.in_time(cx, written)
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
