//! The way out for events.

use crate::{Draft, Failure, bindings};
use std::fmt;

/// Publishes an event once this attempt is done, and returns the id it will have. When the attempt fails,
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
/// # Errors
/// The event is refused: see [`Refused`].
#[allow(clippy::needless_pass_by_value, reason = "a published event is given away")]
pub fn publish(event: Draft) -> Result<String, Refused> {
    bindings::evoke::function::bus::publish(&event).map_err(Refused)
}

/// Why an event may not be published: its type is not granted, it is too large, there are too many, or an
/// attribute is not valid. With `?` it becomes a reject: the grants have to change first, then the dead
/// letter can be redriven.
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
