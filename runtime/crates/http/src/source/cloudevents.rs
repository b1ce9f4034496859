//! Reads events from a request: CloudEvents in one of the three modes (HTTP protocol binding 1.0.2, section 3), or a
//! raw body, which becomes one event of the source's type. No I/O: the input is the headers and the whole body.
//!
//! # Differences from the specification
//!
//! `evoke_model::event` lists the differences of events and of their JSON form.
//!
//! | rule | here |
//! |---|---|
//! | Senders percent-encode `%` in `ce-` headers (section 3.1.3.2). | Some clients do not do this. A `%` without two hexadecimal digits stays as it is. All other sequences are decoded once, as the rule says. |
//! | Header values have printable ASCII characters only (section 3.1.3.2). | Bytes of UTF-8 are accepted as they are; other bytes are rejected, because their charset is unknown. |
//! | Data in binary mode is opaque. | A body whose `Content-Type` means JSON must be JSON. Otherwise the event could not be printed in its JSON form. |
//! | Without `Content-Type`, the event has no `datacontenttype`. | This holds only if the body is JSON or empty. Any other body gets the `datacontenttype` `application/octet-stream` (RFC 9110, section 8.3), because the JSON form of an event without `datacontenttype` declares its data as JSON. |
//! | Any other `Content-Type` than `application/cloudevents…` means binary mode (section 3). | A request with `ce-specversion` is in binary mode. A request without it, but with `ce-id`, `ce-source` and `ce-type`, is refused. Any other body is raw, or refused if the source has no `type`. |
//! | An event format that the receiver does not know may be forwarded as binary. | It is refused with 415. |
//! | A batch may have any size, but the receiver may set a limit (section 3.3). | At most [`BATCH_MAX`] events, all of them accepted or none. An empty batch is accepted and stores nothing. |
//! | In structured mode, attributes may also be in headers (section 3.2.3). | Such headers are ignored. |

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};

use evoke_model::clock::{UnixMs, rfc3339};
use evoke_model::event::{Data, Event};
use evoke_model::media_type::{Charset, essence, is_media_type};
use evoke_telemetry::Traceparent;

mod batch;
mod header_value;

pub use batch::FirstItems;
use batch::batch;
pub(super) use header_value::single;
use header_value::{decode, unquote};

/// The most events in one batch. A batch is one commit, and other writes wait for it.
pub const BATCH_MAX: usize = 1_000;
/// The most extension attributes in one batch, counted over all its events. The limit is needed because short
/// attributes take about 25 times their size in memory.
const BATCH_EXTENSIONS_MAX: usize = 10_000;
/// The longest `Idempotency-Key`, in bytes.
const IDEMPOTENCY_KEY_MAX: usize = 256;

/// The longest `tracestate` that is passed on, in bytes: the length that every implementation must support (W3C Trace
/// Context, 3.3.1.5).
const TRACESTATE_MAX: usize = 512;

/// The attributes of events made from raw bodies.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    /// The event type; with `None` only CloudEvents are accepted.
    pub type_: Option<&'a str>,
    /// The `source` attribute, `/<app>/<name>`.
    pub source: &'a str,
    /// The `time` attribute.
    pub now_ms: UnixMs,
}

/// Why the events of a request were not read. The text of each variant describes the mistake and the correct form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The body contradicts its headers, or is not an event.
    #[error("{0}")]
    Malformed(String),
    /// The batch has more than [`BATCH_MAX`] events, or too many extension attributes.
    #[error("{0}")]
    TooLarge(String),
    /// The body is in a format that the source does not accept.
    #[error("{0}")]
    Unsupported(String),
}

/// The form in which a request contains events. The headers determine the mode, so a request in a wrong mode can be
/// refused before its body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The body is one event in its JSON form.
    Structured,
    /// The body is a JSON array of events.
    Batch,
    /// The attributes are `ce-` headers, the body is the data.
    Binary,
    /// The body is the data of an event of the source's type.
    Raw,
}

