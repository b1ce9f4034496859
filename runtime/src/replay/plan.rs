//! What a replay would do, without doing it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::STEP_MAX;
use super::filter::Wanted;
use crate::router::Router;
use crate::store::{FunctionId, Seq, Store, StoreError};

/// How long it looks: whoever asks waits for it.
const TIME_MAX: Duration = Duration::from_secs(20);
const EXAMPLES_MAX: usize = 5;

/// What a replay would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Events that would be offered.
    pub events: u64,
    /// Deliveries that this would make.
    pub deliveries: u64,
    /// These by function.
    pub functions: BTreeMap<String, u64>,
    /// The first of the events.
    pub examples: Vec<Example>,
    /// Whether everything was looked at; there may be more otherwise.
    pub complete: bool,
}

/// An event that would be offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// Its number.
    pub seq: Seq,
    /// Its type.
    pub r#type: String,
    /// Its source.
    pub source: String,
    /// Its id.
    pub id: String,
    /// Who would be offered it.
    pub functions: Vec<String>,
}

pub(super) async fn plan(
    store: &dyn Store,
    router: &Router,
    wanted: &Wanted,
    (mut position, until): (Seq, Seq),
    names: &BTreeMap<FunctionId, &String>,
) -> Result<Plan, StoreError> {
    let started = Instant::now();
    let mut plan = Plan::default();
    while position < until && started.elapsed() < TIME_MAX {
        let (events, looked_to) = wanted.look(store, position, until, STEP_MAX).await?;
        position = looked_to;
        for stored in events {
            let deliveries = wanted.deliveries(router, &stored);
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
