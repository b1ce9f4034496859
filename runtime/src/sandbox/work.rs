//! What a guest is there for, and what came of it so far: one allocation for what an attempt needs beside its instance.

use std::sync::{Arc, Mutex, PoisonError};

use super::function::Identity;
use super::log::{LogSink, Said};
use super::publish::Published;
use crate::clock::Clock;
use crate::event::Event;

/// One attempt, or one request to answer. Shared with the streams that the guest writes to.
pub(super) struct Work {
    pub(super) identity: Arc<Identity>,
    /// What its log lines are marked with, and what ids that are made up begin with.
    pub(super) delivery_id: Arc<str>,
    /// Which try, from 1.
    pub(super) attempt: u32,
    /// The event that is handled; `None` for a request.
    pub(super) cause: Option<Arc<Event>>,
    pub(super) logs: LogSink,
    pub(super) clock: Clock,
    pub(super) said: Mutex<Said>,
    pub(super) published: Mutex<Published>,
}

impl Work {
    pub(super) fn new(
        identity: Arc<Identity>,
        (delivery_id, attempt): (Arc<str>, u32),
        cause: Option<Arc<Event>>,
        logs: LogSink,
        clock: Clock,
    ) -> Arc<Self> {
        let (said, published) = Default::default();
        Arc::new(Self { identity, delivery_id, attempt, cause, logs, clock, said, published })
    }

    /// As if nothing had been said or published.
    pub(super) fn begin_again(&self) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Said::default();
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = Published::default();
    }
}