impl Mode {
    /// Determines the mode of a request.
    ///
    /// # Errors
    /// [`ReadError::Malformed`] or [`ReadError::Unsupported`].
    pub fn of(headers: &HeaderMap, raw: &Raw<'_>) -> Result<Self, ReadError> {
        let content_type = content_type(headers)?.unwrap_or_default();
        let essence = essence(content_type).to_ascii_lowercase();
        let unsupported = |detail: String| Err(ReadError::Unsupported(detail));
        if essence.starts_with("application/cloudevents") {
            if Charset::of(content_type) != Charset::Utf8 {
                return unsupported(format!("`{content_type}`: JSON is always UTF-8; remove the charset"));
            }
            return match essence.as_str() {
                "application/cloudevents+json" => Ok(Self::Structured),
                "application/cloudevents-batch+json" => Ok(Self::Batch),
                _ => unsupported(format!(
                    "`{essence}` is not supported; send application/cloudevents+json or application/cloudevents-batch+json"
                )),
            };
        }
        if headers.contains_key("ce-specversion") {
            return Ok(Self::Binary);
        }
        let has_all = ["ce-id", "ce-source", "ce-type"].iter().all(|name| headers.contains_key(*name));
        if raw.type_.is_some() && !has_all {
            return Ok(Self::Raw);
        }
        if headers.keys().any(|name| name.as_str().starts_with("ce-")) {
            return Err(ReadError::Malformed(
                "`specversion` is missing; send the header `ce-specversion: 1.0` for an event in binary mode".into(),
            ));
        }
        unsupported(
            "this source declares no `type` for raw bodies and accepts only CloudEvents: send application/cloudevents+json, \
             application/cloudevents-batch+json, or ce- headers with ce-specversion: 1.0"
                .into(),
        )
    }

    /// Reads the events of a request, whose `body` is not compressed. A mistake in one event is an error for the whole
    /// request.
    ///
    /// # Errors
    /// [`ReadError::Malformed`] or [`ReadError::TooLarge`].
    pub fn read(self, headers: &HeaderMap, body: Bytes, raw: &Raw<'_>) -> Result<Vec<Event>, ReadError> {
        let mut events = match self {
            Self::Structured => vec![structured(&body).map_err(ReadError::Malformed)?],
            Self::Batch => batch(&body)?,
            Self::Binary => vec![binary(headers, body).map_err(ReadError::Malformed)?],
            Self::Raw => vec![raw_event(headers, body, raw).map_err(ReadError::Malformed)?],
        };
        for event in &mut events {
            copy_trace_context(event, headers);
        }
        Ok(events)
    }
}

fn structured(json: &[u8]) -> Result<Event, String> {
    Event::from_complete_json(json).map_err(|e| e.to_string())
}

fn binary(headers: &HeaderMap, body: Bytes) -> Result<Event, String> {
    let mut event = Event::default();
    for name in headers.keys() {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else { continue };
        if attribute == "datacontenttype" {
            return Err(
                "`ce-datacontenttype` is not allowed in binary mode; send its value as the Content-Type header".into(),
            );
        }
        if let Some(value) = single(headers, name)? {
            let value = decode(value).map_err(|e| format!("`{name}`: {e}"))?;
            event.set(attribute, value).map_err(|e| e.to_string())?;
        }
    }
    (event.data, event.datacontenttype) = payload(headers, body)?;
    event.check().map_err(|e| format!("{e}; in binary mode each attribute is a header, such as ce-id"))?;
    Ok(event)
}

/// Makes an event of a raw body. The event does not contain the query string, on purpose: queries often contain tokens,
/// and events are stored.
fn raw_event(headers: &HeaderMap, body: Bytes, raw: &Raw<'_>) -> Result<Event, String> {
    let id = match idempotency_key(headers)? {
        Some(key) => key,
        None => uuid_v7(raw.now_ms),
    };
    let (data, datacontenttype) = payload(headers, body)?;
    Ok(Event {
        id,
        source: raw.source.to_owned(),
        type_: raw.type_.unwrap_or_default().to_owned(),
        time: Some(rfc3339(raw.now_ms)),
        datacontenttype,
        data,
        ..Event::default()
    })
}

