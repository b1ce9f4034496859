//! What functions logged.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::Response;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use super::problem::{Params, Problem};
use super::stream::{Ended, Lines, ndjson};
use super::{Admin, Answer};
use crate::clock::{Clock, rfc3339};
use crate::logs::{Filter, Line, Snapshot};
use crate::store::DeliveryId;

const LIMIT_DEFAULT: usize = 100;
/// Lines that go out at a time.
const PAGE: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    function: Option<String>,
    delivery: Option<DeliveryId>,
    limit: Option<usize>,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn list(State(admin): State<Arc<Admin>>, Params(wanted): Params<Wanted>) -> Answer<Response<Body>> {
    let unread = |why: String| Problem::later(1, format!("the log cannot be read: {why}"));
    let Some(mut snapshot) = admin.logs.snapshot().await else { return Err(unread("it is closed".into())) };
    let filter = Filter { function: wanted.function, delivery: wanted.delivery };
    let limit = wanted.limit.unwrap_or(LIMIT_DEFAULT);
    let read = move || (snapshot.last(&filter, limit), snapshot, filter);
    let (last, snapshot, filter) = tokio::task::spawn_blocking(read).await.map_err(|e| unread(e.to_string()))?;
    let last = last.map_err(|e| unread(e.to_string()))?;
    let clock = admin.clock.clone();
    Ok(ndjson(&admin, async move |lines: Lines| {
        for page in last.chunks(PAGE) {
            lines.send(page.iter().cloned()).await?;
        }
        if wanted.follow { follow(snapshot, filter, clock, lines).await } else { Ok(()) }
    }))
}

async fn follow(mut snapshot: Snapshot, filter: Filter, clock: Clock, lines: Lines) -> Result<(), Ended> {
    loop {
        let line = match snapshot.new_lines.recv().await {
            Ok(line) if filter.matches(&line) => text(&line),
            Ok(_) => continue,
            Err(RecvError::Lagged(count)) => {
                let text = format!("{count} lines were left out: they came faster than they were read");
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
