//! The bus checks the events that a source offers, routes them to functions, and stores the events and their deliveries
//! in one commit.

mod commit;
mod drain_rate;
mod refused;
mod replies;
mod routing;

use std::any::Any;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use self::commit::Commit;
use self::drain_rate::DrainRate;
pub use self::refused::Refused;
use self::replies::Replies;
pub use self::replies::{Reply, ReplyPermit};
use self::routing::{MatchPermits, Routing};
use crate::router::Router;
pub use crate::router::Target;
use crate::runtime_events;
use evoke_model::claim;
use evoke_model::clock::{Clock, UnixMs};
use evoke_model::event::Event;
use evoke_model::{Accepted, Lineage, Mark, NewEvent};
pub use evoke_model::{Amount, Origin};
use evoke_store::{EventStore, StoreError, StoreFuture};
use evoke_telemetry::{Ingress, IngressMetrics, LiveSpan, Metrics, Refusal, Spans};

/// Events and marks that a source offers to the bus. They are stored together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// The events, in the order in which they are stored.
    pub events: Vec<Event>,
    /// The functions that receive the events.
    pub target: Target,
    /// Small values that the source keeps in the store, such as a timer's last tick. They are committed with the
    /// events.
    pub marks: Vec<Mark>,
    /// The source through which the events enter. Their pending deliveries count towards this source's share of the
    /// backlog; with the default value, towards no share.
    pub origin: Origin,
    /// The number of functions that the chain of events passed through before this offer, in this runtime and in other
    /// ones. 0 if a new chain begins.
    pub hops: u32,
    /// Set if the producers choose the attribute `source` of the events. The bus then rejects an event whose `source`
    /// belongs to an app or to the runtime, unless this `source` is the URI of the source that offers the event.
    pub claims: Option<Claims>,
    /// A value that is kept until the offer is stored or refused, even if the caller stops waiting earlier; for
    /// example, the permit for the memory of the events.
    pub held: Option<Held>,
}

/// A value of any type that is kept until an offer is stored or refused, see [`Offer::held`].
pub type Held = Arc<dyn Any + Send + Sync>;

/// The data with which the bus checks `source` attributes that producers chose.
#[derive(Debug, Clone)]
pub struct Claims {
    /// The URI of the source that offers the events.
    pub uri: Arc<str>,
    /// The URI authorities of other machines that the manifest accepts, in lower case. A `source` with one of these
    /// authorities never counts as a source of this runtime, whatever its path is.
    pub authorities: Arc<[String]>,
}

/// Bounds of the bus.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The maximum size of an event (its attributes and data together), in bytes.
    pub event_size_max: usize,
    /// The size of the backlog (the pending deliveries) at which the bus rejects every offer. The check does not count
    /// the offer itself, so an accepted offer can make the backlog larger than this. Events that functions publish, and
    /// scheduled events that become due, are never rejected because of this limit. When the bus checks an offer, it
    /// counts the deliveries of published and due events as at most half of the limit.
    pub backlog_max: Amount,
    /// The size of the schedule (the events whose `notbefore` is in the future) at which the bus rejects every further
    /// scheduled event. An attempt that publishes such an event then fails and is retried.
    pub schedule_max: Amount,
    /// The dead letters of one source at which the bus rejects every further offer of the source. The check does not
    /// count pending deliveries, which can still become dead letters.
    pub dead_max: Amount,
}

/// The default limit of the backlog. A million deliveries are a day's work for a function that handles 12 a second;
/// 4 GiB leave free space on most disks.
pub const BACKLOG_MAX: Amount = Amount { deliveries: 1_000_000, bytes: 4 << 30 };

/// The default limit of the schedule. A scheduled event takes no memory. On the disk it takes its own size and about
/// 300 bytes.
pub const SCHEDULE_MAX: Amount = Amount { deliveries: 4_000_000, bytes: 4 << 30 };

/// The default limit of the dead letters of one source. A dead letter takes no memory. On the disk, it takes its event,
/// and at most 4 KiB for its cause and for the message of each attempt.
pub const DEAD_MAX: Amount = Amount { deliveries: 100_000, bytes: 1 << 30 };

/// The `retry_after` while the schedule is full, or while a source has too many dead letters. The real wait depends on
/// the `notbefore` of the scheduled events, which the bus does not read, or on an operator. So the value is fixed.
const FIXED_RETRY: Duration = Duration::from_secs(60);

