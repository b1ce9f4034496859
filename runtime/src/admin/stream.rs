//! Streams lists as NDJSON.

use axum::body::{Body, Bytes};
use futures_util::stream;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Admin;
use evoke_store::StoreError;

/// Maximum number of chunks buffered for a client: one is sent while the next is prepared.
const CHUNKS_MAX: usize = 2;

/// Sends the lines of a list to the client.
pub(super) struct Lines {
    chunks: mpsc::Sender<Result<Bytes, StoreError>>,
}

/// Error: the client has disconnected.
pub(super) struct ClientGone;

/// Why a list ends before its last line.
pub(super) enum StreamError {
    /// The client has disconnected.
    ClientGone,
    /// The store returned an error.
    Store(StoreError),
}

impl From<ClientGone> for StreamError {
    fn from(_: ClientGone) -> Self {
        Self::ClientGone
    }
}

impl From<StoreError> for StreamError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Lines {
    /// Sends lines, none of which contains a line break. Waits while the buffer is full.
    pub(super) async fn send(&self, lines: impl IntoIterator<Item = String>) -> Result<(), ClientGone> {
        let mut chunk = String::new();
        for line in lines {
            chunk.push_str(&line);
            chunk.push('\n');
        }
        if chunk.is_empty() {
            return Ok(());
        }
        self.chunks.send(Ok(chunk.into())).await.map_err(|_| ClientGone)
    }
}

/// Returns a response with the lines that `write` sends. The response ends when `write` returns, the client disconnects
/// or the API stops.
pub(super) fn ndjson<F>(admin: &Admin, write: impl FnOnce(Lines) -> F) -> Response<Body>
where
    F: Future<Output = Result<(), StreamError>> + Send + 'static,
{
    let (chunks, queue) = mpsc::channel(CHUNKS_MAX);
    let writing = write(Lines { chunks: chunks.clone() });
    tokio::spawn(run(writing, chunks, admin.stop.clone()));
    let body = stream::unfold(queue, async |mut queue| queue.recv().await.map(|chunk| (chunk, queue)));
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

async fn run(
    writing: impl Future<Output = Result<(), StreamError>>,
    chunks: mpsc::Sender<Result<Bytes, StoreError>>,
    stop: CancellationToken,
) {
    tokio::select! {
        result = writing => if let Err(StreamError::Store(error)) = result {
            tracing::warn!("a list response of the admin API failed: {error}");
            let _ = chunks.send(Err(error)).await;
        },
        () = chunks.closed() => {}
        () = stop.cancelled() => {}
    }
}
