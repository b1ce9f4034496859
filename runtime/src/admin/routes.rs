//! The routes of the API: method, path, the role that a token needs, and the handler.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, post, put};
use http::{Method, Request};

use super::access::{self, Access};
use super::console::{assets, events as rows, flow, live, pattern, rates, session};
use super::error::ApiError;
use super::permits::{INLINE_BODY_MAX, Permits};
use super::response::Json;
use super::tokens::Role::{self, Operator, Viewer};
use super::{
    Admin, dead, events, explain, grants, logs, manage_tokens, metrics, monitors, pause, pending, recordings, replays,
    scheduled, state, status, timers, trace,
};
use evoke_http::problem::Problem;

/// Maximum size of a request body with data or with a value, in bytes: room for several events of the maximum size. All
/// other bodies have at most [`INLINE_BODY_MAX`] or [`PATTERN_BODY_MAX`].
pub(super) const BODY_MAX: usize = 4 * 1024 * 1024;
/// Maximum size of a request body that contains a pattern, in bytes. A pattern has at most 64 KiB. In the body, each
/// byte of the pattern can be an escape of six bytes, such as `\u0061`.
pub(super) const PATTERN_BODY_MAX: usize = 512 * 1024;

type Route = (Method, &'static str, Role, MethodRouter<Arc<Admin>>);

/// The routes that need a token. Each entry repeats the method of its handler, because the method cannot be read from
/// the handler. Tests need the methods, and so does `GET /api/v1`, which lists these routes.
pub(super) fn routes() -> Vec<Route> {
    let (get_, post_, put_, delete_) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    vec![
        (get_.clone(), "/metrics", Viewer, get(metrics::metrics)),
        (get_.clone(), "/api/v1", Viewer, get(index)),
        (get_.clone(), "/api/v1/status", Viewer, get(status::status)),
        (get_.clone(), "/api/v1/events", Viewer, get(events::list)),
        (post_.clone(), "/api/v1/events", Operator, with_data(post(events::post))),
        (get_.clone(), "/api/v1/events/{ref}", Viewer, get(events::show)),
        (get_.clone(), "/api/v1/events/{ref}/deliveries", Viewer, get(events::deliveries)),
        (get_.clone(), "/api/v1/trace/{ref}", Viewer, get(trace::trace)),
        (get_.clone(), "/api/v1/explain/{ref}", Viewer, get(explain::explain)),
        (get_.clone(), "/api/v1/dead", Viewer, get(dead::list)),
        (get_.clone(), "/api/v1/dead/groups", Viewer, get(dead::groups)),
        (get_.clone(), "/api/v1/dead/{delivery}", Viewer, get(dead::show)),
        (post_.clone(), "/api/v1/dead/{delivery}/edit", Operator, with_data(post(dead::edit))),
        (post_.clone(), "/api/v1/dead/redrive", Operator, post(dead::redrive)),
        (post_.clone(), "/api/v1/dead/purge", Operator, post(dead::purge)),
        (post_.clone(), "/api/v1/pause", Operator, post(pause::pause)),
        (post_.clone(), "/api/v1/resume", Operator, post(pause::resume)),
        (get_.clone(), "/api/v1/pending", Viewer, get(pending::list)),
        (post_.clone(), "/api/v1/pending/retry", Operator, post(pending::retry)),
        (post_.clone(), "/api/v1/pending/cancel", Operator, post(pending::cancel)),
        (post_.clone(), "/api/v1/pending/move", Operator, post(pending::transfer)),
        (get_.clone(), "/api/v1/recordings", Operator, get(recordings::list)),
        (get_.clone(), "/api/v1/recordings/{delivery}/test", Operator, get(recordings::test)),
        (get_.clone(), "/api/v1/timers", Viewer, get(timers::list)),
        (get_.clone(), "/api/v1/scheduled", Viewer, get(scheduled::list)),
        (post_.clone(), "/api/v1/scheduled/cancel", Operator, with_pattern(post(scheduled::cancel))),
        (get_.clone(), "/api/v1/replays", Viewer, get(replays::list)),
        (post_.clone(), "/api/v1/replays", Operator, with_pattern(post(replays::start))),
        (post_.clone(), "/api/v1/replays/plan", Viewer, with_pattern(post(replays::plan))),
        (get_.clone(), "/api/v1/replays/{id}", Viewer, get(replays::show)),
        (post_.clone(), "/api/v1/replays/{id}/{action}", Operator, post(replays::control)),
        (get_.clone(), "/api/v1/state", Viewer, get(state::buckets)),
        (get_.clone(), "/api/v1/state/{bucket}", Viewer, get(state::list)),
        (delete_.clone(), "/api/v1/state/{bucket}", Operator, delete(state::clear)),
        (get_.clone(), "/api/v1/state/{bucket}/{key}", Viewer, get(state::show)),
        (put_, "/api/v1/state/{bucket}/{key}", Operator, with_data(put(state::set))),
        (delete_.clone(), "/api/v1/state/{bucket}/{key}", Operator, delete(state::delete)),
        (get_.clone(), "/api/v1/grants", Viewer, get(grants::list)),
        (get_.clone(), "/api/v1/logs", Viewer, get(logs::list)),
        (get_.clone(), "/api/v1/monitors", Viewer, get(monitors::list)),
        (get_.clone(), "/api/v1/tokens", Operator, get(manage_tokens::list)),
        (post_.clone(), "/api/v1/tokens", Operator, post(manage_tokens::create)),
        (delete_.clone(), "/api/v1/tokens/{name}", Operator, delete(manage_tokens::revoke)),
        (post_.clone(), "/api/v1/console/codes", Viewer, post(session::make_code)),
        (get_.clone(), "/api/v1/console/session", Viewer, get(session::show)),
        (delete_, "/api/v1/console/session", Viewer, delete(session::close)),
        (get_.clone(), "/api/v1/console/live", Viewer, get(live::live)),
        (get_.clone(), "/api/v1/console/events", Viewer, get(rows::list)),
        (post_, "/api/v1/console/pattern", Viewer, with_pattern(post(pattern::find))),
        (get_.clone(), "/api/v1/console/flow", Viewer, get(flow::flow)),
        (get_, "/api/v1/console/rates", Viewer, get(rates::rates)),
    ]
}

/// Returns the handler of a request whose body contains a pattern, with the limit for such bodies.
fn with_pattern(handler: MethodRouter<Arc<Admin>>) -> MethodRouter<Arc<Admin>> {
    handler.layer(DefaultBodyLimit::max(PATTERN_BODY_MAX))
}

/// Returns the handler of a request whose body contains data of events or a value, with the limit for such bodies.
fn with_data(handler: MethodRouter<Arc<Admin>>) -> MethodRouter<Arc<Admin>> {
    handler.layer(DefaultBodyLimit::max(BODY_MAX))
}

/// Returns the API as an axum router.
pub fn router(admin: Arc<Admin>) -> Router {
    let access = Access { admin: admin.clone(), permits: Arc::new(Permits::new()) };
    let open = Router::new()
        .route("/healthz", get(status::health))
        .route("/readyz", get(status::ready))
        .route("/", get(assets::file))
        .route("/console/{*file}", get(assets::file))
        .route(session::PATH, post(session::open).layer(DefaultBodyLimit::max(session::BODY_MAX)));
    routes()
        .into_iter()
        .fold(open, |router, (_, path, role, handler)| {
            router.route(path, handler.route_layer(from_fn_with_state(role, access::require)))
        })
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(INLINE_BODY_MAX))
        .layer(from_fn_with_state(access, access::check))
        .with_state(admin)
}

/// Lists the requests of the API.
async fn index() -> Json<serde_json::Value> {
    let requests: Vec<String> = routes().iter().map(|(method, path, ..)| format!("{method} {path}")).collect();
    Json(serde_json::json!({ "requests": requests }))
}

async fn unknown_path(request: Request<Body>) -> ApiError {
    Problem::not_found(format!("there is nothing at {}; the API is under /api/v1", request.uri().path())).into()
}

async fn method_not_allowed(request: Request<Body>) -> ApiError {
    let detail = format!("method {} is not allowed here", request.method());
    Problem::new(http::StatusCode::METHOD_NOT_ALLOWED, detail).into()
}
