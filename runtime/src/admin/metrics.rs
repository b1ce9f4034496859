//! What is measured, for Prometheus and what reads its formats.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use super::problem::Problem;
use super::status::STORE_PATIENCE;
use super::{Admin, Answer};
use crate::telemetry::{self, Format, Queue, ScrapeValues, SourceHealth};

pub(super) async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Answer {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
    let format = Format::preferred(&accept);
    let in_force = (admin.in_force)().await;
    // A store in trouble is when the other numbers are wanted most.
    let asked = async { (admin.store.totals().await.ok(), admin.store.size_bytes().await.ok()) };
    let (totals, size_bytes) = tokio::time::timeout(STORE_PATIENCE, asked).await.unwrap_or_default();
    let queue = |f: super::FunctionStatus| Queue { function: f.name, running: f.running, held: f.held };
    let source = |s: super::SourceStatus| SourceHealth { uri: s.uri, degraded: s.trouble.is_some() };
    let moment = ScrapeValues {
        backlog: admin.store.backlog().total(),
        totals,
        size_bytes,
        queues: in_force.functions.into_iter().map(queue).collect(),
        sources: in_force.sources.into_iter().map(source).collect(),
        sandbox: in_force.sandbox,
    };
    let text = telemetry::render(admin.metrics.clone(), moment, format)
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    Ok(response)
}
