//! Lists as NDJSON, made while they are sent.

use axum::body::{Body, Bytes};
use futures_util::stream;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Admin;
use crate::store::StoreError;

/// Chunks that are made ahead of the client: one is sent while the next is made.
const AHEAD_MAX: usize = 2;

/// Where a list's lines go.
pub(super) struct Lines {
    chunks: mpsc::Sender<Result<Bytes, StoreError>>,
}

/// The client left: there is nobody to make lines for.
pub(super) struct Left;

/// Why a list ends early.
pub(super) enum Ended {
    /// Nobody reads it.
    Left,
    /// It cannot be made.
    Failed(StoreError),
}

impl From<Left> for Ended {
    fn from(_: Left) -> Self {
        Self::Left
    }
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl Lines {
    /// Sends lines, which have no line breaks of their own. Waits for the client.
    pub(super) async fn send(&self, lines: impl IntoIterator<Item = String>) -> Result<(), Left> {
        let mut chunk = String::new();
        for line in lines {
            chunk.push_str(&line);
            chunk.push('\n');
        }
        if chunk.is_empty() {
            return Ok(());
        }
        self.chunks.send(Ok(chunk.into())).await.map_err(|_| Left)
    }
}

/// A response whose lines `make` sends. It ends when `make` returns, the client leaves or the API stops.
pub(super) fn ndjson<F>(admin: &Admin, make: impl FnOnce(Lines) -> F) -> Response<Body>
where
    F: Future<Output = Result<(), Ended>> + Send + 'static,
{
    let (chunks, queue) = mpsc::channel(AHEAD_MAX);
    let made = make(Lines { chunks: chunks.clone() });
    tokio::spawn(run(made, chunks, admin.stop.clone()));
    let body = stream::unfold(queue, async |mut queue| queue.recv().await.map(|chunk| (chunk, queue)));
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

async fn run(
    made: impl Future<Output = Result<(), Ended>>,
    chunks: mpsc::Sender<Result<Bytes, StoreError>>,
    stop: CancellationToken,
) {
    tokio::select! {
        ended = made => if let Err(Ended::Failed(error)) = ended {
            tracing::warn!("a list of the admin API broke off: {error}");
            let _ = chunks.send(Err(error)).await;
        },
        () = chunks.closed() => {}
        () = stop.cancelled() => {}
    }
}
