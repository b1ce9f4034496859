//! Lists and follows the log lines of functions.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use http::Response;
use serde::Deserialize;

use super::access::Exchange;
use super::request::{Params, parse_time};
use super::stream::{Lines, PAGE_BYTES_MAX, StreamError, ndjson};
use super::{Admin, ApiResult, names};
use crate::logs::{Filter, Followed, Follower, Line, Reader};
use evoke_http::problem::Problem;
use evoke_model::{DeliveryId, text};

const LIMIT_DEFAULT: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    function: Option<String>,
    delivery: Option<DeliveryId>,
    since: Option<String>,
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
    let resolved = names::optional_function(&admin, query.function.as_deref()).await;
    let is_unknown = resolved.is_err();
    let function = resolved.as_ref().map_or_else(|_| query.function.clone(), Clone::clone);
    let since_ms = parse_time("since", query.since.as_deref())?;
    let unreadable = |why: String| Problem::later(Duration::from_secs(1), format!("cannot read the log: {why}"));
    let filter = Filter { function, delivery: query.delivery, since_ms };
    let limit = query.limit.unwrap_or(if since_ms.is_some() { usize::MAX } else { LIMIT_DEFAULT });
    let (reader, new_lines) = {
        let _scan = exchange.permits().scan().await;
        let Some(snapshot) = admin.logs.snapshot(filter).await else {
            return Err(unreadable("the log is closed".into()).into());
        };
        let (stored, new_lines) = (snapshot.stored, snapshot.new_lines);
        // An inactive function that handled only HTTP requests has no deliveries. Only its log shows that it existed.
        if is_unknown && stored.is_empty() {
            resolved?;
        }
        let opened = tokio::task::spawn_blocking(move || stored.reader(limit)).await;
        let reader = opened.map_err(|e| unreadable(e.to_string()))?.map_err(|e| unreadable(e.to_string()))?;
        // Without `follow`, the receiver is dropped, so that no new lines are queued for this request.
        (reader, query.follow.then_some(new_lines))
    };
    Ok(ndjson(&admin, async move |mut lines: Lines| {
        write(reader, &mut lines).await?;
        match new_lines {
            Some(new_lines) => follow(new_lines, lines).await,
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

async fn follow(mut new_lines: Follower, mut lines: Lines) -> Result<(), StreamError> {
    while let Some(next) = new_lines.next().await {
        match next {
            Followed::Line(line) => lines.json(&*line).await?,
            Followed::Missed(count) => {
                let (number, were) = (text::count(count, "line"), text::fitting(count, "was", "were"));
                let text = format!("{number} {were} dropped: the client reads more slowly than lines are written");
                lines.json(&Line::notice(None, text)).await?;
            }
        }
        if new_lines.is_empty() {
            lines.flush().await?;
        }
    }
    Ok(())
}
