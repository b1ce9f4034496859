//! Endpoints whose function handles requests itself. No events are made of the requests, and nothing is stored.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::HOST;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;

use super::body::announced_too_large;
use crate::problem::Problem;

/// A streamed body.
pub type Payload = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// Handles the requests of an endpoint.
pub trait RequestHandler: fmt::Debug + Send + Sync + 'static {
    /// Handles one request. Dropping the future, or the response body before its end, cancels the rest.
    fn handle(&self, request: Request<Payload>) -> BoxFuture<'_, Result<Response<Payload>, HandlerError>>;
}

/// Why a request has no response from its function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerError {
    /// The function already handles its maximum of concurrent requests.
    Busy,
    /// The function sent no response within this time.
    Late(Duration),
    /// The function failed. The reason is in the function's log and is not shown to the client.
    Failed,
}

/// Passes a request to `handler`. A body longer than `body_max` bytes breaks off at that length.
pub(super) async fn call<B>(
    handler: &dyn RequestHandler,
    mut request: Request<B>,
    body_max: usize,
) -> Result<Response<Payload>, Problem>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Error + Send + Sync + 'static,
{
    if request.body().size_hint().lower() > body_max as u64 {
        let headers = request.headers().clone();
        return Err(announced_too_large(&headers, request.body_mut(), body_max).await);
    }
    let host = request.headers().get(HOST).is_some_and(|host| host.to_str().is_ok());
    if request.uri().authority().is_none() && !host {
        return Err(Problem::malformed("the request names no host; send a `Host` header"));
    }
    let request = request.map(|body| Limited::new(body, body_max).boxed_unsync());
    Ok(handler.handle(request).await?)
}

impl From<HandlerError> for Problem {
    fn from(error: HandlerError) -> Self {
        match error {
            HandlerError::Busy => Self::later(
                Duration::from_secs(1),
                "the function already handles its maximum of concurrent requests (`concurrency`); retry later",
            ),
            HandlerError::Late(limit) => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!("the function sent no response within its `timeout` of {limit:?}"),
            ),
            HandlerError::Failed => Self::new(
                StatusCode::BAD_GATEWAY,
                "the function failed before it sent a response; `evoke logs` shows why",
            ),
        }
    }
}
