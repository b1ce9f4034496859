//! Lists, groups, shows, redrives, edits and purges dead letters.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http::{HeaderMap, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::access::Exchange;
use super::dead_letters::{self, Conditions, Groups, Selection};
use super::request::{Params, PathSegments, list_limit, parse_body, parse_large_body};
use super::response::Json;
use super::search::Sender;
use super::stream::{Lines, StreamError, ndjson};
use super::view::{Count, DeadLetter, DeadSelection, Edit, Edited, Envelope};
use super::{Admin, ApiResult};
use evoke_core::router::Target;
use evoke_http::problem::Problem;
use evoke_model::event::{Data, EVENT_SIZE_MAX, Event};
use evoke_model::media_type::is_json;
use evoke_model::{
    DamagedEvent, DeadFilter, DeliveryId, DeliveryState, Lineage, NewEvent, ReadDelivery, ReadEvent, Seq, StoredEvent,
};
use evoke_store::{InspectionStore, StoreError};

const LIMIT_DEFAULT: usize = 100;
/// Maximum number of entries in lists of dead letters, pending deliveries, scheduled events and timers.
pub(super) const LIMIT_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadQuery {
    function: Option<String>,
    cause: Option<String>,
    r#type: Option<String>,
    since: Option<String>,
    until: Option<String>,
    before: Option<DeliveryId>,
    limit: Option<usize>,
    /// True to send lines with the progress of the search.
    #[serde(default)]
    progress: bool,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Params(query): Params<DeadQuery>,
) -> ApiResult<Response<Body>> {
    let DeadQuery { function, cause, r#type: type_, since, until, before, limit, progress } = query;
    let limit = list_limit(limit, LIMIT_DEFAULT, LIMIT_MAX, "dead letters")?;
    let selection = Selection::new(&admin, Conditions { function, cause, type_, since, until }).await?;
    let (store, before) = (admin.store.clone(), before.unwrap_or(DeliveryId(i64::MAX)));
    Ok(ndjson(&admin, async move |mut lines: Lines| {
        write(&*store, selection, before, limit, Sender::new(&mut lines, progress)).await
    }))
}

/// Writes the newest selected dead letters whose numbers are below `before`, with their events, but without the data of
/// the events.
async fn write(
    store: &dyn InspectionStore,
    selection: Selection,
    before: DeliveryId,
    limit: usize,
    mut sender: Sender<'_>,
) -> Result<(), StreamError> {
    let (mut remaining, mut next) = (limit, Some(before));
    while remaining > 0
        && let Some(before) = next
    {
        sender.lines().ready().await?;
        let (found, after) = selection.page(store, before, remaining).await?;
        for summary in found.into_iter().take(remaining) {
            sender.lines().ready().await?;
            // A redrive may have changed the delivery since the page was read.
            let id = dead_letters::id_of(&summary);
            let Some(read) = store.delivery(id).await? else { continue };
            if read.as_ref().is_ok_and(|record| record.state != DeliveryState::Dead) {
                continue;
            }
            remaining -= 1;
            let event = event_without_data(store, &read).await?;
            sender.lines().json(&DeadLetter { delivery: read.into(), event }).await?;
            sender.searched(id).await?;
        }
        next = after;
        if let Some(after) = after {
            sender.searched(after).await?;
        }
    }
    Ok(sender.lines().flush().await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupsQuery {
    function: Option<String>,
    cause: Option<String>,
    r#type: Option<String>,
    since: Option<String>,
    until: Option<String>,
    /// True to send lines with the progress of the count.
    #[serde(default)]
    progress: bool,
}

pub(super) async fn groups(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    Params(query): Params<GroupsQuery>,
) -> ApiResult<Response<Body>> {
    let GroupsQuery { function, cause, r#type: type_, since, until, progress } = query;
    let selection = Selection::new(&admin, Conditions { function, cause, type_, since, until }).await?;
    let store = admin.store.clone();
    Ok(ndjson(&admin, async move |mut lines: Lines| {
        let mut sender = Sender::new(&mut lines, progress);
        let (mut groups, mut next) = (Groups::default(), Some(DeliveryId(i64::MAX)));
        while let Some(before) = next {
            sender.lines().ready().await?;
            let (found, after) = {
                let _scan = exchange.scan().await;
                selection.page(&*store, before, usize::MAX).await?
            };
            found.into_iter().for_each(|read| groups.add(read));
            next = after;
            if let Some(after) = after {
                sender.searched(after).await?;
            }
        }
        for group in groups.into_sorted() {
            sender.lines().json(&group).await?;
        }
        Ok(sender.lines().flush().await?)
    }))
}

/// Returns the event of a delivery; leaves out the data of the event.
pub(super) async fn event_without_data(
    store: &dyn InspectionStore,
    delivery: &ReadDelivery,
) -> Result<Envelope, StoreError> {
    let mut event = event_of(store, delivery).await?;
    if let Ok(stored) = &mut event {
        Arc::make_mut(&mut stored.event).data = Data::None;
    }
    Ok(Envelope::of(store, &event))
}

/// Returns the event of a delivery. If the delivery is damaged, its event is unknown: returns a [`DamagedEvent`] with
/// the number 0.
async fn event_of(store: &dyn InspectionStore, delivery: &ReadDelivery) -> Result<ReadEvent, StoreError> {
    let seq = delivery.as_ref().map_or(Seq(0), |record| record.event);
    let missing = || Err(DamagedEvent { seq, what: "the event is no longer in the store".into() });
    Ok(store.event(seq).await?.unwrap_or_else(missing))
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    PathSegments(delivery): PathSegments<String>,
) -> ApiResult<Json<DeadLetter>> {
    let missing = || Problem::not_found(format!("there is no dead letter {delivery}; see `evoke dead list`"));
    let Ok(id) = delivery.parse() else { return Err(missing().into()) };
    let record = admin.store.delivery(id).await?.ok_or_else(missing)?;
    let state = record.as_ref().map_or_else(|damaged| damaged.state, |record| Some(record.state));
    if let Some(state) = state
        && !matches!(state, DeliveryState::Dead | DeliveryState::Purged)
    {
        let detail = format!("delivery {id} is not a dead letter: its state is {}", state.name());
        return Err(Problem::not_found(detail).into());
    }
    let event = event_of(&*admin.store, &record).await?;
    Ok(Json(DeadLetter { delivery: record.into(), event: Envelope::of(&*admin.store, &event) }))
}

pub(super) async fn redrive(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<Count>> {
    let (selection, dry_run) = parse_selection(&admin, &headers, body).await?;
    let (store, actor) = (&admin.store, exchange.actor());
    let count = match dry_run {
        true => selection.count(&**store).await?,
        false => selection.change(&**store, |which| store.redrive(&actor, which)).await?,
    };
    Ok(Json(Count { count }))
}

pub(super) async fn purge(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<Count>> {
    let (selection, dry_run) = parse_selection(&admin, &headers, body).await?;
    let (store, actor) = (&admin.store, exchange.actor());
    let count = match dry_run {
        true => selection.count(&**store).await?,
        false => selection.change(&**store, |which| store.purge(&actor, which)).await?,
    };
    Ok(Json(Count { count }))
}

async fn parse_selection(
    admin: &Admin,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<(Selection, bool)> {
    let expected = r#"send {"delivery": 7}, {"all": true}, or one or more of function, cause, type, since and until"#;
    let malformed = |reason: &str| Problem::malformed(format!("{reason}; {expected}"));
    let selection: DeadSelection = parse_body(headers, body, expected)?;
    let has_conditions = selection.has_conditions();
    let DeadSelection { delivery, function, cause, r#type: type_, since, until, all, dry_run } = selection;
    let conditions = Conditions { function, cause, type_, since, until };
    match (delivery, has_conditions, all) {
        (Some(id), false, false) => Ok((DeadFilter::Delivery(id).into(), dry_run)),
        (None, true, false) => Ok((Selection::new(admin, conditions).await?, dry_run)),
        (None, false, true) => Ok((DeadFilter::All.into(), dry_run)),
        (None, false, false) => Err(malformed("nothing is selected").into()),
        _ => Err(malformed("delivery, all and conditions cannot be combined").into()),
    }
}

/// Purges a dead letter, and stores a copy of its event with other data. The only delivery of the copy is to the
/// function of the dead letter. The original event stays as it is.
pub(super) async fn edit(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    PathSegments(delivery): PathSegments<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<(StatusCode, Json<Edited>)> {
    let missing = || Problem::not_found(format!("there is no dead letter {delivery}; see `evoke dead list`"));
    let expected = r#"send {"data": …} with any JSON value"#;
    let Edit { data } = parse_large_body(&exchange, &headers, body, expected).await?;
    let id: DeliveryId = delivery.parse().map_err(|_| missing())?;
    let read = admin.store.delivery(id).await?.ok_or_else(missing)?;
    let record = read.map_err(|damaged| StoreError::Damaged(damaged.what))?;
    if record.state != DeliveryState::Dead {
        let detail = format!("delivery {id} is not a dead letter: its state is {}", record.state.name());
        return Err(Problem::new(StatusCode::CONFLICT, detail).into());
    }
    let read = admin.store.event(record.event).await?;
    let stored = read.ok_or_else(missing)?.map_err(|damaged| StoreError::Damaged(damaged.to_string()))?;
    let Some(function) = admin.control.function_ids().get(&record.function).copied() else {
        let detail = format!(
            "no active manifest declares {}; only an active function can receive an edited event",
            record.function
        );
        return Err(Problem::new(StatusCode::CONFLICT, detail).into());
    };
    let Lineage { root, hops, origin, .. } = stored.lineage;
    let lineage = Lineage { cause: Some(id), root: root.or(Some(stored.seq)), hops, origin };
    let (router, target) = (admin.bus.router(), Target::Function { function, trigger: record.trigger.into() });
    let size = stored.event.size() + data.get().len();
    let route = move || {
        let event = edited(&stored, &data)?;
        let deliveries = router.route(&event, None, &target).map_err(Problem::malformed)?;
        Ok::<_, Problem>((event, deliveries))
    };
    let (event, deliveries) = exchange.read_body(size, route).await??;
    let new_id = event.id.clone();
    let new = NewEvent { event: Arc::new(event), lineage, deliveries };
    match admin.store.replace_dead(&exchange.actor(), id, new).await? {
        Some(seq) => Ok((StatusCode::ACCEPTED, Json(Edited { id: new_id, seq }))),
        None => Err(Problem::new(StatusCode::CONFLICT, format!("delivery {id} is no longer a dead letter")).into()),
    }
}

/// Returns a copy of an event with a new id and other data. The copy has no principal: the principal is the verified
/// sender of the old data, and did not send the new data.
fn edited(stored: &StoredEvent, data: &RawValue) -> Result<Event, Problem> {
    let mut event = (*stored.event).clone();
    event.id = uuid::Uuid::now_v7().to_string();
    event.principal = None;
    if !event.datacontenttype.as_deref().is_none_or(is_json) {
        event.datacontenttype = None;
    }
    event.data = Data::Json(Bytes::copy_from_slice(data.get().as_bytes()));
    let size = event.size();
    if size > EVENT_SIZE_MAX {
        let detail = format!("the event has {size} bytes with this data; the limit is {EVENT_SIZE_MAX} bytes");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    // Parses the whole event again, so that the same checks apply as to a posted event.
    Event::from_complete_json(event.to_json().as_bytes()).map_err(|error| Problem::malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_event_has_the_limits_of_a_posted_one() {
        let event = Event { id: "1".into(), source: "/t".into(), type_: "t".into(), ..Event::default() };
        let stored = StoredEvent { seq: Seq(1), accepted_ms: 0, event: event.into(), lineage: Lineage::default() };
        let edit = |data: String| edited(&stored, &RawValue::from_string(data).unwrap());
        assert_eq!(edit("[1]".to_owned()).unwrap().data, Data::Json("[1]".into()));
        let large = edit(format!("\"{}\"", "x".repeat(EVENT_SIZE_MAX))).unwrap_err();
        assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(large.detail.contains("the limit is 1048576 bytes"), "{}", large.detail);
    }
}
