//! Reports health, readiness and status.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use futures_util::FutureExt;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::response::Json;
use super::view::{Function, Listener, Source, Status, UncleanExit};
use super::{Admin, ApiResult};
use crate::control::{Active, Phase};
use crate::disk::disk_space;
use evoke_http::problem::Problem;
use evoke_model::clock::rfc3339;
use evoke_model::{Mark, Totals};
use evoke_store::Store;

/// Maximum time to wait for the store. If it passes, [`ready`] reports that the store did not respond, and the metrics
/// lack the numbers of the store.
pub(super) const STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// To test whether the store accepts writes, [`ready`] writes a mark, a small stored value, with this scope and key.
const PROBE: &str = "/evoke/ready";
/// If the disk has less free space than this, in bytes, [`ready`] writes the mark: an empty commit writes nothing, so
/// it cannot show that the disk is full. The number is several times the size of a small commit.
const SMALL_WRITE: u64 = 128 * 1024;
/// `Retry-After` of [`ready`] and [`health`].
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) async fn health(State(admin): State<Arc<Admin>>) -> ApiResult<Json<serde_json::Value>> {
    check_store(&admin)?;
    Ok(Json(serde_json::json!({ "status": "alive" })))
}

fn check_store(admin: &Admin) -> Result<(), Problem> {
    match admin.store.failure().now_or_never() {
        Some(reason) => Err(Problem::later(RETRY_AFTER, format!("the store failed: {reason}"))),
        None => Ok(()),
    }
}

pub(super) async fn ready(State(admin): State<Arc<Admin>>) -> ApiResult<Json<serde_json::Value>> {
    check_store(&admin)?;
    let later = |reason: String| Err(Problem::later(RETRY_AFTER, reason).into());
    match admin.control.phase() {
        Phase::Starting => return later("starting: functions are being loaded".to_owned()),
        Phase::Draining => return later("draining: Evoke stops when the running attempts have ended".to_owned()),
        Phase::Running => {}
    }
    // Events can wait in the store until their function is compiled. HTTP requests cannot wait and would be refused, so
    // the process is not ready before the functions that handle them are compiled.
    if let Some(name) = admin.control.compiling_request_handler() {
        return later(format!("starting: {name}, which handles requests, is being compiled"));
    }
    match admin.readiness.check(&*admin.store, &admin.data).await {
        Ok(()) => Ok(Json(serde_json::json!({ "status": "ready" }))),
        Err(reason) => later(reason),
    }
}

/// The result of the last check whether the store accepts writes. Concurrent requests share one check: `/readyz` needs
/// no token, so its callers must not be able to keep the store busy.
#[derive(Default)]
pub struct Readiness(Mutex<Option<(Instant, Result<(), String>)>>);

impl Readiness {
    async fn check(&self, store: &dyn Store, data: &Path) -> Result<(), String> {
        let arrived = Instant::now();
        let mut last = self.0.lock().await;
        if let Some((started, result)) = &*last
            && *started >= arrived
        {
            return result.clone();
        }
        let started = Instant::now();
        // If the last check succeeded and the disk has room, an empty commit suffices: it passes through the same queue
        // as all writes, but writes nothing. Otherwise a small write shows whether the store accepts writes.
        let is_doubtful = !matches!(&*last, Some((_, Ok(())))) || store.refusal().is_some() || is_disk_full(data).await;
        // A new value each time: SQLite does not write a page whose content stays the same.
        let value = || uuid::Uuid::now_v7().into_bytes().to_vec();
        let probe = || Mark { scope: PROBE.into(), key: PROBE.into(), value: Some(value()) };
        let marks = if is_doubtful { vec![probe()] } else { Vec::new() };
        let result = match tokio::time::timeout(STORE_TIMEOUT, store.accept(Vec::new(), marks)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("no events are accepted: {error}")),
            Err(_) => Err(format!("the store did not respond within {STORE_TIMEOUT:?}")),
        };
        *last = Some((started, result.clone()));
        result
    }
}

/// Returns true if the disk of the data folder has no room for a small write.
async fn is_disk_full(data: &Path) -> bool {
    disk_space(data).await.is_ok_and(|space| space.free < SMALL_WRITE)
}

