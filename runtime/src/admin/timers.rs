//! Lists timers: their next ticks, their last ticks, and the deliveries of the last ticks.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::Response;
use serde::Deserialize;

use super::dead::LIMIT_MAX;
use super::request::Params;
use super::stream::{Lines, StreamError, ndjson};
use super::view::{Tick, TickDelivery, Timer};
use super::{Admin, ApiResult};
use evoke_http::problem::Problem;
use evoke_manifest::Settings;
use evoke_manifest::parser::nearest;
use evoke_model::clock::{Clock, UnixMs, rfc3339};
use evoke_sources::timer::{Skip, TimerTimes, inspect};
use evoke_store::{Store, StoreError};

const LIMIT_DEFAULT: usize = 100;
/// The default and the maximum of `ticks`: for each timer, the list has at most `ticks` next ticks and at most `ticks`
/// last ticks.
const TICKS_DEFAULT: usize = 3;
const TICKS_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimersQuery {
    /// Only the timer with this URI.
    source: Option<String>,
    limit: Option<usize>,
    ticks: Option<usize>,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Params(query): Params<TimersQuery>,
) -> ApiResult<Response<Body>> {
    let (limit, ticks) = (query.limit.unwrap_or(LIMIT_DEFAULT), query.ticks.unwrap_or(TICKS_DEFAULT));
    if limit > LIMIT_MAX || ticks > TICKS_MAX {
        let detail = format!(
            "limit is {limit} and ticks is {ticks}; limit can be at most {LIMIT_MAX}, and ticks at most {TICKS_MAX}"
        );
        return Err(Problem::malformed(detail).into());
    }
    let mut timers = admin.control.timers().await;
    if let Some(source) = query.source {
        let all = timers.iter().map(|(uri, _)| uri.as_str());
        let help = nearest(&source, all).map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default();
        timers.retain(|(uri, _)| *uri == source);
        if timers.is_empty() {
            return Err(Problem::not_found(format!("there is no timer `{source}`{help}")).into());
        }
    }
    timers.truncate(limit);
    let (store, clock) = (admin.store.clone(), admin.clock.clone());
    Ok(ndjson(&admin, |lines| write(store, clock, timers, ticks, lines)))
}

async fn write(
    store: Arc<dyn Store>,
    clock: Clock,
    timers: Vec<(String, Settings)>,
    ticks: usize,
    mut lines: Lines,
) -> Result<(), StreamError> {
    for (uri, settings) in timers {
        let marks = store.marks(uri.clone()).await?;
        let Some(times) = inspect(&settings, &uri, &marks, clock.now_ms(), ticks) else { continue };
        let timer = view(&*store, uri, times, ticks).await?;
        lines.json(&timer).await?;
    }
    Ok(lines.flush().await?)
}

async fn view(store: &dyn Store, source: String, times: TimerTimes, ticks: usize) -> Result<Timer, StoreError> {
    let TimerTimes { schedule, next, delay_ms, ticked, skipped } = times;
    let mut last: Vec<(UnixMs, Tick)> = Vec::new();
    for at in ticked {
        last.push((at, stored_tick(store, &source, at).await?));
    }
    last.extend(skipped.into_iter().map(|(at, why)| (at, skipped_tick(at, why))));
    last.sort_by_key(|(at, _)| *at);
    let excess = last.len().saturating_sub(ticks);
    Ok(Timer {
        source,
        schedule,
        delay_ms,
        next: next.into_iter().map(rfc3339).collect(),
        last: last.into_iter().skip(excess).map(|(_, tick)| tick).collect(),
    })
}

/// Returns a tick with its deliveries. There are no deliveries if retention has removed the event of the tick.
async fn stored_tick(store: &dyn Store, source: &str, at: UnixMs) -> Result<Tick, StoreError> {
    let event = store.event_of(source.to_owned(), TimerTimes::id(at)).await?;
    let found = match event {
        Some(event) => store.deliveries(event).await?,
        None => Vec::new(),
    };
    let delivery = |record: evoke_model::DeliveryRecord| TickDelivery {
        delivery: record.id,
        function: record.function,
        state: record.state.name().to_owned(),
        attempts: record.attempts.len(),
        cause: record.cause,
    };
    let deliveries = found.into_iter().flatten().map(delivery).collect();
    Ok(Tick { scheduled: rfc3339(at), event, skipped: None, deliveries })
}

fn skipped_tick(at: UnixMs, why: Skip) -> Tick {
    let why = match why {
        Skip::Overlap => "overlap",
        Skip::Late => "late",
    };
    Tick { scheduled: rfc3339(at), event: None, skipped: Some(why.to_owned()), deliveries: Vec::new() }
}
