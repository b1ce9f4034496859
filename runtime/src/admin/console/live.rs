//! Server-sent events for the console: the status every second, and new events as they are accepted.
//!
//! | event | data |
//! |---|---|
//! | `status` | [`Beat`] |
//! | `events` | [`Batch`]; the id is the position of its newest event |
//!
//! At a high rate, a batch has only the newest events, and the number of skipped events. A client that reconnects sends
//! the last id in `Last-Event-ID`. Its first batch has the events after this position or, if there are too many, only
//! the newest of them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use http::{HeaderMap, HeaderName, Response};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::row::{Outcomes, Row};
use crate::admin::access::Exchange;
use crate::admin::request::Params;
use crate::admin::status;
use crate::admin::stream::{self, Lines, StreamError};
use crate::admin::view::Status;
use crate::admin::{Admin, ApiResult};
use crate::disk::disk_space;
use evoke_model::clock::rfc3339;
use evoke_model::{DamagedEvent, EventFilter, Seq};
use evoke_store::StoreError;

/// How often new events are sent.
const BATCH_INTERVAL: Duration = Duration::from_millis(250);
/// A status is sent after this number of batch intervals, which is every second.
const BATCHES_PER_STATUS: u32 = 4;
/// Maximum number of events that a batch reads.
const BATCH_MAX: usize = 50;
/// Maximum total size of the events that a batch reads, in bytes.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// The sizes of the store and of the disk are read again after this number of statuses.
const STATUSES_PER_SPACE: u32 = 10;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct LiveQuery {
    /// True to send new events, and not only the status.
    #[serde(default)]
    events: bool,
    r#type: Option<String>,
    source: Option<String>,
}

/// The state of the process at one moment.
#[derive(Debug, Serialize)]
struct Beat {
    at: String,
    status: Status,
    /// Events and deliveries per second since the previous beat; absent in the first beat.
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<Rates>,
    /// The time since which the oldest ready or retrying delivery is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_pending: Option<String>,
    space: Space,
    /// The reason why the store refuses writes; absent if it accepts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

#[derive(Debug, Serialize)]
struct Rates {
    accepted: f64,
    done: f64,
    dead: f64,
}

/// The size of the store, and the free and the total space of its disk, in bytes. A size that cannot be read is absent.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Space {
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    free: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
}

/// New events.
#[derive(Debug, Serialize)]
struct Batch {
    /// Oldest first.
    rows: Vec<Row>,
    /// Number of events that were not read, because more events arrived than fit into a batch.
    skipped: i64,
}

pub(in crate::admin) async fn live(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    headers: HeaderMap,
    Params(query): Params<LiveQuery>,
) -> ApiResult<Response<Body>> {
    exchange.follow()?;
    let newest = *admin.store.newest().borrow();
    let last: Option<Seq> = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()?.parse().ok());
    // The position of a client may be from an earlier process, which had another store. If the position is higher than
    // the newest position of this store, the client gets only new events.
    let shown = last.filter(|last| *last <= newest).unwrap_or(newest);
    let live = Live { admin: admin.clone(), query, shown, previous: None, space: Space::default(), statuses: 0 };
    Ok(stream::events(&admin, |lines| live.run(lines)))
}

struct Live {
    admin: Arc<Admin>,
    query: LiveQuery,
    /// The position up to which events were sent or skipped.
    shown: Seq,
    /// The time of the previous beat, and its totals: accepted events, done deliveries, and dead or purged deliveries.
    previous: Option<(Instant, [u64; 3])>,
    space: Space,
    statuses: u32,
}

