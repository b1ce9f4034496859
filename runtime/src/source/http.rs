//! Events over HTTP. One listener serves the http sources of all apps; a request is answered 202 after the commit
//! that holds its events, and refused with the reason and what would be right (RFC 9457).
//!
//! | status | when |
//! |---|---|
//! | 202 | every event is stored: `{"accepted": 1, "duplicates": 0, "events": [{"id": "…", "seq": 7, "duplicate": false}]}` |
//! | 200 | the same, when none of them was stored now: each was known, its source and id having been accepted before |
//! | 400 | the body is not what its headers say, or not an event |
//! | 404, 405 | no source has this path, or none with this method |
//! | 408, 413, 415 | the body is too slow, too large, or of no form that the source takes |
//! | 429 | too much is pending that came from this source; `Retry-After` says when to come back |
//! | 503 | too much is pending as a whole, or the disk is full; `Retry-After` says when to come back |
//! | 500 | the store failed |
//!
//! An endpoint with an [`Answerer`] stores nothing: what answers is its function.
//!
//! | status | when |
//! |---|---|
//! | any | the function answered |
//! | 502, 504 | it failed, or did not answer in time |
//! | 503 | it answers as many requests as it may at once |

mod answerer;
mod body;
mod cloudevents;
#[cfg(test)]
mod end_to_end;
mod problem;

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Body;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Offer, Origin, Target};
use crate::clock::Clock;
use crate::event::Event;
use crate::listener::{Limits, Listener};
use crate::source::Health;
use crate::store::{Accepted, Seq};
pub use answerer::{Answerer, Payload, Unanswered};
use body::{Budget, Memory, Read};
use cloudevents::{Mode, Raw};
use problem::{Problem, json};

/// One http source, as requests find it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The path of its requests, compared byte by byte: `/a/` is another path than `/a`, and `%61` is no `a`.
    pub path: String,
    /// The methods that it takes.
    pub methods: Vec<Method>,
    /// The type of the event that a raw body becomes; `None`: only CloudEvents are taken.
    pub type_: Option<String>,
    /// The largest body in bytes.
    pub body_max: usize,
    /// The `source` attribute of the events that raw bodies become, `/<app>/<name>`.
    pub uri: String,
    /// Who its events are for.
    pub target: Target,
    /// What answers its requests; with it no event is made of them.
    pub answerer: Option<Arc<dyn Answerer>>,
    /// How it is doing: it says when it has no room.
    pub health: Health,
}

/// The endpoints by path.
#[derive(Debug, Default)]
pub struct Routes {
    by_path: HashMap<String, Vec<Arc<Endpoint>>>,
}

/// Two sources want the same requests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{method} {path} belongs to {first} and cannot be taken by {second}: give one of them another path")]
pub struct RouteConflict {
    /// The method that both take.
    pub method: Method,
    /// The path that both have.
    pub path: String,
    /// The source that came first.
    pub first: String,
    /// The source that came second.
    pub second: String,
}

impl Routes {
    /// The table of these endpoints.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Result<Self, RouteConflict> {
        let mut by_path: HashMap<String, Vec<Arc<Endpoint>>> = HashMap::new();
        for endpoint in endpoints {
            let others = by_path.entry(endpoint.path.clone()).or_default();
            for other in others.iter() {
                if let Some(method) = endpoint.methods.iter().find(|method| other.methods.contains(method)) {
                    return Err(RouteConflict {
                        method: method.clone(),
                        path: endpoint.path.clone(),
                        first: other.uri.clone(),
                        second: endpoint.uri,
                    });
                }
            }
            others.push(Arc::new(endpoint));
        }
        Ok(Self { by_path })
    }

    fn find(&self, method: &Method, path: &str) -> Result<Arc<Endpoint>, Missed> {
        let Some(endpoints) = self.by_path.get(path) else {
            let other = path.strip_suffix('/').map_or_else(|| format!("{path}/"), str::to_owned);
            let hint =
                if self.by_path.contains_key(&other) { format!(", but one has `{other}`") } else { String::new() };
            return Err(Missed::Path(format!("no source has the path `{path}`{hint}; paths are compared exactly")));
        };
        endpoints.iter().find(|endpoint| endpoint.methods.contains(method)).cloned().ok_or_else(|| {
            let mut methods: Vec<&str> = endpoints.iter().flat_map(|e| &e.methods).map(Method::as_str).collect();
            methods.push(Method::OPTIONS.as_str());
            Missed::Method(methods.join(", "))
        })
    }
}

/// Why no endpoint takes a request.
enum Missed {
    /// The path is nobody's, in words.
    Path(String),
    /// These methods are taken, as in `Allow`.
    Method(String),
}

/// The http sources of all apps; cheap to clone.
#[derive(Clone)]
pub struct Http(Arc<Inner>);

