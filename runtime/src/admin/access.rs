//! Checks every request before its handler runs: the host and the origin, the token and its role, and the limits on the
//! number of concurrent requests.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, LOCATION, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::task::JoinError;
use tokio::time::timeout;

use super::console::{assets, session};
use super::error::ApiError;
use super::guard::{self, Named};
use super::pace::{Hold, pace};
use super::permits::{Permit, Permits, Scan};
use super::tokens::{Caller, Role};
use super::{Admin, ApiResult};
use evoke_http::listener::ConnectionHandle;
use evoke_http::problem::Problem;
use evoke_model::Actor;

/// The shared data that [`check`] uses.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) admin: Arc<Admin>,
    pub(super) permits: Arc<Permits>,
}

/// The caller and the permit of the current request. The request counts as running while its permit exists. Handlers
/// get an `Exchange` as an axum extractor.
#[derive(Clone)]
pub(super) struct Exchange {
    caller: Caller,
    permits: Arc<Permits>,
    permit: Arc<Mutex<Option<Permit>>>,
}

impl Exchange {
    /// Returns the caller as the author of a change.
    pub(super) fn actor(&self) -> Actor {
        Actor::Operator(self.caller.name.clone())
    }

    /// Returns the holder of the token or of the session.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Replaces the permit of the request with a permit for followers. A follower is a request that stays open and
    /// streams the new entries of a list. Returns an error if there are too many followers.
    pub(super) fn follow(&self) -> Result<(), Problem> {
        let follower = self.permits.follower(self.caller.role)?;
        *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = Some(follower);
        Ok(())
    }

    /// Waits for a permit for a scan, for handlers that read much before they respond ([`Permits::scan`]).
    pub(super) async fn scan(&self) -> Scan {
        self.permits.scan(self.caller.role).await
    }

    /// Runs work that reads a body of this size in bytes ([`Permits::read_body`]).
    pub(super) async fn read_body<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        self.permits.read_body(bytes, work).await
    }
}

impl<S: Sync> FromRequestParts<S> for Exchange {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // `check` adds the `Exchange` to every request that needs a token.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| unauthorized("this request needs a token").into())
    }
}

/// Checks a request, runs its handler, and limits the time of the response.
pub(super) async fn check(State(access): State<Access>, request: Request<Body>, next: Next) -> Response<Body> {
    let mut response = match respond(&access, request, next).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    protect(response.headers_mut());
    response
}

async fn respond(access: &Access, mut request: Request<Body>, next: Next) -> ApiResult {
    let named = guard::check(&request, &access.admin.listener)?;
    if named == Named::Localhost
        && let Some(response) = without_console(&request, access)?
    {
        return Ok(response);
    }
    if opens_session(&request) {
        return open_session(access, request, next).await;
    }
    if is_open(&request) {
        return Ok(next.run(request).await);
    }
    let caller = authenticate(access, request.headers(), named)?;
    let permit = Arc::new(Mutex::new(Some(access.permits.request(request.method(), caller.role)?)));
    let exchange = Exchange { caller: caller.clone(), permits: access.permits.clone(), permit: permit.clone() };
    request.extensions_mut().insert(exchange);
    let connection = request.extensions().get::<ConnectionHandle>().cloned();
    let kept = connection.as_ref().map(ConnectionHandle::keep);
    let response = next.run(request).await;
    let hold = Hold { caller, clock: access.admin.clock.clone(), connection, _kept: kept, _permit: permit };
    Ok(response.map(|body| pace(body, hold)))
}

/// Responds to the requests of the console that name the listener `localhost`; see [`guard`]. Redirects a request for
/// the page to the URL of the listener. The browser keeps the fragment of the URL, which contains the view to show, or
/// the code that opens a session. Refuses a request that opens a session. Returns `None` for all other requests.
fn without_console(request: &Request<Body>, access: &Access) -> Result<Option<Response<Body>>, Problem> {
    let url = access.admin.listener.url();
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/") => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            let location = HeaderValue::from_str(&format!("{url}/"));
            response.headers_mut().extend(location.ok().map(|location| (LOCATION, location)));
            Ok(Some(response))
        }
        (&Method::POST, session::PATH) => {
            let detail =
                format!("another user of this machine can also listen at localhost; open the console at {url}/");
            Err(Problem::new(StatusCode::FORBIDDEN, detail))
        }
        _ => Ok(None),
    }
}

/// Returns true if a request needs no token and no permit. These are the health requests and the requests for files of
/// the console. Their handlers read no body.
fn is_open(request: &Request<Body>) -> bool {
    let path = request.uri().path();
    matches!(*request.method(), Method::GET | Method::HEAD)
        && (matches!(path, "/healthz" | "/readyz" | "/") || path.starts_with(assets::FOLDER))
}

/// Returns true if a request opens a session of the console. This request needs no token.
fn opens_session(request: &Request<Body>) -> bool {
    request.method() == Method::POST && request.uri().path() == session::PATH
}

/// Runs the handler of a request that opens a session of the console. The connection of a request with a permit is not
/// replaced by a later one. This request needs no token, so its permits are of a kind of their own, the request needs
/// one before its body is read, and the time for the body is short.
async fn open_session(access: &Access, request: Request<Body>, next: Next) -> ApiResult {
    let _permit = access.permits.session_request()?;
    let _kept = request.extensions().get::<ConnectionHandle>().map(ConnectionHandle::keep);
    // The handler waits only for the body.
    timeout(session::BODY_TIME_MAX, next.run(request)).await.map_err(|_| {
        let seconds = session::BODY_TIME_MAX.as_secs();
        let detail = format!("the body did not arrive within {seconds} s; send it together with the head");
        Problem::new(StatusCode::REQUEST_TIMEOUT, detail).into()
    })
}

fn authenticate(access: &Access, headers: &HeaderMap, named: Named) -> Result<Caller, Problem> {
    if named == Named::Own
        && !headers.contains_key(AUTHORIZATION)
        && let Some(caller) = session::authenticate(&access.admin, headers)
    {
        return Ok(caller);
    }
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(unauthorized("this request needs a token"));
    };
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let Some(token) = token else { return Err(unauthorized("the header Authorization has no bearer token")) };
    access.admin.tokens.authenticate(token).map_err(|rejected| unauthorized(&rejected.to_string()))
}

fn unauthorized(reason: &str) -> Problem {
    let detail = format!(
        "{reason}; send the header `Authorization: Bearer TOKEN` with the token in the file admin.token of the data \
         folder, or one made by `evoke token create`"
    );
    Problem::new(StatusCode::UNAUTHORIZED, detail).with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// Runs the handler of a route if the role of the caller suffices.
pub(super) async fn require(
    State(needed): State<Role>,
    exchange: Exchange,
    request: Request<Body>,
    next: Next,
) -> ApiResult {
    if needed == Role::Operator && exchange.caller.role != Role::Operator {
        let detail = format!(
            "the token {} has the role viewer; this request needs a token with the role operator, such as the one in \
             the file admin.token of the data folder",
            exchange.caller.name
        );
        return Err(Problem::new(StatusCode::FORBIDDEN, detail).into());
    }
    Ok(next.run(request).await)
}

/// Adds headers that forbid browsers to cache a response, to guess its content type, to embed it in a page, and to run
/// scripts in it. The responses with the files of the console already have their own `Cache-Control` and
/// `Content-Security-Policy`.
fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}
