//! Submits the events of sources without clients. An HTTP source can ask its client to retry later. Sources of files
//! and timers have no client that could retry, so they retry themselves.

use std::time::Duration;

use super::Context;
use crate::bus::{Offer, Refused};

/// The wait after the first refusal; doubled after each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest wait. When the bus accepts events again, the source notices that within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Why the bus did not accept an offer. Nothing of the offer was stored.
#[derive(Debug)]
pub enum SubmitError {
    /// The source was stopped.
    Stopped,
    /// The event at this index of the offer is larger than the bus accepts.
    TooLarge(usize),
    /// The event at this index of the offer is invalid, so a retry cannot succeed. The text is the reason.
    Invalid(usize, String),
}

/// Submits an offer, and retries until the bus has committed it. Meanwhile, `health` shows the reason why the bus
/// refuses the offer.
pub async fn submit(ctx: &Context, offer: &Offer) -> Result<(), SubmitError> {
    submit_until(ctx, offer, || false).await.map(drop)
}

/// Like [`submit`], but calls `give_up` after each refusal. When `give_up` returns true, this function stops retrying
/// and returns `Ok(false)`: nothing was stored.
pub async fn submit_until(ctx: &Context, offer: &Offer, give_up: impl Fn() -> bool) -> Result<bool, SubmitError> {
    let mut backoff = BACKOFF_MIN;
    // The problem that `health` reported before the refusals; restored after them.
    let mut previous_trouble = None;
    let stored = loop {
        let refused = match ctx.bus.accept(Offer { origin: ctx.origin, ..offer.clone() }).await {
            Ok(_) => break true,
            Err(Refused::TooLarge { index, .. }) => return Err(SubmitError::TooLarge(index)),
            Err(Refused::Invalid { index, message }) => return Err(SubmitError::Invalid(index, message)),
            Err(refused @ Refused::Claimed { index, .. }) => {
                return Err(SubmitError::Invalid(index, refused.to_string()));
            }
            Err(
                refused @ (Refused::Overloaded { .. }
                | Refused::Crowding { .. }
                | Refused::ScheduleFull { .. }
                | Refused::DeadLetters { .. }
                | Refused::Store(_)),
            ) => refused,
        };
        if give_up() {
            break false;
        }
        if previous_trouble.is_none() {
            previous_trouble = Some(ctx.health.trouble());
            ctx.health.degraded(format!("the events of this source are refused: {refused}; the source retries"));
        }
        // A retry before `retry_after` is harmless: one source retries, at most every few seconds.
        let wait = refused.retry_after().map_or(backoff, |retry_after| retry_after.min(BACKOFF_MAX));
        backoff = (backoff * 2).min(BACKOFF_MAX);
        tokio::select! {
            () = ctx.stop.cancelled() => return Err(SubmitError::Stopped),
            () = tokio::time::sleep(wait) => {}
        }
    };
    match previous_trouble {
        Some(Some(trouble)) => ctx.health.degraded(trouble),
        Some(None) => ctx.health.recovered(),
        None => {}
    }
    Ok(stored)
}

/// Reads the source's marks, by key; `None` when the source is stopped. Retries while the store cannot be read.
pub async fn marks(ctx: &Context) -> Option<std::collections::BTreeMap<String, Vec<u8>>> {
    let mut backoff = BACKOFF_MIN;
    loop {
        match ctx.bus.marks(&ctx.uri).await {
            Ok(marks) => {
                ctx.health.recovered();
                return Some(marks);
            }
            Err(error) => ctx.health.degraded(format!("cannot read the source's stored values; trying again: {error}")),
        }
        tokio::select! {
            () = ctx.stop.cancelled() => return None,
            () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
        }
    }
}
