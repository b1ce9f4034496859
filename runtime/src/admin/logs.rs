//! Lists and follows the log lines of functions.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use http::Response;
use serde::Deserialize;

use super::access::Exchange;
use super::request::{Params, list_limit, parse_time};
use super::stream::{Lines, PAGE_BYTES_MAX, StreamError, ndjson};
use super::{Admin, ApiResult, names};
use crate::logs::{Filter, Followed, Follower, Line, Reader};
use evoke_http::problem::Problem;
use evoke_model::{DeliveryId, text};

const LIMIT_DEFAULT: usize = 100;
/// Maximum of `limit`. With `since` and no `limit`, all lines are listed.
const LIMIT_MAX: usize = 10_000;

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
    let limit = match (query.limit, since_ms) {
        (None, Some(_)) => None,
        (given, _) => Some(list_limit(given, LIMIT_DEFAULT, LIMIT_MAX, "lines")?),
    };
    let (reader, new_lines) = {
        let scan = exchange.scan().await;
        let Some(snapshot) = admin.logs.snapshot(filter).await else {
            return Err(unreadable("the log is closed".into()).into());
        };
        let (stored, new_lines) = (snapshot.stored, snapshot.new_lines);
        // An inactive function that handled only HTTP requests has no deliveries. Only its log shows that it existed.
        if is_unknown && stored.is_empty() {
            resolved?;
        }
        let opened = scan.run(move || stored.reader(limit)).await?;
        let reader = opened.map_err(|e| unreadable(e.to_string()))?;
        // Without `follow`, the receiver is dropped, so that no new lines are queued for this request.
        (reader, query.follow.then_some(new_lines))
    };
    Ok(ndjson(&admin, async move |mut lines: Lines| {
        write(reader, &exchange, &mut lines).await?;
        match new_lines {
            Some(new_lines) => follow(new_lines, lines).await,
            None => Ok(()),
        }
    }))
}

async fn write(mut reader: Reader, exchange: &Exchange, lines: &mut Lines) -> Result<(), StreamError> {
    loop {
        lines.ready().await?;
        if reader.needs_scan() {
            let scan = exchange.scan().await;
            let (scanned, of_next) = scan.run(move || (reader.scan(), reader)).await?;
            scanned?;
            reader = of_next;
        }
        let read = tokio::task::spawn_blocking(move || (reader.page(PAGE_BYTES_MAX), reader)).await;
        let (page, of_next) = read?;
        let page = page?;
        if page.is_empty() && !of_next.needs_scan() {
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
