//! One attempt at a delivery, or one HTTP request: the input, and what the guest has logged and published so far. All
//! of it is one allocation.

use std::sync::{Arc, Mutex, PoisonError};

use super::function::Identity;
use super::log::{LogBuffer, LogSink};
use super::publish::Published;
use evoke_model::clock::Clock;
use evoke_model::event::Event;

/// The part of an attempt that is shared with the streams that the guest writes to.
pub(super) struct Invocation {
    pub(super) identity: Arc<Identity>,
    /// Delivery id of the log lines, and prefix of generated event ids. An HTTP request has an id of its own.
    pub(super) delivery_id: Arc<str>,
    /// Number of the attempt, counted from 1.
    pub(super) attempt: u32,
    /// The event to handle; `None` for an HTTP request.
    pub(super) cause: Option<Arc<Event>>,
    pub(super) logs: LogSink,
    pub(super) clock: Clock,
    pub(super) log: Mutex<LogBuffer>,
    pub(super) published: Mutex<Published>,
}

impl Invocation {
    pub(super) fn new(
        identity: Arc<Identity>,
        (delivery_id, attempt): (Arc<str>, u32),
        cause: Option<Arc<Event>>,
        logs: LogSink,
        clock: Clock,
    ) -> Arc<Self> {
        let (log, published) = Default::default();
        Arc::new(Self { identity, delivery_id, attempt, cause, logs, clock, log, published })
    }

    /// Discards everything that was logged and published, so that the attempt can run again.
    pub(super) fn reset(&self) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = LogBuffer::default();
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = Published::default();
    }
}
