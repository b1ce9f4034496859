//! The stream of a connection that the HTTP server reads and writes. The stream makes ambiguous requests invalid, and
//! fails when the peer accepts no bytes for too long.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use super::body::Activity;
use super::framing::FramingFilter;
use super::limits::Limits;
use super::pace::Pace;

/// The bytes that replace the rest of an ambiguous request, followed by the end of the stream. A NUL is valid nowhere
/// in a head, and the empty line makes the parser evaluate at once: it sends 400 and closes. Within a chunked body the
/// end of the stream has the same effect.
const INVALID_REQUEST: &[u8] = b"\0\r\n\r\n";

pub(super) struct Stream<T> {
    io: T,
    filter: FramingFilter,
    /// The unread rest of [`INVALID_REQUEST`], once a request was ambiguous.
    invalid_rest: Option<&'static [u8]>,
    activity: Arc<watch::Sender<Activity>>,
    /// The last value of [`Activity::is_in_head`].
    is_in_head: bool,
    stall: Duration,
    pace: Pace,
    /// Set while the peer accepts no bytes.
    wait: Option<Wait>,
}

/// A wait for the peer.
struct Wait {
    /// The end of the longest pause.
    stalls_at: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<T> Stream<T> {
    pub(super) fn new(io: T, activity: Arc<watch::Sender<Activity>>, limits: &Limits) -> Self {
        Self {
            io,
            filter: FramingFilter::default(),
            invalid_rest: None,
            activity,
            is_in_head: false,
            stall: limits.write_stall,
            pace: Pace::new(limits.rate_min),
            wait: None,
        }
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
                let error = "the peer takes the bytes of the response too slowly";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, error)));
            }
        }
    }

    /// Reports whether a part of a request's head has arrived, and the rest has not.
    fn report_head(&mut self) {
        let is_in_head = self.filter.is_in_head();
        if is_in_head != self.is_in_head {
            self.is_in_head = is_in_head;
            self.activity.send_modify(|activity| activity.is_in_head = is_in_head);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.invalid_rest.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            let read = buf.filled().get(before..).unwrap_or_default();
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
