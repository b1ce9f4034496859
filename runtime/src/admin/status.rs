//! How everything is doing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use futures_util::FutureExt;

use super::problem::Problem;
use super::view::{Counts, Function, Source, Status};
use super::{Admin, Answer, Phase};
use super::{FunctionStatus, SourceStatus};

/// How long the store may take to answer before it counts as stuck.
pub(super) const STORE_PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn health(State(admin): State<Arc<Admin>>) -> Answer<Json<serde_json::Value>> {
    store_lives(&admin)?;
    Ok(Json(serde_json::json!({ "status": "alive" })))
}

fn store_lives(admin: &Admin) -> Answer<()> {
    match admin.store.failure().now_or_never() {
        Some(reason) => Err(Problem::later(1, format!("the store failed: {reason}"))),
        None => Ok(()),
    }
}

pub(super) async fn ready(State(admin): State<Arc<Admin>>) -> Answer<Json<serde_json::Value>> {
    store_lives(&admin)?;
    match *admin.phase.borrow() {
        Phase::Starting => return Err(Problem::later(1, "it is starting: functions are being loaded")),
        Phase::Draining => return Err(Problem::later(1, "it is draining: it stops when what runs has ended")),
        Phase::Running => {}
    }
    // A commit of nothing goes the way of all writes.
    match tokio::time::timeout(STORE_PATIENCE, admin.store.accept(Vec::new(), Vec::new())).await {
        Ok(Ok(_)) => Ok(Json(serde_json::json!({ "status": "ready" }))),
        Ok(Err(error)) => Err(Problem::later(1, error.to_string())),
        Err(_) => Err(Problem::later(1, format!("the store did not answer within {STORE_PATIENCE:?}"))),
    }
}

pub(super) async fn status(State(admin): State<Arc<Admin>>) -> Answer<Json<Status>> {
    let totals = admin.store.totals().await?;
    let in_force = (admin.in_force)().await;
    let mut functions: BTreeMap<String, Function> = BTreeMap::new();
    for FunctionStatus { name, concurrency, running, held: _, failing } in in_force.functions {
        let (concurrency, deliveries) = (Some(concurrency), Counts::default());
        functions.insert(name.clone(), Function { name, in_force: true, running, concurrency, failing, deliveries });
    }
    for (name, counts) in &totals.functions {
        let gone = || Function {
            name: name.clone(),
            in_force: false,
            running: 0,
            concurrency: None,
            failing: None,
            deliveries: Counts::default(),
        };
        functions.entry(name.clone()).or_insert_with(gone).deliveries = counts.into();
    }
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_ms: u64::try_from(admin.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        events: totals.events,
        removed: totals.removed.into(),
        pending: admin.store.pending(),
        functions: functions.into_values().collect(),
        sources: in_force.sources.into_iter().map(Source::from).collect(),
    }))
}

impl From<SourceStatus> for Source {
    fn from(source: SourceStatus) -> Self {
        let SourceStatus { uri, kind, trouble } = source;
        let state = if trouble.is_some() { "degraded" } else { "ok" };
        Self { uri, kind: kind.into(), state: state.into(), trouble }
    }
}
