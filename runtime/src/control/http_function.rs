//! Runs HTTP components, which handle the requests of their endpoints.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::compiling::Component;
use evoke_core::bus::{Bus, Held, Offer};
use evoke_http::source::{EnteredThrough, HandlerError, HttpSource, Payload, RequestHandler};
use evoke_manifest::{Checked, Diagnostic, Function, Source, Trigger, TriggerSource};
use evoke_model::REQUEST_ID_PREFIX;
use evoke_model::clock::Clock;
use evoke_model::event::Event;
use evoke_model::outcome::Outcome;
use evoke_model::text::is_deceptive;
use evoke_sandbox::{HttpAnswer, HttpCall, Level, LogLine, LogSink};
use evoke_store::running::{Recorded, RunningLog, Work};
use evoke_telemetry::{RequestMetrics, RequestOutcome, TraceContext, Traceparent};

/// How long a request waits for a permit when all permits of the function are in use. An instance releases its permit
/// shortly after its response. Without this wait, a client that sends its next request immediately would be refused.
const PERMIT_WAIT: Duration = Duration::from_millis(100);

/// How long a request waits for a component that is still being compiled.
const COMPILE_WAIT: Duration = Duration::from_secs(10);

/// A function that handles HTTP requests.
pub(super) struct HttpFunction {
    component: Arc<Component>,
    /// One permit per concurrent request.
    permits: Arc<Semaphore>,
    /// One permit per request whose events are being stored. The permit is held until the commit of the events ends,
    /// even if the client leaves before.
    commits: Arc<Semaphore>,
    logs: LogSink,
    clock: Clock,
    metrics: Arc<RequestMetrics>,
    running: Arc<dyn RunningLog>,
    /// Stores the events that the function publishes.
    bus: Bus,
    /// Prefix of the ids of requests. The number after the prefix makes each id unique.
    id_prefix: Uuid,
    next_request: AtomicU64,
}

impl HttpFunction {
    pub(super) fn new(
        component: Arc<Component>,
        concurrency: u32,
        logs: LogSink,
        clock: Clock,
        metrics: Arc<RequestMetrics>,
        running: Arc<dyn RunningLog>,
        bus: Bus,
    ) -> Self {
        let [permits, commits] = [(); 2].map(|()| Arc::new(Semaphore::new(concurrency as usize)));
        let (id_prefix, next_request) = (Uuid::now_v7(), AtomicU64::new(1));
        Self { component, permits, commits, logs, clock, metrics, running, bus, id_prefix, next_request }
    }

    async fn call(&self, request: Request<Payload>) -> Result<Response<Payload>, HandlerError> {
        let permit = timeout(PERMIT_WAIT, self.permits.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(if self.component.get().is_some() { HandlerError::Busy } else { HandlerError::Compiling });
        };
        let loaded = timeout(COMPILE_WAIT, self.component.wait()).await;
        let Ok(Some(function)) = loaded else { return Err(HandlerError::Compiling) };
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        let id: Arc<str> = format!("{REQUEST_ID_PREFIX}{}-{number}", self.id_prefix).into();
        let entered = request.extensions().get::<EnteredThrough>().copied().unwrap_or_default();
        let trace = trace_context(&request);
        // The guest can run after its response was sent, so the request is recorded as running until the guest ends.
        let recorded = Recorded::start(&self.running, &Work::Request(function.name()));
        let call = HttpCall {
            request,
            trace,
            hops: entered.hops,
            id: id.clone(),
            held: Box::new((permit, recorded)),
            logs: self.logs.clone(),
            clock: self.clock.clone(),
        };
        match function.call_http(call).await {
            Ok(HttpAnswer { response, published }) => {
                self.store(function.name(), &id, entered, published).await?;
                Ok(response.map(BodyExt::boxed_unsync))
            }
            Err(Outcome::Timeout { limit }) => Err(HandlerError::Late(limit)),
            Err(Outcome::Unavailable { .. }) => Err(HandlerError::Busy),
            Err(_) => Err(HandlerError::Failed),
        }
    }

