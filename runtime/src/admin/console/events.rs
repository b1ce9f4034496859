//! A page of events, newest first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::row::{Outcomes, Row};
use crate::admin::access::Exchange;
use crate::admin::request::{Params, list_limit};
use crate::admin::search::{Conditions, Pages};
use crate::admin::{Admin, ApiResult, names};
use evoke_model::clock::UnixMs;
use evoke_model::{DamagedEvent, DeliveryState, Seq};

const LIMIT_DEFAULT: usize = 50;
/// Maximum number of rows of a page.
pub(super) const LIMIT_MAX: usize = 200;
/// A page ends when the texts of its rows have this number of bytes in total.
pub(super) const ROWS_BYTES_MAX: usize = 128 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Query {
    /// A type; a `*` at its end matches any ending.
    r#type: Option<String>,
    source: Option<String>,
    /// Only events with a delivery to this function.
    function: Option<String>,
    /// Only events whose JSON form contains this text, in upper or lower case.
    text: Option<String>,
    /// Only events with a delivery in this state: failed or pending. If `function` is set too, the delivery must be one
    /// to this function.
    state: Option<Wanted>,
    before: Option<Seq>,
    since_ms: Option<UnixMs>,
    until_ms: Option<UnixMs>,
    limit: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    Failed,
    Pending,
}

/// A page of events.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct Page {
    /// Newest first.
    rows: Vec<Row>,
    /// Number of searched positions of events. Retention may have removed the events of some positions.
    scanned: u64,
    /// The parameter `before` for the next page; absent if all events were searched.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Seq>,
    /// The position of the newest event when the search started. The live stream continues after it.
    newest: Seq,
}

pub(in crate::admin) async fn list(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    Params(query): Params<Query>,
) -> ApiResult<Json<Page>> {
    let limit = list_limit(query.limit, LIMIT_DEFAULT, LIMIT_MAX, "events")?;
    let scan = exchange.scan().await;
    let Query { r#type: type_, source, function, text, state, before, since_ms, until_ms, limit: _ } = query;
    let function = names::optional_function(&admin, function.as_deref()).await?;
    let states = match state {
        None => Vec::new(),
        Some(Wanted::Failed) => vec![DeliveryState::Dead, DeliveryState::Retrying],
        Some(Wanted::Pending) => vec![DeliveryState::Ready, DeliveryState::Blocked, DeliveryState::Retrying],
    };
    let none = Conditions::default();
    let conditions = Conditions { type_, source, function, states, since_ms, until_ms, text, before, ..none };
    let mut pages = Pages::new(admin.store.clone(), conditions, scan).await?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    'pages: while let Some(page) = pages.next().await? {
        for read in page {
            let seq = DamagedEvent::seq_of(&read);
            let outcomes = Outcomes::of(&*admin.store, seq).await?;
            let row = Row::new(&read, Some(outcomes));
            bytes += row.size();
            rows.push(row);
            if rows.len() >= limit || bytes >= ROWS_BYTES_MAX {
                pages.stop_after(seq);
                break 'pages;
            }
        }
    }
    Ok(Json(Page { rows, scanned: pages.searched, next: pages.rest(), newest: pages.newest }))
}
