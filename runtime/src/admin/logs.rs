//! What functions logged.

use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use super::Admin;
use super::problem::Result;
use crate::logs::{Filter, Record};

/// Lines in one answer.
const LIMIT_MAX: usize = 100_000;

#[derive(Deserialize)]
pub(super) struct Listing {
    function: Option<String>,
    delivery: Option<i64>,
    limit: Option<usize>,
    /// Whether to go on with lines as they come.
    #[serde(default)]
    follow: bool,
}

pub(super) async fn list(State(admin): State<Admin>, Query(listing): Query<Listing>) -> Result<Response> {
    let filter = Filter { function: listing.function, delivery: listing.delivery };
    let limit = listing.limit.unwrap_or(if listing.follow { 0 } else { 100 }).min(LIMIT_MAX);
    let logs = &admin.running.logs;
    let coming = logs.follow();
    let there = logs.read(filter.clone(), limit).await?;
    let there = stream::iter(there.into_iter().map(|record| Ok::<_, std::convert::Infallible>(line(&record))));
    let body = if listing.follow {
        let coming = stream::unfold((coming, filter, admin), |(mut coming, filter, admin)| async move {
            loop {
                let received = tokio::select! {
                    () = admin.stop.cancelled() => return None,
                    received = coming.recv() => received,
                };
                match received {
                    Ok(record) if filter.takes(&record) => return Some((Ok(line(&record)), (coming, filter, admin))),
                    // A follower that is too slow misses lines; they are in the file.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        Body::from_stream(there.chain(coming))
    } else {
        Body::from_stream(there)
    };
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn line(record: &Record) -> Bytes {
    let mut line = serde_json::to_string(record).unwrap_or_default();
    line.push('\n');
    line.into()
}
