//! Lists recorded attempts, and makes test files of them. These requests need a token with the role operator, because a
//! recording may contain credentials: in the responses that the attempt received, and in its random numbers. Evoke
//! cannot recognise these credentials, because they are not secrets of a manifest.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderName, Response};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::request::{Params, PathSegments, list_limit};
use super::stream::{Lines, StreamError, ndjson};
use super::{Admin, ApiResult, names};
use crate::recorded;
use evoke_http::problem::Problem;
use evoke_model::DeliveryId;
use evoke_model::recording::{Recording, RecordingNumber, StoredRecording};
use evoke_model::text::parser_message;
use evoke_store::{Store, StoreError};

const LIMIT_DEFAULT: usize = 100;
/// Maximum number of recordings per list.
const LIMIT_MAX: usize = 100_000;
/// Number of recordings read from the store at a time. A recording has at most 512 KiB.
const PAGE: usize = 8;
/// Maximum size of a test file in bytes, because `evoke test` refuses larger files.
const FILE_BYTES_MAX: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    delivery: Option<DeliveryId>,
    attempt: Option<u32>,
    function: Option<String>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestQuery {
    attempt: Option<u32>,
}

/// Lists the recordings of a delivery, in the order of its attempts; or the recordings of a function, newest first. The
/// line of a damaged recording has the key `damaged`.
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Params(query): Params<ListQuery>,
) -> ApiResult<Response<Body>> {
    let ListQuery { delivery, attempt, function, limit } = query;
    let limit = list_limit(limit, LIMIT_DEFAULT, LIMIT_MAX, "recordings")?;
    let store = admin.store.clone();
    match (delivery, function) {
        (Some(delivery), None) => {
            require_recorded(&*store, delivery, attempt).await?;
            Ok(ndjson(&admin, async move |mut lines: Lines| {
                let mut after = attempt.map_or(0, |attempt| attempt.saturating_sub(1));
                while let Some((found, last)) = next_of(&*store, delivery, after, attempt).await? {
                    lines.ready().await?;
                    for recording in &found {
                        lines.line(line(recording)).await?;
                    }
                    after = last;
                }
                Ok(lines.flush().await?)
            }))
        }
        (None, Some(function)) => {
            let function = names::function(&admin, &function).await?;
            Ok(ndjson(&admin, |lines| write_newest(store, function, attempt, limit, lines)))
        }
        _ => Err(Problem::malformed("exactly one of delivery and function is needed".to_owned()).into()),
    }
}

async fn write_newest(
    store: Arc<dyn Store>,
    function: String,
    attempt: Option<u32>,
    limit: usize,
    mut lines: Lines,
) -> Result<(), StreamError> {
    let (mut before, mut remaining) = (RecordingNumber::MAX, limit);
    while remaining > 0 {
        lines.ready().await?;
        let found = store.newest_recordings(function.clone(), before, PAGE).await?;
        let Some(last) = found.last() else { break };
        before = last.number;
        let wanted = found.iter().filter(|stored| attempt.is_none_or(|attempt| stored.attempt == attempt));
        for recording in wanted.take(remaining) {
            remaining -= 1;
            lines.line(line(recording)).await?;
        }
    }
    Ok(lines.flush().await?)
}

/// Returns the next recordings of a delivery, after the attempt `after`, and the number of the last attempt among them.
/// Returns `None` if no recordings are left.
async fn next_of(
    store: &dyn Store,
    delivery: DeliveryId,
    after: u32,
    attempt: Option<u32>,
) -> Result<Option<(Vec<StoredRecording>, u32)>, StoreError> {
    let mut found = store.recordings_of(delivery, after, PAGE).await?;
    found.retain(|stored| attempt.is_none_or(|attempt| stored.attempt == attempt));
    Ok(found.last().map(|last| last.attempt).map(|last| (found, last)))
}

fn line(stored: &StoredRecording) -> String {
    let text = stored.data.as_ref().map(|data| serde_json::from_slice::<&RawValue>(data).map(|json| json.get()));
    match text {
        Ok(Ok(json)) => json.to_owned(),
        Ok(Err(error)) => json!({ "damaged": error.to_string() }).to_string(),
        Err(what) => json!({ "damaged": what }).to_string(),
    }
}

/// Returns an error if the delivery, or the attempt if one is given, has no recording. The error contains the reason.
async fn require_recorded(store: &dyn Store, delivery: DeliveryId, attempt: Option<u32>) -> ApiResult<()> {
    let after = attempt.map_or(0, |attempt| attempt.saturating_sub(1));
    if next_of(store, delivery, after, attempt).await?.is_some() {
        return Ok(());
    }
    let detail = match store.delivery(delivery).await? {
        None => format!("there is no delivery {delivery}"),
        Some(Err(damaged)) => format!("delivery {delivery} is damaged: {}", damaged.what),
        Some(Ok(record)) => {
            let what =
                attempt.map_or("no recording".to_owned(), |attempt| format!("no recording of attempt {attempt}"));
            format!(
                "delivery {delivery} has {what}: the attempt has not ended, {} had no `record: true` in its manifest \
                 when the attempt ran, or newer recordings replaced its recording",
                record.function
            )
        }
    };
    Err(Problem::not_found(detail).into())
}

/// Returns a test file with the recorded attempts of a delivery.
pub(super) async fn test(
    State(admin): State<Arc<Admin>>,
    PathSegments(delivery): PathSegments<DeliveryId>,
    Params(TestQuery { attempt }): Params<TestQuery>,
) -> ApiResult<Response<Body>> {
    let store = &*admin.store;
    require_recorded(store, delivery, attempt).await?;
    let (mut tests, mut left_out) = (String::new(), String::new());
    let mut after = attempt.map_or(0, |attempt| attempt.saturating_sub(1));
    while let Some((found, last)) = next_of(store, delivery, after, attempt).await? {
        for stored in &found {
            match read(stored) {
                Ok(recording) => tests += &recorded::test(&recording),
                Err(reason) => left_out += &format!("attempt {} was not recorded: {reason}\n", stored.attempt),
            }
        }
        if tests.len() > FILE_BYTES_MAX {
            let detail = format!("the test file has over {FILE_BYTES_MAX} bytes; choose one attempt with attempt=N");
            return Err(Problem::malformed(detail).into());
        }
        after = last;
    }
    if tests.is_empty() {
        return Err(Problem::not_found(left_out.trim_end().to_owned()).into());
    }
    let text = left_out.lines().map(|line| format!("# {line}\n")).collect::<String>() + &recorded::head(None) + &tests;
    let mut response = Response::new(Body::from(text));
    let mut add =
        |name: HeaderName, value: String| value.parse().map(|value| response.headers_mut().insert(name, value));
    let file = format!("attachment; filename=\"delivery-{delivery}.test.yaml\"");
    // Both values are plain ASCII, so neither fails to parse.
    let _ = add(CONTENT_TYPE, "application/yaml; charset=utf-8".to_owned()).and(add(CONTENT_DISPOSITION, file));
    Ok(response)
}

/// Parses a recording. Returns an error if it is damaged, or if it only contains the reason why the attempt was not
/// recorded.
fn read(stored: &StoredRecording) -> Result<Recording, String> {
    let recording: Recording =
        serde_json::from_slice(stored.data.as_ref().map_err(Clone::clone)?).map_err(|error| parser_message(&error))?;
    match recording.not_recorded {
        Some(reason) => Err(reason),
        None => Ok(recording),
    }
}
