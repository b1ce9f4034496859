//! stdout and stderr of a guest, for wasmtime-wasi: they take everything at once and never block.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::log::{AttemptLog, Stream};

/// What a guest may hand over in one write; it also bounds what `write-zeroes` allocates.
const WRITE_MAX: usize = 64 * 1024;

/// Where the bytes of a stream go.
pub(super) trait Take: Clone + Send + Sync + Unpin + 'static {
    /// Takes bytes at once. An error ends the guest.
    fn take(&self, bytes: &[u8]) -> wasmtime::Result<()>;
}

/// A stream whose lines are logged.
#[derive(Clone)]
pub(super) struct Lines {
    pub(super) log: AttemptLog,
    pub(super) stream: Stream,
}

impl Take for Lines {
    fn take(&self, bytes: &[u8]) -> wasmtime::Result<()> {
        self.log.write(self.stream, bytes);
        Ok(())
    }
}

/// A stream as the guest has it.
#[derive(Clone)]
pub(super) struct Output<T>(pub(super) T);

impl<T> IsTerminal for Output<T> {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl<T: Take> StdoutStream for Output<T> {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl<T: Take> Pollable for Output<T> {
    async fn ready(&mut self) {}
}

impl<T: Take> OutputStream for Output<T> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.take(&bytes).map_err(StreamError::Trap)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_MAX)
    }
}

impl<T: Take> tokio::io::AsyncWrite for Output<T> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.take(bytes).map(|()| bytes.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
