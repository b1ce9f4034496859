//! Lists, reads and changes the stored state of functions.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http::{HeaderMap, Response, StatusCode};
use serde::Deserialize;

use super::access::Exchange;
use super::request::{Params, PathSegments, json_body};
use super::response::Json;
use super::stream::{Lines, StreamError, ndjson};
use super::view::{Count, StateBucket, StateEntry, StateValue};
use super::{Admin, ApiResult};
use evoke_http::problem::Problem;
use evoke_model::Actor;
use evoke_model::state::{Change, KEY_BYTES_MAX, Keys, Touched, Transaction};
use evoke_model::text::parser_message;
use evoke_store::{Result, StateStore};

/// Largest number of keys read from the store at a time, or deleted in one commit.
const PAGE: usize = 500;
/// Values with more bytes than this are left out of lists.
const LISTED_BYTES_MAX: usize = 4 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeysQuery {
    #[serde(default)]
    prefix: String,
    limit: Option<usize>,
}

pub(super) async fn buckets(State(admin): State<Arc<Admin>>) -> Response<Body> {
    let buckets = admin.store.state_buckets();
    ndjson(&admin, async move |mut lines| {
        for (bucket, usage) in buckets {
            lines.json(&StateBucket { bucket, keys: usage.keys, bytes: usage.bytes }).await?;
        }
        Ok(lines.flush().await?)
    })
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    PathSegments(bucket): PathSegments<String>,
    Params(query): Params<KeysQuery>,
) -> Response<Body> {
    let store = admin.store.clone();
    ndjson(&admin, |lines| write(store, bucket, query, lines))
}

async fn write(
    store: Arc<dyn StateStore>,
    bucket: String,
    query: KeysQuery,
    mut lines: Lines,
) -> std::result::Result<(), StreamError> {
    let (mut remaining, mut after) = (query.limit.unwrap_or(usize::MAX), None::<String>);
    while remaining > 0 {
        lines.ready().await?;
        let Keys { keys, is_last, .. } = store.state_keys(&bucket, after.as_deref(), PAGE).await?;
        after = keys.last().cloned();
        for key in keys.iter().filter(|key| key.starts_with(&query.prefix)).take(remaining) {
            // The key may have been deleted since the keys were listed.
            let Some(entry) = store.state(&bucket, key).await? else { continue };
            lines.json(&StateEntry::new(&bucket, key, &entry, LISTED_BYTES_MAX)).await?;
            remaining -= 1;
        }
        if is_last {
            break;
        }
    }
    Ok(lines.flush().await?)
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    PathSegments((bucket, key)): PathSegments<(String, String)>,
) -> ApiResult<Json<StateEntry>> {
    let missing = || Problem::not_found(format!("the bucket {bucket} has no key {key}"));
    let entry = admin.store.state(&bucket, &key).await?.ok_or_else(missing)?;
    Ok(Json(StateEntry::new(&bucket, &key, &entry, usize::MAX)))
}

pub(super) async fn set(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    PathSegments((bucket, key)): PathSegments<(String, String)>,
    headers: HeaderMap,
    body: std::result::Result<Bytes, BytesRejection>,
) -> ApiResult<StatusCode> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        let detail = format!("the key has {} bytes; a key must have 1 to {KEY_BYTES_MAX} bytes", key.len());
        return Err(Problem::malformed(detail).into());
    }
    let json = json_body(&headers, body)?;
    let json_len = json.len();
    let read = move || {
        let value = serde_json::from_slice::<StateValue>(&json);
        let value = value.map_err(|error| format!("the body is not a state value: {}", parser_message(&error)))?;
        value.bytes()
    };
    let value = exchange.read_body(json_len, read).await?.map_err(Problem::malformed)?;
    if !admin.store.state_buckets().contains_key(&bucket) && !is_active(&admin, &bucket) {
        let detail = format!("there is no function or app {bucket}; write app/function, or app for the shared state");
        return Err(Problem::not_found(detail).into());
    }
    change(&*admin.store, &exchange.actor(), &bucket, [key], &Change::Set(value.into())).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn delete(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    PathSegments((bucket, key)): PathSegments<(String, String)>,
) -> ApiResult<Json<Count>> {
    let count = change(&*admin.store, &exchange.actor(), &bucket, [key], &Change::Delete).await?;
    Ok(Json(Count { count }))
}

pub(super) async fn clear(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    PathSegments(bucket): PathSegments<String>,
) -> ApiResult<Json<Count>> {
    let (mut count, mut after) = (0, None::<String>);
    loop {
        let Keys { keys, is_last, .. } = admin.store.state_keys(&bucket, after.as_deref(), PAGE).await?;
        after = keys.last().cloned();
        count += change(&*admin.store, &exchange.actor(), &bucket, keys, &Change::Delete).await?;
        if is_last {
            return Ok(Json(Count { count }));
        }
    }
}

/// Sets or deletes keys in one commit. Returns the number of these keys that existed before.
async fn change(
    store: &dyn StateStore,
    actor: &Actor,
    bucket: &str,
    keys: impl IntoIterator<Item = String>,
    change: &Change,
) -> Result<u64> {
    let bucket: Arc<str> = bucket.into();
    let touched = |key: String| {
        let (bucket, change) = (bucket.clone(), Some(change.clone()));
        Touched { bucket, key: key.into(), seen: None, change }
    };
    let keys = keys.into_iter().map(touched).collect();
    store.state_write(actor, Transaction { keys, ..Transaction::default() }).await
}

/// Returns true if the bucket belongs to an active function or to its app.
fn is_active(admin: &Admin, bucket: &str) -> bool {
    admin.control.functions().iter().any(|function| {
        let app = function.name.split_once('/').map(|(app, _)| app);
        function.name == bucket || app == Some(bucket)
    })
}
