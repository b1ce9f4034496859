//! The admin API: what is running, looked at and worked on from outside. `evoke`'s other commands use it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process lives |
//! | `GET /readyz` | 200 while it takes events, else 503 with the reason |
//! | `GET /api/v1/status` | version, apps, functions with their numbers, sources |
//! | `GET /api/v1/events` | events, a CloudEvent in JSON a line; `type`, `source`, `after`, `limit`, `follow`, `envelope` |
//! | `POST /api/v1/events` | accepts one CloudEvent in JSON; `id`, `source` and `time` are filled in |
//! | `GET /api/v1/trace/{event}` | an event by position or id, with everything that came of it |
//! | `GET /api/v1/dead` | dead letters; `function`, `limit` |
//! | `GET /api/v1/dead/{delivery}` | one, with its event |
//! | `POST /api/v1/dead/redrive`, `…/purge` | `{"delivery": 7}`, `{"function": "shop/charge"}` or `{"all": true}`; answers `{"count": 1}` |
//! | `GET /api/v1/logs` | what functions logged, a line each; `function`, `delivery`, `limit`, `follow` |
//!
//! Errors are problem details (RFC 9457).

pub mod dead;
mod events;
mod logs;
mod problem;
mod status;
mod trace;
pub mod view;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;

use crate::app::Running;
use crate::listener::{Limits, Listener};

/// What the handlers share.
#[derive(Clone)]
struct Admin {
    running: Arc<Running>,
    /// Ends streams that follow, which would end by themselves never.
    stop: CancellationToken,
}

/// Serves the API on `listener` until `stop`.
pub async fn serve(running: Arc<Running>, listener: Listener, stop: CancellationToken) {
    let router = router(Admin { running, stop: stop.clone() });
    let service = TowerToHyperService::new(router);
    let answer = move |request: http::Request<_>, _peer| {
        let answer = service.call(request.map(axum::body::Body::new));
        async move {
            match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    };
    listener.serve(answer, Limits::default(), stop).await;
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(status::health))
        .route("/readyz", get(status::ready))
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/events", get(events::list).post(events::accept))
        .route("/api/v1/trace/{event}", get(trace::trace))
        .route("/api/v1/dead", get(dead::list))
        .route("/api/v1/dead/{delivery}", get(dead::show))
        .route("/api/v1/dead/redrive", post(dead::redrive))
        .route("/api/v1/dead/purge", post(dead::purge))
        .route("/api/v1/logs", get(logs::list))
        .fallback(problem::not_found)
        .with_state(admin)
}
