//! Builds the request of a delivery.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use evoke_manifest::deliver::{self, BodyTemplate, Deliver, Field, Mode};
use evoke_manifest::template::Template as TextTemplate;
use evoke_model::HOPS_HEADER;
use evoke_model::clock::UnixMs;
use evoke_model::destination::Target as Origin;
use evoke_model::event::{Data, Event};
use evoke_telemetry::TraceContext;

use super::SecretValues;
use super::render::{HEADER_BYTES_MAX, Values};
use super::sign::Signer;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("evoke/", env!("CARGO_PKG_VERSION")));

/// The characters that are percent-encoded when an attribute becomes a `ce-` header (HTTP protocol binding, section
/// 3.1.3.2): space, `"`, `%`, and all beyond printable ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Largest size of the URL's path and the headers together, in bytes. Many servers have this limit or a higher one.
/// With HTTP/2, some servers end the whole connection if a request exceeds their limit, and with it all other
/// deliveries on the connection.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The bytes that each header counts for in addition to its name and value (RFC 9113, section 6.5.2).
const FIELD_BYTES: usize = 32;

/// The parts of a request that do not depend on the event. Has no `Debug`, because it contains secrets.
pub(super) struct Template {
    method: Method,
    path: TextTemplate<Field>,
    headers: Vec<(HeaderName, TextTemplate<Field>)>,
    content: Content,
    secrets: Arc<SecretValues>,
    signer: Option<Signer>,
}

/// The parts of a delivery from which its request is made.
#[derive(Clone, Copy)]
pub(super) struct Delivery<'a> {
    pub(super) event: &'a Event,
    /// The id of the delivery, which is the same for all attempts.
    pub(super) id: &'a str,
    /// The number of functions that the chain of events passed through before this event.
    pub(super) hops: u32,
    pub(super) trace: Option<&'a TraceContext>,
    /// The current time of the wall clock.
    pub(super) now_ms: UnixMs,
}

enum Content {
    Structured,
    Binary,
    Body(BodyTemplate),
}

impl Template {
    pub(super) fn new(deliver: &Deliver, secrets: Arc<SecretValues>, signer: Option<Signer>) -> Self {
        let method = match deliver.method {
            deliver::Method::Post => Method::POST,
            deliver::Method::Put => Method::PUT,
            deliver::Method::Patch => Method::PATCH,
            deliver::Method::Delete => Method::DELETE,
        };
        // A manifest with an invalid header name is refused, so no header is left out here.
        let header = |(name, value): (&String, &TextTemplate<Field>)| {
            HeaderName::from_bytes(name.as_bytes()).ok().map(|name| (name, value.clone()))
        };
        let content = match (&deliver.body, deliver.mode.unwrap_or_default()) {
            (Some(body), _) => Content::Body(body.clone()),
            (None, Mode::Structured) => Content::Structured,
            (None, Mode::Binary) => Content::Binary,
        };
        let (path, headers) = (deliver.url.path().clone(), deliver.headers.iter().filter_map(header).collect());
        Self { method, path, headers, content, secrets, signer }
    }

    /// Builds the request of a delivery. An error is a message for the operator that says why the event cannot be sent.
    pub(super) fn request(&self, origin: &Origin, delivery: Delivery<'_>) -> Result<Request<Bytes>, String> {
        let Delivery { event, id, hops, trace, now_ms } = delivery;
        let values = Values { event, secrets: &self.secrets };
        let mut headers = HeaderMap::new();
        let body = self.content(values, &mut headers)?;
        for (name, template) in &self.headers {
            let text = values.header(name.as_str(), template)?;
            let mut value = HeaderValue::from_bytes(text.as_bytes())
                .map_err(|_| format!("the header `{name}` contains a character that cannot be sent"))?;
            let has_secret = |field: &Field| matches!(field, Field::Secret(_));
            value.set_sensitive(template.placeholders().any(|placeholder| has_secret(&placeholder.name)));
            headers.insert(name, value);
        }
        add_trace_context(trace, &mut headers);
        headers.insert(HOPS_HEADER, (hops + 1).into());
        headers.insert(USER_AGENT, AGENT);
        let key = HeaderValue::from_str(id).map_err(|error| format!("the id of the delivery is not valid: {error}"))?;
        headers.insert(IDEMPOTENCY_KEY, key);
        if let Some(signer) = &self.signer {
            signer.sign(&mut headers, id, &body, now_ms)?;
        }
        let path = values.path(&self.path)?;
        check_size(&path, &headers)?;
        let path: PathAndQuery =
            path.parse().map_err(|_| "the URL contains a character that cannot be sent".to_owned())?;
        let uri = Uri::builder().scheme(origin.scheme()).authority(origin.authority()).path_and_query(path);
        let uri = uri.build().map_err(|error| format!("the URL cannot be sent: {error}"))?;
        let mut request = Request::new(body);
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (self.method.clone(), uri, headers);
        Ok(request)
    }

