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
use evoke_model::{Accepted, Seq};

/// The prefixes of principals that stand for exactly one sender: a user with a password, or the owner of a certificate.
const OWN_PRINCIPALS: [&str; 2] = ["basic:", "certificate:"];
/// Maximum number of events whose senders one read of the store returns. Other reads run between those for a large
/// batch.
const PORTION_MAX: usize = 64;

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
    for portion in duplicates(accepted).chunks(PORTION_MAX) {
        // The sender is unknown if the stored event was removed or cannot be read.
        let Ok(senders) = bus.senders(portion.iter().map(|(_, seq)| *seq).collect()).await else { continue };
        let is_other = |seq: &Seq| senders.get(seq).is_some_and(|sender| sender.as_ref() != Some(&principal));
        for (index, seq) in portion.iter().filter(|(_, seq)| is_other(seq)) {
            // The senders were read without the checksums of their events.
            if !matches!(bus.accepted(*seq).await, Ok(Some(Ok(_)))) {
                continue;
            }
            let id: String = ids.get(*index).into_iter().flat_map(|id| id.chars().take(64)).collect();
            let detail = format!(
                "event {index} was not stored: another sender has used its id `{id}`; send the event with a new id"
            );
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
            return Err(problem.with_member("attribute", "id").with_member("event", *index));
        }
    }
    Ok(())
}

/// Returns the stored events that were sent again, each once, with the index of the first event that repeats it.
fn duplicates(accepted: &[Accepted]) -> Vec<(usize, Seq)> {
    let mut seen = HashSet::new();
    let results = accepted.iter().enumerate();
    let found = results.filter_map(|(index, result)| match result {
        Accepted::Duplicate(seq) if seen.insert(*seq) => Some((index, *seq)),
        _ => None,
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evoke_core::bus::{Limits, Offer, Origin};
    use evoke_core::router::Router;
    use evoke_model::clock::Clock;
    use evoke_model::event::Event;
    use evoke_store::memory::MemoryStore;

    #[tokio::test]
    async fn the_first_event_of_a_large_batch_whose_id_another_sender_has_used_is_named() {
        let bus = Bus::new(Arc::new(MemoryStore::new(Clock::fixed(0))), Router::default(), Limits::default());
        let send = async |sender: &str, ids: &[String]| {
            let event = |id: &String| Event {
                id: id.clone(),
                source: "/s".into(),
                type_: "t".into(),
                principal: Some(sender.into()),
                ..Event::default()
            };
            let offer = Offer { events: ids.iter().map(event).collect(), origin: Origin(7), ..Offer::default() };
            let accepted = bus.accept(offer).await.unwrap();
            check_sender(&bus, Some(sender.into()), ids, &accepted).await
        };
        let of = |sender: &str| (0..150).map(|n| format!("{sender}-{n}")).collect::<Vec<_>>();
        let of_ada = of("ada");
        send("basic:ada", &of_ada).await.unwrap();
        send("basic:ada", &[&of_ada[..], &of_ada[..]].concat()).await.unwrap();
        let mut of_bob = of("bob");
        send("basic:bob", &of_bob).await.unwrap();
        of_bob[70] = "bob-0".into();
        of_bob[100] = "ada-5".into();
        of_bob[120] = "ada-6".into();
        let problem = send("basic:bob", &of_bob).await.unwrap_err();
        assert!(problem.detail.starts_with("event 100 was not stored") && problem.detail.contains("`ada-5`"));
        // Several senders share this principal, so each of them may repeat the event.
        send("github", &of_bob).await.unwrap();
    }
}
