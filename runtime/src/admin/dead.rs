//! Dead letters: listed, shown, made ready again, let go.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};

use super::Admin;
use super::problem::{Problem, Result};
use super::view::{DeadLetter, Delivery, Envelope};
use crate::store::{DeadFilter, DeliveryId, DeliveryRecord, Store};

/// Dead letters in one answer.
const LIMIT_MAX: usize = 1_000;

#[derive(Deserialize)]
pub(super) struct Listing {
    function: Option<String>,
    limit: Option<usize>,
}

/// Which dead letters; exactly one member is given.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Which {
    /// One delivery.
    pub delivery: Option<DeliveryId>,
    /// Those of a function, `app/function`.
    pub function: Option<String>,
    /// Every one.
    pub all: bool,
}

/// How many dead letters it was.
#[derive(Debug, Serialize, Deserialize)]
pub struct Count {
    /// How many.
    pub count: u64,
}

pub(super) async fn list(State(admin): State<Admin>, Query(listing): Query<Listing>) -> Result<Json<Vec<DeadLetter>>> {
    let store = &*admin.running.store;
    let which = listing.function.map_or(DeadFilter::All, DeadFilter::Function);
    let mut letters = Vec::new();
    for record in store.dead(which, listing.limit.unwrap_or(100).min(LIMIT_MAX)).await? {
        letters.push(letter(store, record).await?);
    }
    Ok(Json(letters))
}

pub(super) async fn show(State(admin): State<Admin>, Path(delivery): Path<DeliveryId>) -> Result<Json<DeadLetter>> {
    let store = &*admin.running.store;
    let record = store.dead(DeadFilter::Delivery(delivery), 1).await?.pop();
    let record = record.ok_or_else(|| not_dead(delivery))?;
    Ok(Json(letter(store, record).await?))
}

async fn letter(store: &dyn Store, record: DeliveryRecord) -> Result<DeadLetter> {
    let event = store.event(record.event).await?;
    let event = event.ok_or_else(|| Problem::not_found(format!("event {} is gone", record.event)))?;
    Ok(DeadLetter { delivery: Delivery::of(record), letter: Envelope::of(&event) })
}

fn not_dead(delivery: DeliveryId) -> Problem {
    Problem::not_found(format!("delivery {delivery} is no dead letter; `evoke dead list` lists them"))
}

pub(super) async fn redrive(State(admin): State<Admin>, Json(which): Json<Which>) -> Result<Json<Count>> {
    let filter = filter(which)?;
    counted(&filter, admin.running.store.redrive(filter.clone()).await?)
}

pub(super) async fn purge(State(admin): State<Admin>, Json(which): Json<Which>) -> Result<Json<Count>> {
    let filter = filter(which)?;
    counted(&filter, admin.running.store.purge(filter.clone()).await?)
}

fn filter(which: Which) -> Result<DeadFilter> {
    match which {
        Which { delivery: Some(id), function: None, all: false } => Ok(DeadFilter::Delivery(id)),
        Which { delivery: None, function: Some(name), all: false } => Ok(DeadFilter::Function(name)),
        Which { delivery: None, function: None, all: true } => Ok(DeadFilter::All),
        _ => Err(Problem::bad_request("give one of `delivery`, `function` and `all`")),
    }
}

fn counted(filter: &DeadFilter, count: u64) -> Result<Json<Count>> {
    match (filter, count) {
        (DeadFilter::Delivery(id), 0) => Err(not_dead(*id)),
        _ => Ok(Json(Count { count })),
    }
}
