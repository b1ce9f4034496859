//! The admin API. Reads and changes everything stored.
//!
//! Requests for health and for the files of the console (`admin/console.rs`), and the request that opens a session of
//! the console, need no authentication. Every other request needs a token, in `Authorization: Bearer TOKEN`
//! ([`Tokens`]), or an open session, which has the rights of the token that opened it. The role viewer suffices for all
//! requests that change nothing stored, except those for tokens and recordings. Requests that come from web pages of
//! other origins are refused, and no response has CORS headers. The API speaks HTTP/1.1. Without TLS, it listens only
//! on loopback addresses.
//!
//! | request | response |
//! |---|---|
//! | `GET /healthz` | 200 while the process works, 503 after the store failed permanently |
//! | `GET /readyz` | 200 when events are accepted, else 503 with the reason: starting, draining, or the store accepts no writes |
//! | `GET /metrics` | metrics in the OpenMetrics or the Prometheus text format, chosen by `Accept` |
//! | `GET /api/v1` | `{"requests": […]}`: method and path of each request |
//! | `GET /api/v1/status` | [`view::Status`] |
//! | `GET /api/v1/events?type=&source=&function=&since=&until=&pattern=&text=&after=&before=&limit=&order=&follow=&envelope=&progress=` | one [`view::Envelope`] or one CloudEvent per line, in the order of acceptance, or newest first with `order=newest` |
//! | `POST /api/v1/events` | body: one event or an array; 202 and [`view::Posted`] |
//! | `GET /api/v1/events/{ref}` | [`view::Envelope`] |
//! | `GET /api/v1/events/{ref}/deliveries` | one [`view::Delivery`] per line, in order |
//! | `GET /api/v1/trace/{ref}?root=` | [`view::Node`]; with `root=true` the tree starts at the first event of the chain |
//! | `GET /api/v1/explain/{ref}?function=` | array of [`crate::control::TriggerExplanation`], one per trigger |
//! | `GET /api/v1/dead?function=&cause=&type=&since=&until=&before=&limit=` | one [`view::DeadLetter`] per line, newest first, events without their data |
//! | `GET /api/v1/dead/groups?function=&cause=&type=&since=&until=` | one [`view::DeadGroup`] per line, the largest first |
//! | `GET /api/v1/dead/{delivery}` | [`view::DeadLetter`] |
//! | `POST /api/v1/dead/{delivery}/edit` | body: [`view::Edit`]; purges the dead letter and delivers an event with other data to its function; 202 and [`view::Edited`] |
//! | `POST /api/v1/dead/redrive`, `POST /api/v1/dead/purge` | body: [`view::DeadSelection`]; [`view::Count`] |
//! | `POST /api/v1/pause`, `POST /api/v1/resume` | body: [`view::PauseTarget`]; [`view::Changed`] |
//! | `GET /api/v1/pending?function=&root=&state=&after=&limit=` | one [`view::Pending`] per line, oldest first, events without their data |
//! | `POST /api/v1/pending/retry`, `POST /api/v1/pending/cancel` | body: [`view::PendingSelection`]; [`view::Count`] |
//! | `POST /api/v1/pending/move` | body: [`view::Move`]; [`view::Count`] |
//! | `GET /api/v1/scheduled?pattern=&limit=` | one [`view::ScheduledEvent`] per line, the next one first, events without their data |
//! | `POST /api/v1/scheduled/cancel` | body: [`view::CancelScheduled`]; [`view::CancelledScheduled`] |
//! | `GET /api/v1/timers?source=&limit=&ticks=` | one [`view::Timer`] per line, sorted by source |
//! | `GET /api/v1/replays` | one [`view::Replay`] per line, oldest first |
//! | `POST /api/v1/replays` | body: [`evoke_core::replay::Filter`]; starts a replay; 202 and [`view::Replay`] |
//! | `POST /api/v1/replays/plan?progress=` | body: [`evoke_core::replay::Filter`]; starts nothing; [`evoke_core::replay::Plan`]; with `progress=true`, one plan per line while the events are counted, and the complete plan in the last line |
//! | `GET /api/v1/replays/{id}` | [`view::Replay`] |
//! | `POST /api/v1/replays/{id}/pause`, `…/resume`, `…/cancel` | [`view::Replay`] |
//! | `GET /api/v1/state` | one [`view::StateBucket`] per line |
//! | `GET /api/v1/state/{bucket}?prefix=&limit=` | one [`view::StateEntry`] per line, sorted by key, without long values |
//! | `DELETE /api/v1/state/{bucket}` | deletes all keys of the bucket; [`view::Count`] |
//! | `GET /api/v1/state/{bucket}/{key}` | [`view::StateEntry`] |
//! | `PUT /api/v1/state/{bucket}/{key}` | body: [`view::StateValue`]; 204 |
//! | `DELETE /api/v1/state/{bucket}/{key}` | [`view::Count`] |
//! | `GET /api/v1/logs?function=&delivery=&since=&limit=&follow=` | one [`crate::logs::Line`] per line, oldest first |
//! | `GET /api/v1/monitors` | one [`view::Monitor`] per line for each thing that a monitor watches, sorted by source and subject |
//! | `GET /api/v1/grants?name=` | one [`view::FunctionGrants`] per line for each function |
//! | `GET /api/v1/recordings?delivery=&function=&attempt=&limit=` | one recording per line |
//! | `GET /api/v1/recordings/{delivery}/test?attempt=` | a test file with the recorded attempts of the delivery |
//! | `GET /api/v1/tokens` | one [`view::Token`] per line |
//! | `POST /api/v1/tokens` | body: [`view::TokenRequest`]; 201 and [`view::NewToken`] |
//! | `DELETE /api/v1/tokens/{name}` | revokes the token; [`view::Count`] |
//!
//! Lists are NDJSON: one JSON object per line. A list of events has the newest `limit` events or, with `after` and
//! without `order=newest`, the first `limit` events after this position. The default of `limit` is 100; with `after` or
//! `since`, there is no limit by default. With `follow=true`, a list continues with new items until the client
//! disconnects, and `limit` applies only to the items that are already stored.
//!
//! To get the next page of a list that starts with the newest items, a client sends the number of the last item
//! received as `before`; for any other list, it sends the number as `after`. Only the times and the positions of events
//! have an index. For all other conditions, the server reads the events one after another, and sends each match when it
//! is found. With `progress=true`, lines such as `{"searched":4711}` between the events report the position of the
//! search.
//!
//! Times are RFC 3339. A pattern is an event pattern as JSON. A `text` is searched in the JSON form of an event, and
//! upper and lower case are equal. The name of a function may leave out the app if only one function has the rest of
//! the name.
//!
//! Lists and traces are streamed at the pace of the client. Of each response, at most 64 KiB are being read, at most
//! 64 KiB wait, and at most 64 KiB are being sent; a larger object is in memory as a whole. A client has 30 seconds to
//! read 64 KiB; then it is disconnected, as is a client whose token is revoked or expires. A response that fails midway
//! ends without the terminating chunk of its transfer encoding. The number of concurrent requests is limited for each
//! kind of request (`admin/permits.rs`); a request beyond the limit gets 503. Health requests do not count, and some
//! connections remain for them when the other requests have reached their limits.
//!
//! The slash in the name of a bucket is percent-encoded in the path: `shop%2Fcharge`.
//!
//! `{ref}` is the number of an event or, if no event has this number, an id. If several sources have used the id, the
//! response is 409 with the numbers of the events in `seqs`. Errors are `application/problem+json` (RFC 9457) with the
//! reason in `detail`: 400, 401, 403, 404, 405, 408, 409, 413, 415, 429 and 503 with `Retry-After`, and 500 when the
//! store failed. Request bodies need a JSON content type. They have at most 64 KiB; 512 KiB if they contain a pattern;
//! and 4 MiB with events, with the data for a dead letter or with a value of the state. An array has at most 10,000
//! events.