impl Default for Limits {
    fn default() -> Self {
        let event_size_max = evoke_model::event::EVENT_SIZE_MAX;
        Self { event_size_max, backlog_max: BACKLOG_MAX, schedule_max: SCHEDULE_MAX, dead_max: DEAD_MAX }
    }
}

/// `retry_after` is the time until the backlog has shrunk to this fraction of its limit. If producers retried as soon
/// as the backlog is below its limit, the first of them would fill the backlog again.
const RETRY_FILL_RATIO: f64 = 0.9;

/// Returns how many deliveries must end until there is room again. `rule` computes the excess from `a` and `b`: once
/// from their numbers of deliveries, and once from their bytes. The excess in bytes is divided by the average size of a
/// delivery in `total`, which gives a number of deliveries. The larger of the two numbers is returned.
fn excess_deliveries(total: Amount, rule: impl Fn(f64, f64) -> f64, a: Amount, b: Amount) -> f64 {
    let bytes_each = (total.bytes as f64 / total.deliveries.max(1) as f64).max(1.0);
    rule(a.deliveries as f64, b.deliveries as f64).max(rule(a.bytes as f64, b.bytes as f64) / bytes_each)
}

/// A handle to the bus; cheap to clone.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
    /// The kind of source that offers events through this handle.
    ingress: Ingress,
    metrics: Arc<IngressMetrics>,
    spans: Spans,
    clock: Clock,
}

struct Inner {
    store: Arc<dyn EventStore>,
    router: RwLock<Arc<Router>>,
    limits: Limits,
    drain_rate: DrainRate,
    match_permits: MatchPermits,
    /// Permits for the events that functions publish, so that they do not wait behind those of producers.
    publish_permits: MatchPermits,
    /// The requests that wait for a reply.
    replies: Arc<Replies>,
}

impl Bus {
    /// Creates a bus over `store`, without registered metrics and without tracing.
    pub fn new(store: Arc<dyn EventStore>, router: Router, limits: Limits) -> Self {
        let (router, drain_rate) = (RwLock::new(Arc::new(router)), DrainRate::default());
        let (match_permits, publish_permits, replies) = Default::default();
        let inner = Inner { store, router, limits, drain_rate, match_permits, publish_permits, replies };
        let (ingress, metrics, spans) = (Ingress::API, Arc::default(), Spans::default());
        Self { inner: Arc::new(inner), ingress, metrics, spans, clock: Clock::system() }
    }

    /// Returns the same bus with `clock` instead of the clock of the operating system. The bus compares the `notbefore`
    /// of events with its wall clock.
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Returns the same bus with `spans` as the object that starts its tracing spans.
    pub fn with_spans(self, spans: Spans) -> Self {
        Self { spans, ..self }
    }

    /// Returns a handle to the same bus for sources of one kind. Offers through this handle are counted in the metrics
    /// of that kind.
    pub fn for_ingress(&self, ingress: Ingress, metrics: &Metrics) -> Self {
        Self { ingress, metrics: metrics.ingress(ingress), ..self.clone() }
    }

    /// Returns the object that starts the tracing spans of this bus.
    pub fn spans(&self) -> &Spans {
        &self.spans
    }

    /// Counts an event that a source rejected itself, without offering it to the bus.
    pub fn count_refused(&self, reason: Refusal) {
        self.metrics.refused(reason).increment();
    }

    /// Accepts an offer. If this returns `Ok`, every event of the offer is durably stored with its deliveries. An event
    /// with the result [`Accepted::Duplicate`] was stored by an earlier call.
    ///
    /// # Errors
    /// [`Refused`]: nothing of the offer is stored. The exceptions are [`StoreError::Failed`] and
    /// [`StoreError::Unreachable`]: after these errors, it is unknown whether the offer is stored.
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

