//! Verifies the sender of a request in two steps: the headers before the body is read, and the raw body after that.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body;

use super::auth::{self, Admitted, Guard, Sender};
use super::body::{self, Read};
use super::counted;
use super::handler::{self, EnteredThrough, Payload, RequestHandler};
use super::memory::{Budget, Owners};
use super::peer::Peer;
use crate::listener::counted_network;
use crate::problem::Problem;
use evoke_core::bus::Origin;
use evoke_model::clock::UnixMs;

/// The verification of one request.
pub(super) struct Admission<'g> {
    /// `None` if the endpoint verifies no senders.
    pending: Option<(&'g Guard, Admitted)>,
}

impl<'g> Admission<'g> {
    /// Checks the headers of a request.
    pub(super) fn check_headers(
        guard: Option<&'g Guard>,
        headers: &HeaderMap,
        now_ms: UnixMs,
    ) -> Result<Self, Problem> {
        let Some(guard) = guard else { return Ok(Self { pending: None }) };
        Ok(Self { pending: Some((guard, guard.check_headers(headers, now_ms)?)) })
    }

    /// Returns true if the body is needed to verify the sender.
    pub(super) fn needs_body(&self) -> bool {
        matches!(self.pending, Some((_, Admitted::Signed(_))))
    }

    /// Verifies the whole raw body. Returns `None` if the endpoint verifies no senders.
    pub(super) fn check_body(self, body: &[u8]) -> Result<Option<Sender>, Problem> {
        self.pending.map(|(guard, admitted)| guard.check_body(admitted, body)).transpose()
    }
}

/// Returns the source and the peer for which the memory of a request's body is counted.
pub(super) fn owners(source: Origin, extensions: &Extensions) -> Owners {
    let peer = extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| counted_network(peer.0));
    Owners { source, peer }
}

/// The handler of an endpoint, with the limits for its requests.
pub(super) struct Call<'e> {
    pub(super) handler: &'e dyn RequestHandler,
    pub(super) guard: Option<&'e Guard>,
    pub(super) budget: &'e Budget,
    pub(super) responses: &'e Budget,
    pub(super) entered: EnteredThrough,
    pub(super) body_max: usize,
    pub(super) now_ms: UnixMs,
}

impl Call<'_> {
    /// Passes a request to the handler after its sender is verified. If the handler returns a large response that is
    /// complete, its memory is counted until the client has read it. If no memory is free, the response is 503.
    pub(super) async fn run<B>(self, request: Request<B>) -> Result<Response<Payload>, Problem>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Error + Send + Sync + 'static,
    {
        let (responses, owners) = (self.responses, owners(self.entered.origin, request.extensions()));
        let response = self.call(request).await?;
        match counted::reserve(responses, owners, counted::length(response.body())) {
            Ok(Some(memory)) => Ok(response.map(|body| counted::hold(body, memory))),
            Ok(None) => Ok(response),
            Err(_) => Err(Problem::later(Duration::from_secs(1), "the memory for responses is full; retry later")),
        }
    }

    async fn call<B>(self, request: Request<B>) -> Result<Response<Payload>, Problem>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Error + Send + Sync + 'static,
    {
        let Self { handler, guard, budget, entered, body_max, now_ms, .. } = self;
        if guard.is_none() {
            return handler::call(handler, request, entered, body_max).await;
        }
        let admission = Admission::check_headers(guard, request.headers(), now_ms)?;
        if !admission.needs_body() {
            return handler::call(handler, request, entered, body_max).await;
        }
        // The handler gets no part of the body before the whole body is verified.
        let (head, body) = request.into_parts();
        let owners = owners(entered.origin, &head.extensions);
        let Read { bytes, memory } = body::read(budget, owners, body, body_max).await?;
        if let Some(challenge) = admission.check_body(&bytes)?.and_then(|sender| sender.challenge) {
            let response = auth::challenge_response(challenge);
            return Ok(response.map(|body| body.map_err(|never| match never {}).boxed_unsync()));
        }
        // The body holds its memory permit until the handler has read the body.
        let body = Full::new(bytes).map_frame(move |frame| {
            let _held = &memory;
            frame
        });
        handler::call(handler, Request::from_parts(head, body), entered, body_max).await
    }
}
