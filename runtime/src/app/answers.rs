//! HTTP components, as what answers the requests of their endpoints.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::clock::Clock;
use crate::manifest::{Checked, Diagnostic, Function, SourceKind, TriggerSource};
use crate::outcome::Outcome;
use crate::sandbox::{self, LogSink, Visit};
use crate::source::http::{Answerer, Payload, Unanswered};
use crate::telemetry::{AnswerMetrics, Answered};

/// How long a request waits for its turn. An instance ends a little after its answer, so a client that asks again at
/// once would find its own place taken.
const PATIENCE: Duration = Duration::from_millis(100);

/// A function that answers requests.
pub(super) struct Answering {
    function: Arc<sandbox::Function>,
    /// One permit for each request at once.
    room: Arc<Semaphore>,
    logs: LogSink,
    clock: Clock,
    metrics: Arc<AnswerMetrics>,
    /// What the ids of its requests begin with; each is told apart by its number.
    ids: Uuid,
    requests: AtomicU64,
}

impl Answering {
    pub(super) fn new(
        function: Arc<sandbox::Function>,
        concurrency: u32,
        logs: LogSink,
        clock: Clock,
        metrics: Arc<AnswerMetrics>,
    ) -> Self {
        let room = Arc::new(Semaphore::new(concurrency as usize));
        Self { function, room, logs, clock, metrics, ids: Uuid::now_v7(), requests: AtomicU64::new(1) }
    }

    async fn visit(&self, request: Request<Payload>) -> Result<Response<Payload>, Unanswered> {
        let seat = timeout(PATIENCE, self.room.clone().acquire_owned()).await;
        let Ok(Ok(seat)) = seat else { return Err(Unanswered::Busy) };
        let id = format!("request-{}-{}", self.ids, self.requests.fetch_add(1, Ordering::Relaxed)).into();
        let visit = Visit { request, id, seat, logs: self.logs.clone(), clock: self.clock.clone() };
        match self.function.answer(visit).await {
            Ok(response) => Ok(response.map(|body| body.boxed_unsync())),
            Err(Outcome::Timeout { limit }) => Err(Unanswered::Late(limit)),
            Err(Outcome::Unavailable { .. }) => Err(Unanswered::Busy),
            Err(_) => Err(Unanswered::Failed),
        }
    }
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answering").field(self.function.name()).finish()
    }
}

impl Answerer for Answering {
    fn answer(&self, request: Request<Payload>) -> BoxFuture<'_, Result<Response<Payload>, Unanswered>> {
        async move {
            let started = Instant::now();
            let answer = self.visit(request).await;
            let answered = match &answer {
                Ok(_) => Answered::Answered,
                Err(Unanswered::Busy) => Answered::Busy,
                Err(Unanswered::Late(_)) => Answered::Late,
                Err(Unanswered::Failed) => Answered::Failed,
            };
            self.metrics.ended(answered, started.elapsed());
            answer
        }
        .boxed()
    }
}

/// What a function that answers requests cannot have in its manifest.
pub(super) fn mistakes(checked: &Checked, function: &Function) -> Vec<Diagnostic> {
    let name = function.name.as_str();
    let answers = format!("the component of `{name}` answers HTTP requests (it exports wasi:http/incoming-handler)");
    let right = "give it paths of its own: `on: [{ http: { path: /hello, methods: [GET] } }]`";
    let mut found = Vec::new();
    for trigger in &function.triggers {
        match &trigger.source {
            TriggerSource::Private(source) => match &source.kind {
                SourceKind::Http(http) if http.type_.is_some() => {
                    let message = format!("{answers}, and no event is made of them that could have this `type`");
                    found.push(checked.error_at(trigger.span, message, "leave `type` out"));
                }
                SourceKind::Http(_) => {}
                _ => found.push(checked.error_at(trigger.span, format!("{answers}, and takes no events"), right)),
            },
            TriggerSource::Any | TriggerSource::Shared(_) => {
                found.push(checked.error_at(trigger.span, format!("{answers}, and takes no events"), right));
            }
        }
    }
    if function.order_by.is_some() {
        let message = format!("{answers}: there are no deliveries to order");
        found.push(checked.error_at(function.spans.name, message, "leave `order_by` out"));
    }
    found
}
