//! Lists and follows the log lines of functions.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use http::Response;
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::access::Exchange;
use super::request::Params;
use super::stream::{Lines, PAGE_BYTES_MAX, StreamError, ndjson};
use super::{Admin, ApiResult};
use crate::logs::{Filter, Line, Reader};
use evoke_http::problem::Problem;
use evoke_model::DeliveryId;
use evoke_model::clock::{Clock, rfc3339};

const LIMIT_DEFAULT: usize = 100;

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
    exchange: Exchange,
    Params(query): Params<LogsQuery>,
) -> ApiResult<Response<Body>> {
    if query.follow {
        exchange.follow()?;
    }
    let unreadable = |why: String| Problem::later(Duration::from_secs(1), format!("cannot read the log: {why}"));
    let filter = Filter { function: query.function, delivery: query.delivery };
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    let (reader, new_lines) = {
        let _scan = exchange.permits().scan().await;
        let Some(snapshot) = admin.logs.snapshot().await else {
            return Err(unreadable("the log is closed".into()).into());
        };
        let (stored, new_lines) = (snapshot.stored, snapshot.new_lines);
        let of_reader = filter.clone();
        let opened = tokio::task::spawn_blocking(move || stored.reader(of_reader, limit)).await;
        let reader = opened.map_err(|e| unreadable(e.to_string()))?.map_err(|e| unreadable(e.to_string()))?;
        // Without a receiver, nothing is kept for this request.
        (reader, query.follow.then_some(new_lines))
    };
    let clock = admin.clock.clone();
    Ok(ndjson(&admin, async move |mut lines: Lines| {
        write(reader, &mut lines).await?;
        match new_lines {
            Some(new_lines) => follow(new_lines, filter, clock, lines).await,
            None => Ok(()),
        }
    }))
}

async fn write(mut reader: Reader, lines: &mut Lines) -> Result<(), StreamError> {
    loop {
        lines.ready().await?;
        let read = tokio::task::spawn_blocking(move || (reader.page(PAGE_BYTES_MAX), reader)).await;
        let (page, of_next) = read.map_err(io::Error::other)?;
        let page = page?;
        if page.is_empty() {
            return Ok(lines.flush().await?);
        }
        for line in page {
            lines.line(line).await?;
        }
        reader = of_next;
    }
}

async fn follow(
    mut new_lines: Receiver<Arc<Line>>,
    filter: Filter,
    clock: Clock,
    mut lines: Lines,
) -> Result<(), StreamError> {
    loop {
        match new_lines.recv().await {
            Ok(line) if filter.matches(&line) => lines.json(&*line).await?,
            Ok(_) => continue,
            Err(RecvError::Lagged(count)) => {
                let text = format!("{count} lines were dropped: the client reads more slowly than lines are written");
                let at = rfc3339(clock.now_ms());
                let line = Line { at, level: "warn".into(), function: None, delivery: None, attempt: None, text };
                lines.json(&line).await?;
            }
            Err(RecvError::Closed) => return Ok(()),
        }
        if new_lines.is_empty() {
            lines.flush().await?;
        }
    }
}
