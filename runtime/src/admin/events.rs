//! Lists, follows, finds and accepts events.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http::{HeaderMap, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::access::Exchange;
use super::request::{Params, PathSegments, json_body};
use super::stream::{Lines, PAGE_BYTES_MAX, StreamError, ndjson};
use super::view::{Damaged, Envelope, Posted, PostedEvent};
use super::{Admin, ApiResult};
use evoke_core::bus::{Offer, Origin};
use evoke_http::problem::Problem;
use evoke_model::clock::{Clock, rfc3339};
use evoke_model::event::{Event, skip_byte_order_mark};
use evoke_model::{Accepted, DamagedEvent, EventFilter, ReadEvent, Seq, StoredEvent};
use evoke_store::{InspectionStore, Store, StoreError};

/// Maximum number of events read from the store at a time; [`PAGE_BYTES_MAX`] limits their size.
const PAGE: usize = 64;
/// Default limit without `after`. With `after` the default is unlimited.
const LIMIT_DEFAULT: usize = 100;

/// Source of posted events that have none.
const DEFAULT_SOURCE: &str = "/cli";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    r#type: Option<String>,
    source: Option<String>,
    after: Option<Seq>,
    limit: Option<usize>,
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    envelope: bool,
}

impl EventsQuery {
    fn line(&self, store: &dyn InspectionStore, read: &ReadEvent) -> String {
        match read {
            Err(DamagedEvent { seq, what }) => {
                serde_json::to_string(&Damaged { damaged: what.to_string(), seq: *seq }).unwrap_or_default()
            }
            // Strings, numbers and JSON always serialise.
            Ok(_) if self.envelope => serde_json::to_string(&Envelope::of(store, read)).unwrap_or_default(),
            Ok(stored) => stored.event.to_json(),
        }
    }
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    Params(query): Params<EventsQuery>,
) -> ApiResult<Response<Body>> {
    if query.follow {
        exchange.follow()?;
    }
    let store = admin.store.clone();
    Ok(ndjson(&admin, |lines| write(store, query, lines)))
}

