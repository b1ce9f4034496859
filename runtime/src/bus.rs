//! The bus: checks what a source offers, finds who is owed it, and has the store commit both at once.

mod drain;

use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use self::drain::Drain;
use crate::event::Event;
use crate::router::Router;
pub use crate::router::Target;
use crate::runtime_events;
use crate::store::{Accepted, Answer, Lineage, Mark, NewEvent, Store, StoreError};
pub use crate::store::{Amount, Origin};
use crate::telemetry::{Ingress, IngressMetrics, LiveSpan, Metrics, Refusal, Spans};

/// What a source offers: stored together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// The events, in order.
    pub events: Vec<Event>,
    /// Who they are for.
    pub target: Target,
    /// What the source notes with them.
    pub marks: Vec<Mark>,
    /// Who offers them, and whose share of the backlog they are; by default nobody's.
    pub origin: Origin,
}

/// Why an offer was not accepted. Nothing of it was stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// An event is not one.
    #[error("event {index}: {message}")]
    Invalid {
        /// Which one, from 0.
        index: usize,
        /// What is wrong and what would be right.
        message: String,
    },
    /// An event is larger than the bus takes.
    #[error("event {index} has {size} bytes; the largest that is accepted has {max}")]
    TooLarge {
        /// Which one, from 0.
        index: usize,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// Too much is pending; come back later.
    #[error(
        "{} deliveries are pending, with {} bytes of events; from {} or {} bytes on nothing more is taken on",
        backlog.deliveries, backlog.bytes, max.deliveries, max.bytes
    )]
    Overloaded {
        /// What is owed.
        backlog: Amount,
        /// The limits.
        max: Amount,
        /// When there should be room again.
        retry_after: Duration,
    },
    /// This source owns as much of the backlog as is free: what is free is for others.
    #[error(
        "{} deliveries that came from this source are pending, with {} bytes of events, and as long as only {} or {} bytes \
         are free these are for other sources",
        owned.deliveries, owned.bytes, free.deliveries, free.bytes
    )]
    Crowding {
        /// What is owed of what it offered.
        owned: Amount,
        /// What the limits leave.
        free: Amount,
        /// When there should be room for it again.
        retry_after: Duration,
    },
    /// The store did not commit.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Refused {
    /// The kind of reason.
    pub fn reason(&self) -> Refusal {
        match self {
            Self::Invalid { .. } => Refusal::Invalid,
            Self::TooLarge { .. } => Refusal::TooLarge,
            Self::Overloaded { .. } => Refusal::Overloaded,
            Self::Crowding { .. } => Refusal::Crowding,
            Self::Store(StoreError::Full) => Refusal::DiskFull,
            Self::Store(StoreError::Failed(_) | StoreError::Damaged(_) | StoreError::Closed) => Refusal::StoreFailed,
        }
    }
}

/// Bounds of the bus.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest event, attributes and data, in bytes.
    pub event_size_max: usize,
    /// What may be owed before no more is taken on. Events that functions publish are taken on all the same, and
    /// count.
    pub backlog_max: Amount,
}

/// At a million deliveries the slowest function has a day's work at 12 a second; 4 GiB leave most disks some room.
pub const BACKLOG_MAX: Amount = Amount { deliveries: 1_000_000, bytes: 4 << 30 };

impl Default for Limits {
    fn default() -> Self {
        Self { event_size_max: crate::event::EVENT_SIZE_MAX, backlog_max: BACKLOG_MAX }
    }
}

/// Who is refused comes back when this much of its room is used: at the limit itself the first to come back would
/// close the door again.
const ROOMY: f64 = 0.9;

/// How many deliveries have to end, by a rule for each of the two measures.
fn in_deliveries(total: Amount, rule: impl Fn(f64, f64) -> f64, a: Amount, b: Amount) -> f64 {
    let bytes_each = (total.bytes as f64 / total.deliveries.max(1) as f64).max(1.0);
    rule(a.deliveries as f64, b.deliveries as f64).max(rule(a.bytes as f64, b.bytes as f64) / bytes_each)
}

/// A handle to the bus; cheap to clone.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
    /// Through which kind of source its holder offers.
    ingress: Ingress,
    metrics: Arc<IngressMetrics>,
    spans: Spans,
}

struct Inner {
    store: Arc<dyn Store>,
    router: RwLock<Arc<Router>>,
    limits: Limits,
    drain: Drain,
}

impl Bus {
    /// A bus over `store`, that nobody measures.
    pub fn new(store: Arc<dyn Store>, router: Router, limits: Limits) -> Self {
        let inner = Inner { store, router: RwLock::new(Arc::new(router)), limits, drain: Drain::default() };
        let (ingress, metrics, spans) = (Ingress::Api, Arc::default(), Spans::default());
        Self { inner: Arc::new(inner), ingress, metrics, spans }
    }

    /// The same bus, traced.
    pub fn traced(self, spans: Spans) -> Self {
        Self { spans, ..self }
    }

    /// The same bus, for sources of a kind: what they offer is counted for it.
    pub fn through(&self, ingress: Ingress, metrics: &Metrics) -> Self {
        Self { ingress, metrics: metrics.ingress(ingress), ..self.clone() }
    }

    /// What starts its spans.
    pub fn spans(&self) -> &Spans {
        &self.spans
    }

    /// Counts what a source refused before it was offered.
    pub fn refused(&self, reason: Refusal) {
        self.metrics.refused(reason).increment();
    }

