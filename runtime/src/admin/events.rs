//! Lists, follows, finds and accepts events.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http::{HeaderMap, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::access::Exchange;
use super::error::ApiError;
use super::request::{Params, PathSegments, json_body, optional_matcher, parse_time};
use super::response::Json;
use super::search::{Conditions, Search, Sender};
use super::stream::{Lines, StreamError, ndjson};
use super::view::{Damaged, Delivery, Envelope, Posted, PostedEvent};
use super::{Admin, ApiResult, names};
use evoke_core::bus::{Offer, Origin, Refused};
use evoke_http::problem::Problem;
use evoke_http::source::cloudevents::FirstItems;
use evoke_model::clock::{Clock, rfc3339};
use evoke_model::event::{Event, skip_byte_order_mark};
use evoke_model::{Accepted, DamagedEvent, ReadEvent, Seq, StoredEvent};
use evoke_store::{InspectionStore, Store, StoreError};

/// The default of `limit`. With `after` or `since`, there is no limit by default.
const LIMIT_DEFAULT: usize = 100;

/// Maximum number of events in a posted array. Short events take many times their size in memory, and an array is one
/// commit, for which other writes wait. `evoke emit` sends fewer than 1,500 events in a request.
const POSTED_MAX: usize = 10_000;

/// The `source` of posted events that name no source.
const DEFAULT_SOURCE: &str = "/cli";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    r#type: Option<String>,
    source: Option<String>,
    function: Option<String>,
    since: Option<String>,
    until: Option<String>,
    pattern: Option<String>,
    text: Option<String>,
    after: Option<Seq>,
    before: Option<Seq>,
    limit: Option<usize>,
    #[serde(default)]
    order: Order,
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    envelope: bool,
    #[serde(default)]
    progress: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    #[default]
    Oldest,
    Newest,
}

struct List {
    search: Search,
    order: Order,
    limit: usize,
    /// True if the list starts after [`Search::after`]; false if it has only the newest `limit` events.
    from_start: bool,
    follow: bool,
    envelope: bool,
    progress: bool,
}

