//! Events over HTTP. One listener serves the http sources of all apps. A request gets 202 after the commit that stores
//! its events, or an error response (RFC 9457) that describes the mistake and its correction.
//!
//! `attributes.rs` fills in the placeholders of the source, such as `github.{header.x-github-event}`. A form body
//! becomes JSON data, and so does the query of a GET request without a body. The query of any other request is not
//! stored in its event, because queries often contain tokens. A placeholder can still name a parameter of the query.
//!
//! | status | when |
//! |---|---|
//! | 202 | every event is stored: `{"accepted": 1, "duplicates": 0, "events": [{"id": "…", "seq": 7, "duplicate": false}]}` |
//! | 200 | a body of the same form as with 202: every event is a duplicate, so its source and id were accepted before |
//! | 400 | the body contradicts its headers, or is not an event; or a value that a placeholder needs is missing or has a wrong form: the members `placeholder` and `attribute` of the response name it |
//! | 401 | the source has `auth`, and the sender is not verified; the response gives no further reason |
//! | 403 | an event claims a `type` or a `source` that the source does not accept: the member `attribute` says which; or `cors` does not allow the origin of the page that sent the request |
//! | 404, 405 | no source has this path, or no source with this path accepts the method |
//! | 422 | an event was not stored, because another sender has used its id (only for senders with a password or a certificate) |
//! | 408, 413, 415 | the body is too slow, too large (also decompressed), or in a format or coding that the source does not accept |
//! | 429 | too much from this source is pending (deliveries, or bytes of their events); `Retry-After` says when to retry |
//! | 503 | too much from all sources together is pending, or the disk is full; `Retry-After` says when to retry |
//! | 500 | the store failed |
//! | 508 | the request belongs to a chain of events that is too long, most likely a loop, see `hops.rs` |
//!
//! A source with `reply` waits for the result of the event, see [`reply`].
//!
//! OPTIONS gets 204 with `Allow`, unless a source declares the method OPTIONS. With `cors`, the response to a preflight
//! request lists what the page may do. With `handshake`, the response to the validation request of a CloudEvents sender
//! permits the sender to send events. Unless a source declares the method HEAD, a HEAD request goes to the source that
//! accepts GET: the sender is verified as for a GET request, the response is 200 without a body, and no event is made.
//!
//! The principal of an event is the sender that `auth` has verified. Without `auth`, it is the certificate of the
//! client, if the connection has one: `certificate:NAME`, see [`ClientCertificate::principal`].
//!
//! An endpoint with a [`RequestHandler`] makes no events: its function handles the request and returns the response.
//!
//! | status | when |
//! |---|---|
//! | any | the function's own response |
//! | 502, 504 | the function failed, or sent no response in time |
//! | 503 | the function already handles its maximum of concurrent requests or is still being compiled, or the events that it published cannot be stored |

mod accept;
mod admission;
mod attributes;
pub mod auth;
mod body;
pub mod cloudevents;
mod coding;
mod config;
mod cors;
mod counted;
mod duplicates;
#[cfg(test)]
mod end_to_end;
mod form;
mod handler;
mod handshake;
mod hops;
mod memory;
mod path;
mod peer;
mod placeholders;
mod problem;
mod receipt;
mod reply;
mod routes;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, VARY};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Body;
use tokio_util::sync::CancellationToken;

use crate::listener::{ClientCertificate, Limits, Listener, RequestBody};
use crate::problem::Problem;
use accept::ClaimPolicy;
pub use accept::{Accept, SourceGlob};
use admission::{Admission, Call, owners};
use attributes::{Query, RequestValues, Templates};
use auth::{Guard, Sender};
use body::Read;
use cloudevents::{Mode, Raw};
use coding::{Coding, Decoders};
pub use config::{HttpKind, HttpSource, Method as SourceMethod, claimed_app_error};
pub use cors::{AllowedHeader, AllowedOrigin, Cors};
use counted::ResponseBody;
use evoke_core::bus::{Bus, Claims, Held, Offer, Origin, Target};
use evoke_core::source::Health;
use evoke_model::Accepted;
use evoke_model::clock::Clock;
use evoke_model::event::{Data, Event};
pub use handler::{EnteredThrough, HandlerError, Payload, RequestHandler};
pub use handshake::Handshake;
use memory::{Budget, Memory};
pub use path::{PathParameters, PathPattern};
pub use peer::Peer;
pub use placeholders::{RequestTemplate, RequestValue};
use receipt::receipt;
use reply::{NoReply, Stopping};
pub use reply::{REPLY_HEADER, ReplyEvent, STATUS_ATTRIBUTE};
use routes::RouteMiss;
pub use routes::{RouteConflict, Routes};

