//! The bus: checks what a source offers, finds who is owed it, and has the store commit both at once.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::event::Event;
use crate::router::Router;
pub use crate::router::Target;
use crate::store::{Accepted, Answer, Lineage, Mark, NewEvent, Store, StoreError};
use crate::telemetry::{Ingress, IngressMetrics, Live, Metrics, Refusal, Spans};

/// What a source offers: stored together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// The events, in order.
    pub events: Vec<Event>,
    /// Who they are for.
    pub target: Target,
    /// What the source notes with them.
    pub marks: Vec<Mark>,
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
    #[error("{pending} deliveries are pending, and {max} are the most that are taken on")]
    Overloaded {
        /// Deliveries that are owed.
        pending: u64,
        /// The limit.
        max: u64,
        /// When to come back.
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
            Self::Store(StoreError::Full) => Refusal::DiskFull,
            Self::Store(StoreError::Failed(_) | StoreError::Closed) => Refusal::StoreFailed,
        }
    }
}

/// Bounds of the bus.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest event, attributes and data, in bytes.
    pub event_size_max: usize,
    /// Deliveries that may be owed at a time: at a million, a store grows to about a gigabyte of small events, and
    /// the slowest function has a day's work at 12 a second.
    pub pending_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { event_size_max: crate::event::EVENT_SIZE_MAX, pending_max: 1_000_000 }
    }
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
}

impl Bus {
    /// A bus over `store`, that nobody measures.
    pub fn new(store: Arc<dyn Store>, router: Router, limits: Limits) -> Self {
        let inner = Arc::new(Inner { store, router: RwLock::new(Arc::new(router)), limits });
        Self { inner, ingress: Ingress::Api, metrics: Arc::default(), spans: Spans::default() }
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

    /// Counts events that a source refused by itself.
    pub fn refused(&self, reason: Refusal) {
        self.metrics.refused(reason).increment();
    }

    /// Accepts an offer: when this returns `Ok`, every event of it is durably stored with its deliveries, or was
    /// before.
    pub async fn accept(&self, offer: Offer) -> Result<Vec<Accepted>, Refused> {
        let spans: Vec<Live> = match self.spans.are_on() {
            true => offer.events.iter().map(|event| self.spans.accept(self.ingress, event)).collect(),
            false => Vec::new(),
        };
        let count = offer.events.len();
        let answer = self.store(offer, &spans).await;
        match &answer {
            Ok(accepted) => {
                for accepted in accepted {
                    match accepted {
                        Accepted::New(_) => self.metrics.new.increment(),
                        Accepted::Duplicate(_) => self.metrics.duplicate.increment(),
                    }
                }
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

    async fn store(&self, offer: Offer, spans: &[Live]) -> Result<Vec<Accepted>, Refused> {
        let inner = &*self.inner;
        let pending = inner.store.pending();
        if pending >= inner.limits.pending_max && !offer.events.is_empty() {
            let max = inner.limits.pending_max;
            return Err(Refused::Overloaded { pending, max, retry_after: Duration::from_secs(5) });
        }
        let router = self.router();
        let mut events = Vec::with_capacity(offer.events.len());
        for (index, mut event) in offer.events.into_iter().enumerate() {
            let size = event.size();
            if size > inner.limits.event_size_max {
                return Err(Refused::TooLarge { index, size, max: inner.limits.event_size_max });
            }
            event.check().map_err(|e| Refused::Invalid { index, message: e.to_string() })?;
            if let Some(span) = spans.get(index) {
                span.mark(&mut event);
            }
            let deliveries = router.route(&event, &offer.target).map_err(|e| Refused::Invalid { index, message: e })?;
            events.push(NewEvent { event: Arc::new(event), lineage: Lineage::default(), deliveries });
        }
        Ok(inner.store.accept(events, offer.marks).await?)
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
