//! Events over HTTP. One listener serves the http sources of all apps. A request gets 202 after the commit that stores
//! its events, or a problem (RFC 9457) that says what is wrong and what would be right.
//!
//! | status | when |
//! |---|---|
//! | 202 | every event is stored: `{"accepted": 1, "duplicates": 0, "events": [{"id": "…", "seq": 7, "duplicate": false}]}` |
//! | 200 | the same body, when every event is a duplicate: its source and id were accepted before |
//! | 400 | the body contradicts its headers, or is not an event |
//! | 403 | an event claims a `type` or a `source` that the source does not accept: `attribute` names it |
//! | 404, 405 | no source has this path, or no source with this path accepts the method |
//! | 408, 413, 415 | the body is too slow, too large, or in a format that the source does not accept |
//! | 429 | too much from this source is pending; `Retry-After` says when to retry |
//! | 503 | too much is pending over all sources, or the disk is full; `Retry-After` says when to retry |
//! | 500 | the store failed |
//!
//! A source with `reply` waits for the result of the event, see [`reply`].
//!
//! An endpoint with a [`RequestHandler`] makes no events: its function handles the request and returns the response.
//!
//! | status | when |
//! |---|---|
//! | any | the function's own response |
//! | 502, 504 | the function failed, or sent no response in time |
//! | 503 | the function already handles its maximum of concurrent requests, or the events that it published cannot be stored |

mod accept;
mod body;
pub mod cloudevents;
mod config;
#[cfg(test)]
mod end_to_end;
mod handler;
mod memory;
mod problem;
mod reply;

use std::collections::HashMap;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Body;
use tokio_util::sync::CancellationToken;

use crate::listener::{Limits, Listener, RequestBody, counted_network};
use crate::problem::{Problem, json};
use accept::ClaimPolicy;
pub use accept::{Accept, SourceGlob};
use body::Read;
use cloudevents::{Mode, Raw};
pub use config::{HttpKind, HttpSource, Method as SourceMethod, claimed_app_error};
use evoke_core::bus::{Bus, Claims, Offer, Origin, Target};
use evoke_core::source::Health;
use evoke_model::clock::Clock;
use evoke_model::event::Event;
use evoke_model::{Accepted, Seq};
pub use handler::{EnteredThrough, HandlerError, Payload, RequestHandler};
use memory::{Budget, Memory, Owners};
use reply::{NoReply, NoReplyBody, Stopping};
pub use reply::{REPLY_HEADER, ReplyEvent, STATUS_ATTRIBUTE};

/// The route of one http source.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The path, compared byte by byte: `/a/` differs from `/a`, and `%61` differs from `a`.
    pub path: String,
    /// The methods that the source accepts.
    pub methods: Vec<Method>,
    /// The event type; with `None` the source accepts only CloudEvents.
    pub type_: Option<String>,
    /// The types and sources that producers may claim in CloudEvents.
    policy: ClaimPolicy,
    /// The largest accepted body, in bytes.
    pub body_max: usize,
    /// The `source` attribute of events made from raw bodies, `/<app>/<name>`.
    pub uri: Arc<str>,
    /// The origin of all events.
    pub origin: Origin,
    /// The functions that receive the events.
    pub target: Target,
    /// Handles the requests instead of the bus; no events are made of them.
    pub handler: Option<Arc<dyn RequestHandler>>,
    /// The event that a request waits for; `None` responds as soon as the event is stored.
    pub reply: Option<ReplyEvent>,
    /// The source's health; reports refusals for lack of room.
    pub health: Health,
}

impl Endpoint {
    /// Makes the endpoint of a source that offers its events under `uri` to `target`.
    pub fn new(source: &HttpSource, uri: &str, origin: Origin, target: Target) -> Self {
        let (uri, accept): (Arc<str>, _) = (uri.into(), source.accept.clone().unwrap_or_default());
        Self {
            path: source.path.clone(),
            methods: source.methods.iter().copied().map(SourceMethod::to_http).collect(),
            type_: source.type_.clone(),
            policy: ClaimPolicy::new(uri.clone(), source.type_.clone(), accept),
            body_max: usize::try_from(source.max_body.0).unwrap_or(usize::MAX),
            uri,
            origin,
            target,
            handler: None,
            reply: source.reply.clone(),
            health: Health::default(),
        }
    }
}

/// The endpoints by path.
#[derive(Debug, Default)]
pub struct Routes {
    by_path: HashMap<String, Vec<Arc<Endpoint>>>,
}

/// Two sources declare the same path and method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{method} {path} is declared by both {first} and {second}: give one of them another path")]
pub struct RouteConflict {
    /// The method that both declare.
    pub method: Method,
    /// The path that both declare.
    pub path: String,
    /// The source that was declared first.
    pub first: String,
    /// The source that was declared second.
    pub second: String,
}

