//! Lists and cancels scheduled events, which wait for the time in their attribute `notbefore`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http::{HeaderMap, Response, StatusCode};
use serde::Deserialize;

use super::access::Exchange;
use super::dead::LIMIT_MAX;
use super::request::{Params, json_body, list_limit, matcher, optional_matcher, parse_json};
use super::response::Json;
use super::stream::{Lines, PAGE_BYTES_MAX, StreamError, ndjson};
use super::view::{CancelScheduled, CancelledScheduled, Envelope, Position, ScheduledEvent};
use super::{Admin, ApiResult, events};
use evoke_core::bus::Bus;
use evoke_core::scheduler;
use evoke_http::problem::Problem;
use evoke_model::clock::{Clock, UnixMs, rfc3339};
use evoke_model::event::Data;
use evoke_model::{Actor, DamagedEvent, FunctionId, Seq};
use evoke_pattern::Matcher;
use evoke_store::{Scheduled, Store};

const LIMIT_DEFAULT: usize = 100;
/// Number of events read from the store at a time. If all of them have the maximum size, they have 16 MiB together.
const PAGE: usize = 16;
/// Maximum number of events that are searched for one cancel request; this takes some seconds. The response has the
/// position from which the next request continues.
const SEARCH_MAX: usize = 20_000;
/// Deliveries of a cancelled event are stored as purged, with this cause.
const CANCELLED: &str = "cancelled: an operator cancelled the event before it was due";
/// The position before the first scheduled event.
const START: Position = Position(UnixMs::MIN, Seq(0));

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduledQuery {
    /// An event pattern in JSON.
    pattern: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    Params(query): Params<ScheduledQuery>,
) -> ApiResult<Response<Body>> {
    let limit = list_limit(query.limit, LIMIT_DEFAULT, LIMIT_MAX, "scheduled events")?;
    let pattern = optional_matcher(query.pattern, &exchange).await?;
    let list = List {
        store: admin.store.clone(),
        bus: admin.bus.clone(),
        clock: admin.clock.clone(),
        functions: admin.control.function_ids().into_iter().map(|(name, id)| (id, name)).collect(),
        pattern,
    };
    Ok(ndjson(&admin, |lines| Arc::new(list).write(exchange, limit, lines)))
}

struct List {
    store: Arc<dyn Store>,
    bus: Bus,
    clock: Clock,
    functions: HashMap<FunctionId, String>,
    pattern: Option<Matcher<()>>,
}

/// The lines of some events, and the position of the last event that was read for them.
struct Page {
    lines: Vec<String>,
    last: Position,
}

impl List {
    /// Writes the first `limit` events that match, without their data.
    async fn write(self: Arc<Self>, exchange: Exchange, limit: usize, mut lines: Lines) -> Result<(), StreamError> {
        let (mut remaining, mut after) = (limit, START);
        while remaining > 0 {
            lines.ready().await?;
            let page = {
                // The events of a page can be large and are matched with all triggers, so this work needs a permit
                // for a scan.
                let scan = exchange.scan().await;
                let found = self.store.scheduled((after.0, after.1), PAGE).await?;
                if found.is_empty() {
                    break;
                }
                let list = self.clone();
                scan.run(move || list.page(found, remaining)).await?
            };
            after = page.last;
            remaining -= page.lines.len();
            for line in page.lines {
                lines.line(line).await?;
            }
        }
        Ok(lines.flush().await?)
    }

    /// Returns the lines of these events: at most `limit` lines with about `PAGE_BYTES_MAX` bytes in total, because
    /// the lines stay in memory while the client reads. Events whose lines do not fit are left to the next page.
    fn page(&self, found: Vec<Scheduled>, limit: usize) -> Page {
        let (mut page, mut bytes) = (Page { lines: Vec::new(), last: START }, 0);
        for scheduled in found {
            if bytes >= PAGE_BYTES_MAX || page.lines.len() >= limit {
                break;
            }
            page.last = position(&scheduled);
            if is_match(self.pattern.as_ref(), &scheduled) {
                // Never fails: strings, numbers and JSON always serialise.
                let line = serde_json::to_string(&self.view(scheduled)).unwrap_or_default();
                bytes += line.len();
                page.lines.push(line);
            }
        }
        page
    }

