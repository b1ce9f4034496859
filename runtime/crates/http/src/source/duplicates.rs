//! Events that are duplicates because another sender has used their id.
//!
//! A source stores each id only once, even if several senders use it. Otherwise, a sender whose secret has changed
//! could repeat a request under another principal, and its event would be stored twice. But a sender can then use the
//! id of an event that another sender is going to send. If each principal is one user or one machine, the later sender
//! gets an error, so that it does not assume that its event was stored.

use std::collections::HashSet;
use std::sync::Arc;

use http::StatusCode;

use crate::problem::Problem;
use evoke_core::bus::Bus;
use evoke_model::Accepted;

/// The prefixes of principals that stand for exactly one sender: a user with a password, or the owner of a certificate.
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
    // Reading an event can cost 1 MiB, so an event with many duplicates in a batch is read once.
    let mut read = HashSet::new();
    for (index, (id, result)) in ids.iter().zip(accepted).enumerate() {
        let Accepted::Duplicate(seq) = result else { continue };
        if !read.insert(*seq) {
            continue;
        }
        // The sender is unknown if the stored event was removed or cannot be read.
        let Ok(Some(Ok(stored))) = bus.accepted(*seq).await else { continue };
        if stored.event.principal.as_ref() != Some(&principal) {
            let detail = format!(
                "event {index} was not stored: another sender has used its id `{}`; send the event with a new id",
                id.chars().take(64).collect::<String>()
            );
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
            return Err(problem.with_member("attribute", "id").with_member("event", index));
        }
    }
    Ok(())
}