/// Returns the body as event data, with its media type. Without a `Content-Type` the body is JSON when it parses as
/// JSON, and bytes otherwise.
fn payload(headers: &HeaderMap, body: Bytes) -> Result<(Data, Option<String>), String> {
    const BYTES: &str = "application/octet-stream";
    match content_type(headers).map_err(|error| error.to_string())? {
        Some(media_type) => {
            let data = Data::from_bytes(body, Some(media_type))
                .map_err(|e| format!("the Content-Type is `{media_type}`, but the body is not JSON: {e}"))?;
            // A tab is white space in a header and is not allowed in an attribute, so it becomes a space.
            Ok((data, Some(media_type.replace('\t', " "))))
        }
        None => match Data::from_bytes(body.clone(), None) {
            Ok(data) => Ok((data, None)),
            Err(_) => Ok((Data::Binary(body), Some(BYTES.to_owned()))),
        },
    }
}

/// Returns the `Content-Type`. Checks that it has the form `type/subtype` and contains only characters that an
/// attribute can have.
fn content_type(headers: &HeaderMap) -> Result<Option<&str>, ReadError> {
    let Some(value) = single(headers, &header::CONTENT_TYPE).map_err(ReadError::Malformed)? else { return Ok(None) };
    // A tab is white space in a header. Other control characters, U+0080 to U+009F among them, are allowed nowhere.
    let is_allowed = |value: &str| is_media_type(value) && !value.contains(|c: char| c.is_control() && c != '\t');
    std::str::from_utf8(value).ok().filter(|value| is_allowed(value)).map(Some).ok_or_else(|| {
        ReadError::Malformed("Content-Type is not a media type; write one such as application/json".into())
    })
}

/// Returns the `Idempotency-Key`: the id of the event, unless `auth` or the setting `id` of the source gives another
/// id. A sender that repeats a request sends the same key again. Surrounding quotes are not part of the key.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, String> {
    let Some(value) = single(headers, &HeaderName::from_static("idempotency-key"))? else { return Ok(None) };
    let key = unquote(value).into_owned();
    if !(1..=IDEMPOTENCY_KEY_MAX).contains(&key.len()) || !key.iter().all(u8::is_ascii_graphic) {
        return Err(format!("Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_MAX} visible ASCII characters"));
    }
    Ok(String::from_utf8(key).ok())
}

/// Copies the trace context of the request to an event that has no valid trace context of its own (W3C Trace Context,
/// section 3).
fn copy_trace_context(event: &mut Event, headers: &HeaderMap) {
    const PARENT: HeaderName = HeaderName::from_static("traceparent");
    const STATE: HeaderName = HeaderName::from_static("tracestate");
    if event.extensions.get(PARENT.as_str()).is_some_and(|own| Traceparent::parse(own).is_some()) {
        return;
    }
    // A malformed context is ignored (section 4.3).
    let Ok(Some(parent)) = single(headers, &PARENT) else { return };
    let Some(parent) = std::str::from_utf8(parent).ok().filter(|parent| Traceparent::parse(parent).is_some()) else {
        return;
    };
    event.extensions.insert(PARENT.to_string(), parent.to_owned());
    // `tracestate` is a list that may be spread over several headers (section 3.3.1).
    let states: Option<Vec<&str>> = headers.get_all(&STATE).iter().map(|value| value.to_str().ok()).collect();
    match states.unwrap_or_default().join(",").replace('\t', " ") {
        state if state.is_empty() || state.len() > TRACESTATE_MAX => event.extensions.remove(STATE.as_str()),
        state => event.extensions.insert(STATE.to_string(), state),
    };
}

fn uuid_v7(now_ms: UnixMs) -> String {
    let now_ms = u64::try_from(now_ms).unwrap_or_default();
    let nanos = u32::try_from(now_ms % 1_000 * 1_000_000).unwrap_or_default();
    uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, now_ms / 1_000, nanos)).to_string()
}

#[cfg(test)]
mod tests;
