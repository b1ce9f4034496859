//! The data of one attempt at a delivery, or of one HTTP request: the input, and everything that the guest has logged
//! and published so far. All of it is in one allocation, except the budget, because the session of stored state also
//! holds the budget.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::budget::HostBudget;
use super::config::Config;
use super::grant_use::GrantUse;
use super::grants::Grants;
use super::log::{AttemptLog, LogBuffer, LogSink, Stream};
use super::outside::Outside;
use super::publish::{Origin, Published, Publisher};
use super::secrets::Redactor;
use super::stdio::ByteSink;
use evoke_egress::Owner;
use evoke_model::clock::Clock;
use evoke_model::event::Event;
use evoke_telemetry::{Spans, TraceContext};

/// The properties that are the same for every attempt of a function.
pub(super) struct Identity {
    pub(super) name: Arc<str>,
    pub(super) uri: String,
    pub(super) timeout: Duration,
    pub(super) memory: u64,
    pub(super) grants: Grants,
    /// Records which grants the function uses.
    pub(super) grant_use: Arc<GrantUse>,
    /// Sends the requests of the function.
    pub(super) outbound: Owner,
    pub(super) spans: Spans,
}

/// The part of an attempt that is shared with the streams that the guest writes to.
pub(super) struct Invocation {
    pub(super) identity: Arc<Identity>,
    /// Id of the delivery, or of the HTTP request. Log lines contain it, and generated event ids start with it.
    pub(super) delivery_id: Arc<str>,
    /// Number of the attempt, counted from 1.
    attempt: u32,
    /// The event to handle; `None` for an HTTP request.
    pub(super) cause: Option<Arc<Event>>,
    /// The trace context of the attempt, or of the HTTP request. If it is `None`, [`Self::trace`] returns that of the
    /// event.
    trace: Option<TraceContext>,
    /// The number of functions that the chain of events passed through before this attempt.
    hops: u32,
    logs: LogSink,
    clock: Clock,
    /// The source of the clocks, random numbers, state and responses that the guest reads.
    pub(super) outside: Outside,
    log: Mutex<LogBuffer>,
    published: Mutex<Published>,
    pub(super) budget: Arc<HostBudget>,
}

impl Invocation {
    pub(super) fn new(
        identity: Arc<Identity>,
        (delivery_id, attempt): (Arc<str>, u32),
        (cause, trace, hops): (Option<Arc<Event>>, Option<TraceContext>, u32),
        logs: LogSink,
        (clock, outside): (Clock, Outside),
    ) -> Arc<Self> {
        let (log, published) = Default::default();
        let budget = if cause.is_some() { HostBudget::of_delivery() } else { HostBudget::of_http_request() };
        let budget = Arc::new(budget);
        Arc::new(Self {
            identity,
            delivery_id,
            attempt,
            cause,
            trace,
            hops,
            logs,
            clock,
            outside,
            log,
            published,
            budget,
        })
    }

    /// Returns the number of functions that the chain has passed through, including this one. Requests of the function
    /// carry this number.
    pub(super) fn hops_out(&self) -> u32 {
        self.hops + 1
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn log(&self) -> AttemptLog<'_> {
        AttemptLog {
            function: &self.identity.name,
            delivery_id: &self.delivery_id,
            attempt: self.attempt,
            sink: &self.logs,
            clock: &self.clock,
            buffer: &self.log,
            redactor: self.redactor(),
        }
    }

    pub(super) fn grant_use(&self) -> &GrantUse {
        &self.identity.grant_use
    }

    pub(super) fn outbound(&self) -> &Owner {
        &self.identity.outbound
    }

    pub(super) fn spans(&self) -> &Spans {
        &self.identity.spans
    }

    /// Returns the trace context that the requests of the function become part of.
    pub(super) fn trace(&self) -> Option<TraceContext> {
        self.trace.clone().or_else(|| TraceContext::of_event(self.cause.as_deref()?))
    }

    pub(super) fn redactor(&self) -> &Redactor {
        self.identity.grants.secrets.redactor()
    }

    pub(super) fn publisher(&self) -> Publisher<'_> {
        let origin = Origin {
            source: &self.identity.uri,
            delivery_id: &self.delivery_id,
            cause: self.cause.as_deref(),
            clock: &self.clock,
            outside: &self.outside,
        };
        Publisher {
            origin,
            allowed: &self.identity.grants.publish,
            grant_use: self.grant_use(),
            published: &self.published,
            budget: &self.budget,
            redactor: self.redactor(),
        }
    }

    pub(super) fn config(&self) -> Config<'_> {
        let Grants { config, secrets, .. } = &self.identity.grants;
        Config { config, secrets, grant_use: self.grant_use() }
    }

    /// Discards everything that was logged and published, so that the attempt can run again.
    pub(super) fn reset(&self) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = LogBuffer::default();
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = Published::default();
        self.budget.reset();
        self.outside.reset();
    }
}

/// Logs each line of a stream.
#[derive(Clone)]
pub(super) struct LogLines {
    pub(super) invocation: Arc<Invocation>,
    pub(super) stream: Stream,
}

impl ByteSink for LogLines {
    fn write(&self, bytes: &[u8]) -> wasmtime::Result<()> {
        self.invocation.log().write(self.stream, bytes);
        Ok(())
    }
}