struct Inner {
    bus: Bus,
    clock: Clock,
    routes: RwLock<Arc<Routes>>,
    budget: Budget,
}

impl Http {
    /// Sources that hand what they are sent to `bus`.
    pub fn new(bus: Bus, clock: Clock, routes: Routes) -> Self {
        Self(Arc::new(Inner { bus, clock, routes: RwLock::new(Arc::new(routes)), budget: Budget::default() }))
    }

    /// Puts other routes in force, from the next request on.
    pub fn set_routes(&self, routes: Routes) {
        *self.0.routes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routes);
    }

    /// Serves on `listener` until `stop`; see [`Listener::serve`].
    pub async fn serve(self, listener: Listener, limits: Limits, stop: CancellationToken) -> usize {
        let service = move |request, _peer| {
            let http = self.clone();
            async move { http.answer(request).await }
        };
        listener.serve(service, limits, stop).await
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Either<Full<Bytes>, Payload>>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Error + Send + Sync + 'static,
    {
        let routes = self.0.routes.read().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = match routes.find(request.method(), request.uri().path()) {
            Ok(endpoint) => match &endpoint.answerer {
                Some(answerer) => match answerer::relay(&**answerer, request, endpoint.body_max).await {
                    Ok(answer) => return answer.map(Either::Right),
                    Err(problem) => Err(problem),
                },
                None => self.take(&endpoint, request).await.inspect_err(|problem| {
                    if problem.is_for_want_of_room() {
                        endpoint.health.refused(|| problem.detail.clone());
                    }
                }),
            },
            Err(Missed::Path(detail)) => Err(Problem::new(StatusCode::NOT_FOUND, detail)),
            Err(Missed::Method(allow)) if request.method() == Method::OPTIONS => Ok(options(&allow)),
            Err(Missed::Method(allow)) => {
                Err(Problem::method(&allow, format!("{} is not taken here; send {allow}", request.method())))
            }
        };
        answer.unwrap_or_else(Problem::response).map(Either::Left)
    }

    /// Hands the events of a request to the bus, and says what became of them.
    async fn take<B>(&self, endpoint: &Endpoint, request: Request<B>) -> Result<Response<Full<Bytes>>, Problem>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Error + 'static,
    {
        let (bus, origin) = (&self.0.bus, Origin::of(&endpoint.uri));
        let read = self.events(endpoint, origin, request).await;
        let (events, _memory) = read.inspect_err(|problem| bus.count_refused(problem.reason()))?;
        let ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
        let offer = Offer { events, target: endpoint.target.clone(), origin, ..Offer::default() };
        let accepted = bus.accept(offer).await?;
        Ok(receipt(&ids, &accepted))
    }

    /// The events of a request, and its part of the memory for bodies: kept until the events are committed.
    async fn events<B>(
        &self,
        endpoint: &Endpoint,
        origin: Origin,
        request: Request<B>,
    ) -> Result<(Vec<Event>, Memory), Problem>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Error + 'static,
    {
        let (head, mut body) = request.into_parts();
        let now_ms = self.0.clock.now_ms();
        let raw = Raw { type_: endpoint.type_.as_deref(), source: &endpoint.uri, now_ms };
        let mode = Mode::of(&head.headers, &raw)?;
        if let Err(refused) = self.0.bus.check_room(origin) {
            body::discard(&mut body).await;
            return Err(refused.into());
        }
        let Read { bytes, memory } = self.0.budget.read(&head.headers, body, endpoint.body_max).await?;
        Ok((mode.read(&head.headers, bytes, &raw)?, memory))
    }
}

/// What became of the events of a request, in their order.
#[derive(serde::Serialize)]
struct Receipt<'a> {
    /// Stored now.
    accepted: usize,
    /// Stored before.
    duplicates: usize,
    events: Vec<ReceiptLine<'a>>,
}

#[derive(serde::Serialize)]
struct ReceiptLine<'a> {
    id: &'a str,
    seq: Seq,
    duplicate: bool,
}

fn receipt(ids: &[String], accepted: &[Accepted]) -> Response<Full<Bytes>> {
    let events: Vec<_> = ids
        .iter()
        .zip(accepted)
        .map(|(id, accepted)| match *accepted {
            Accepted::New(seq) => ReceiptLine { id, seq, duplicate: false },
            Accepted::Duplicate(seq) => ReceiptLine { id, seq, duplicate: true },
        })
        .collect();
    let duplicates = events.iter().filter(|event| event.duplicate).count();
    let accepted = events.len() - duplicates;
    let status = if duplicates > 0 && accepted == 0 { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = Response::new(json(&Receipt { accepted, duplicates, events }));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn options(allow: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().extend(HeaderValue::from_str(allow).ok().map(|value| (ALLOW, value)));
    response
}