    async fn store(&self, mut offer: Offer, spans: &[LiveSpan]) -> Result<Vec<Accepted>, Refused> {
        let inner = &*self.inner;
        if !offer.events.is_empty() {
            self.check_room(offer.origin)?;
        }
        let router = self.router();
        for (index, event) in offer.events.iter_mut().enumerate() {
            let size = event.size();
            if size > inner.limits.event_size_max {
                return Err(Refused::TooLarge { index, size, max: inner.limits.event_size_max });
            }
            let message = runtime_events::reserved_error(&event.source, &event.type_);
            let checked = message.map_or_else(|| event.check().map_err(|e| e.to_string()), Err);
            checked.map_err(|message| Refused::Invalid { index, message })?;
            if let Some(due_ms) = event.not_before_ms() {
                self.check_schedule(offer.origin, index, event, due_ms)?;
            }
            if let Some(claims) = &offer.claims {
                check_claim(&router, claims, index, event)?;
            }
            if let Some(span) = spans.get(index) {
                span.inject_if_missing(event);
            }
        }
        let Offer { events, target, marks, origin, hops, held, .. } = offer;
        let lineage = Lineage { origin, hops, ..Lineage::default() };
        let routing = Routing { permits: &inner.match_permits, router, lineage, target: &target, held: &held };
        let routed = routing.route(events).await;
        let events = routed.map_err(|(index, message)| Refused::Invalid { index, message })?;
        Ok(Commit::new(inner.store.accept(events, marks), held).await?)
    }

    /// Checks the `notbefore` of an event. If the event is not due yet, also checks that the schedule has room for it.
    fn check_schedule(&self, origin: Origin, index: usize, event: &Event, due_ms: UnixMs) -> Result<(), Refused> {
        let now_ms = self.clock.now_ms();
        event.check_not_before(now_ms).map_err(|e| Refused::Invalid { index, message: e.to_string() })?;
        if due_ms <= now_ms {
            return Ok(());
        }
        self.check_schedule_room(origin)
    }

    /// Returns an error if the schedule has no room for a further event of this source.
    pub(crate) fn check_schedule_room(&self, origin: Origin) -> Result<(), Refused> {
        let (schedule, max) = (self.inner.store.schedule_backlog(), self.inner.limits.schedule_max);
        let scheduled = schedule.total();
        let free = Amount {
            deliveries: max.deliveries.saturating_sub(scheduled.deliveries),
            bytes: max.bytes.saturating_sub(scheduled.bytes),
        };
        // With less than half of the limits in use, no source can own more than is free.
        let is_roomy = scheduled.deliveries < max.deliveries.div_ceil(2) && scheduled.bytes < max.bytes.div_ceil(2);
        if is_roomy {
            return Ok(());
        }
        let owned = if origin == Origin::default() { Amount::default() } else { schedule.of(origin) };
        let has_room = free.deliveries > owned.deliveries && free.bytes > owned.bytes;
        has_room.then_some(()).ok_or(Refused::ScheduleFull { scheduled, free, retry_after: FIXED_RETRY })
    }

    /// Stores `mark` and, if there is one, `event` in the same commit. `event` is a runtime event: the runtime
    /// publishes it about itself. A runtime event is accepted even if the backlog is full: such events are few, and
    /// most useful in that situation.
    pub async fn publish_runtime_event(&self, event: Option<Event>, mark: Mark) -> Result<(), StoreError> {
        let router = self.router();
        let lineage = Lineage { origin: runtime_events::origin(), ..Lineage::default() };
        let new = event.map(|event| {
            // Routing cannot fail: the runtime's own events have valid JSON data.
            let deliveries = router.route(&event, lineage.entered(), &Target::Matching).unwrap_or_default();
            NewEvent { event: Arc::new(event), lineage, deliveries }
        });
        self.inner.store.accept(new.into_iter().collect(), vec![mark]).await.map(drop)
    }