impl Routes {
    /// Builds the routing table; fails when two endpoints share a path and a method.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Result<Self, RouteConflict> {
        let mut by_path: HashMap<String, Vec<Arc<Endpoint>>> = HashMap::new();
        for endpoint in endpoints {
            let others = by_path.entry(endpoint.path.clone()).or_default();
            for other in others.iter() {
                if let Some(method) = endpoint.methods.iter().find(|method| other.methods.contains(method)) {
                    return Err(RouteConflict {
                        method: method.clone(),
                        path: endpoint.path.clone(),
                        first: other.uri.to_string(),
                        second: endpoint.uri.to_string(),
                    });
                }
            }
            others.push(Arc::new(endpoint));
        }
        Ok(Self { by_path })
    }

    fn find(&self, method: &Method, path: &str) -> Result<Arc<Endpoint>, RouteMiss> {
        let Some(endpoints) = self.by_path.get(path) else {
            let other = path.strip_suffix('/').map_or_else(|| format!("{path}/"), str::to_owned);
            let hint =
                if self.by_path.contains_key(&other) { format!(", but a source has `{other}`") } else { String::new() };
            return Err(RouteMiss::Path(format!("no source has the path `{path}`{hint}; paths must match exactly")));
        };
        endpoints.iter().find(|endpoint| endpoint.methods.contains(method)).cloned().ok_or_else(|| {
            let mut methods: Vec<&str> = endpoints.iter().flat_map(|e| &e.methods).map(Method::as_str).collect();
            methods.push(Method::OPTIONS.as_str());
            RouteMiss::Method(methods.join(", "))
        })
    }
}

/// The reason for a 404 or 405: no endpoint matches a request.
enum RouteMiss {
    /// No source has the path. Contains the message for the client.
    Path(String),
    /// Sources have the path, but with other methods. Contains the value of `Allow`.
    Method(String),
}

