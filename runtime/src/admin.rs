//! The admin API. Reads and changes everything stored. There is no authentication, so the API listens on the loopback
//! address by default.
//!
//! | request | response |
//! |---|---|
//! | `GET /healthz` | 200 while the process works, 503 after the store failed permanently |
//! | `GET /readyz` | 200 when events are accepted, else 503 with the reason: starting, draining, or the store accepts no writes |
//! | `GET /metrics` | metrics in the OpenMetrics or the Prometheus text format, chosen by `Accept` |
//! | `GET /api/v1/status` | [`view::Status`] |
//! | `GET /api/v1/events?type=&source=&after=&limit=&follow=&envelope=` | one [`view::Envelope`] or one CloudEvent per line, in the order of acceptance |
//! | `POST /api/v1/events` | body: one event or an array; 202 and [`view::Posted`] |
//! | `GET /api/v1/events/{ref}` | [`view::Envelope`] |
//! | `GET /api/v1/trace/{ref}?root=` | [`view::Node`]; with `root=true` the tree starts at the first event of the chain |
//! | `GET /api/v1/explain/{ref}?function=` | array of [`crate::control::TriggerExplanation`], one per trigger |
//! | `GET /api/v1/dead?function=&limit=` | one [`view::DeadLetter`] per line, oldest first, events without their data |
//! | `GET /api/v1/dead/{delivery}` | [`view::DeadLetter`] |
//! | `POST /api/v1/dead/redrive`, `POST /api/v1/dead/purge` | body: [`view::DeadSelection`]; [`view::Count`] |
//! | `POST /api/v1/pause`, `POST /api/v1/resume` | body: [`view::PauseTarget`]; [`view::Changed`] |
//! | `GET /api/v1/pending?function=&root=&after=&limit=` | one pending delivery per line as [`view::DeadLetter`], oldest first, events without their data |
//! | `POST /api/v1/pending/cancel` | body: [`view::PendingSelection`]; [`view::Count`] |
//! | `GET /api/v1/replays` | one [`view::Replay`] per line, oldest first |
//! | `POST /api/v1/replays` | body: [`evoke_core::replay::Filter`]; starts a replay; 202 and [`view::Replay`] |
//! | `POST /api/v1/replays/plan` | body: [`evoke_core::replay::Filter`]; starts nothing; [`evoke_core::replay::Plan`] |
//! | `GET /api/v1/replays/{id}` | [`view::Replay`] |
//! | `POST /api/v1/replays/{id}/pause`, `…/resume`, `…/cancel` | [`view::Replay`] |
//! | `GET /api/v1/state` | one [`view::StateBucket`] per line |
//! | `GET /api/v1/state/{bucket}?prefix=&limit=` | one [`view::StateEntry`] per line, sorted by key, without long values |
//! | `DELETE /api/v1/state/{bucket}` | deletes all keys of the bucket; [`view::Count`] |
//! | `GET /api/v1/state/{bucket}/{key}` | [`view::StateEntry`] |
//! | `PUT /api/v1/state/{bucket}/{key}` | body: [`view::StateValue`]; 204 |
//! | `DELETE /api/v1/state/{bucket}/{key}` | [`view::Count`] |
//! | `GET /api/v1/logs?function=&delivery=&limit=&follow=` | one [`crate::logs::Line`] per line, oldest first |
//!
//! Lists are NDJSON: one JSON object per line, streamed, so a list of any length needs little memory. Without `after`,
//! the newest `limit` events are listed, 100 by default. With `follow=true`, the list continues with new items until
//! the client disconnects. A list that fails midway ends without the terminating chunk of its transfer encoding.
//!
//! The slash in the name of a bucket is percent-encoded in the path: `shop%2Fcharge`.
//!
//! `{ref}` is the number of an event or, if no event has this number, an id. If several sources have used the id, the
//! response is 409 with the numbers of the events in `seqs`. Errors are `application/problem+json` (RFC 9457) with the
//! reason in `detail`: 400, 404, 405, 409, 413, 415, 429 and 503 with `Retry-After`, and 500 when the store failed.
//! Request bodies need a JSON content type; this also prevents requests from web pages of other origins.

mod brakes;
mod dead;
mod error;
mod events;
mod explain;
mod logs;
mod metrics;
mod replays;
mod request;
mod state;
mod status;
mod stream;
mod trace;
pub mod view;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use http::{Request, Response};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;

