//! Events whose id another sender has used.
//!
//! A source accepts each id once, from any sender: while a secret is rotated, a sender repeats its requests under another
//! principal. Where each principal is one user or one machine, a sender could use up the ids that another one will send.
//! The other one gets an error, and does not take its event for stored.

use std::sync::Arc;

use http::StatusCode;

use crate::problem::Problem;
use evoke_core::bus::Bus;
use evoke_model::Accepted;

/// The principals that are one sender each: users with a password, and owners of a certificate.
const OWN_PRINCIPALS: [&str; 2] = ["basic:", "certificate:"];

/// Returns an error if an event was not stored because another sender had used its id.
pub(super) async fn check_sender(
    bus: &Bus,
    principal: Option<Arc<str>>,
    ids: &[String],
    accepted: &[Accepted],
) -> Result<(), Problem> {
    let Some(principal) = principal.filter(|own| OWN_PRINCIPALS.iter().any(|prefix| own.starts_with(prefix))) else {
        return Ok(());
    };
    for (index, (id, result)) in ids.iter().zip(accepted).enumerate() {
        let Accepted::Duplicate(seq) = result else { continue };
        // Of an event that was removed, or cannot be read, the sender is unknown.
        let Ok(Some(Ok(stored))) = bus.accepted(*seq).await else { continue };
        if stored.event.principal.as_ref() != Some(&principal) {
            let detail = format!(
                "event {index} was not stored: another sender has used its id `{}`; send it with an id of its own",
                id.chars().take(64).collect::<String>()
            );
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
            return Err(problem.with_member("attribute", "id").with_member("event", index));
        }
    }
    Ok(())
}