/// The address that a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

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
    /// Creates sources that submit their events to `bus`.
    pub fn new(bus: Bus, clock: Clock, routes: Routes) -> Self {
        Self(Arc::new(Inner { bus, clock, routes: RwLock::new(Arc::new(routes)), budget: Budget::default() }))
    }

    /// Replaces the routes, from the next request on.
    pub fn set_routes(&self, routes: Routes) {
        *self.0.routes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routes);
    }

    /// Serves on `listener` until `stop`; returns the number of connections that were cut off, see [`Listener::serve`].
    pub async fn serve(self, listener: Listener, limits: Limits, stop: CancellationToken) -> usize {
        // A request that waits for a reply gets a response before its connection is cut off.
        let stopping = Stopping { stop: stop.clone(), grace: limits.drain / 2 };
        let service = move |mut request: Request<RequestBody>, peer: SocketAddr| {
            let http = self.clone();
            request.extensions_mut().insert(Peer(peer.ip()));
            request.extensions_mut().insert(stopping.clone());
            async move { http.handle(request).await }
        };
        listener.serve(service, limits, stop).await
    }

    /// Handles one request. Its body counts for the [`Peer`] among the extensions.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Either<Full<Bytes>, Payload>>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Error + Send + Sync + 'static,
    {
        let routes = self.0.routes.read().unwrap_or_else(PoisonError::into_inner).clone();
        let response = match routes.find(request.method(), request.uri().path()) {
            Ok(endpoint) => match &endpoint.handler {
                Some(handler) => match handler::call(&**handler, request, endpoint.origin, endpoint.body_max).await {
                    Ok(response) => return response.map(Either::Right),
                    Err(problem) => Err(problem),
                },
                None => self.take(&endpoint, request).await.inspect_err(|problem| {
                    if problem.is_lack_of_room() {
                        endpoint.health.refused(|| problem.detail.clone());
                    }
                }),
            },
            Err(RouteMiss::Path(detail)) => Err(Problem::new(StatusCode::NOT_FOUND, detail)),
            Err(RouteMiss::Method(allow)) if request.method() == Method::OPTIONS => Ok(options(&allow)),
            Err(RouteMiss::Method(allow)) => Err(Problem::method(
                &allow,
                format!("the method {} is not allowed here; use {allow}", request.method()),
            )),
        };
        response.unwrap_or_else(Problem::response).map(Either::Left)
    }

    /// Submits the events of a request to the bus, and builds the response.
    async fn take<B>(&self, endpoint: &Endpoint, request: Request<B>) -> Result<Response<Full<Bytes>>, Problem>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Error + 'static,
    {
        let Some(reply) = &endpoint.reply else {
            let (ids, accepted, _) = self.accept(endpoint, request).await?;
            return Ok(receipt(&ids, &accepted, None));
        };
        let bus = &self.0.bus;
        let (head, mut body) = request.into_parts();
        let reserved = reply::reserve(bus, endpoint.origin, &head.headers, &mut body).await;
        let permit = reserved.inspect_err(|problem| bus.count_refused(problem.reason()))?;
        let stopping = head.extensions.get::<Stopping>().cloned();
        let (ids, accepted, event) = self.accept(endpoint, Request::from_parts(head, body)).await?;
        let (Some(event), Some(&first)) = (event, accepted.first()) else { return Ok(receipt(&ids, &accepted, None)) };
        reply::check_duplicate(bus, first, &event).await?;
        // Nothing of the request's body stays in memory during the wait.
        drop(event);
        let (Accepted::New(root) | Accepted::Duplicate(root)) = first;
        let waited = reply::wait(bus, reply, permit, root, stopping).await;
        Ok(waited.unwrap_or_else(|none| receipt(&ids, &accepted, Some((none, none.body(reply, root))))))
    }

    /// Submits the events of a request to the bus. Returns their ids and the results; with `reply`, also the first event.
    async fn accept<B>(
        &self,
        endpoint: &Endpoint,
        request: Request<B>,
    ) -> Result<(Vec<String>, Vec<Accepted>, Option<Event>), Problem>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Error + 'static,
    {
        let bus = &self.0.bus;
        let read = self.events(endpoint, request).await;
        let (events, claims, _memory) = read.inspect_err(|problem| bus.count_refused(problem.reason()))?;
        let ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
        let first = endpoint.reply.as_ref().and_then(|_| events.first().cloned());
        let (target, origin) = (endpoint.target.clone(), endpoint.origin);
        let accepted = bus.accept(Offer { events, target, origin, claims, ..Offer::default() }).await?;
        Ok((ids, accepted, first))
    }

    /// Reads the events of a request. The returned memory permit must be held until the events are committed.
    async fn events<B>(
        &self,
        endpoint: &Endpoint,
        request: Request<B>,
    ) -> Result<(Vec<Event>, Option<Claims>, Memory), Problem>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Error + 'static,
    {
        let (head, mut body) = request.into_parts();
        let now_ms = self.0.clock.now_ms();
        let raw = Raw { type_: endpoint.type_.as_deref(), source: &endpoint.uri, now_ms };
        let mode = Mode::of(&head.headers, &raw)?;
        if let Err(refused) = self.0.bus.check_room(endpoint.origin) {
            body::discard(&mut body).await;
            return Err(refused.into());
        }
        let peer =
            head.extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| counted_network(peer.0));
        let owners = Owners { source: endpoint.origin, peer };
        let Read { bytes, memory } = body::read(&self.0.budget, owners, &head.headers, body, endpoint.body_max).await?;
        let events = mode.read(&head.headers, bytes, &raw)?;
        if mode == Mode::Raw {
            return Ok((events, None, memory));
        }
        let router = self.0.bus.router();
        for (index, event) in events.iter().enumerate() {
            endpoint.policy.check(&router, event, (mode == Mode::Batch).then_some(index))?;
        }
        Ok((events, Some(endpoint.policy.claims()), memory))
    }
}

/// The response body: the result of each event, in request order.
#[derive(serde::Serialize)]
struct Receipt<'a> {
    /// Events stored by this request.
    accepted: usize,
    /// Events that were stored earlier.
    duplicates: usize,
    events: Vec<EventReceipt<'a>>,
    /// Why the response is not the event that the request waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<NoReplyBody>,
}

#[derive(serde::Serialize)]
struct EventReceipt<'a> {
    id: &'a str,
    seq: Seq,
    duplicate: bool,
}

fn receipt(ids: &[String], accepted: &[Accepted], no_reply: Option<(NoReply, NoReplyBody)>) -> Response<Full<Bytes>> {
    let events: Vec<_> = ids
        .iter()
        .zip(accepted)
        .map(|(id, accepted)| match *accepted {
            Accepted::New(seq) => EventReceipt { id, seq, duplicate: false },
            Accepted::Duplicate(seq) => EventReceipt { id, seq, duplicate: true },
        })
        .collect();
    let duplicates = events.iter().filter(|event| event.duplicate).count();
    let accepted = events.len() - duplicates;
    // A client that waits for a reply must not take this body for it.
    let is_known = duplicates > 0 && accepted == 0 && no_reply.is_none();
    let (header, reply) = no_reply.map(|(none, body)| (none.header(), body)).unzip();
    let mut response = Response::new(json(&Receipt { accepted, duplicates, events, reply }));
    *response.status_mut() = if is_known { StatusCode::OK } else { StatusCode::ACCEPTED };
    response.headers_mut().extend(header.map(|header| (REPLY_HEADER, header)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn options(allow: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().extend(HeaderValue::from_str(allow).ok().map(|value| (ALLOW, value)));
    response
}
