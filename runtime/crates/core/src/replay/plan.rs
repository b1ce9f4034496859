//! A dry run of a replay.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::STEP_MAX;
use super::filter::CompiledFilter;
use crate::router::Router;
use evoke_model::{FunctionId, Seq};
use evoke_store::{InspectionStore, StoreError};

/// The maximum duration of a dry run. The caller waits for the result.
const TIME_MAX: Duration = Duration::from_secs(20);
const EXAMPLES_MAX: usize = 5;

/// The result of a dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The number of events that would be offered.
    pub events: u64,
    /// The number of deliveries that would be created.
    pub deliveries: u64,
    /// The number of deliveries by function.
    pub functions: BTreeMap<String, u64>,
    /// The first of the events, at most 5.
    pub examples: Vec<Example>,
    /// True if all events were read. Otherwise the time limit was reached, and the numbers are lower bounds.
    pub complete: bool,
}

/// An event that would be offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// The event's position in the store.
    pub seq: Seq,
    /// The event's `type` attribute.
    pub r#type: String,
    /// The event's `source` attribute.
    pub source: String,
    /// The event's `id` attribute.
    pub id: String,
    /// The full names of the functions that would receive the event.
    pub functions: Vec<String>,
}

/// Applies the filter to the events after `position` up to `until`, and counts the deliveries.
pub(super) async fn plan(
    store: &dyn InspectionStore,
    router: &Router,
    filter: &CompiledFilter,
    (mut position, until): (Seq, Seq),
    names: &BTreeMap<FunctionId, &String>,
) -> Result<Plan, StoreError> {
    let started = Instant::now();
    let mut plan = Plan::default();
    while position < until && started.elapsed() < TIME_MAX {
        let (events, scanned_to) = filter.next_events(store, position, until, STEP_MAX).await?;
        position = scanned_to;
        for stored in events {
            let deliveries = filter.deliveries(store, router, &stored);
            if deliveries.is_empty() {
                continue;
            }
            let name = |id: FunctionId| names.get(&id).map_or_else(|| id.to_string(), |name| (*name).clone());
            let functions: Vec<String> = deliveries.iter().map(|delivery| name(delivery.function)).collect();
            plan.events += 1;
            plan.deliveries += functions.len() as u64;
            for function in &functions {
                *plan.functions.entry(function.clone()).or_default() += 1;
            }
            if plan.examples.len() < EXAMPLES_MAX {
                let event = &stored.event;
                let (r#type, source, id) = (event.type_.clone(), event.source.clone(), event.id.clone());
                plan.examples.push(Example { seq: stored.seq, r#type, source, id, functions });
            }
        }
    }
    plan.complete = position >= until;
    Ok(plan)
}
