//! Serves metrics in the OpenMetrics and Prometheus text formats.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use super::status::STORE_TIMEOUT;
use super::{Admin, ApiResult};
use crate::control::{FunctionStatus, ListenerStatus, SourceStatus};
use evoke_http::problem::Problem;
use evoke_sources::monitor::SubjectStatus;
use evoke_telemetry::{self as telemetry, Format, ListenerHealth, MonitorHealth, Queue, ScrapeValues, SourceHealth};

pub(super) async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> ApiResult {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
    let format = Format::preferred(&accept);
    let active = admin.control.status().await;
    // If the store fails or does not respond in time, its figures are left out. The other metrics are still returned,
    // because they are needed most in this situation.
    let store_figures = async { (admin.store.totals().await.ok(), admin.store.size_bytes().await.ok()) };
    let (totals, size_bytes) = tokio::time::timeout(STORE_TIMEOUT, store_figures).await.unwrap_or_default();
    let queue = |f: FunctionStatus| {
        let is_circuit_open = f.circuit.map(|open| open.is_some());
        Queue { function: f.name, running: f.running, held: f.held, is_circuit_open }
    };
    let source = |s: SourceStatus| SourceHealth { uri: s.uri, degraded: s.trouble.is_some() };
    let watched = admin.control.parts().services.monitors.list(admin.clock.now_ms());
    // Before its first reading, a watched thing has no state and so no metrics.
    let monitor = |one: SubjectStatus| {
        let (monitor, state) = (one.monitor.to_string(), one.state? as u8);
        Some(MonitorHealth { monitor, subject: one.subject, state, value: one.value, unit: one.unit })
    };
    let listener = |listener: ListenerStatus| ListenerHealth {
        name: listener.name,
        degraded: listener.trouble.is_some(),
        expires_s: listener.expires_ms.and_then(|end| u64::try_from(end / 1_000).ok()),
    };
    let moment = ScrapeValues {
        backlog: admin.store.backlog().total(),
        totals,
        size_bytes,
        queues: active.functions.into_iter().map(queue).collect(),
        sources: active.sources.into_iter().map(source).collect(),
        monitors: watched.into_iter().filter_map(monitor).collect(),
        listeners: admin.listeners().into_iter().map(listener).collect(),
        sandbox: active.sandbox,
        waiting_replies: admin.bus.waiting_replies() as u64,
    };
    let text = telemetry::render(admin.metrics.clone(), moment, format)
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    Ok(response)
}