    fn view(&self, mut scheduled: Scheduled) -> ScheduledEvent {
        let deliveries = scheduler::route(&*self.store, &self.bus, &scheduled.event);
        let names = deliveries.iter().filter_map(|new| self.functions.get(&new.function).cloned());
        if let Ok(stored) = &mut scheduled.event {
            Arc::make_mut(&mut stored.event).data = Data::None;
        }
        let wait_ms = scheduled.due_ms.saturating_sub(self.clock.now_ms());
        ScheduledEvent {
            due: rfc3339(scheduled.due_ms),
            wait_ms: u64::try_from(wait_ms).unwrap_or_default(),
            functions: names.collect(),
            event: Envelope::of(&*self.store, &scheduled.event),
        }
    }
}

fn position(scheduled: &Scheduled) -> Position {
    Position(scheduled.due_ms, scheduled.seq)
}

/// Returns true if the event matches the pattern, or if no pattern is given. A damaged event matches no pattern.
fn is_match(pattern: Option<&Matcher<()>>, scheduled: &Scheduled) -> bool {
    match (pattern, &scheduled.event) {
        (None, _) => true,
        (Some(pattern), Ok(stored)) => pattern.matches_any(&(&*stored.event).into()).unwrap_or_default(),
        (Some(_), Err(_)) => false,
    }
}

pub(super) async fn cancel(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<CancelledScheduled>> {
    let expected = r#"send {"event": "ID or number"} or {"pattern": {"type": ["reminder"]}}"#;
    let json = json_body(&headers, body)?;
    let parse = move || {
        let mut which = parse_json::<CancelScheduled>(&json, expected)?;
        let pattern = which.pattern.take().map(|pattern| matcher(&pattern)).transpose()?;
        Ok::<_, Problem>((which, pattern))
    };
    let (which, pattern) = exchange.scan().await.run(parse).await??;
    let actor = exchange.actor();
    let dry_run = which.dry_run;
    match (which, pattern) {
        (CancelScheduled { event: Some(reference), after: None, .. }, None) => {
            let read = events::find(&*admin.store, &reference).await?;
            let seq = DamagedEvent::seq_of(&read);
            if !admin.store.is_scheduled(seq).await? {
                let detail = format!(
                    "event {seq} is not scheduled: it has no `notbefore`, or was already delivered or cancelled"
                );
                return Err(Problem::new(StatusCode::CONFLICT, detail).into());
            }
            let (store, bus) = (admin.store.clone(), admin.bus.clone());
            let deliveries = exchange.scan().await.run(move || scheduler::route(&*store, &bus, &read)).await?;
            let count = match dry_run {
                true => 1,
                false => admin.store.cancel_events(&actor, vec![(seq, deliveries)], CANCELLED).await?,
            };
            Ok(Json(CancelledScheduled { count, next: None }))
        }
        (CancelScheduled { event: None, after, .. }, Some(pattern)) => {
            let cancel = CancelMatching { pattern: pattern.into(), actor: (!dry_run).then_some(actor) };
            Ok(Json(cancel.run(&admin, &exchange, after.unwrap_or(START)).await?))
        }
        _ => {
            let detail = "exactly one of `event` and `pattern` is needed; `after` is only allowed with `pattern`";
            Err(Problem::malformed(detail.to_owned()).into())
        }
    }
}

struct CancelMatching {
    pattern: Arc<Matcher<()>>,
    /// The author of the change. `None` in a dry run, which cancels nothing and only counts the events.
    actor: Option<Actor>,
}

impl CancelMatching {
    async fn run(&self, admin: &Admin, exchange: &Exchange, mut after: Position) -> ApiResult<CancelledScheduled> {
        let (mut count, mut searched) = (0, 0);
        loop {
            let scan = exchange.scan().await;
            let found = admin.store.scheduled((after.0, after.1), PAGE).await?;
            let Some(last) = found.last().map(position) else { return Ok(CancelledScheduled { count, next: None }) };
            after = last;
            searched += found.len();
            let (pattern, store, bus) = (self.pattern.clone(), admin.store.clone(), admin.bus.clone());
            let is_dry_run = self.actor.is_none();
            let select = move || {
                let matching = found.into_iter().filter(|one| is_match(Some(&pattern), one));
                let route = |one: Scheduled| match is_dry_run {
                    true => (one.seq, Vec::new()),
                    false => (one.seq, scheduler::route(&*store, &bus, &one.event)),
                };
                matching.map(route).collect::<Vec<_>>()
            };
            let events = scan.run(select).await?;
            drop(scan);
            match &self.actor {
                Some(actor) if !events.is_empty() => {
                    count += admin.store.cancel_events(actor, events, CANCELLED).await?;
                }
                Some(_) => {}
                None => count += events.len() as u64,
            }
            if searched >= SEARCH_MAX {
                return Ok(CancelledScheduled { count, next: Some(after) });
            }
        }
    }
}