/// The route of one http source.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The path as written in the manifest. `/a/` differs from `/a`; percent-encoding makes no difference.
    pub path: String,
    /// The parsed form of `path`.
    pub pattern: PathPattern,
    /// The methods that the source accepts.
    pub methods: Vec<Method>,
    /// The event type as written in the manifest, with its placeholders. With `None`, the source accepts only
    /// CloudEvents.
    pub type_: Option<String>,
    /// The templates of the attributes that are made from values of a request; `None` if there are none.
    templates: Option<Arc<Templates>>,
    /// The pages of other origins that can send requests.
    pub cors: Option<Arc<Cors>>,
    /// The senders of CloudEvents whose validation requests get a positive response.
    pub handshake: Option<Arc<Handshake>>,
    /// The types and sources that producers may claim in CloudEvents.
    policy: ClaimPolicy,
    /// Verifies the senders; `None` accepts all of them. If the source has `auth`, [`Endpoint::new`] sets a guard that
    /// refuses all requests. The caller, which can read the secrets, replaces this guard.
    pub auth: Option<Arc<Guard>>,
    /// The largest accepted body, in bytes.
    pub body_max: usize,
    /// The `source` attribute of events made from raw bodies, `/<app>/<name>`.
    pub uri: Arc<str>,
    /// The number of the source, which is the origin of all its events.
    pub origin: Origin,
    /// The functions that receive the events.
    pub target: Target,
    /// The function that handles the requests itself. If it is set, no events are made of the requests.
    pub handler: Option<Arc<dyn RequestHandler>>,
    /// The event for which a request waits, and which a function publishes. With `None`, the response is sent as soon
    /// as the event of the request is stored.
    pub reply: Option<ReplyEvent>,
    /// The health of the source: counts refused requests, and reports the requests that were refused for lack of room.
    pub health: Health,
}