pub(super) async fn status(State(admin): State<Arc<Admin>>) -> ApiResult<Json<Status>> {
    let (totals, active) = (admin.store.totals().await?, admin.control.status().await);
    let mut status = summarise(&totals, active, admin.store.pending(), admin.started.elapsed());
    let since = admin.store.pending_since().await?;
    for function in &mut status.functions {
        function.pending_since = since.get(&function.name).copied().map(rfc3339);
    }
    let listeners = admin.listeners().into_iter().map(Listener::from).collect();
    Ok(Json(Status { data: admin.data.display().to_string(), listeners, ..status }))
}

/// Makes the status, with the active functions, and with the inactive functions that have deliveries in the store. The
/// caller fills in `data`, `listeners` and `pending_since`.
fn summarise(totals: &Totals, active: Active, pending: u64, uptime: Duration) -> Status {
    let of_active = active.functions.into_iter().map(|function| (function.name.clone(), function.into()));
    let mut functions: BTreeMap<String, Function> = of_active.collect();
    for (name, counts) in &totals.functions {
        let inactive = || Function::inactive(name.clone());
        functions.entry(name.clone()).or_insert_with(inactive).deliveries = counts.clone();
    }
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        events: totals.events,
        removed: totals.removed,
        pending,
        scheduled: totals.scheduled,
        data: String::new(),
        functions: functions.into_values().collect(),
        sources: active.sources.into_iter().map(Source::from).collect(),
        listeners: Vec::new(),
        unclean_exit: active.interrupted.map(UncleanExit::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{FunctionStatus, SourceStatus};
    use evoke_core::source::Refused;
    use evoke_model::Counts;
    use serde_json::json;

    #[test]
    fn summarise_lists_active_functions_and_those_in_no_manifest() {
        let counts = Counts { dead: 1, ready: 1, ..Counts::default() };
        let functions = ["shop/charge", "shop/receipt"].map(|name| (name.to_owned(), counts.clone()));
        let totals = Totals { events: 2, functions: functions.into(), ..Totals::default() };
        let name = "shop/charge".to_owned();
        let charge = FunctionStatus {
            name,
            concurrency: 8,
            running: 1,
            held: 2,
            failing: None,
            last_failure: None,
            rates: evoke_telemetry::Rates { attempts: 2.5, failed: 0.5, p95: Some(Duration::from_millis(3)) },
            paused: Some(crate::control::Pause { since_ms: 0, reason: None }),
            is_compiling: false,
            endpoint: None,
            circuit: None,
        };
        let inbox = SourceStatus {
            uri: "/shop/inbox".into(),
            kind: "files",
            trouble: Some("no folder".into()),
            refused: Refused::default(),
        };
        let active = Active { functions: vec![charge], sources: vec![inbox], ..Active::default() };
        let status = serde_json::to_value(summarise(&totals, active, 2, Duration::from_secs(1))).unwrap();

        let figures = json!({
            "ready": 1, "retrying": 0, "blocked": 0, "done": 0, "dead": 1, "purged": 0, "removed": 0,
        });
        let with = |mut function: serde_json::Value| {
            function.as_object_mut().unwrap().extend(figures.as_object().unwrap().clone());
            function
        };
        let expected = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_ms": 1_000,
            "events": 2,
            "removed": { "events": 0, "owed": 0, "replayed": 0, "to": 0 },
            "pending": 2,
            "scheduled": 0,
            "data": "",
            "functions": [
                with(json!({ "name": "shop/charge", "in_force": true, "running": 1, "concurrency": 8, "rate": 2.5, "failed_rate": 0.5, "p95_us": 3000, "paused": "1970-01-01T00:00:00.000Z" })),
                with(json!({ "name": "shop/receipt", "in_force": false, "running": 0, "rate": 0.0, "failed_rate": 0.0 })),
            ],
            "sources": [{ "uri": "/shop/inbox", "kind": "files", "state": "degraded", "trouble": "no folder" }],
        });
        assert_eq!(status, expected);
    }
}
