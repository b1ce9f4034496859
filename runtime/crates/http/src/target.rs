//! HTTP targets. A function with `deliver` has an endpoint, which receives each event as an HTTP request.
//!
//! All attempts of a delivery have the same `Idempotency-Key`, the id of the delivery. Redirects are not followed.
//! Connections are made only to addresses that the grant allows, see `evoke-egress`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use evoke_egress::{Allowance, Grant, Limits, Owner, TrustAnchors, UntilSent, full};
use evoke_manifest::deliver::{Deliver, Field};
use evoke_model::clock::Clock;
use evoke_model::destination::{Destination, Target as Origin};
use evoke_model::event::Event;
use evoke_model::outcome::Outcome;
use evoke_telemetry::TraceContext;

mod outcome;
mod render;
mod request;
mod response;
mod sign;
#[cfg(test)]
mod tests;

use self::request::{Delivery, Template};
pub use self::sign::{InvalidKey, Signer};

/// The largest number of bytes that one attempt reads of the response.
const RESPONSE_BYTES_MAX: usize = 16 * 1024;
/// The maximum total size of the large request bodies of one function that are in memory at the same time, in KiB. The
/// limit is needed because an endpoint that reads slowly, or never responds, or responds and reads nothing, keeps these
/// bodies in memory, and because the text of an event can become six times as long in JSON.
const LARGE_BODIES_KIB: u32 = 16 * 1024;
/// The size above which a request body is large, in bytes.
const LARGE_BYTES_MIN: usize = 64 * 1024;

/// The endpoint of a function.
pub struct HttpTarget {
    owner: Owner,
    template: Template,
    /// The memory of large request bodies, in KiB.
    large_bodies: Arc<Semaphore>,
    origin: Origin,
    /// True if the path or the query of the URL has values of the event. A response 410 is then about this URL only, so
    /// the other events can still be delivered.
    is_url_of_event: bool,
    timeout: Duration,
    clock: Clock,
    redact: Redact,
}

/// Values of secrets, by name.
pub type SecretValues = BTreeMap<String, String>;

/// Replaces the values of secrets in a text that the endpoint sent, because the text may repeat parts of the request.
pub type Redact = Arc<dyn Fn(&str, Extent) -> String + Send + Sync>;

/// How much of a text there is to redact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The whole text.
    Whole,
    /// The text was not read to its end. Its last characters may be a part of a secret, which must be left out.
    Start,
}

/// The result of one request.
#[derive(Debug)]
pub struct Sent {
    /// How the attempt ended.
    pub outcome: Outcome,
    /// The status of the response, if the endpoint accepted the event.
    pub note: Option<String>,
    /// The time from the start of the attempt until its outcome.
    pub duration: Duration,
    /// True if the endpoint itself responded to the request. False if no request was sent, if no response arrived, or
    /// if the response says that no request can be taken now ([`outcome::is_unavailable`]).
    pub responded: bool,
}

/// Returns the grant of a function with `deliver`, which permits its requests. The grant allows only requests to the
/// endpoint of the function. `None` if the origin of the URL is not a valid destination.
pub fn grant(deliver: &Deliver, ca: Option<TrustAnchors>) -> Option<Grant> {
    let destination = Destination::parse(&deliver.url.target().to_string()).ok()?;
    Some(Grant { addresses: deliver.trust.addresses.clone(), ca, ..Grant::new(destination) })
}

impl fmt::Debug for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpTarget").field(&self.origin).finish()
    }
}

impl HttpTarget {
    /// Makes the target of a function. `owner` must have the grant that [`grant`] returns for this function.
    pub fn new(
        deliver: &Deliver,
        secrets: Arc<SecretValues>,
        signer: Option<Signer>,
        owner: Owner,
        timeout: Duration,
        clock: Clock,
    ) -> Self {
        let template = Template::new(deliver, secrets, signer);
        let redact: Redact = Arc::new(|text: &str, _| text.to_owned());
        let is_url_of_event =
            deliver.url.path().placeholders().any(|placeholder| !matches!(placeholder.name, Field::Secret(_)));
        let large_bodies = Arc::new(Semaphore::new(LARGE_BODIES_KIB as usize));
        let origin = deliver.url.target().clone();
        Self { owner, template, large_bodies, origin, is_url_of_event, timeout, clock, redact }
    }

