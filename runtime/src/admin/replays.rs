//! Replays: planned, begun, looked at, turned.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use http::{HeaderMap, Response, StatusCode};

use super::problem::{Problem, json_body};
use super::stream::{Ended, ndjson};
use super::view::Replay;
use super::{Admin, Answer};
use crate::replay::{Filter, Plan, ReplayAction, ReplayError};
use crate::store::ReplayId;

pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Answer<Response<Body>> {
    let found = admin.store.replays().await?;
    Ok(ndjson(&admin, |lines| async move {
        // Strings, numbers and JSON always serialise.
        let line = |replay| serde_json::to_string(&Replay::from(replay)).unwrap_or_default();
        Ok::<_, Ended>(lines.send(found.into_iter().map(line)).await?)
    }))
}

pub(super) async fn one(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Answer<Json<Replay>> {
    let id = number(&id)?;
    let replay = admin.store.replay(id).await?.ok_or(ReplayError::NotFound(id))?;
    Ok(Json(replay.into()))
}

pub(super) async fn start(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer<(StatusCode, Json<Replay>)> {
    let filter = filter(&headers, body)?;
    let replay = admin.replays.start(filter, &functions(&admin).await).await?;
    Ok((StatusCode::ACCEPTED, Json(replay.into())))
}

pub(super) async fn plan(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Json<Plan>> {
    let filter = filter(&headers, body)?;
    Ok(Json(admin.replays.plan(&filter, &functions(&admin).await).await?))
}

pub(super) async fn turn(
    State(admin): State<Arc<Admin>>,
    Path((id, action)): Path<(String, String)>,
) -> Answer<Json<Replay>> {
    let action = match action.as_str() {
        "pause" => ReplayAction::Pause,
        "resume" => ReplayAction::Resume,
        "cancel" => ReplayAction::Cancel,
        other => return Err(Problem::not_found(format!("a replay is paused, resumed or cancelled, and not {other}"))),
    };
    Ok(Json(admin.replays.apply(number(&id)?, action).await?.into()))
}

fn number(text: &str) -> Answer<ReplayId> {
    text.parse().map_err(|_| Problem::not_found(format!("there is no replay {text}")))
}

fn filter(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Answer<Filter> {
    serde_json::from_slice(&json_body(headers, body)?).map_err(|e| {
        let right = r#"send {} for every stored event, or some of function, since, until, type, pattern, event, rate"#;
        Problem::malformed(format!("{e}; {right}"))
    })
}

async fn functions(admin: &Admin) -> Vec<String> {
    (admin.in_force)().await.functions.into_iter().map(|function| function.name).collect()
}

impl From<ReplayError> for Problem {
    fn from(refused: ReplayError) -> Self {
        let detail = refused.to_string();
        match refused {
            ReplayError::Filter(_) => Self::malformed(detail),
            ReplayError::NotFound(_) => Self::not_found(detail),
            ReplayError::State { .. } => Self::new(StatusCode::CONFLICT, detail),
            ReplayError::TooMany => Self::later(60, detail),
            ReplayError::Store(error) => error.into(),
        }
    }
}
