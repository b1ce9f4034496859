//! Handing over what cannot be refused: a file or a tick has no producer who could be asked to come back later, so
//! its source is the one who comes back.

use std::time::Duration;

use super::Context;
use crate::bus::{Offer, Origin, Refused};

/// The first wait after a refusal; it doubles with each.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest wait: a bus that takes events again is noticed within it.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Why an offer was not handed over. Nothing of it was stored.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// The source is to stop.
    Stopped,
    /// This event, by its place in the offer, is larger than the bus takes.
    TooLarge(usize),
    /// This event, by its place in the offer, is refused however often it is offered.
    Invalid(usize, String),
}

/// Offers until the bus has committed it. While the bus takes nothing, `health` says why.
pub(super) async fn hand_over(ctx: &Context, offer: &Offer) -> Result<(), NotTaken> {
    let mut backoff = BACKOFF_MIN;
    // What was wrong before is said again when the bus takes events again.
    let mut trouble_before = None;
    let origin = Origin::of(&ctx.uri);
    loop {
        let refused = match ctx.bus.accept(Offer { origin, ..offer.clone() }).await {
            Ok(_) => break,
            Err(Refused::TooLarge { index, .. }) => return Err(NotTaken::TooLarge(index)),
            Err(Refused::Invalid { index, message }) => return Err(NotTaken::Invalid(index, message)),
            Err(refused @ (Refused::Overloaded { .. } | Refused::Crowding { .. } | Refused::Store(_))) => refused,
        };
        if trouble_before.is_none() {
            trouble_before = Some(ctx.health.trouble());
            ctx.health.degraded(format!("the bus does not take its events, it keeps offering them: {refused}"));
        }
        let wait = match refused {
            // It asks again before that: nobody is bothered by it.
            Refused::Overloaded { retry_after, .. } | Refused::Crowding { retry_after, .. } => {
                retry_after.min(BACKOFF_MAX)
            }
            _ => backoff,
        };
        backoff = (backoff * 2).min(BACKOFF_MAX);
        tokio::select! {
            () = ctx.stop.cancelled() => return Err(NotTaken::Stopped),
            () = tokio::time::sleep(wait) => {}
        }
    }
    match trouble_before {
        Some(Some(trouble)) => ctx.health.degraded(trouble),
        Some(None) => ctx.health.recovered(),
        None => {}
    }
    Ok(())
}

/// What the source noted earlier, by key; `None` when it is to stop. A store that cannot be read is asked again.
pub(super) async fn marks(ctx: &Context) -> Option<std::collections::BTreeMap<String, Vec<u8>>> {
    let mut backoff = BACKOFF_MIN;
    loop {
        match ctx.bus.marks(&ctx.uri).await {
            Ok(marks) => {
                ctx.health.recovered();
                return Some(marks);
            }
            Err(error) => ctx.health.degraded(format!("cannot read what it noted earlier: {error}")),
        }
        tokio::select! {
            () = ctx.stop.cancelled() => return None,
            () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
        }
    }
}