    /// Checks that the backlog has room for an offer from this source. [`Bus::accept`] makes the same check.
    ///
    /// A source owns the pending deliveries that its events caused, and has room while it owns less than is free. So a
    /// single flooding source gets half of the limits, and two get a third each. A source that owns nothing has room
    /// until the backlog is full.
    ///
    /// Events that functions publish, and scheduled events that become due, cannot be refused. Their deliveries belong
    /// to the source through which their chain entered. In the size of the whole backlog, these deliveries count as at
    /// most half of the limits. Otherwise very many published events, or many events that are due at the same time,
    /// could exclude all sources for a long time. In the share of their own source, they count in full.
    ///
    /// # Errors
    /// [`Refused::Overloaded`], [`Refused::Crowding`] or [`Refused::DeadLetters`], with the time to wait before a retry.
    pub fn check_room(&self, origin: Origin) -> Result<(), Refused> {
        self.check_dead_letters(origin)?;
        let Inner { store, limits, drain_rate, .. } = &*self.inner;
        let (backlog, max) = (store.backlog(), limits.backlog_max);
        let mut total = backlog.total();
        if origin != Origin::default() {
            let published = backlog.published();
            total.deliveries -= published.deliveries.saturating_sub(max.deliveries / 2).min(total.deliveries);
            total.bytes -= published.bytes.saturating_sub(max.bytes / 2).min(total.bytes);
        }
        // With less than half of the limits in use, no source can own more than is free.
        if total.deliveries < max.deliveries.div_ceil(2) && total.bytes < max.bytes.div_ceil(2) {
            return Ok(());
        }
        let (now, ended) = (Instant::now(), backlog.ended());
        drain_rate.record(now, ended);
        let free = Amount {
            deliveries: max.deliveries.saturating_sub(total.deliveries),
            bytes: max.bytes.saturating_sub(total.bytes),
        };
        let wait = |excess| drain_rate.time_until_ended(excess, now, ended);
        if free.deliveries == 0 || free.bytes == 0 {
            let excess = excess_deliveries(total, |total, max| total - RETRY_FILL_RATIO * max, total, max);
            return Err(Refused::Overloaded { backlog: total, max, retry_after: wait(excess) });
        }
        let owned = if origin == Origin::default() { Amount::default() } else { backlog.of(origin) };
        if owned.deliveries >= free.deliveries || owned.bytes >= free.bytes {
            // `part` is the source's share of the backlog. On average, each pending delivery that ends reduces the
            // deliveries of the source by `part`, and increases the free room by one.
            let part = owned.deliveries as f64 / total.deliveries.max(1) as f64;
            let excess = excess_deliveries(
                total,
                |owned, free| (owned - RETRY_FILL_RATIO * free) / (part + RETRY_FILL_RATIO),
                owned,
                free,
            );
            return Err(Refused::Crowding { owned, free, retry_after: wait(excess) });
        }
        Ok(())
    }

    /// Returns an error if this source has too many dead letters.
    fn check_dead_letters(&self, origin: Origin) -> Result<(), Refused> {
        let (dead, max) = (self.inner.store.dead_letters(), self.inner.limits.dead_max);
        let is_full = |amount: Amount| {
            amount.deliveries > 0 && (amount.deliveries >= max.deliveries || amount.bytes >= max.bytes)
        };
        // While all sources together are below the limit, which is nearly always, no source needs to be looked up.
        if origin == Origin::default() || !is_full(dead.total()) {
            return Ok(());
        }
        let owned = dead.of(origin);
        if is_full(owned) { Err(Refused::DeadLetters { owned, max, retry_after: FIXED_RETRY }) } else { Ok(()) }
    }

    /// Returns the stored marks of a source by key.
    pub fn marks(&self, scope: &str) -> StoreFuture<std::collections::BTreeMap<String, Vec<u8>>> {
        self.inner.store.marks(scope.to_owned())
    }

    /// Returns true if the newest event with this source and id has a pending delivery.
    pub async fn is_pending(&self, source: &str, id: &str) -> Result<bool, StoreError> {
        match self.inner.store.event_of(source.to_owned(), id.to_owned()).await? {
            Some(event) => self.inner.store.is_pending(event).await,
            None => Ok(false),
        }
    }

    /// Returns the active router.
    pub fn router(&self) -> Arc<Router> {
        self.inner.router.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Replaces the active router. The next event is routed with the new one.
    pub fn set_router(&self, router: Router) {
        *self.inner.router.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(router);
    }

    /// Returns the number of pending deliveries.
    pub fn pending(&self) -> u64 {
        self.inner.store.pending()
    }
}

/// Rejects an event whose producer chose a `source` that belongs to an app or to the runtime. `router` must be the one
/// that also routes the event. An older router does not know a newly added app, so an event with a `source` of this app
/// would pass the check and then reach the functions of the app.
fn check_claim(router: &Router, claims: &Claims, index: usize, event: &Event) -> Result<(), Refused> {
    if event.source == *claims.uri {
        return Ok(());
    }
    let trusted = |authority: &str| claims.authorities.iter().any(|accepted| accepted == authority);
    match router.owner_of(&event.source, trusted) {
        None => Ok(()),
        Some(name) => {
            let owner =
                if name == claim::RUNTIME_NAME { "the runtime".to_owned() } else { format!("the app `{name}`") };
            Err(Refused::Claimed { index, claimed: event.source.clone(), owner })
        }
    }
}

#[cfg(test)]
mod tests;