impl Live {
    async fn run(mut self, mut lines: Lines) -> Result<(), StreamError> {
        let mut ticks = interval(BATCH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batches: u32 = 0;
        loop {
            ticks.tick().await;
            // Waits while the last status or batch still waits for the client. So a slow client gets fewer batches,
            // which are larger.
            lines.ready().await?;
            if batches.is_multiple_of(BATCHES_PER_STATUS) {
                let beat = self.beat().await?;
                send(&mut lines, "status", None, &beat).await?;
            }
            batches = batches.wrapping_add(1);
            if self.query.events
                && let Some(batch) = self.batch().await?
            {
                send(&mut lines, "events", Some(self.shown), &batch).await?;
            }
            lines.flush().await?;
        }
    }

    async fn beat(&mut self) -> Result<Beat, StreamError> {
        let admin = &self.admin;
        let failed = |error| StreamError::Failed(format!("the status cannot be read: {error:?}"));
        let status = status::status(State(admin.clone())).await.map_err(failed)?.0;
        let is_tenth = self.statuses.is_multiple_of(STATUSES_PER_SPACE);
        self.statuses = self.statuses.wrapping_add(1);
        if is_tenth {
            let disk = disk_space(&admin.data).await.ok();
            let (free, total) = (disk.as_ref().map(|disk| disk.free), disk.as_ref().map(|disk| disk.total));
            self.space = Space { store: admin.store.size_bytes().await.ok(), free, total };
        }
        let sum = |of: fn(&evoke_model::Counts) -> u64| status.functions.iter().map(|f| of(&f.deliveries)).sum::<u64>();
        let totals = [status.events, sum(|counts| counts.done), sum(|counts| counts.dead + counts.purged)];
        let now = Instant::now();
        let rates = self.previous.replace((now, totals)).map(|(then, before)| {
            let seconds = (now - then).as_secs_f64().max(0.001);
            let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
            let ([accepted, done, dead], [accepted_before, done_before, dead_before]) = (totals, before);
            Rates {
                accepted: rate(accepted, accepted_before),
                done: rate(done, done_before),
                dead: rate(dead, dead_before),
            }
        });
        Ok(Beat {
            at: rfc3339(admin.clock.now_ms()),
            // All times have the same format, so the smallest text is the earliest time.
            oldest_pending: status.functions.iter().filter_map(|function| function.pending_since.clone()).min(),
            status,
            rates,
            space: self.space,
            refused: admin.store.refusal().map(|error| error.to_string()),
        })
    }

    /// Returns the events since the last batch; `None` if there are none.
    async fn batch(&mut self) -> Result<Option<Batch>, StoreError> {
        let store = &*self.admin.store;
        let newest = *store.newest().borrow();
        if newest <= self.shown {
            return Ok(None);
        }
        let first = self.shown.0.max(newest.0 - BATCH_MAX as i64);
        let filter = EventFilter {
            after: Some(Seq(first)),
            before: Some(newest.next()),
            limit: BATCH_MAX,
            bytes_max: Some(BATCH_BYTES_MAX),
            ..EventFilter::default()
        };
        let found = store.events(filter).await?;
        let skipped = first - self.shown.0;
        // If the size limit ended this batch, the next batch continues after the last event that was read.
        self.shown = found.last().map_or(newest, DamagedEvent::seq_of);
        let mut rows = Vec::new();
        for read in found {
            let is_wanted = read.as_ref().map_or(true, |stored| {
                is_type(self.query.r#type.as_deref(), &stored.event.type_)
                    && self.query.source.as_ref().is_none_or(|source| stored.event.source == *source)
            });
            if is_wanted {
                // The outcomes of a row need a read of the store. At a high rate, rows have none, because newer rows
                // soon replace them on the page.
                let outcomes = match skipped {
                    0 => Some(Outcomes::of(store, DamagedEvent::seq_of(&read)).await?),
                    _ => None,
                };
                rows.push(Row::new(&read, outcomes));
            }
        }
        Ok(Some(Batch { rows, skipped }))
    }
}

/// Returns true if `type_` matches `wanted`; a `*` at the end of `wanted` matches any ending. `None` matches all types.
fn is_type(wanted: Option<&str>, type_: &str) -> bool {
    wanted.is_none_or(|wanted| match wanted.strip_suffix('*') {
        Some(start) => type_.starts_with(start),
        None => type_ == wanted,
    })
}

/// Sends one server-sent event. Its data is a single line, because the JSON has no line breaks.
async fn send(lines: &mut Lines, name: &str, id: Option<Seq>, data: &impl Serialize) -> Result<(), StreamError> {
    // Never fails: strings, numbers and JSON always serialise.
    let data = serde_json::to_string(data).unwrap_or_default();
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    Ok(lines.text(format!("event: {name}\n{id}data: {data}\n\n")).await?)
}
