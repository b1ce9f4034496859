//! Lists and follows the log lines of functions.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use http::Response;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use super::request::Params;
use super::stream::{Lines, StreamError, ndjson};
use super::{Admin, ApiResult};
use crate::logs::{Filter, Line, Snapshot};
use evoke_http::problem::Problem;
use evoke_model::DeliveryId;
use evoke_model::clock::{Clock, rfc3339};

const LIMIT_DEFAULT: usize = 100;
/// Number of lines sent per chunk.
const PAGE: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    function: Option<String>,
    delivery: Option<DeliveryId>,
    limit: Option<usize>,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Params(query): Params<LogsQuery>,
) -> ApiResult<Response<Body>> {
    let unreadable = |why: String| Problem::later(Duration::from_secs(1), format!("cannot read the log: {why}"));
    let Some(mut snapshot) = admin.logs.snapshot().await else {
        return Err(unreadable("the log is closed".into()).into());
    };
    let filter = Filter { function: query.function, delivery: query.delivery };
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    let read = move || (snapshot.last(&filter, limit), snapshot, filter);
    let (last, snapshot, filter) = tokio::task::spawn_blocking(read).await.map_err(|e| unreadable(e.to_string()))?;
    let last = last.map_err(|e| unreadable(e.to_string()))?;
    let clock = admin.clock.clone();
    Ok(ndjson(&admin, async move |lines: Lines| {
        for page in last.chunks(PAGE) {
            lines.send(page.iter().cloned()).await?;
        }
        if query.follow { follow(snapshot, filter, clock, lines).await } else { Ok(()) }
    }))
}

async fn follow(mut snapshot: Snapshot, filter: Filter, clock: Clock, lines: Lines) -> Result<(), StreamError> {
    loop {
        let line = match snapshot.new_lines.recv().await {
            Ok(line) if filter.matches(&line) => text(&line),
            Ok(_) => continue,
            Err(RecvError::Lagged(count)) => {
                let text = format!("{count} lines were dropped: the client reads more slowly than lines are written");
                let at = rfc3339(clock.now_ms());
                self::text(&Line { at, level: "warn".into(), function: None, delivery: None, attempt: None, text })
            }
            Err(RecvError::Closed) => return Ok(()),
        };
        lines.send([line]).await?;
    }
}

fn text(line: &Line) -> String {
    // Strings and numbers always serialise.
    serde_json::to_string(line).unwrap_or_default()
}