impl Endpoint {
    /// Makes the endpoint of a source. `uri` is the `source` attribute of its events, and `target` receives them.
    pub fn new(source: &HttpSource, uri: &str, origin: Origin, target: Target) -> Self {
        let (uri, accept): (Arc<str>, _) = (uri.into(), source.accept.clone().unwrap_or_default());
        let fixed_type = source.type_.as_ref().and_then(RequestTemplate::fixed).map(str::to_owned);
        Self {
            path: source.path.clone(),
            pattern: PathPattern::new(&source.path),
            methods: source.methods.iter().copied().map(SourceMethod::to_http).collect(),
            type_: fixed_type.clone().or_else(|| source.type_.as_ref().map(ToString::to_string)),
            templates: Templates::of(source).map(Arc::new),
            cors: source.cors.clone().map(Arc::new),
            handshake: source.handshake.clone().map(Arc::new),
            policy: ClaimPolicy::new(uri.clone(), fixed_type, accept),
            auth: source.auth.as_ref().map(|auth| Arc::new(Guard::closed(auth, Arc::default()))),
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

/// The http sources of all apps; cheap to clone.
#[derive(Clone)]
pub struct Http(Arc<Inner>);

struct Inner {
    bus: Bus,
    clock: Clock,
    routes: RwLock<Arc<Routes>>,
    /// The memory for request bodies.
    budget: Budget,
    /// The memory for large responses.
    responses: Budget,
    decoders: Decoders,
}

impl Http {
    /// Creates sources that submit their events to `bus`.
    pub fn new(bus: Bus, clock: Clock, routes: Routes) -> Self {
        let (budget, responses, decoders) = (Budget::default(), Budget::default(), Decoders::default());
        Self(Arc::new(Inner { bus, clock, routes: RwLock::new(Arc::new(routes)), budget, responses, decoders }))
    }

    /// Replaces the routes, from the next request on.
    pub fn set_routes(&self, routes: Routes) {
        *self.0.routes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routes);
    }

    /// Serves on `listener` until `stop` is cancelled. Returns the number of connections that were cut off, see
    /// [`Listener::serve`].
    pub async fn serve(self, listener: Listener, limits: Limits, stop: CancellationToken) -> usize {
        // After `stop`, the wait for a reply ends after half of the drain time at the latest. So the request gets a
        // response before its connection is cut off.
        let stopping = Stopping { stop: stop.clone(), grace: limits.drain / 2 };
        let service = move |mut request: Request<RequestBody>, peer: SocketAddr| {
            let http = self.clone();
            request.extensions_mut().insert(Peer(peer.ip()));
            request.extensions_mut().insert(stopping.clone());
            async move { http.handle(request).await }
        };
        listener.serve(service, limits, stop).await
    }

    /// Handles one request. The memory of its body is counted for the [`Peer`] in the extensions of the request.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Error + Send + Sync + 'static,
    {
        let routes = self.0.routes.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut head, body) = request.into_parts();
        if head.method == Method::OPTIONS
            && let Some(response) = ask(&routes, &head)
        {
            return response.unwrap_or_else(Problem::response).map(Either::Left);
        }
        let route = match routes.find(&head.method, head.uri.path()) {
            Ok(route) => route,
            Err(RouteMiss::Method(allow)) if head.method == Method::OPTIONS => {
                return options(&allow).map(Either::Left);
            }
            Err(miss) => return miss.problem(&head.method).response().map(Either::Left),
        };
        let endpoint = route.endpoint;
        if let Some(parameters) = route.parameters {
            head.extensions.insert(parameters);
        }
        let Some(cors) = &endpoint.cors else { return self.respond(&endpoint, head, body).await };
        let added = match cors.check(&head) {
            Ok(added) => added,
            Err(problem) => {
                self.0.bus.count_refused(problem.reason());
                problem.count_in(&endpoint.health, self.0.clock.now_ms());
                return problem.response().map(Either::Left);
            }
        };
        let mut response = self.respond(&endpoint, head, body).await;
        add_headers(response.headers_mut(), &added);
        response
    }

    /// Handles one request to an endpoint.
    async fn respond<B>(&self, endpoint: &Endpoint, head: Parts, body: B) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Error + Send + Sync + 'static,
    {
        let response = match (self.hops(&head.headers), &endpoint.handler) {
            (Err(problem), _) => Err(problem),
            (Ok(hops), Some(handler)) => {
                match self.call(endpoint, hops, &**handler).run(Request::from_parts(head, body)).await {
                    Ok(response) => return response.map(Either::Right),
                    Err(problem) => Err(problem),
                }
            }
            (Ok(_), None) if head.method == Method::HEAD && !endpoint.methods.contains(&Method::HEAD) => {
                self.head_of_get(endpoint, &head, body).await.map(|response| response.map(Either::Left))
            }
            (Ok(hops), None) => self.take(endpoint, hops, head, body).await.inspect_err(|problem| {
                if problem.is_lack_of_room() {
                    endpoint.health.refused(|| problem.detail.clone());
                }
            }),
        };
        let response = response.inspect_err(|problem| problem.count_in(&endpoint.health, self.0.clock.now_ms()));
        response.unwrap_or_else(|problem| problem.response().map(Either::Left))
    }

    fn hops(&self, headers: &HeaderMap) -> Result<u32, Problem> {
        hops::of(headers).inspect_err(|problem| self.0.bus.count_refused(problem.reason()))
    }

    fn call<'e>(&'e self, endpoint: &'e Endpoint, hops: u32, handler: &'e dyn RequestHandler) -> Call<'e> {
        let (guard, now_ms) = (endpoint.auth.as_deref(), self.0.clock.now_ms());
        let (budget, responses) = (&self.0.budget, &self.0.responses);
        let entered = EnteredThrough { origin: endpoint.origin, hops };
        Call { handler, guard, budget, responses, entered, body_max: endpoint.body_max, now_ms }
    }

    /// Submits the events of a request to the bus, and builds the response.
    async fn take<B>(
        &self,
        endpoint: &Endpoint,
        hops: u32,
        head: Parts,
        body: B,
    ) -> Result<Response<ResponseBody>, Problem>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Error + 'static,
    {
        let (bus, origin) = (&self.0.bus, endpoint.origin);
        let owners = owners(origin, &head.extensions);
        let refused = |problem: &Problem| bus.count_refused(problem.reason());
        let mut permit = None;
        // Reserves a place among the requests that wait for a reply. If the source verifies senders, the place is
        // reserved further below, after the verification, so that unverified senders hold no places.
        if endpoint.reply.is_some() && endpoint.auth.is_none() {
            permit = Some(reply::reserve(bus, origin).inspect_err(refused)?);
        }
        let (events, claims, memory) = match self.events(endpoint, &head, body).await.inspect_err(refused)? {
            Taken::Events(events, claims, memory) => (events, claims, Arc::new(memory)),
            Taken::Challenge(challenge) => return Ok(auth::challenge_response(challenge).map(Either::Left)),
        };
        if endpoint.reply.is_some() && permit.is_none() {
            permit = Some(reply::reserve(bus, origin).inspect_err(refused)?);
        }
        let ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
        let first = permit.as_ref().and_then(|_| events.first().cloned());
        let principal = events.first().and_then(|event| event.principal.clone());
        let target = endpoint.target.clone();
        // Even if the client leaves, the events stay in memory until they are committed. So the bus holds their memory
        // permit until then.
        let held: Option<Held> = Some(memory.clone());
        let accepted = bus.accept(Offer { events, target, origin, hops, claims, held, ..Offer::default() }).await?;
        duplicates::check_sender(bus, principal, &ids, &accepted).await?;
        let (Some(reply), Some(permit), Some(event), Some(&result)) =
            (&endpoint.reply, permit, first, accepted.first())
        else {
            return Ok(counted::with_memory(receipt(&ids, &accepted, None), memory));
        };
        let unread = reply::check_duplicate(bus, result, &event, endpoint.templates.as_deref()).await?;
        let stopping = head.extensions.get::<Stopping>().cloned();
        // During the wait, only the id of the request's one event stays in memory. The id has at most `ID_BYTES_MAX`
        // bytes, so a receipt that is sent in place of the reply is small and needs no memory permit.
        drop((head, event, memory));
        let (Accepted::New(root) | Accepted::Duplicate(root)) = result;
        let waited = match unread {
            Some(none) => Err(none),
            None => reply::wait(bus, reply, permit, root, stopping).await,
        };
        let counted = waited.and_then(|response| {
            let memory = counted::reserve(&self.0.responses, owners, counted::length(response.body()));
            Ok(counted::with_memory(response, memory.map_err(|_| NoReply::Busy)?))
        });
        let no_reply = |none: NoReply| receipt(&ids, &accepted, Some((none, none.body(reply, root))));
        Ok(counted.unwrap_or_else(|none| no_reply(none).map(Either::Left)))
    }

    /// Responds to a HEAD request for a source that accepts GET. No event is made.
    async fn head_of_get<B>(&self, endpoint: &Endpoint, head: &Parts, body: B) -> Result<Response<Full<Bytes>>, Problem>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Error + 'static,
    {
        let verified = async {
            let (guard, now_ms) = (endpoint.auth.as_deref(), self.0.clock.now_ms());
            let admission = Admission::check_headers(guard, &head.headers, now_ms)?;
            if admission.needs_body() {
                let owners = owners(endpoint.origin, &head.extensions);
                let read = body::read(&self.0.budget, owners, body, endpoint.body_max).await?;
                admission.check_body(&read.bytes)?;
            }
            Ok::<_, Problem>(())
        };
        verified.await.inspect_err(|problem| self.0.bus.count_refused(problem.reason()))?;
        let mut response = Response::new(Full::default());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    /// Reads the events of a request. The returned memory permit must be held until the events are committed.
    async fn events<B>(&self, endpoint: &Endpoint, head: &Parts, body: B) -> Result<Taken, Problem>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Error + 'static,
    {
        let now_ms = self.0.clock.now_ms();
        let raw = Raw { type_: endpoint.type_.as_deref(), source: &endpoint.uri, now_ms };
        let guard = endpoint.auth.as_deref();
        let admission = Admission::check_headers(guard, &head.headers, now_ms)?;
        // `form` is the format of the body. If the sender can only be verified with the body, an error in the format is
        // reported only after the verification.
        let form = Mode::of(&head.headers, &raw).map_err(Problem::from).and_then(|mode| match mode {
            Mode::Batch if endpoint.reply.is_some() => Err(Problem::malformed(reply::BATCH_REFUSED)),
            mode => Ok((mode, Coding::of(&head.headers)?)),
        });
        let form = if admission.needs_body() { form } else { Ok(form?) };
        self.0.bus.check_room(endpoint.origin)?;
        let owners = owners(endpoint.origin, &head.extensions);
        let Read { bytes, memory } = body::read(&self.0.budget, owners, body, endpoint.body_max).await?;
        // The raw bytes are verified before anything decodes or parses them.
        let sender = admission.check_body(&bytes)?;
        if let Some(challenge) = sender.as_ref().and_then(|sender| sender.challenge.clone()) {
            return Ok(Taken::Challenge(challenge));
        }
        let (mode, coding) = form?;
        let is_signed = sender.as_ref().is_some_and(|sender| sender.is_signature);
        if mode == Mode::Binary && is_signed {
            return Err(Problem::malformed(auth::BINARY_MODE));
        }
        let bytes = match coding {
            Some(coding) => coding::decode(&self.0.decoders, owners, coding, bytes, endpoint.body_max, &memory).await?,
            None => bytes,
        };
        let mut length = bytes.len();
        let mut events = mode.read(&head.headers, bytes, &raw)?;
        if let (Mode::Raw, [event]) = (mode, events.as_mut_slice()) {
            length += form::convert(event, endpoint.body_max)?.unwrap_or_default();
            if head.method == Method::GET {
                if is_signed && event.data == Data::None && head.uri.query().is_some() {
                    return Err(Problem::malformed(auth::QUERY_DATA));
                }
                length += form::add_query(event, head.uri.query(), endpoint.body_max)?;
            }
        }
        let certificate = || head.extensions.get::<ClientCertificate>().map(|shown| shown.event_principal().clone());
        let (principal, id) = match sender {
            Some(Sender { principal, id, .. }) => (Some(principal), id),
            None => (certificate(), None),
        };
        events.iter_mut().for_each(|event| event.principal.clone_from(&principal));
        if let (Mode::Raw, Some(id), [event]) = (mode, id, events.as_mut_slice()) {
            event.id = id;
        }
        if let Some(templates) = &endpoint.templates {
            let parameters = head.extensions.get::<PathParameters>();
            let query = Query::new(head.uri.query());
            let values = RequestValues { headers: &head.headers, query, parameters };
            for (index, event) in events.iter_mut().enumerate() {
                let index = (mode == Mode::Batch).then_some(index);
                templates.apply(event, mode == Mode::Raw, &values, &endpoint.policy, index)?;
            }
        }
        // The size of the body does not cover all attributes: some come from the headers and the path, and each event
        // of a batch has its own copies.
        memory.grow(length + attributes::memory_of_request(&events))?;
        if mode == Mode::Raw {
            return Ok(Taken::Events(events, None, memory));
        }
        let router = self.0.bus.router();
        for (index, event) in events.iter().enumerate() {
            endpoint.policy.check(&router, event, (mode == Mode::Batch).then_some(index))?;
        }
        Ok(Taken::Events(events, Some(endpoint.policy.claims()), memory))
    }
}

