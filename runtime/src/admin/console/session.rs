//! Opens, shows and ends sessions of the console.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http::header::{COOKIE, HeaderName, HeaderValue, SET_COOKIE};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::sessions::{CODE_TIME, Opened, SESSION_TIME};
use crate::admin::access::Exchange;
use crate::admin::error::ApiError;
use crate::admin::request::parse_body;
use crate::admin::tokens::{Caller, Role};
use crate::admin::view::Count;
use crate::admin::{Admin, ApiResult};
use evoke_http::problem::Problem;
use evoke_model::clock::rfc3339;

/// The path of the requests that open, show or end a session.
pub(in crate::admin) const PATH: &str = "/api/v1/console/session";
/// The request header with the key of the session.
const KEY: HeaderName = HeaderName::from_static("x-evoke-console");
/// Maximum size of the body that opens a session, in bytes. It is small because this request needs no token.
pub(in crate::admin) const BODY_MAX: usize = 1024;
/// Maximum time from the end of the head until the body that opens a session has arrived. Browsers send the body
/// together with the head.
pub(in crate::admin) const BODY_TIME_MAX: Duration = Duration::from_secs(1);

/// A new code.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct Code {
    /// The code, which opens one session.
    code: String,
    /// How long the code is valid, in seconds.
    expires_in_s: u64,
    /// The address of the listener, for the link to the console; absent with TLS. Without TLS, the link must have this
    /// address and not the name `localhost`, at which another user of the machine can also listen. With TLS, the link
    /// has the name by which the client knows the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    code: String,
}

/// A session.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct Session {
    /// The key; only in the response that opens the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Name of the token that opened the session.
    name: String,
    /// Rights of the session.
    role: Role,
    /// When the session ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    /// Version of Evoke.
    version: &'static str,
}

impl Session {
    fn of(caller: &Caller, key: Option<String>) -> Self {
        let (name, expires) = (caller.name.to_string(), caller.expires_ms().map(rfc3339));
        Self { key, name, role: caller.role, expires, version: env!("CARGO_PKG_VERSION") }
    }
}

fn no_random(error: &anyhow::Error) -> ApiError {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into()
}

pub(in crate::admin) async fn make_code(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
) -> ApiResult<(StatusCode, Json<Code>)> {
    let code = admin.console.sessions.make_code(exchange.caller().clone()).map_err(|error| no_random(&error))?;
    let address = admin.listener.tls.is_none().then_some(admin.listener.address);
    Ok((StatusCode::CREATED, Json(Code { code, expires_in_s: CODE_TIME.as_secs(), address })))
}

pub(in crate::admin) async fn open(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<(StatusCode, [(HeaderName, HeaderValue); 1], Json<Session>)> {
    let Open { code } = parse_body(&headers, body, r#"send {"code": "…"}"#)?;
    let opened = admin.console.sessions.open(&code, admin.clock.now_ms()).map_err(|error| no_random(&error))?;
    let Some(Opened { cookie, key, caller }) = opened else {
        let detail =
            "the code is not valid: each code opens one session, within two minutes; run `evoke console` for a new one";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, detail).into());
    };
    tracing::info!("a session of the console was opened with the token {}", caller.name);
    let cookie = set_cookie(&admin, &cookie, SESSION_TIME.as_secs())?;
    Ok((StatusCode::CREATED, [(SET_COOKIE, cookie)], Json(Session::of(&caller, Some(key)))))
}

pub(in crate::admin) async fn show(exchange: Exchange) -> Json<Session> {
    Json(Session::of(exchange.caller(), None))
}

pub(in crate::admin) async fn close(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
) -> ApiResult<([(HeaderName, HeaderValue); 1], Json<Count>)> {
    let closed = cookie(&admin, &headers).is_some_and(|cookie| admin.console.sessions.close(cookie));
    if !closed {
        return Err(Problem::not_found(
            "there is no session to end: the request has no cookie of an open session of the console",
        )
        .into());
    }
    Ok(([(SET_COOKIE, set_cookie(&admin, "", 0)?)], Json(Count { count: 1 })))
}

/// Returns the caller of a session. Returns `None` if the request does not have both the cookie and the key of an open
/// session.
pub(in crate::admin) fn authenticate(admin: &Admin, headers: &HeaderMap) -> Option<Caller> {
    let mut keys = headers.get_all(KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else { return None };
    let cookie = cookie(admin, headers)?;
    admin.console.sessions.authenticate(cookie, key.to_str().ok()?, admin.clock.now_ms())
}

/// Returns the name of the cookie. The name contains the port, because browsers send a cookie to all ports of a host.
/// Without the port, two processes on one machine would replace each other's cookies.
fn cookie_name(admin: &Admin) -> String {
    format!("evoke-console-{}", admin.listener.address.port())
}

fn cookie<'a>(admin: &Admin, headers: &'a HeaderMap) -> Option<&'a str> {
    let name = cookie_name(admin);
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(found, value)| (found == name).then_some(value))
}

fn set_cookie(admin: &Admin, value: &str, seconds: u64) -> ApiResult<HeaderValue> {
    let (name, secure) = (cookie_name(admin), if admin.listener.tls.is_some() { "; Secure" } else { "" });
    let text = format!("{name}={value}; Path=/api/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::from_str(&text).map_err(|error| no_random(&error.into()))
}