    /// Accepts an offer: when this returns `Ok`, every event of it is durably stored with its deliveries, or was
    /// before.
    pub async fn accept(&self, offer: Offer) -> Result<Vec<Accepted>, Refused> {
        let spans: Vec<LiveSpan> = match self.spans.is_enabled() {
            true => offer.events.iter().map(|event| self.spans.accept(self.ingress, event)).collect(),
            false => Vec::new(),
        };
        let count = offer.events.len();
        let answer = self.store(offer, &spans).await;
        match &answer {
            Ok(accepted) => {
                let new = accepted.iter().filter(|accepted| matches!(accepted, Accepted::New(_))).count();
                self.metrics.new.add(new as u64);
                self.metrics.duplicate.add((accepted.len() - new) as u64);
                spans.into_iter().zip(accepted).for_each(|(span, accepted)| span.accepted(*accepted));
            }
            Err(refused) => {
                let reason = refused.reason();
                self.metrics.refused(reason).add(count as u64);
                spans.into_iter().for_each(|span| span.refused(reason, &refused.to_string()));
            }
        }
        answer
    }

    async fn store(&self, offer: Offer, spans: &[LiveSpan]) -> Result<Vec<Accepted>, Refused> {
        let inner = &*self.inner;
        if !offer.events.is_empty() {
            self.room(offer.origin)?;
        }
        let router = self.router();
        let lineage = Lineage { origin: offer.origin, ..Lineage::default() };
        let mut events = Vec::with_capacity(offer.events.len());
        for (index, mut event) in offer.events.into_iter().enumerate() {
            let size = event.size();
            if size > inner.limits.event_size_max {
                return Err(Refused::TooLarge { index, size, max: inner.limits.event_size_max });
            }
            let message = runtime_events::refuse(&event.source, &event.type_);
            let checked = message.map_or_else(|| event.check().map_err(|e| e.to_string()), Err);
            checked.map_err(|message| Refused::Invalid { index, message })?;
            if let Some(span) = spans.get(index) {
                span.inject_if_missing(&mut event);
            }
            let deliveries = router.route(&event, &offer.target).map_err(|e| Refused::Invalid { index, message: e })?;
            events.push(NewEvent { event: Arc::new(event), lineage, deliveries });
        }
        Ok(inner.store.accept(events, offer.marks).await?)
    }

    /// Stores an event of the runtime's own with its mark, or the mark alone. It is taken on as what functions publish
    /// is, whatever is pending: there are few of them, and most of all they are wanted then.
    pub async fn tell(&self, event: Option<Event>, mark: Mark) -> Result<(), StoreError> {
        let router = self.router();
        let lineage = Lineage { origin: runtime_events::origin(), ..Lineage::default() };
        let new = event.map(|event| {
            // What the runtime says is JSON.
            let deliveries = router.route(&event, &Target::Matching).unwrap_or_default();
            NewEvent { event: Arc::new(event), lineage, deliveries }
        });
        self.inner.store.accept(new.into_iter().collect(), vec![mark]).await.map(drop)
    }

    /// Whether there is room for what this source would offer: an offer that there is no room for would be refused.
    ///
    /// A source may own as much of the backlog as is free. One that floods the bus alone gets half of the limits, two
    /// get a third each, and there is always room for who owns little.
    pub fn room(&self, origin: Origin) -> Result<(), Refused> {
        let Inner { store, limits, drain, .. } = &*self.inner;
        let (backlog, max) = (store.backlog(), limits.backlog_max);
        let total = backlog.total();
        // Who owns less than half of the limits owns less than is free.
        if total.deliveries < max.deliveries.div_ceil(2) && total.bytes < max.bytes.div_ceil(2) {
            return Ok(());
        }
        let (now, ended) = (Instant::now(), backlog.ended());
        drain.note(now, ended);
        let free = Amount {
            deliveries: max.deliveries.saturating_sub(total.deliveries),
            bytes: max.bytes.saturating_sub(total.bytes),
        };
        let wait = |too_much| drain.time_for(too_much, now, ended);
        if free.deliveries == 0 || free.bytes == 0 {
            let too_much = in_deliveries(total, |total, max| total - ROOMY * max, total, max);
            return Err(Refused::Overloaded { backlog: total, max, retry_after: wait(too_much) });
        }
        let owned = if origin == Origin::default() { Amount::default() } else { backlog.of(origin) };
        if owned.deliveries >= free.deliveries || owned.bytes >= free.bytes {
            // While the whole drains by one, what it owns shrinks by its part of the whole, and what is free grows by
            // one.
            let part = owned.deliveries as f64 / total.deliveries.max(1) as f64;
            let too_much = in_deliveries(total, |owned, free| (owned - ROOMY * free) / (part + ROOMY), owned, free);
            return Err(Refused::Crowding { owned, free, retry_after: wait(too_much) });
        }
        Ok(())
    }

    /// What a source noted earlier, by key.
    pub fn marks(&self, scope: &str) -> Answer<std::collections::BTreeMap<String, Vec<u8>>> {
        self.inner.store.marks(scope.to_owned())
    }

    /// The routes in force.
    pub fn router(&self) -> Arc<Router> {
        self.inner.router.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Puts other routes in force, from the next event on.
    pub fn set_router(&self, router: Router) {
        *self.inner.router.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(router);
    }

    /// Deliveries that are owed now.
    pub fn pending(&self) -> u64 {
        self.inner.store.pending()
    }
}

#[cfg(test)]
mod tests;