    /// Returns the body, and adds the headers that describe it.
    fn content(&self, values: Values<'_>, headers: &mut HeaderMap) -> Result<Bytes, String> {
        let content_type = |headers: &mut HeaderMap, value| {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
        };
        match &self.content {
            Content::Structured => {
                content_type(headers, "application/cloudevents+json");
                Ok(values.event.to_json().into())
            }
            Content::Binary => binary(values.event, headers),
            Content::Body(BodyTemplate::Text(text)) => {
                content_type(headers, "text/plain; charset=utf-8");
                values.text_body(text).map(Bytes::from)
            }
            Content::Body(BodyTemplate::Json(json)) => {
                content_type(headers, "application/json");
                values.json_body(json).map(Bytes::from)
            }
        }
    }
}

/// Checks the size of a head before anything is sent. A producer chooses the sizes of the attributes. The headers that
/// are added later are not counted: those of the grant, `host`, and `content-length`.
fn check_size(path: &str, headers: &HeaderMap) -> Result<(), String> {
    const ADVICE: &str = "use shorter values, or `mode: structured`, which sends attributes in the body";
    let mut size = path.len();
    for (name, value) in headers {
        if value.len() > HEADER_BYTES_MAX {
            return Err(format!("the header `{name}` would have more than {} KiB; {ADVICE}", HEADER_BYTES_MAX >> 10));
        }
        size += name.as_str().len() + value.len() + FIELD_BYTES;
    }
    if size > HEAD_BYTES_MAX {
        return Err(format!(
            "the URL and the headers would have more than {} KiB in total; {ADVICE}",
            HEAD_BYTES_MAX >> 10
        ));
    }
    Ok(())
}

/// Adds the attributes of an event as headers, and returns its data (HTTP protocol binding, section 3.1).
fn binary(event: &Event, headers: &mut HeaderMap) -> Result<Bytes, String> {
    for (name, value) in event.attributes().filter(|(name, _)| *name != "datacontenttype") {
        let text = utf8_percent_encode(value, ENCODED).to_string();
        let header = HeaderName::from_bytes(format!("ce-{name}").as_bytes())
            .map_err(|_| format!("the attribute `{name}` cannot be a header"))?;
        let value = HeaderValue::from_str(&text).map_err(|_| format!("the attribute `{name}` cannot be sent"))?;
        headers.insert(header, value);
    }
    let default = match event.data {
        Data::None => None,
        Data::Json(_) => Some("application/json"),
        Data::Text(_) => Some("text/plain; charset=utf-8"),
        Data::Binary(_) => Some("application/octet-stream"),
    };
    if let Some(text) = event.datacontenttype.as_deref().or(default) {
        let value = HeaderValue::from_str(text).map_err(|_| "`datacontenttype` cannot be a header".to_owned())?;
        headers.insert(CONTENT_TYPE, value);
    }
    Ok(match &event.data {
        Data::None => Bytes::new(),
        Data::Json(bytes) | Data::Binary(bytes) => bytes.clone(),
        Data::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
    })
}

/// Adds the headers of W3C Trace Context.
fn add_trace_context(trace: Option<&TraceContext>, headers: &mut HeaderMap) {
    let Some(TraceContext { traceparent, tracestate }) = trace else { return };
    if let Ok(value) = HeaderValue::from_str(traceparent) {
        headers.insert("traceparent", value);
    }
    if let Some(Ok(value)) = tracestate.as_deref().map(HeaderValue::from_str) {
        headers.insert("tracestate", value);
    }
}