async fn write(store: Arc<dyn Store>, query: EventsQuery, mut lines: Lines) -> Result<(), StreamError> {
    let filter = EventFilter { type_: query.r#type.clone(), source: query.source.clone(), ..EventFilter::default() };
    let limit = query.limit.unwrap_or(if query.after.is_some() { usize::MAX } else { LIMIT_DEFAULT });
    let mut after = match query.after {
        Some(after) => after,
        None => position_before_newest(&*store, &filter, limit).await?,
    };
    // The number of stored events; new ones are not limited.
    let mut remaining = limit;
    let mut newest = store.newest();
    loop {
        // Reads after this line see at least all events up to `newest_seq`.
        let newest_seq = *newest.borrow_and_update();
        while remaining > 0 {
            lines.ready().await?;
            let page = page(&filter, Some(after), None, remaining);
            let page_limit = page.limit;
            let found = store.events(page).await?;
            let is_last = is_last(&found, page_limit);
            remaining = remaining.saturating_sub(found.len());
            for read in found {
                after = DamagedEvent::seq_of(&read);
                let line = query.line(&*store, &read);
                drop(read);
                lines.line(line).await?;
            }
            if is_last {
                break;
            }
        }
        lines.flush().await?;
        if !query.follow {
            return Ok(());
        }
        // The next read starts after the events that did not match or were beyond the limit.
        after = after.max(newest_seq);
        remaining = usize::MAX;
        if newest.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn page(filter: &EventFilter, after: Option<Seq>, before: Option<Seq>, limit: usize) -> EventFilter {
    EventFilter { after, before, limit: limit.min(PAGE), bytes_max: Some(PAGE_BYTES_MAX), ..filter.clone() }
}

/// Whether a page has the last events of its filter: it reached neither of its limits.
fn is_last(found: &[ReadEvent], limit: usize) -> bool {
    let bytes: usize = found.iter().map(EventFilter::size_of).sum();
    found.len() < limit && bytes < PAGE_BYTES_MAX
}

/// Returns the position before the newest `limit` events that match.
async fn position_before_newest(store: &dyn Store, filter: &EventFilter, limit: usize) -> Result<Seq, StoreError> {
    let (mut remaining, mut first) = (limit, store.newest().borrow().next());
    while remaining > 0 {
        let page = page(filter, None, Some(first), remaining);
        let page_limit = page.limit;
        let found = store.events(page).await?;
        remaining -= found.len().min(remaining);
        match found.first() {
            Some(oldest) if !is_last(&found, page_limit) => first = DamagedEvent::seq_of(oldest),
            // Fewer than `limit` events match.
            _ => return Ok(Seq(0)),
        }
    }
    Ok(Seq(first.0 - 1))
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    PathSegments(reference): PathSegments<String>,
) -> ApiResult<Json<Envelope>> {
    let stored = require_intact(find(&*admin.store, &reference).await?)?;
    Ok(Json(Envelope::of(&*admin.store, &Ok(stored))))
}

/// Returns the event, or an error if it is damaged.
pub(super) fn require_intact(read: ReadEvent) -> ApiResult<StoredEvent> {
    read.map_err(|damaged| StoreError::Damaged(damaged.to_string()).into())
}

/// Finds the event with this number or, if there is none, with this id. The event may be damaged.
pub(super) async fn find(store: &dyn InspectionStore, reference: &str) -> ApiResult<ReadEvent> {
    if let Ok(seq) = reference.parse()
        && let Some(stored) = store.event(seq).await?
    {
        return Ok(stored);
    }
    let seqs = store.find(reference.to_owned()).await?;
    let missing = || Problem::not_found(format!("no event has the number or id {reference}"));
    if let (true, Ok(seq)) = (seqs.is_empty(), reference.parse::<Seq>())
        && seq > Seq(0)
        && seq <= store.totals().await?.removed.to
    {
        return Err(Problem::not_found(format!("event {seq} no longer exists: retention removed it")).into());
    }
    match seqs.as_slice() {
        [] => Err(missing().into()),
        [seq] => {
            let stored = store.event(*seq).await?.ok_or_else(missing)?;
            if stored.as_ref().is_ok_and(|stored| stored.event.id != reference) {
                let detail = format!(
                    "the index of event ids is damaged: it returns event {seq} for {reference}; run `evoke check` for details"
                );
                return Err(StoreError::Damaged(detail).into());
            }
            Ok(stored)
        }
        _ => {
            let numbers: Vec<_> = seqs.iter().map(ToString::to_string).collect();
            let numbers = numbers.join(", ");
            let detail = format!("several events have the id {reference}; use the number of one of them: {numbers}");
            Err(Problem::new(StatusCode::CONFLICT, detail).with_member("seqs", serde_json::json!(seqs)).into())
        }
    }
}

pub(super) async fn post(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<(StatusCode, Json<Posted>)> {
    let events = parse_events(&json_body(&headers, body)?, &admin.clock)?;
    let ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
    let accepted = admin.bus.accept(Offer { events, origin: Origin::OPERATOR, ..Offer::default() }).await?;
    let posted = ids.into_iter().zip(accepted).map(|(id, accepted)| match accepted {
        Accepted::New(seq) => PostedEvent { id, seq, duplicate: false },
        Accepted::Duplicate(seq) => PostedEvent { id, seq, duplicate: true },
    });
    Ok((StatusCode::ACCEPTED, Json(Posted { accepted: posted.collect() })))
}

/// Parses one event or an array of events. A missing id, source or time gets a default; the type is required.
fn parse_events(body: &[u8], clock: &Clock) -> Result<Vec<Event>, Problem> {
    let body = skip_byte_order_mark(body);
    let is_array = body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let not_json = |e: serde_json::Error| Problem::malformed(format!("the body is not JSON: {e}"));
    let raw: Vec<&RawValue> = if is_array {
        serde_json::from_slice(body).map_err(not_json)?
    } else {
        vec![serde_json::from_slice(body).map_err(not_json)?]
    };
    let fill = |event: &mut Event| {
        if event.id.is_empty() {
            event.id = uuid::Uuid::now_v7().to_string();
        }
        if event.source.is_empty() {
            event.source = DEFAULT_SOURCE.into();
        }
        event.time.get_or_insert_with(|| rfc3339(clock.now_ms()));
    };
    let parse = |(index, json): (usize, &RawValue)| {
        Event::from_json(json.get().as_bytes(), fill).map_err(|e| Problem::malformed(format!("event {index}: {e}")))
    };
    raw.into_iter().enumerate().map(parse).collect()
}
