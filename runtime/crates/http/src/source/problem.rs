//! The error responses of http sources.

use std::time::Duration;

use http::StatusCode;

use super::cloudevents::ReadError;
use crate::problem::Problem;
use evoke_core::bus::Refused;
use evoke_core::source::Health;
use evoke_model::clock::UnixMs;
use evoke_store::StoreError;
use evoke_telemetry::Refusal;

/// The `Retry-After` while the disk is full, the store cannot be reached, or the process stops.
const RETRY_AFTER: Duration = Duration::from_secs(10);

impl Problem {
    /// 408: the body did not arrive in time.
    pub(super) fn slow() -> Self {
        let detail = "the body did not arrive in time; send it without long pauses";
        Self::new(StatusCode::REQUEST_TIMEOUT, detail)
    }

    /// 413: the body is larger than the source accepts.
    pub(super) fn too_large(max: usize) -> Self {
        let detail = format!("the body is larger than the {max} bytes that this source accepts (`max_body`)");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// Returns the label under which the metrics count a refusal with this status.
    pub(super) fn reason(&self) -> Refusal {
        match self.status {
            StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge,
            StatusCode::SERVICE_UNAVAILABLE => Refusal::Overloaded,
            StatusCode::TOO_MANY_REQUESTS => Refusal::Crowding,
            StatusCode::UNAUTHORIZED => Refusal::Unverified,
            _ => Refusal::Invalid,
        }
    }

    /// Returns true if the request was refused because a limit is reached, so that the same request could succeed
    /// later.
    pub(super) fn is_lack_of_room(&self) -> bool {
        matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }

    /// Counts the problem as a refusal of the source. A failure of the function that handles the request is not
    /// counted.
    pub(super) fn count_in(&self, health: &Health, now_ms: UnixMs) {
        let is_loop = self.status == StatusCode::LOOP_DETECTED;
        if self.status.is_client_error() || self.is_lack_of_room() || is_loop {
            health.count_refusal(now_ms, || format!("{}: {}", self.status.as_u16(), self.detail));
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Malformed(detail) => Self::malformed(detail),
            ReadError::TooLarge(detail) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail),
            ReadError::Unsupported(detail) => Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::Invalid { .. } => Self::malformed(detail),
            Refused::Claimed { index, .. } => {
                Self::new(StatusCode::FORBIDDEN, detail).with_member("attribute", "source").with_member("event", index)
            }
            Refused::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail),
            Refused::Overloaded { retry_after, .. } => Self::later(retry_after, detail),
            Refused::Crowding { retry_after, .. }
            | Refused::ScheduleFull { retry_after, .. }
            | Refused::DeadLetters { retry_after, .. } => {
                let mut problem = Self::later(retry_after, detail);
                problem.status = StatusCode::TOO_MANY_REQUESTS;
                problem
            }
            Refused::Store(StoreError::Full | StoreError::Busy | StoreError::Closed) => {
                Self::later(RETRY_AFTER, detail)
            }
            // The client does not get addresses and names of other processes; they are for the log and the operator.
            Refused::Store(StoreError::Unreachable(_)) => Self::later(
                RETRY_AFTER,
                "the store cannot be reached at the moment, and it is not known whether this request was stored: send it again later with the same ids",
            ),
            Refused::Store(StoreError::Fenced(_)) => {
                Self::later(RETRY_AFTER, "another process took over the store; nothing of this request was stored")
            }
            // The exact failure is for the log and the operator, not for every client that reaches this port.
            Refused::Store(StoreError::Failed(_) | StoreError::Damaged(_)) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the store failed, and it is not known whether this request was stored: send it again later with the same ids",
            ),
        }
    }
}
