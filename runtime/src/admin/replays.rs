//! Lists, plans, starts and controls replays.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::IntoResponse as _;
use http::{HeaderMap, Response, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;

use super::access::Exchange;
use super::error::ApiError;
use super::request::{Params, PathSegments, json_body, parse_json};
use super::response::Json;
use super::search::SEND_INTERVAL;
use super::stream::ndjson;
use super::view::Replay;
use super::{Admin, ApiResult, names};
use evoke_core::replay::{CompiledFilter, DryRun, Filter, ReplayAction, ReplayError};
use evoke_http::problem::Problem;
use evoke_model::ReplayId;

/// Number of replays read from the store at a time. It is small, because the pattern of a replay has up to 64 KiB.
const PAGE: usize = 8;
/// Maximum duration of a dry run with `progress=false`. The client gets no data before the end of such a run, so the
/// run must not be long.
const PLAN_TIME_MAX: Duration = Duration::from_secs(20);

pub(super) async fn list(State(admin): State<Arc<Admin>>, exchange: Exchange) -> Response<Body> {
    let store = admin.store.clone();
    ndjson(&admin, async move |mut lines| {
        let mut after = ReplayId(0);
        loop {
            lines.ready().await?;
            let found = store.replays(after, PAGE).await?;
            let Some(last) = found.last() else { break };
            after = last.id;
            // The view of a failed replay has the reason of the failure. A check of the replay's pattern finds the
            // reason and can take long, so this work needs a permit for a scan.
            let view = move || found.into_iter().map(Replay::from).collect::<Vec<_>>();
            let found = exchange.scan().await.run(view).await?;
            for replay in found {
                lines.json(&replay).await?;
            }
        }
        Ok(lines.flush().await?)
    })
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    PathSegments(id): PathSegments<String>,
) -> ApiResult<Json<Replay>> {
    let id = parse_id(&id)?;
    let replay = admin.store.replay(id).await?.ok_or(ReplayError::NotFound(id))?;
    Ok(Json(exchange.scan().await.run(move || replay.into()).await?))
}

pub(super) async fn start(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<(StatusCode, Json<Replay>)> {
    let filter = parse_filter(&admin, &exchange, &headers, body).await?;
    let replay = admin.replays.start(&exchange.actor(), &filter).await?;
    Ok((StatusCode::ACCEPTED, Json(replay.into())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanQuery {
    /// True to send a line with the counts so far every [`SEND_INTERVAL`]; the last line has the final counts. If
    /// false, the response is one object, and the dry run has a time limit.
    #[serde(default)]
    progress: bool,
}

pub(super) async fn plan(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    Params(query): Params<PlanQuery>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Response<Body>> {
    let filter = parse_filter(&admin, &exchange, &headers, body).await?;
    let mut run = admin.replays.dry_run(filter, active_functions(&admin)).await?;
    let time_max = if query.progress { SEND_INTERVAL } else { PLAN_TIME_MAX };
    // Runs steps of the dry run until the time has passed or all events are counted.
    let advance = async move |mut run: DryRun| {
        let start = Instant::now();
        while !run.plan().complete && start.elapsed() < time_max {
            let scan = exchange.scan().await;
            let step = run.read().await?;
            let count = move || {
                run.count(&step);
                run
            };
            run = scan.run(count).await?;
        }
        Ok::<_, ApiError>(run)
    };
    if !query.progress {
        run = advance(run).await?;
        return Ok(Json(run.plan()).into_response());
    }
    Ok(ndjson(&admin, async move |mut lines| {
        loop {
            lines.ready().await?;
            run = advance(run).await?;
            lines.json(run.plan()).await?;
            lines.flush().await?;
            if run.plan().complete {
                return Ok(());
            }
        }
    }))
}

pub(super) async fn control(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    PathSegments((id, action)): PathSegments<(String, String)>,
) -> ApiResult<Json<Replay>> {
    let action = match action.as_str() {
        "pause" => ReplayAction::Pause,
        "resume" => ReplayAction::Resume,
        "cancel" => ReplayAction::Cancel,
        other => {
            let actions = "a replay can be paused (`pause`), resumed (`resume`) or cancelled (`cancel`)";
            return Err(Problem::not_found(format!("unknown action {other}; {actions}")).into());
        }
    };
    Ok(Json(admin.replays.apply(&exchange.actor(), parse_id(&id)?, action).await?.into()))
}

fn parse_id(text: &str) -> Result<ReplayId, Problem> {
    text.parse().map_err(|_| Problem::not_found(format!("there is no replay {text}")))
}

/// Parses and compiles a filter.
async fn parse_filter(
    admin: &Admin,
    exchange: &Exchange,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<CompiledFilter> {
    let expected =
        "send {} for all stored events, or any of function, since, until, type, source, pattern, event, rate";
    let json = json_body(headers, body)?;
    // The pattern is not checked yet and can have many values, so the request keeps its permit until it is checked.
    let scan = exchange.scan().await;
    let filter = scan.run(move || parse_json::<Filter>(&json, expected)).await??;
    // An unknown name is not an error here: `Replays` checks it later.
    let function = match filter.function {
        Some(name) => Some(names::function(admin, &name).await.unwrap_or(name)),
        None => None,
    };
    let compile = admin.replays.compile(Filter { function, ..filter }, &active_functions(admin)).await?;
    Ok(scan.run(compile).await??)
}

fn active_functions(admin: &Admin) -> Vec<String> {
    admin.control.functions().into_iter().map(|function| function.name).collect()
}
