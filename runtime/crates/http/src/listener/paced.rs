//! A socket that fails if the peer reads a response too slowly. The socket is below the TLS layer: bytes that are still
//! in a buffer of the TLS layer do not count as read by the peer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::limits::Limits;
use super::pace::Pace;

pub(super) struct Paced<T> {
    io: T,
    stall: Duration,
    pace: Pace,
    /// Set while the peer accepts no bytes.
    wait: Option<Wait>,
}

/// A wait for the peer.
struct Wait {
    /// The time at which the longest allowed pause ends.
    stalls_at: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<T> Paced<T> {
    pub(super) fn new(io: T, limits: &Limits) -> Self {
        Self { io, stall: limits.write_stall, pace: Pace::new(limits.rate_min), wait: None }
    }

    pub(super) fn get_ref(&self) -> &T {
        &self.io
    }

    fn check_stall(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            self.wait = None;
            self.pace.progress(written.as_ref().map_or(0, |length| *length));
            return Poll::Ready(written);
        }
        let now = Instant::now();
        let stall = self.stall;
        let wait = self.wait.get_or_insert_with(|| Wait { stalls_at: now + stall, timer: Box::pin(sleep_until(now)) });
        loop {
            let until = wait.stalls_at.min(self.pace.wait(Instant::now()));
            if wait.timer.deadline() != until {
                wait.timer.as_mut().reset(until);
            }
            ready!(wait.timer.as_mut().poll(cx));
            let now = Instant::now();
            if now >= wait.stalls_at || self.pace.is_too_slow(now) {
                let error = "the peer reads the response too slowly";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, error)));
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Paced<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.check_stall(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.check_stall(cx, written)
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
