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
use super::request::{Params, check_pattern, json_body, list_limit, parse_pattern};
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
use evoke_pattern::Pattern;
use evoke_store::{Scheduled, Store};

const LIMIT_DEFAULT: usize = 100;
/// Number of events read from the store at a time. If all of them have the largest size, this is 16 MiB.
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
    Params(query): Params<ScheduledQuery>,
) -> ApiResult<Response<Body>> {
    let limit = list_limit(query.limit, LIMIT_DEFAULT, LIMIT_MAX, "scheduled events")?;
    let pattern = query.pattern.as_deref().map(parse_pattern).transpose()?;
    let list = List {
        store: admin.store.clone(),
        bus: admin.bus.clone(),
        clock: admin.clock.clone(),
        functions: admin.control.function_ids().into_iter().map(|(name, id)| (id, name)).collect(),
        pattern,
    };
    Ok(ndjson(&admin, |lines| list.write(limit, lines)))
}

struct List {
    store: Arc<dyn Store>,
    bus: Bus,
    clock: Clock,
    functions: HashMap<FunctionId, String>,
    pattern: Option<Pattern>,
}

impl List {
    /// Writes the first `limit` events that match, without their data.
    async fn write(self, limit: usize, mut lines: Lines) -> Result<(), StreamError> {
        let (mut remaining, mut after) = (limit, START);
        while remaining > 0 {
            lines.ready().await?;
            let found = self.store.scheduled((after.0, after.1), PAGE).await?;
            if found.is_empty() {
                break;
            }
            // While the client reads, only the lines are in memory, about `PAGE_BYTES_MAX`. If the attributes of the
            // events are long, the next page has the rest of the events.
            let (mut page, mut bytes) = (Vec::new(), 0);
            for scheduled in found {
                if bytes >= PAGE_BYTES_MAX || page.len() >= remaining {
                    break;
                }
                after = position(&scheduled);
                if is_match(self.pattern.as_ref(), &scheduled) {
                    // Never fails: strings, numbers and JSON always serialise.
                    let line = serde_json::to_string(&self.view(scheduled)).unwrap_or_default();
                    bytes += line.len();
                    page.push(line);
                }
            }
            remaining -= page.len();
            for line in page {
                lines.line(line).await?;
            }
        }
        Ok(lines.flush().await?)
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
fn is_match(pattern: Option<&Pattern>, scheduled: &Scheduled) -> bool {
    match (pattern, &scheduled.event) {
        (None, _) => true,
        (Some(pattern), Ok(stored)) => pattern.matches(&(&*stored.event).into()).unwrap_or_default(),
        (Some(_), Err(_)) => false,
    }
}

pub(super) async fn cancel(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<CancelledScheduled>> {
    let which: CancelScheduled = serde_json::from_slice(&json_body(&headers, body)?).map_err(|error| {
        let expected = r#"send {"event": "ID or number"} or {"pattern": {"type": ["reminder"]}}"#;
        Problem::malformed(format!("{error}; {expected}"))
    })?;
    let actor = exchange.actor();
    let dry_run = which.dry_run;
    match which {
        CancelScheduled { event: Some(reference), pattern: None, after: None, .. } => {
            let read = events::find(&*admin.store, &reference).await?;
            let seq = DamagedEvent::seq_of(&read);
            if !admin.store.is_scheduled(seq).await? {
                let detail = format!(
                    "event {seq} is not scheduled: it has no `notbefore`, or was already delivered or cancelled"
                );
                return Err(Problem::new(StatusCode::CONFLICT, detail).into());
            }
            let deliveries = scheduler::route(&*admin.store, &admin.bus, &read);
            let count = match dry_run {
                true => 1,
                false => admin.store.cancel_events(&actor, vec![(seq, deliveries)], CANCELLED).await?,
            };
            Ok(Json(CancelledScheduled { count, next: None }))
        }
        CancelScheduled { event: None, pattern: Some(pattern), after, .. } => {
            let cancel = CancelMatching { pattern: check_pattern(&pattern)?, actor: (!dry_run).then_some(actor) };
            Ok(Json(cancel.run(&admin, after.unwrap_or(START)).await?))
        }
        _ => {
            let detail = "exactly one of `event` and `pattern` is needed; `after` is only allowed with `pattern`";
            Err(Problem::malformed(detail.to_owned()).into())
        }
    }
}

struct CancelMatching {
    pattern: Pattern,
    /// The author of the change. `None` in a dry run, which cancels nothing and only counts the events.
    actor: Option<Actor>,
}

impl CancelMatching {
    async fn run(&self, admin: &Admin, mut after: Position) -> ApiResult<CancelledScheduled> {
        let (mut count, mut searched) = (0, 0);
        loop {
            let found = admin.store.scheduled((after.0, after.1), PAGE).await?;
            let Some(last) = found.last().map(position) else { return Ok(CancelledScheduled { count, next: None }) };
            after = last;
            searched += found.len();
            let matching: Vec<_> = found.into_iter().filter(|one| is_match(Some(&self.pattern), one)).collect();
            match &self.actor {
                Some(actor) if !matching.is_empty() => {
                    let route = |one: Scheduled| (one.seq, scheduler::route(&*admin.store, &admin.bus, &one.event));
                    let events = matching.into_iter().map(route).collect();
                    count += admin.store.cancel_events(actor, events, CANCELLED).await?;
                }
                Some(_) => {}
                None => count += matching.len() as u64,
            }
            if searched >= SEARCH_MAX {
                return Ok(CancelledScheduled { count, next: Some(after) });
            }
        }
    }
}
