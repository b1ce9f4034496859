//! An event with everything that came of it.

use axum::Json;
use axum::extract::{Path, State};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Admin;
use super::problem::{Problem, Result};
use super::view::{Delivery, Envelope, Trace, TracedDelivery};
use crate::store::{Seq, Store, StoredEvent};

/// Events that one trace shows: a page that can still be read.
const EVENTS_MAX: usize = 1_000;

pub(super) async fn trace(State(admin): State<Admin>, Path(event): Path<String>) -> Result<Json<Trace>> {
    let store = &*admin.running.store;
    let stored = find(store, &event).await?;
    let mut left = EVENTS_MAX;
    Ok(Json(follow(store, stored, &mut left).await?))
}

/// An event by its position, or by its id where that is one event's alone.
async fn find(store: &dyn Store, event: &str) -> Result<StoredEvent> {
    let gone = || Problem::not_found(format!("there is no event {event}; `evoke events` lists the newest"));
    // Ids may be numbers too: the id goes first, as the position can be given in no other way only when both are.
    let with_id = store.find(event.to_owned()).await?;
    let seq: Seq = match with_id.as_slice() {
        [] => event.parse().map_err(|_| gone())?,
        [one] => *one,
        several => {
            let positions: Vec<String> = several.iter().map(ToString::to_string).collect();
            let detail = format!(
                "{event} is the id of events of several sources; name one by its position: {}",
                positions.join(", ")
            );
            return Err(Problem::new(http::StatusCode::CONFLICT, detail));
        }
    };
    store.event(seq).await?.ok_or_else(gone)
}

fn follow<'a>(store: &'a dyn Store, stored: StoredEvent, left: &'a mut usize) -> BoxFuture<'a, Result<Trace>> {
    async move {
        *left = left.saturating_sub(1);
        let mut cut = false;
        let mut deliveries = Vec::new();
        for delivery in store.deliveries(stored.seq).await? {
            let mut published = Vec::new();
            for event in store.published(delivery.id).await? {
                if *left == 0 {
                    cut = true;
                    break;
                }
                published.push(follow(store, event, left).await?);
            }
            deliveries.push(TracedDelivery { delivery: Delivery::of(delivery), published });
        }
        Ok(Trace { envelope: Envelope::of(&stored), deliveries, cut })
    }
    .boxed()
}
