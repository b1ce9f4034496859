//! Publishing events.

use crate::{Draft, Failure, bindings};
use std::fmt;

/// Publishes an event when this attempt succeeds, and returns the id that the event will have. If the attempt fails,
/// nothing is published.
///
/// ```no_run
/// # extern crate evoke_sdk as evoke;
/// # fn handle() -> Result<(), evoke::Failure> {
/// let id = evoke::publish(evoke::Draft::new("heartbeat"))?;
/// evoke::log::debug!("published {id}");
/// # Ok(()) }
/// ```
///
/// A component that handles HTTP requests must publish before it sets its response. The events are stored before the
/// first byte of the response is sent. If they cannot be stored, the client gets a 503 in place of the response.
///
/// # Errors
/// [`Refused`] if the event may not be published.
#[allow(clippy::needless_pass_by_value, reason = "publishing consumes the event")]
pub fn publish(event: Draft) -> Result<String, Refused> {
    bindings::evoke::function::bus::publish(&event).map_err(Refused)
}

/// The reason why an event may not be published: its type is not granted, the event is too large, the attempt published
/// too many events, or an attribute is not valid. `?` converts this error to a reject, because every attempt would be
/// refused. After a change of the grants or of the function, the dead letter can be redriven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "publish refused: {}", self.0)
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::reject(refused.to_string())
    }
}
