//! A page of events, newest first, by filters that the store has no index for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::row::{Outcomes, Row};
use super::scan::{Range, Scanner};
use crate::admin::access::Exchange;
use crate::admin::request::Params;
use crate::admin::{Admin, ApiResult};
use evoke_http::problem::Problem;
use evoke_model::clock::UnixMs;
use evoke_model::{DamagedEvent, Seq, StoredEvent};

const LIMIT_DEFAULT: usize = 50;
/// Maximum number of rows of a page.
pub(super) const LIMIT_MAX: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Query {
    /// A type; a `*` at its end matches any ending.
    r#type: Option<String>,
    source: Option<String>,
    /// Only events with a delivery to this function.
    function: Option<String>,
    /// Only events whose id, subject or data contains this text, in upper or lower case.
    text: Option<String>,
    /// Only events with a failed, or with a pending delivery.
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
    /// Number of events that were read.
    scanned: u64,
    /// The `before` of the next page; absent if nothing is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Seq>,
}

pub(in crate::admin) async fn list(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    Params(query): Params<Query>,
) -> ApiResult<Json<Page>> {
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if limit > LIMIT_MAX {
        let detail = format!("limit is {limit}; at most {LIMIT_MAX} events can be listed");
        return Err(Problem::malformed(detail).into());
    }
    let _scan = exchange.permits().scan().await;
    let range = Range { before: query.before, since_ms: query.since_ms, until_ms: query.until_ms };
    let mut scanner = Scanner::new(admin.store.clone(), range).await?;
    let text = query.text.as_deref().map(str::to_lowercase);
    let mut rows = Vec::new();
    'pages: while let Some(page) = scanner.page().await? {
        for read in page {
            if read.as_ref().is_ok_and(|stored| !query.selects(stored, text.as_deref())) {
                continue;
            }
            let seq = DamagedEvent::seq_of(&read);
            let outcomes = Outcomes::of(&*admin.store, seq).await?;
            if query.selects_outcomes(&outcomes) {
                rows.push(Row::new(&read, Some(outcomes)));
            }
            if rows.len() >= limit {
                scanner.stop_after(seq);
                break 'pages;
            }
        }
    }
    Ok(Json(Page { rows, scanned: scanner.scanned, next: scanner.next() }))
}

impl Query {
    fn selects(&self, stored: &StoredEvent, text: Option<&str>) -> bool {
        let event = &*stored.event;
        let has_text = |text: &str| {
            let contains = |value: &str| value.to_lowercase().contains(text);
            contains(&event.id)
                || event.subject.as_deref().is_some_and(contains)
                || contains(&String::from_utf8_lossy(event.data.as_bytes()))
        };
        is_type(self.r#type.as_deref(), &event.type_)
            && self.source.as_ref().is_none_or(|source| event.source == *source)
            && text.is_none_or(has_text)
    }

    fn selects_outcomes(&self, outcomes: &Outcomes) -> bool {
        let is_state = match self.state {
            None => true,
            Some(Wanted::Failed) => outcomes.has_failed(),
            Some(Wanted::Pending) => outcomes.is_pending(),
        };
        is_state && self.function.as_ref().is_none_or(|function| outcomes.includes(function))
    }
}

/// Whether a type is the wanted one; a `*` at the end of that matches any ending.
pub(super) fn is_type(wanted: Option<&str>, type_: &str) -> bool {
    wanted.is_none_or(|wanted| match wanted.strip_suffix('*') {
        Some(start) => type_.starts_with(start),
        None => type_ == wanted,
    })
}
