//! The admin API: everything that Evoke keeps can be looked at here. Whoever reaches it may do everything, so it
//! listens on the loopback unless it is told otherwise.
//!
//! | request | answer |
//! |---|---|
//! | `GET /healthz` | 200 as long as the process answers, 503 when its store failed for good |
//! | `GET /readyz` | 200 when events are taken, 503 with the reason when not: while it starts or drains, and when the store takes no writes |
//! | `GET /metrics` | what is measured, as OpenMetrics or in Prometheus' text format, by `Accept` |
//! | `GET /api/v1/status` | [`view::Status`] |
//! | `GET /api/v1/events?type=&source=&after=&limit=&follow=&envelope=` | events in accept order, [`view::Envelope`] or the bare event a line |
//! | `POST /api/v1/events` | takes one event or an array, answers 202 and [`view::Posted`] |
//! | `GET /api/v1/events/{ref}` | [`view::Envelope`] |
//! | `GET /api/v1/trace/{ref}?root=` | [`view::Node`]; with `root=true` from the event that started the chain |
//! | `GET /api/v1/explain/{ref}?function=` | [`Explained`], one for each trigger |
//! | `GET /api/v1/dead?function=&limit=` | [`view::DeadLetter`] a line, oldest first, events without their data |
//! | `GET /api/v1/dead/{delivery}` | [`view::DeadLetter`] |
//! | `POST /api/v1/dead/redrive`, `POST /api/v1/dead/purge` | takes [`view::Which`], answers [`view::Count`] |
//! | `GET /api/v1/replays` | [`view::Replay`] a line, oldest first |
//! | `POST /api/v1/replays` | takes [`crate::replay::Filter`], begins a replay, answers 202 and [`view::Replay`] |
//! | `POST /api/v1/replays/plan` | takes the same, does nothing, answers [`crate::replay::Plan`] |
//! | `GET /api/v1/replays/{id}` | [`view::Replay`] |
//! | `POST /api/v1/replays/{id}/pause`, `…/resume`, `…/cancel` | [`view::Replay`] |
//! | `GET /api/v1/state` | [`view::StateBucket`] a line |
//! | `GET /api/v1/state/{bucket}?prefix=&limit=` | [`view::StateEntry`] a line, by key, without long values |
//! | `DELETE /api/v1/state/{bucket}` | removes all its keys, answers [`view::Count`] |
//! | `GET /api/v1/state/{bucket}/{key}` | [`view::StateEntry`] |
//! | `PUT /api/v1/state/{bucket}/{key}` | takes [`view::StateValue`], answers 204 |
//! | `DELETE /api/v1/state/{bucket}/{key}` | [`view::Count`] |
//! | `GET /api/v1/logs?function=&delivery=&limit=&follow=` | [`crate::logs::Line`] a line, oldest first |
//!
//! Lists are NDJSON: one JSON object a line, streamed, so that a list of any length needs little memory. Without
//! `after`, the newest `limit` events are listed, by default 100; `follow=true` goes on with what comes until the
//! client leaves. A list that cannot be finished breaks off without the end of its encoding.
//!
//! A bucket's name has its slash encoded in the path: `shop%2Fcharge`.
//!
//! `{ref}` is an event's number or, when there is none of this number, its id. An id that several sources gave is
//! answered 409 with the numbers of the events in `seqs`. Refusals are `application/problem+json` (RFC 9457) with the
//! reason in `detail`: 400, 404, 405, 409, 413, 415, 429 and 503 with `Retry-After`, and 500 when the store failed. Bodies are
//! JSON and say so in their content type, which also keeps web pages of other origins from sending any.

mod dead;
mod events;
mod explain;
mod logs;
mod metrics;
mod problem;
mod replays;
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
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::problem::Problem;
use crate::bus::Bus;
use crate::clock::Clock;
use crate::event::Event;
use crate::listener::{Limits, Listener, RequestBody};
use crate::logs::FunctionLogs;
use crate::pattern::{Explanation, MalformedEvent};
use crate::replay::Replays;
use crate::store::Store;
use crate::telemetry::{self, Metrics};

/// The largest body that is taken, in bytes: some events of the largest size at once.
const BODY_MAX: usize = 4 * 1024 * 1024;
/// Connections at a time. With [`STREAMS_MAX`] and [`BODY_MAX`], bodies hold 1 GiB at the very worst; it takes a hostile
/// operator to get there.
const CONNECTIONS_MAX: usize = 64;
const STREAMS_MAX: u32 = 4;

