//! Events: listed, followed, looked up, put in by hand.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use http::{HeaderMap, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::problem::{Params, Problem, json_body};
use super::stream::{Ended, Lines, ndjson};
use super::view::{Damaged, Envelope, Posted, PostedEvent};
use super::{Admin, Answer};
use crate::bus::{Offer, Origin};
use crate::clock::{Clock, rfc3339};
use crate::event::Event;
use crate::store::{Accepted, EventFilter, Seq, Store, StoreError, StoredEvent};

/// Events that are read from the store at a time: of the largest size they hold 64 MiB.
const PAGE: usize = 64;
/// Of the newest; what is behind a position is listed to the end.
const LIMIT_DEFAULT: usize = 100;

/// The source of events that are put in by hand and name none.
const BY_HAND: &str = "/cli";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    r#type: Option<String>,
    source: Option<String>,
    after: Option<Seq>,
    limit: Option<usize>,
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    envelope: bool,
}

impl Wanted {
    fn line(&self, stored: &StoredEvent) -> String {
        if let Some(damage) = &stored.damage {
            let damaged = Damaged { damaged: damage.to_string(), seq: stored.seq };
            serde_json::to_string(&damaged).unwrap_or_default()
        } else if self.envelope {
            // Strings, numbers and JSON always serialise.
            serde_json::to_string(&Envelope::from(stored)).unwrap_or_default()
        } else {
            stored.event.to_json()
        }
    }
}

pub(super) async fn list(State(admin): State<Arc<Admin>>, Params(wanted): Params<Wanted>) -> Response<Body> {
    let store = admin.store.clone();
    ndjson(&admin, |lines| write(store, wanted, lines))
}

async fn write(store: Arc<dyn Store>, wanted: Wanted, lines: Lines) -> Result<(), Ended> {
    let filter = EventFilter { type_: wanted.r#type.clone(), source: wanted.source.clone(), ..EventFilter::default() };
    let limit = wanted.limit.unwrap_or(if wanted.after.is_some() { usize::MAX } else { LIMIT_DEFAULT });
    let mut after = match wanted.after {
        Some(after) => after,
        None => before_newest(&*store, &filter, limit).await?,
    };
    let mut left = if wanted.follow { usize::MAX } else { limit };
    let mut newest = store.newest();
    loop {
        // What is read after this holds at least every event up to here.
        let seen = *newest.borrow_and_update();
        while left > 0 {
            let page = EventFilter { after: Some(after), limit: left.min(PAGE), ..filter.clone() };
            let asked = page.limit;
            let found = store.events(page).await?;
            if let Some(last) = found.last() {
                after = last.seq;
            }
            left = left.saturating_sub(found.len());
            lines.send(found.iter().map(|stored| wanted.line(stored))).await?;
            if found.len() < asked {
                break;
            }
        }
        // The next search starts behind what did not match.
        after = after.max(seen);
        if !wanted.follow || newest.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// The position before the newest `limit` events that match.
async fn before_newest(store: &dyn Store, filter: &EventFilter, limit: usize) -> Result<Seq, StoreError> {
    let (mut left, mut first) = (limit, *store.newest().borrow() + 1);
    while left > 0 {
        let page = EventFilter { before: Some(first), limit: left.min(PAGE), ..filter.clone() };
        let asked = page.limit;
        let found = store.events(page).await?;
        left -= found.len().min(left);
        match found.first() {
            Some(oldest) if found.len() == asked => first = oldest.seq,
            // Fewer than wanted match at all.
            _ => return Ok(0),
        }
    }
    Ok(first - 1)
}

pub(super) async fn one(State(admin): State<Arc<Admin>>, Path(reference): Path<String>) -> Answer<Json<Envelope>> {
    let stored = intact(find(&*admin.store, &reference).await?)?;
    Ok(Json((&stored).into()))
}

/// The same event, unless it is damaged.
pub(super) fn intact(stored: StoredEvent) -> Answer<StoredEvent> {
    match stored.damage {
        Some(damage) => Err(StoreError::Damaged(damage.to_string()).into()),
        None => Ok(stored),
    }
}

/// The event that a reference means: its number, else its id. It may be damaged.
pub(super) async fn find(store: &dyn Store, reference: &str) -> Answer<StoredEvent> {
    if let Ok(seq) = reference.parse()
        && let Some(stored) = store.event(seq).await?
    {
        return Ok(stored);
    }
    let seqs = store.find(reference.to_owned()).await?;
    let missing = || Problem::not_found(format!("there is no event with the number or id {reference}"));
    if let (true, Ok(seq)) = (seqs.is_empty(), reference.parse::<Seq>())
        && seq > 0
        && seq <= store.totals().await?.removed.to
    {
        return Err(Problem::not_found(format!("event {seq} is not there any more: retention removed it")));
    }
    match seqs.as_slice() {
        [] => Err(missing()),
        [seq] => {
            let stored = store.event(*seq).await?.ok_or_else(missing)?;
            if stored.damage.is_none() && stored.event.id != reference {
                let detail = format!(
                    "the index of ids is damaged: it names event {seq} for {reference}; `evoke check` says more"
                );
                return Err(StoreError::Damaged(detail).into());
            }
            Ok(stored)
        }
        _ => {
            let numbers: Vec<_> = seqs.iter().map(ToString::to_string).collect();
            let numbers = numbers.join(", ");
            let detail = format!("several events have the id {reference}; name one by its number: {numbers}");
            Err(Problem::ambiguous(detail, seqs))
        }
    }
}

pub(super) async fn post(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer<(StatusCode, Json<Posted>)> {
    let events = read(&json_body(&headers, body)?, &admin.clock)?;
    let ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
    let accepted = admin.bus.accept(Offer { events, origin: Origin::of(BY_HAND), ..Offer::default() }).await?;
    let posted = ids.into_iter().zip(accepted).map(|(id, accepted)| match accepted {
        Accepted::New(seq) => PostedEvent { id, seq, duplicate: false },
        Accepted::Duplicate(seq) => PostedEvent { id, seq, duplicate: true },
    });
    Ok((StatusCode::ACCEPTED, Json(Posted { accepted: posted.collect() })))
}

/// One event or an array of them; what is missing besides the type is filled in.
fn read(body: &[u8], clock: &Clock) -> Answer<Vec<Event>> {
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
            event.source = BY_HAND.into();
        }
        event.time.get_or_insert_with(|| rfc3339(clock.now_ms()));
    };
    let read = |(index, json): (usize, &RawValue)| {
        Event::from_json(json.get().as_bytes(), fill).map_err(|e| Problem::malformed(format!("event {index}: {e}")))
    };
    raw.into_iter().enumerate().map(read).collect()
}
