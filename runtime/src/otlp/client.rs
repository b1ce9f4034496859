//! The HTTP client of the exporter. It blocks: only the exporter's own thread calls it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};

/// The largest answer that is read: the rejections of a batch.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Client {
    agent: ureq::Agent,
    endpoint: String,
    /// Whether the last request failed: trouble is told once, and its end.
    failing: AtomicBool,
}

impl Client {
    pub(super) fn new(endpoint: &str, timeout: Duration) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(timeout)).build();
        Self { agent: config.new_agent(), endpoint: endpoint.to_owned(), failing: AtomicBool::new(false) }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let answer = self.agent.run(Request::from_parts(head, body.as_ref()));
        match &answer {
            Ok(answer) if answer.status().is_success() => self.succeeded(),
            Ok(answer) => self.failed(&answer.status().to_string()),
            Err(error) => self.failed(&error.to_string()),
        }
        let (head, mut body) = answer?.into_parts();
        let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        Ok(Response::from_parts(head, body.into()))
    }

    fn failed(&self, reason: &str) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!("spans cannot be sent to {}: {reason}; they are lost until that works", self.endpoint);
        }
    }

    fn succeeded(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::warn!("spans are sent to {} again", self.endpoint);
        }
    }
}

impl HttpClient for Client {
    // What `async_trait` makes of an `async fn`.
    fn send_bytes<'client, 'future>(
        &'client self,
        request: Request<Bytes>,
    ) -> BoxFuture<'future, Result<Response<Bytes>, HttpError>>
    where
        'client: 'future,
        Self: 'future,
    {
        async move { self.send(request) }.boxed()
    }
}
