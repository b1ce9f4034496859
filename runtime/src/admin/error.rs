//! Error responses of the API.

use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse;
use http::{Response, StatusCode};
use tokio::task::JoinError;

use super::stream::StreamError;
use evoke_core::bus::Refused;
use evoke_core::replay::ReplayError;
use evoke_http::problem::Problem;
use evoke_store::StoreError;

/// `Retry-After` while the disk is full, the store is locked or cannot be reached, or the process stops.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// An error response. Unlike the responses of http sources, it describes how the store failed, because only holders of
/// tokens read it.
#[derive(Debug)]
pub(super) struct ApiError(Problem);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        self.0.response().map(Body::new)
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self(match error {
            StoreError::Full
            | StoreError::Busy
            | StoreError::Unreachable(_)
            | StoreError::Fenced(_)
            | StoreError::Closed => Problem::later(RETRY_AFTER, error.to_string()),
            StoreError::Failed(_) | StoreError::Damaged(_) => {
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        })
    }
}

impl From<JoinError> for ApiError {
    fn from(error: JoinError) -> Self {
        Self(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the request failed: {error}")))
    }
}

/// For an error after the response has begun. The status and the headers are already sent, so only the reason is kept.
impl From<ApiError> for StreamError {
    fn from(error: ApiError) -> Self {
        Self::Failed(error.0.detail)
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Store(error) => error.into(),
            refused => Self(refused.into()),
        }
    }
}

impl From<ReplayError> for ApiError {
    fn from(error: ReplayError) -> Self {
        let detail = error.to_string();
        Self(match error {
            ReplayError::Filter(_) => Problem::malformed(detail),
            ReplayError::NotFound(_) => Problem::not_found(detail),
            ReplayError::State { .. } => Problem::new(StatusCode::CONFLICT, detail),
            ReplayError::TooMany => Problem::later(Duration::from_secs(60), detail),
            ReplayError::Store(error) => return error.into(),
        })
    }
}
