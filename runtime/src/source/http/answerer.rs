//! Endpoints whose function answers requests itself. No event is made of them, and nothing is stored.

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
use super::problem::Problem;

/// A body that comes piece by piece.
pub type Payload = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// What answers the requests of an endpoint.
pub trait Answerer: fmt::Debug + Send + Sync + 'static {
    /// Answers a request. Whoever drops the future, or the answer's body before its end, wants no more of it.
    fn answer(&self, request: Request<Payload>) -> BoxFuture<'_, Result<Response<Payload>, Unanswered>>;
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// As many are answered as may be at once.
    Busy,
    /// There was none within this time.
    Late(Duration),
    /// The function failed; why is in its log, and no client's business.
    Failed,
}

/// Has a request answered whose body has at most `body_max` bytes: a longer one breaks off there.
pub(super) async fn relay<B>(
    answerer: &dyn Answerer,
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
    Ok(answerer.answer(request).await?)
}

impl From<Unanswered> for Problem {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Busy => Self::later(
                Duration::from_secs(1),
                "the function answers as many requests as it may at once (`concurrency`); come back later",
            ),
            Unanswered::Late(limit) => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!("the function did not answer within its `timeout` of {limit:?}"),
            ),
            Unanswered::Failed => {
                Self::new(StatusCode::BAD_GATEWAY, "the function failed before it answered; `evoke logs` shows why")
            }
        }
    }
}