/// What the API looks at.
pub struct Admin {
    /// What is stored.
    pub store: Arc<dyn Store>,
    /// Where events that are put in by hand go.
    pub bus: Bus,
    /// What functions logged.
    pub logs: FunctionLogs,
    /// Where time comes from.
    pub clock: Clock,
    /// Since when it runs.
    pub started: Instant,
    /// Asks what the manifests in force declare, and how it is doing.
    pub in_force: Arc<dyn Fn() -> BoxFuture<'static, InForce> + Send + Sync>,
    /// Explains an event to the triggers in force, or to those of one function.
    pub explain: Arc<Explain>,
    /// Stored events that are offered again.
    pub replays: Replays,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How far it is.
    pub phase: watch::Receiver<Phase>,
    /// Cancelled when the API is to end; what follows something ends with it.
    pub stop: CancellationToken,
}

/// Explains an event to the triggers in force, or to those of one function.
pub type Explain = dyn Fn(&Event, Option<&str>) -> Result<Vec<Explained>, MalformedEvent> + Send + Sync;

/// How far a process is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It loads functions and takes no events yet.
    Starting,
    /// It takes events.
    Running,
    /// It takes no more events and ends what runs.
    Draining,
}

/// What the manifests in force declare.
#[derive(Debug, Clone, Default)]
pub struct InForce {
    /// The functions.
    pub functions: Vec<FunctionStatus>,
    /// The sources.
    pub sources: Vec<SourceStatus>,
    /// What their functions run in.
    pub sandbox: telemetry::Sandbox,
}

/// A function as `status` shows it.
#[derive(Debug, Clone)]
pub struct FunctionStatus {
    /// `app/function`.
    pub name: String,
    /// How many of its deliveries run at once at most.
    pub concurrency: u32,
    /// How many run now.
    pub running: u32,
    /// How many wait in memory.
    pub held: u32,
    /// In what way it is failing, when it is.
    pub failing: Option<String>,
}

/// How a source is doing, for people.
#[derive(Debug, Clone)]
pub struct SourceStatus {
    /// The `source` of its events.
    pub uri: String,
    /// `http`, `files` or `timer`.
    pub kind: &'static str,
    /// Why it does not work fully; `None` when it does.
    pub trouble: Option<String>,
}

/// How an event and a trigger meet.
#[derive(Debug, Clone, Serialize)]
pub struct Explained {
    /// `app/function`.
    pub function: String,
    /// The trigger, `on[0]`.
    pub trigger: String,
    /// Whether the event meets it.
    pub matched: bool,
    /// For people.
    pub text: String,
    /// The source that its events come from, where it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Its pattern, field by field, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Explanation>,
}

/// Serves the API on `listener` until it is stopped.
pub async fn serve(admin: Admin, listener: Listener) {
    let stop = admin.stop.clone();
    let service = TowerToHyperService::new(router(admin));
    let answer = move |request: Request<RequestBody>, _peer| {
        let answer = service.call(request);
        async move { answer.await.unwrap_or_else(|never| match never {}) }
    };
    let limits = Limits { connections_max: CONNECTIONS_MAX, streams_max: STREAMS_MAX, ..Limits::default() };
    listener.serve(answer, limits, stop).await;
}

/// The API as a service.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(status::health))
        .route("/readyz", get(status::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/events", get(events::list).post(events::post))
        .route("/api/v1/events/{ref}", get(events::one))
        .route("/api/v1/trace/{ref}", get(trace::trace))
        .route("/api/v1/explain/{ref}", get(explain::explain))
        .route("/api/v1/dead", get(dead::list))
        .route("/api/v1/dead/{delivery}", get(dead::one))
        .route("/api/v1/dead/redrive", post(dead::redrive))
        .route("/api/v1/dead/purge", post(dead::purge))
        .route("/api/v1/replays", get(replays::list).post(replays::start))
        .route("/api/v1/replays/plan", post(replays::plan))
        .route("/api/v1/replays/{id}", get(replays::one))
        .route("/api/v1/replays/{id}/{turn}", post(replays::turn))
        .route("/api/v1/state", get(state::buckets))
        .route("/api/v1/state/{bucket}", get(state::list).delete(state::clear))
        .route("/api/v1/state/{bucket}/{key}", get(state::one).put(state::set).delete(state::delete))
        .route("/api/v1/logs", get(logs::list))
        .fallback(nowhere)
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(Arc::new(admin))
}

async fn nowhere(request: Request<Body>) -> Problem {
    Problem::not_found(format!("there is nothing at {}; the API is under /api/v1", request.uri().path()))
}

async fn other_method(request: Request<Body>) -> Problem {
    Problem::new(http::StatusCode::METHOD_NOT_ALLOWED, format!("{} is not taken here", request.method()))
}

/// What a handler answers.
type Answer<T = Response<Body>> = Result<T, Problem>;