mod access;
mod console;
mod dead;
mod dead_letters;
mod error;
mod events;
mod explain;
mod grants;
mod guard;
mod logs;
mod manage_tokens;
mod metrics;
mod monitors;
mod names;
mod pace;
mod pause;
mod pending;
mod permits;
mod recordings;
mod replays;
mod request;
mod response;
mod routes;
mod scheduled;
mod search;
mod state;
mod status;
mod stream;
mod timers;
pub(crate) mod tokens;
mod trace;
pub mod view;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use http::{Request, Response};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;

pub use self::console::Console;
use self::error::ApiError;
pub use self::routes::router;
pub use self::status::Readiness;
pub use self::tokens::Tokens;
use crate::control::{Control, ListenerHandle, ListenerStatus};
use crate::logs::FunctionLogs;
use evoke_core::bus::Bus;
use evoke_core::replay::Replays;
use evoke_http::listener::{Limits, Listener, RequestBody};
use evoke_model::clock::Clock;
use evoke_store::Store;
use evoke_telemetry::Metrics;

/// Maximum number of open connections. A peer on another machine gets at most half of them: one for each permitted
/// request, and 24 for all others, such as those with health requests. All users of this machine are one peer, so this
/// share does not limit them. A new connection beyond a maximum replaces the oldest one whose request has no permit.
const CONNECTIONS_MAX: usize = 2 * (permits::REQUESTS_MAX + 24);

/// True if the API accepts HTTP/2 connections.
pub(crate) const HTTP2: bool = false;

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
    /// The time at which the process started, for the uptime in `GET /api/v1/status`.
    pub started: Instant,
    /// Plans, starts and controls replays.
    pub replays: Replays,
    /// Counters and histograms for `GET /metrics`.
    pub metrics: Arc<Metrics>,
    /// The valid tokens.
    pub tokens: Tokens,
    /// The listener of the API. The `Host` of each request must name it.
    pub listener: Arc<ListenerHandle>,
    /// The listener of the http sources, for `GET /api/v1/status`.
    pub public: Option<Arc<ListenerHandle>>,
    /// The data folder, for `GET /api/v1/status`.
    pub data: PathBuf,
    /// The result of the last check whether the store accepts writes, for `GET /readyz`.
    pub readiness: Readiness,
    /// Sessions and counts of the web console.
    pub console: Console,
    /// Cancelled to stop the API. This also ends the responses of lists with `follow=true`.
    pub stop: CancellationToken,
}

impl Admin {
    /// Returns the health of the listeners.
    fn listeners(&self) -> Vec<ListenerStatus> {
        let now_ms = self.clock.now_ms();
        self.public.iter().chain([&self.listener]).map(|listener| listener.status(now_ms)).collect()
    }
}

/// Serves the API on `listener` until `admin.stop` is cancelled.
pub async fn serve(admin: Arc<Admin>, listener: Listener) {
    let stop = admin.stop.clone();
    let service = TowerToHyperService::new(router(admin.clone()));
    let respond = move |request: Request<RequestBody>, _peer| {
        let response = service.call(request);
        async move { response.await.unwrap_or_else(|never| match never {}) }
    };
    let limits = Limits { connections_max: CONNECTIONS_MAX, replaces_oldest: true, http2: HTTP2, ..Limits::default() };
    tokio::join!(listener.serve(respond, limits, stop), console::sample(&admin));
}

/// Result of a request handler.
type ApiResult<T = Response<Body>> = Result<T, ApiError>;
