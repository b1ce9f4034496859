//! Streams responses with a small buffer, at the pace of the client.

use std::io;

use axum::body::{Body, Bytes};
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::Admin;
use evoke_store::StoreError;

/// Maximum number of chunks that wait for the client, besides the one that is being sent.
const CHUNKS_MAX: usize = 1;
/// Maximum size in bytes of a page of objects from the store, and of a chunk of text. A larger object is a page and a
/// chunk of its own.
pub(super) const PAGE_BYTES_MAX: usize = 64 * 1024;

/// Sends text to the client.
pub(super) struct Lines {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    /// The text that was not sent yet.
    chunk: String,
}

/// The error of a send to a client that has disconnected.
pub(super) struct ClientGone;

/// The reason why a list ends before its last line.
pub(super) enum StreamError {
    /// The client has disconnected.
    ClientGone,
    /// Something could not be read.
    Failed(String),
}

impl From<ClientGone> for StreamError {
    fn from(_: ClientGone) -> Self {
        Self::ClientGone
    }
}

impl From<StoreError> for StreamError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<JoinError> for StreamError {
    fn from(error: JoinError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Lines {
    /// Waits until no chunk waits for the client. A call before a read of the store ensures that no page is read early
    /// for a client that reads slowly.
    pub(super) async fn ready(&mut self) -> Result<(), ClientGone> {
        self.chunks.reserve().await.map(drop).map_err(|_| ClientGone)
    }

    /// Adds a value as a line of JSON.
    pub(super) async fn json(&mut self, value: &impl Serialize) -> Result<(), ClientGone> {
        // Never fails: strings, numbers and JSON always serialise.
        self.line(serde_json::to_string(value).unwrap_or_default()).await
    }

    /// Adds a line, which contains no line break.
    pub(super) async fn line(&mut self, mut line: String) -> Result<(), ClientGone> {
        line.push('\n');
        self.text(line).await
    }

    /// Adds text to the chunk. If the chunk would become too large, sends the chunk first.
    pub(super) async fn text(&mut self, text: String) -> Result<(), ClientGone> {
        if self.chunk.len() + text.len() > PAGE_BYTES_MAX {
            self.flush().await?;
        }
        // The text becomes the chunk without a copy.
        if self.chunk.is_empty() {
            self.chunk = text;
        } else {
            self.chunk.push_str(&text);
        }
        if self.chunk.len() >= PAGE_BYTES_MAX { self.flush().await } else { Ok(()) }
    }

    /// Sends the chunk. Waits while an earlier chunk still waits for the client.
    pub(super) async fn flush(&mut self) -> Result<(), ClientGone> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.chunk);
        self.chunks.send(Ok(chunk.into())).await.map_err(|_| ClientGone)
    }
}

/// Returns a response with the lines that `write` sends. At its end, `write` must flush the last lines. The response
/// ends when `write` returns, the client disconnects or the API stops.
pub(super) fn ndjson<F>(admin: &Admin, write: impl FnOnce(Lines) -> F) -> Response<Body>
where
    F: Future<Output = Result<(), StreamError>> + Send + 'static,
{
    stream(admin, "application/x-ndjson", write)
}

/// Like [`ndjson`], for one JSON value that `write` sends in parts.
pub(super) fn json<F>(admin: &Admin, write: impl FnOnce(Lines) -> F) -> Response<Body>
where
    F: Future<Output = Result<(), StreamError>> + Send + 'static,
{
    stream(admin, "application/json", write)
}

/// Like [`ndjson`], for server-sent events (HTML standard, section 9.2).
pub(super) fn events<F>(admin: &Admin, write: impl FnOnce(Lines) -> F) -> Response<Body>
where
    F: Future<Output = Result<(), StreamError>> + Send + 'static,
{
    stream(admin, "text/event-stream", write)
}

fn stream<F>(admin: &Admin, media_type: &'static str, write: impl FnOnce(Lines) -> F) -> Response<Body>
where
    F: Future<Output = Result<(), StreamError>> + Send + 'static,
{
    let (chunks, queue) = mpsc::channel(CHUNKS_MAX);
    let writing = write(Lines { chunks: chunks.clone(), chunk: String::new() });
    tokio::spawn(run(writing, chunks, admin.stop.clone()));
    let body = futures_util::stream::unfold(queue, async |mut queue| queue.recv().await.map(|chunk| (chunk, queue)));
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

async fn run(
    writing: impl Future<Output = Result<(), StreamError>>,
    chunks: mpsc::Sender<io::Result<Bytes>>,
    stop: CancellationToken,
) {
    tokio::select! {
        result = writing => if let Err(StreamError::Failed(error)) = result {
            tracing::warn!("a response of the admin API failed: {error}");
            let _ = chunks.send(Err(io::Error::other(error))).await;
        },
        () = chunks.closed() => {}
        () = stop.cancelled() => {}
    }
}