    /// Stores the events that the function published. Each is the first event of a new chain.
    async fn store(
        &self,
        function: &Arc<str>,
        id: &Arc<str>,
        entered: EnteredThrough,
        events: Vec<Event>,
    ) -> Result<(), HandlerError> {
        if events.is_empty() {
            return Ok(());
        }
        let EnteredThrough { origin, hops } = entered;
        let held = self.commits.clone().acquire_owned().await.ok().map(|permit| Arc::new(permit) as Held);
        let refused = match self.bus.accept(Offer { events, origin, hops: hops + 1, held, ..Offer::default() }).await {
            Ok(_) => return Ok(()),
            Err(refused) => refused,
        };
        let reason = format!("the response was not sent, because the published events were not stored: {refused}");
        (self.logs)(LogLine {
            level: Level::Error,
            function: function.clone(),
            delivery_id: id.clone(),
            attempt: 1,
            // The reason may contain text of an event, with characters that could deceive a reader.
            text: reason.chars().map(|char| if is_deceptive(char) { '\u{fffd}' } else { char }).collect(),
            at_ms: self.clock.now_ms(),
        });
        Err(refused.into())
    }
}

/// Returns the trace context of a request, if it has a valid one.
fn trace_context(request: &Request<Payload>) -> Option<TraceContext> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let traceparent = header("traceparent").filter(|text| Traceparent::parse(text).is_some())?;
    Some(TraceContext { traceparent, tracestate: header("tracestate") })
}

impl fmt::Debug for HttpFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFunction").field("id_prefix", &self.id_prefix).finish_non_exhaustive()
    }
}

impl RequestHandler for HttpFunction {
    fn handle(&self, request: Request<Payload>) -> BoxFuture<'_, Result<Response<Payload>, HandlerError>> {
        async move {
            let started = Instant::now();
            let response = self.call(request).await;
            let outcome = match &response {
                Ok(_) => RequestOutcome::Answered,
                Err(HandlerError::Busy | HandlerError::Compiling) => RequestOutcome::Busy,
                Err(HandlerError::Late(_)) => RequestOutcome::Late,
                Err(HandlerError::Failed) => RequestOutcome::Failed,
                Err(HandlerError::NotStored { .. }) => RequestOutcome::Refused,
            };
            self.metrics.ended(outcome, started.elapsed());
            response
        }
        .boxed()
    }
}

/// Returns an error for each setting of the function that is not allowed because its component handles HTTP requests.
pub(super) fn check_manifest(checked: &Checked, function: &Function) -> Vec<Diagnostic> {
    let name = function.name.as_str();
    let handles = format!("the component of `{name}` handles HTTP requests (it exports wasi:http/incoming-handler)");
    let help = "give the function its own paths: `on: [{ http: { path: /hello, methods: [GET] } }]`";
    let mut found = Vec::new();
    for trigger in &function.triggers {
        match &trigger.source {
            TriggerSource::Private(source) => match source.settings.get::<HttpSource>().map(HttpSource::event_key) {
                Some(Some("reply")) => {
                    let message = format!("{handles}, so its own response is sent, and `reply` has no effect");
                    found.push(checked.error_at(trigger.span, message, "remove `reply`"));
                }
                Some(Some(key)) => {
                    let message = format!("{handles}, so there are no events for which `{key}` could be set");
                    found.push(checked.error_at(trigger.span, message, format!("remove `{key}`")));
                }
                Some(None) => {}
                None => {
                    found.push(checked.error_at(trigger.span, format!("{handles}, so it receives no events"), help));
                }
            },
            TriggerSource::Any | TriggerSource::Shared(_) => {
                found.push(checked.error_at(trigger.span, format!("{handles}, so it receives no events"), help));
            }
        }
    }
    if function.order_by.is_some() {
        let message = format!("{handles}: there are no deliveries to order");
        found.push(checked.error_at(function.spans.name, message, "remove `order_by`"));
    }
    if function.record.is_some() {
        let message = format!("{handles}: there are no attempts to record");
        found.push(checked.error_at(function.spans.name, message, "remove `record`"));
    }
    found
}

/// Returns an error for each private http source of a function that handles events, if the source can accept no event.
pub(super) fn check_event_sources(checked: &Checked, function: &Function) -> Vec<Diagnostic> {
    let accepts_nothing =
        |source: &Source| source.settings.get::<HttpSource>().is_some_and(HttpSource::accepts_nothing);
    let silent = function.triggers.iter().filter(|trigger| match &trigger.source {
        TriggerSource::Private(source) => accepts_nothing(source),
        TriggerSource::Any | TriggerSource::Shared(_) => false,
    });
    let error = |trigger: &Trigger| {
        let message = "this trigger accepts no event: its source has neither `type` nor `accept.types`";
        checked.error_at(trigger.span, message, HttpSource::ACCEPT_HELP)
    };
    silent.map(error).collect()
}
