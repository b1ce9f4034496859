//! Lists the things that monitors watch.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::Response;

use super::Admin;
use super::stream::ndjson;
use super::view::Monitor;

pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Response<Body> {
    let watched = admin.control.parts().services.monitors.list(admin.clock.now_ms());
    ndjson(&admin, async move |mut lines| {
        for one in watched {
            lines.json(&Monitor::from(one)).await?;
        }
        Ok(lines.flush().await?)
    })
}
