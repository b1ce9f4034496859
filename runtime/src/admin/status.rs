//! Reports health, readiness and status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use futures_util::FutureExt;

use super::problem::Problem;
use super::view::{Counts, Function, Source, Status};
use super::{Admin, ApiResult, Phase};
use super::{FunctionStatus, SourceStatus};

/// How long to wait for the store before reporting it as stuck.
pub(super) const STORE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn health(State(admin): State<Arc<Admin>>) -> ApiResult<Json<serde_json::Value>> {
    check_store(&admin)?;
    Ok(Json(serde_json::json!({ "status": "alive" })))
}

fn check_store(admin: &Admin) -> ApiResult<()> {
    match admin.store.failure().now_or_never() {
        Some(reason) => Err(Problem::unavailable(1, format!("the store failed: {reason}"))),
        None => Ok(()),
    }
}

pub(super) async fn ready(State(admin): State<Arc<Admin>>) -> ApiResult<Json<serde_json::Value>> {
    check_store(&admin)?;
    match *admin.phase.borrow() {
        Phase::Starting => return Err(Problem::unavailable(1, "starting: functions are being loaded")),
        Phase::Draining => {
            return Err(Problem::unavailable(1, "draining: Evoke stops when the running attempts have ended"));
        }
        Phase::Running => {}
    }
    // An empty commit passes through the same queue as all writes.
    match tokio::time::timeout(STORE_TIMEOUT, admin.store.accept(Vec::new(), Vec::new())).await {
        Ok(Ok(_)) => Ok(Json(serde_json::json!({ "status": "ready" }))),
        Ok(Err(error)) => Err(Problem::unavailable(1, error.to_string())),
        Err(_) => Err(Problem::unavailable(1, format!("the store did not respond within {STORE_TIMEOUT:?}"))),
    }
}

pub(super) async fn status(State(admin): State<Arc<Admin>>) -> ApiResult<Json<Status>> {
    let totals = admin.store.totals().await?;
    let active = (admin.active)().await;
    let mut functions: BTreeMap<String, Function> = BTreeMap::new();
    for FunctionStatus { name, concurrency, running, held: _, failing } in active.functions {
        let (concurrency, deliveries) = (Some(concurrency), Counts::default());
        functions.insert(name.clone(), Function { name, active: true, running, concurrency, failing, deliveries });
    }
    for (name, counts) in &totals.functions {
        let inactive = || Function {
            name: name.clone(),
            active: false,
            running: 0,
            concurrency: None,
            failing: None,
            deliveries: Counts::default(),
        };
        functions.entry(name.clone()).or_insert_with(inactive).deliveries = counts.into();
    }
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_ms: u64::try_from(admin.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        events: totals.events,
        removed: totals.removed.into(),
        pending: admin.store.pending(),
        functions: functions.into_values().collect(),
        sources: active.sources.into_iter().map(Source::from).collect(),
    }))
}

impl From<SourceStatus> for Source {
    fn from(source: SourceStatus) -> Self {
        let SourceStatus { uri, kind, trouble } = source;
        let state = if trouble.is_some() { "degraded" } else { "ok" };
        Self { uri, kind: kind.into(), state: state.into(), trouble }
    }
}
