//! The streams stdout and stderr of a guest, for wasmtime-wasi. Writes never wait.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use wasmtime::format_err;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// Limit on the bytes of one write. `check-write` returns this limit, and WASI forbids a guest to write more. The limit
/// also bounds the memory that the host allocates for `write-zeroes`.
const WRITE_MAX: usize = 64 * 1024;

/// Receives the bytes of a stream.
pub(super) trait ByteSink: Clone + Send + Sync + Unpin + 'static {
    /// Consumes the bytes without waiting. An error ends the guest.
    fn write(&self, bytes: &[u8]) -> wasmtime::Result<()>;
}

/// The output stream that the guest writes to.
#[derive(Clone)]
pub(super) struct Output<T>(pub(super) T);

impl<T> IsTerminal for Output<T> {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl<T: ByteSink> StdoutStream for Output<T> {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl<T: ByteSink> Pollable for Output<T> {
    async fn ready(&mut self) {}
}

impl<T: ByteSink> OutputStream for Output<T> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > WRITE_MAX {
            let length = bytes.len();
            let error = format_err!("wrote {length} bytes to a stream in one call; `check-write` permits {WRITE_MAX}");
            return Err(StreamError::Trap(error));
        }
        self.0.write(&bytes).map_err(StreamError::Trap)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_MAX)
    }
}

impl<T: ByteSink> tokio::io::AsyncWrite for Output<T> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.write(bytes).map(|()| bytes.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
