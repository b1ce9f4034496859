//! A dry run of a replay.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::filter::CompiledFilter;
use crate::router::Router;
use evoke_model::{FunctionId, Seq, StoredEvent};
use evoke_store::{Store, StoreError};

/// The maximum number of events that one step reads.
const STEP_MAX: usize = 256;
/// A step also ends when its events have this size together, in bytes.
const STEP_BYTES_MAX: usize = 1024 * 1024;
const EXAMPLES_MAX: usize = 5;

/// The result of a dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The number of events that would be delivered again.
    pub events: u64,
    /// The number of deliveries that would be created.
    pub deliveries: u64,
    /// The number of deliveries by function.
    pub functions: BTreeMap<String, u64>,
    /// The first of the events, at most 5.
    pub examples: Vec<Example>,
    /// True if all events were read. Otherwise the numbers are lower bounds.
    pub complete: bool,
}

/// An event that would be delivered again.
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

/// The events of one step of a dry run, before they are counted.
pub struct ReadStep {
    events: Vec<StoredEvent>,
    scanned_to: Seq,
}

/// A dry run, which reads the events step by step.
pub struct DryRun {
    store: Arc<dyn Store>,
    router: Arc<Router>,
    filter: CompiledFilter,
    /// The position of the last event that was read.
    position: Seq,
    until: Seq,
    names: BTreeMap<FunctionId, String>,
    plan: Plan,
}

impl DryRun {
    /// Creates a dry run over the events after `position`, up to and including `until`.
    pub(super) fn new(
        store: Arc<dyn Store>,
        router: Arc<Router>,
        filter: CompiledFilter,
        (position, until): (Seq, Seq),
        names: BTreeMap<FunctionId, String>,
    ) -> Self {
        let plan = Plan { complete: position >= until, ..Plan::default() };
        Self { store, router, filter, position, until, names, plan }
    }

    /// Returns the numbers counted so far.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Reads the next events from the store. [`DryRun::count`] counts them.
    ///
    /// # Errors
    /// The store failed.
    pub async fn read(&self) -> Result<ReadStep, StoreError> {
        let (events, scanned_to) =
            self.filter.next_events(&*self.store, self.position, self.until, STEP_MAX, Some(STEP_BYTES_MAX)).await?;
        Ok(ReadStep { events, scanned_to })
    }

    /// Counts the events of a step. Matches each of them with the filter and all triggers, which takes long for large
    /// events. So this must run on a thread for blocking work.
    pub fn count(&mut self, step: &ReadStep) {
        step.events.iter().for_each(|stored| self.count_event(stored));
        self.position = step.scanned_to;
        self.plan.complete = self.position >= self.until;
    }

    fn count_event(&mut self, stored: &StoredEvent) {
        let deliveries = self.filter.deliveries(&*self.store, &self.router, stored);
        if deliveries.is_empty() {
            return;
        }
        let name = |id: FunctionId| self.names.get(&id).map_or_else(|| id.to_string(), Clone::clone);
        let functions: Vec<String> = deliveries.iter().map(|delivery| name(delivery.function)).collect();
        let plan = &mut self.plan;
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