impl List {
    fn line(&self, store: &dyn InspectionStore, read: &ReadEvent) -> String {
        match read {
            Err(DamagedEvent { seq, what }) => {
                serde_json::to_string(&Damaged { damaged: what.to_string(), seq: *seq }).unwrap_or_default()
            }
            // Never fails: strings, numbers and JSON always serialise.
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
    let EventsQuery { r#type: type_, source, function, since, until, pattern, text, after, before, .. } = query;
    let EventsQuery { limit, order, follow, envelope, progress, .. } = query;
    if follow && (order == Order::Newest || until.is_some() || before.is_some()) {
        let detail =
            "a list with follow=true is in the order oldest first, and does not end; leave out order, until and before";
        return Err(Problem::malformed(detail.to_owned()).into());
    }
    let is_bounded = after.is_some() || since.is_some();
    let limit = limit.unwrap_or(if is_bounded { usize::MAX } else { LIMIT_DEFAULT });
    let from_start = is_bounded && (after.is_some() || limit == usize::MAX);
    let function = names::optional_function(&admin, function.as_deref()).await?;
    let (since_ms, until_ms) = (parse_time("since", since.as_deref())?, parse_time("until", until.as_deref())?);
    let pattern = optional_matcher(pattern, &exchange).await?;
    let states = Vec::new();
    let conditions = Conditions { type_, source, function, states, since_ms, until_ms, pattern, text, after, before };
    let search = Search::new(&*admin.store, conditions).await?;
    if follow {
        exchange.follow()?;
    }
    let (store, list) = (admin.store.clone(), List { search, order, limit, from_start, follow, envelope, progress });
    Ok(ndjson(&admin, |lines| write(store, exchange, list, lines)))
}

async fn write(store: Arc<dyn Store>, exchange: Exchange, list: List, mut lines: Lines) -> Result<(), StreamError> {
    let List { search, limit, .. } = &list;
    let mut sender = Sender::new(&mut lines, list.progress);
    let mut newest = store.newest();
    let newest_seq = *newest.borrow();
    if list.order == Order::Newest {
        let line = |read: &ReadEvent| Some(list.line(&*store, read));
        search.newest_first(&*store, newest_seq, *limit, &mut sender, &exchange, line).await?;
        return Ok(lines.flush().await?);
    }
    let mut after = search.after;
    if !list.from_start {
        // `first` is the oldest of the newest `limit` matching events. It is `None` if fewer than `limit` events match.
        let first = search.newest_first(&*store, newest_seq, *limit, &mut sender, &exchange, |_| None).await?;
        let before_first = first.map_or(after, |first| Seq(first.0 - 1));
        after = if *limit == 0 { newest_seq.max(after) } else { before_first };
    }
    // `limit` limits only the stored events, not the new events that follow.
    let mut remaining = *limit;
    loop {
        // Reads after this line see at least all events up to `newest_seq`.
        let newest_seq = *newest.borrow_and_update();
        let end = search.end(newest_seq);
        while remaining > 0 && after.next() < end {
            sender.lines().ready().await?;
            let (found, searched) = search.next(&*store, after, end, remaining, &mut sender, &exchange).await?;
            for read in found.into_iter().take(remaining) {
                remaining -= 1;
                let line = list.line(&*store, &read);
                drop(read);
                sender.lines().line(line).await?;
            }
            after = searched;
            sender.searched(searched).await?;
        }
        sender.lines().flush().await?;
        if !list.follow {
            return Ok(());
        }
        // Stored events beyond the limit are skipped.
        after = after.max(newest_seq);
        remaining = usize::MAX;
        if newest.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// Lists the deliveries of an event, one per line, in order.
pub(super) async fn deliveries(
    State(admin): State<Arc<Admin>>,
    PathSegments(reference): PathSegments<String>,
) -> ApiResult<Response<Body>> {
    let event = find(&*admin.store, &reference).await?;
    let (store, seq) = (admin.store.clone(), DamagedEvent::seq_of(&event));
    Ok(ndjson(&admin, async move |mut lines: Lines| {
        for read in store.deliveries(seq).await? {
            lines.json(&Delivery::from(read)).await?;
        }
        Ok(lines.flush().await?)
    }))
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    PathSegments(reference): PathSegments<String>,
) -> ApiResult<Json<Envelope>> {
    let stored = require_intact(find(&*admin.store, &reference).await?)?;
    let due_ms = if admin.store.is_scheduled(stored.seq).await? { stored.event.not_before_ms() } else { None };
    Ok(Json(Envelope { due: due_ms.map(rfc3339), ..Envelope::of(&*admin.store, &Ok(stored)) }))
}

/// Returns the event, or an error if it is damaged.
pub(super) fn require_intact(read: ReadEvent) -> ApiResult<StoredEvent> {
    read.map_err(|damaged| StoreError::Damaged(damaged.to_string()).into())
}

/// Finds an event by its number or, if no event has this number, by its id. The event may be damaged.
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
    exchange: Exchange,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<(StatusCode, Json<Posted>)> {
    let body = json_body(&headers, body)?;
    let (is_array, clock) = (is_array(&body), admin.clock.clone());
    let parsed = exchange.read_body(body.len(), move || parse_events(&body, &clock)).await?;
    let events = parsed.map_err(|problem| without_index(problem, is_array))?;
    let now_ms = admin.clock.now_ms();
    let due = |event: &Event| event.not_before_ms().filter(|due_ms| *due_ms > now_ms).map(rfc3339);
    let ids: Vec<_> = events.iter().map(|event| (event.id.clone(), due(event))).collect();
    let accepted = admin.bus.accept(Offer { events, origin: Origin::OPERATOR, ..Offer::default() }).await;
    let accepted = accepted.map_err(|refused| match refused {
        Refused::Store(error) => ApiError::from(error),
        refused => without_index(refused.into(), is_array).into(),
    })?;
    let posted = ids.into_iter().zip(accepted).map(|((id, due), accepted)| match accepted {
        Accepted::New(seq) => PostedEvent { id, seq, duplicate: false, due },
        Accepted::Duplicate(seq) => PostedEvent { id, seq, duplicate: true, due: None },
    });
    Ok((StatusCode::ACCEPTED, Json(Posted { accepted: posted.collect() })))
}

/// Removes the start `event 0: ` from an error message if the body was one event and not an array.
fn without_index(mut problem: Problem, is_array: bool) -> Problem {
    if let (Some(detail), false) = (problem.detail.strip_prefix("event 0: "), is_array) {
        problem.detail = detail.to_owned();
    }
    problem
}

fn is_array(body: &[u8]) -> bool {
    skip_byte_order_mark(body).iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

/// Parses one event or an array of at most [`POSTED_MAX`] events. A missing id, source or time gets a default; the type
/// is required.
fn parse_events(body: &[u8], clock: &Clock) -> Result<Vec<Event>, Problem> {
    let body = skip_byte_order_mark(body);
    let is_array = is_array(body);
    let not_json = |e: serde_json::Error| Problem::malformed(format!("the body is not JSON: {e}"));
    let raw: Vec<&RawValue> = if is_array {
        let items = serde_json::from_slice::<FirstItems<'_, POSTED_MAX>>(body).map_err(not_json)?;
        if items.count > POSTED_MAX {
            let count = items.count;
            let detail = format!("the array has {count} events; send at most {POSTED_MAX} in a request");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        items.first
    } else {
        vec![serde_json::from_slice::<&RawValue>(body).map_err(not_json)?]
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