use self::error::ApiError;
use crate::control::Control;
use crate::logs::FunctionLogs;
use evoke_core::bus::Bus;
use evoke_core::replay::Replays;
use evoke_http::listener::{Limits, Listener, RequestBody};
use evoke_http::problem::Problem;
use evoke_model::Actor;
use evoke_model::clock::Clock;
use evoke_store::Store;
use evoke_telemetry::Metrics;

/// Maximum size of a request body, in bytes: room for several events of the maximum size.
const BODY_MAX: usize = 4 * 1024 * 1024;
/// Maximum number of open connections. With [`STREAMS_MAX`] and [`BODY_MAX`], request bodies use at most 1 GiB of
/// memory; only a hostile operator can cause that.
const CONNECTIONS_MAX: usize = 64;
const STREAMS_MAX: u32 = 4;

/// Handles to the parts of the runtime that the API reads and changes.
pub struct Admin {
    /// Status of apps and explanations of matches.
    pub control: Control,
    /// Events, deliveries, dead letters and state.
    pub store: Arc<dyn Store>,
    /// Accepts the events of `POST /api/v1/events`.
    pub bus: Bus,
    /// Log lines of functions.
    pub logs: FunctionLogs,
    /// Source of timestamps.
    pub clock: Clock,
    /// When the process started; gives the uptime.
    pub started: Instant,
    /// Plans, starts and controls replays.
    pub replays: Replays,
    /// Counters and histograms for `GET /metrics`.
    pub metrics: Arc<Metrics>,
    /// Cancelled to stop the API; also ends responses that follow new items.
    pub stop: CancellationToken,
}

/// Serves the API on `listener` until `admin.stop` is cancelled.
pub async fn serve(admin: Admin, listener: Listener) {
    let stop = admin.stop.clone();
    let service = TowerToHyperService::new(router(admin));
    let respond = move |request: Request<RequestBody>, _peer| {
        let response = service.call(request);
        async move { response.await.unwrap_or_else(|never| match never {}) }
    };
    let limits = Limits { connections_max: CONNECTIONS_MAX, streams_max: STREAMS_MAX, ..Limits::default() };
    listener.serve(respond, limits, stop).await;
}

/// Returns the API as an axum router.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(status::health))
        .route("/readyz", get(status::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/events", get(events::list).post(events::post))
        .route("/api/v1/events/{ref}", get(events::show))
        .route("/api/v1/trace/{ref}", get(trace::trace))
        .route("/api/v1/explain/{ref}", get(explain::explain))
        .route("/api/v1/dead", get(dead::list))
        .route("/api/v1/dead/{delivery}", get(dead::show))
        .route("/api/v1/dead/redrive", post(dead::redrive))
        .route("/api/v1/dead/purge", post(dead::purge))
        .route("/api/v1/pause", post(brakes::pause))
        .route("/api/v1/resume", post(brakes::resume))
        .route("/api/v1/pending", get(brakes::list))
        .route("/api/v1/pending/cancel", post(brakes::cancel))
        .route("/api/v1/replays", get(replays::list).post(replays::start))
        .route("/api/v1/replays/plan", post(replays::plan))
        .route("/api/v1/replays/{id}", get(replays::show))
        .route("/api/v1/replays/{id}/{action}", post(replays::control))
        .route("/api/v1/state", get(state::buckets))
        .route("/api/v1/state/{bucket}", get(state::list).delete(state::clear))
        .route("/api/v1/state/{bucket}/{key}", get(state::show).put(state::set).delete(state::delete))
        .route("/api/v1/logs", get(logs::list))
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(Arc::new(admin))
}

async fn unknown_path(request: Request<Body>) -> ApiError {
    Problem::not_found(format!("nothing found at {}; the API is under /api/v1", request.uri().path())).into()
}

async fn method_not_allowed(request: Request<Body>) -> ApiError {
    let detail = format!("method {} is not allowed here", request.method());
    Problem::new(http::StatusCode::METHOD_NOT_ALLOWED, detail).into()
}

/// Who asks for the changes of a request. The API has no authentication, so all its clients are one operator.
fn operator() -> Actor {
    Actor::Operator("admin".into())
}

/// Result of a request handler.
type ApiResult<T = Response<Body>> = Result<T, ApiError>;
