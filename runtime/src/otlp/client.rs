//! The HTTP client of the exporter. Its requests block, so only the exporter's own thread sends them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};

/// The maximum size of a response, in bytes. A response lists the rejected spans of one batch.
const RESPONSE_BYTES_MAX: u64 = 4 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Client {
    agent: ureq::Agent,
    endpoint: String,
    /// True if the last request failed. Only the first failure and the recovery are logged.
    failing: AtomicBool,
}

impl Client {
    pub(super) fn new(endpoint: &str, timeout: Duration) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(timeout)).build();
        Self { agent: config.new_agent(), endpoint: endpoint.to_owned(), failing: AtomicBool::new(false) }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let response = self.agent.run(Request::from_parts(head, body.as_ref()));
        match &response {
            Ok(response) if response.status().is_success() => self.succeeded(),
            Ok(response) => self.failed(&response.status().to_string()),
            Err(error) => self.failed(&error.to_string()),
        }
        let (head, mut body) = response?.into_parts();
        let body = body.with_config().limit(RESPONSE_BYTES_MAX).read_to_vec()?;
        Ok(Response::from_parts(head, body.into()))
    }

    fn failed(&self, reason: &str) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!("cannot send spans to {}: {reason}; spans are lost until a request succeeds", self.endpoint);
        }
    }

    fn succeeded(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::warn!("spans are sent to {} again", self.endpoint);
        }
    }
}

impl HttpClient for Client {
    // The trait uses `async_trait`, which generates this signature for `async fn send_bytes`.
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