    /// Replaces the values of secrets in texts that the endpoint sends. This happens before a text is shortened for a
    /// message. Otherwise, the short text could end with a part of a secret.
    #[must_use]
    pub fn with_redaction(self, redact: Redact) -> Self {
        Self { redact, ..self }
    }

    /// Sends an event to the endpoint. `hops` is the number of functions that the chain of events passed through before
    /// this event. The request continues the trace in `trace`, or the trace of the event if `trace` is `None`. Must be
    /// called on the tokio runtime that the connections of `owner` belong to.
    pub async fn send(&self, event: &Event, delivery_id: &str, hops: u32, trace: Option<TraceContext>) -> Sent {
        let started = Instant::now();
        let trace = trace.or_else(|| TraceContext::of_event(event));
        let delivery = Delivery { event, id: delivery_id, hops, trace: trace.as_ref(), now_ms: self.clock.now_ms() };
        let result = self.exchange(delivery, started + self.timeout).await;
        let (outcome, note, responded) = result.unwrap_or_else(|outcome| (outcome, None, false));
        Sent { outcome, note, duration: started.elapsed(), responded }
    }

    /// Builds the request of a delivery. If its body is large, also returns the permit for its memory, and first waits
    /// for this permit until `deadline`. Meanwhile, the body is not in memory.
    async fn request(
        &self,
        delivery: Delivery<'_>,
        deadline: Instant,
    ) -> Result<(Request<Bytes>, Option<OwnedSemaphorePermit>), Outcome> {
        let build =
            |delivery| self.template.request(&self.origin, delivery).map_err(|message| Outcome::Reject { message });
        let request = build(delivery)?;
        let bytes = request.body().len();
        if bytes <= LARGE_BYTES_MIN {
            return Ok((request, None));
        }
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).min(LARGE_BODIES_KIB);
        if let Ok(permit) = self.large_bodies.clone().try_acquire_many_owned(kib) {
            return Ok((request, Some(permit)));
        }
        drop(request);
        match timeout_at(deadline, self.large_bodies.clone().acquire_many_owned(kib)).await {
            // The request is built again. The new request gets the current time, because the signature contains the
            // time.
            Ok(Ok(permit)) => Ok((build(Delivery { now_ms: self.clock.now_ms(), ..delivery })?, Some(permit))),
            _ => {
                let message = "the request was not sent: until the `timeout`, other requests of this function used all \
                               memory for large bodies";
                Err(Outcome::Unavailable { message: message.to_owned() })
            }
        }
    }

    /// Returns the outcome, the note of a successful attempt, and the value of [`Sent::responded`]. Without a response,
    /// returns the outcome as the error.
    async fn exchange(
        &self,
        delivery: Delivery<'_>,
        deadline: Instant,
    ) -> Result<(Outcome, Option<String>, bool), Outcome> {
        let (mut request, memory) = self.request(delivery, deadline).await?;
        if let Some(memory) = memory {
            // The body may be in memory for longer than this call, if the endpoint responds before it reads the body.
            request.extensions_mut().insert(UntilSent(Arc::new(memory)));
        }
        // The time of the endpoint begins now, because the endpoint did not cause the wait for memory.
        let deadline = Instant::now() + self.timeout;
        let request = request.map(full);
        let size = http_body::Body::size_hint(request.body()).lower();
        let allowance = Arc::new(Allowance::new(size, RESPONSE_BYTES_MAX as u64));
        // An endpoint may use the whole `timeout` of the function before it sends the first byte.
        let limits = Limits { deadline, allowance, first_byte_timeout: self.timeout, ..Limits::within(self.timeout) };
        // The owner ends the call at the deadline. A second timer for the deadline here could drop the call before
        // that, and the owner would keep a connection that no longer responds.
        let response = self.owner.send(request, &limits).await.map_err(|error| match error {
            evoke_egress::Error::Deadline => Outcome::Timeout { limit: self.timeout },
            error => outcome::of_error(&error),
        })?;
        let (head, body) = response.into_parts();
        let excerpt = response::read(body, head.status.is_success(), &*self.redact).await;
        let location = outcome::location(&head.headers, &*self.redact);
        let texts = (location.as_deref(), excerpt.as_deref());
        let (outcome, note) = outcome::of_response(head.status, &head.headers, texts, self.clock.now_ms());
        let outcome = match outcome {
            Outcome::EndpointGone { message } if self.is_url_of_event => Outcome::Reject { message },
            outcome => outcome,
        };
        Ok((outcome, note, !outcome::is_unavailable(head.status)))
    }
}