/// The content of a request.
enum Taken {
    /// Events, the claims that the bus checks against the active apps, and the memory permit of the body.
    Events(Vec<Event>, Option<Claims>, Memory),
    /// The body of the response to a verified sender that only tests the endpoint.
    Challenge(String),
}

/// Returns the response to a preflight request of a page (`cors`), to a validation request of a CloudEvents sender
/// (`handshake`), and to `OPTIONS *`. Returns `None` for other requests, and if the source does not have the key `cors`
/// or `handshake` that the request needs.
fn ask(routes: &Routes, head: &Parts) -> Option<Result<Response<Full<Bytes>>, Problem>> {
    let path = head.uri.path();
    if let Some(method) = cors::requested_method(head) {
        let endpoint = routes.find(&method, path).ok()?.endpoint;
        return Some(endpoint.cors.as_ref()?.preflight(head, &endpoint.methods));
    }
    if handshake::is_validation(&head.headers) {
        let endpoint = routes.find(&Method::POST, path).ok()?.endpoint;
        return Some(endpoint.handshake.as_ref()?.respond(&head.headers));
    }
    // `OPTIONS *` is about the server as a whole (RFC 9110, section 9.3.7).
    (path == "*").then(|| Ok(options("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")))
}

/// Adds headers to a response. `Vary` is a list, so its value is appended; other headers are replaced.
fn add_headers(headers: &mut HeaderMap, added: &HeaderMap) {
    for (name, value) in added {
        if name == VARY {
            headers.append(name, value.clone());
        } else {
            headers.insert(name, value.clone());
        }
    }
}

fn options(allow: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().extend(HeaderValue::from_str(allow).ok().map(|value| (ALLOW, value)));
    response
}
