//! Routes the events of an offer, and those that a function publishes. The time to match an event grows with its size
//! and with the number of patterns: up to 50 ms for each pattern and MiB. A source calls the bus on a thread that also
//! serves the listeners, and an attempt ends on a thread that also runs other attempts. So large events, and many
//! events, are matched on threads for blocking work.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

use super::{Bus, Held, Target};
use crate::blocking;
use crate::router::Router;
use evoke_model::event::Event;
use evoke_model::{Lineage, NewEvent};

/// Up to this total size in bytes, events are matched on the thread of the caller. Most offers and most attempts have
/// fewer bytes of events, and for them a change of the thread would cost more than the matching. Larger ones are
/// matched in parts of at most this size, or of one event, so that callers with many events do not keep the permits.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// The size in bytes that an event counts at least. Matching takes about a microsecond for the smallest event, too, so
/// the 256 smallest events that are matched together take less than a millisecond.
const EVENT_BYTES_MIN: usize = 256;

/// The limit on parts that are matched at the same time: one for each processor. With more threads that compute, the
/// listeners would wait for a processor.
pub(super) struct MatchPermits(Arc<Semaphore>);

impl Default for MatchPermits {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(available_parallelism().map_or(1, std::num::NonZero::get))))
    }
}

/// The routing of events that are stored together.
pub(super) struct Routing<'a> {
    pub(super) permits: &'a MatchPermits,
    pub(super) router: Arc<Router>,
    pub(super) lineage: Lineage,
    pub(super) target: &'a Target,
    /// Also kept while events are matched for a caller that no longer waits.
    pub(super) held: &'a Option<Held>,
}

impl Routing<'_> {
    /// Returns the events with their deliveries, in the same order. The error is the index of an event, and the error
    /// of [`Router::route`] for this event.
    pub(super) async fn route(self, events: Vec<Event>) -> Result<Vec<NewEvent>, (usize, String)> {
        let Self { permits, router, lineage, target, held } = self;
        if small_prefix(&events) == events.len() {
            return route_part(&router, lineage, target, events);
        }
        let mut routed = Vec::with_capacity(events.len());
        let mut rest = events.into_iter();
        while !rest.as_slice().is_empty() {
            // A large event is a part of its own.
            let part_len = small_prefix(rest.as_slice()).max(1);
            let part: Vec<Event> = rest.by_ref().take(part_len).collect();
            // An error means that the semaphore is closed, which never happens.
            let permit = permits.0.clone().acquire_owned().await;
            let (router, target, held, start) = (router.clone(), target.clone(), held.clone(), routed.len());
            let matched = blocking::run(move || {
                let _kept = (permit, held);
                route_part(&router, lineage, &target, part)
            });
            routed.extend(matched.await.map_err(|(index, message)| (start + index, message))?);
        }
        Ok(routed)
    }
}

/// Returns how many of the first events are small enough in total to be matched together.
fn small_prefix(events: &[Event]) -> usize {
    let mut bytes = 0;
    let fitting = events.iter().take_while(|event| {
        bytes += event.size().max(EVENT_BYTES_MIN);
        bytes <= INLINE_BYTES_MAX
    });
    fitting.count()
}

/// Routes events on the current thread. The error is that of [`Routing::route`].
fn route_part(
    router: &Router,
    lineage: Lineage,
    target: &Target,
    events: Vec<Event>,
) -> Result<Vec<NewEvent>, (usize, String)> {
    let route = |(index, event): (usize, Event)| {
        let deliveries = router.route(&event, lineage.entered(), target).map_err(|message| (index, message))?;
        Ok(NewEvent { event: Arc::new(event), lineage, deliveries })
    };
    events.into_iter().enumerate().map(route).collect()
}

impl Bus {
    /// Returns events that a function published, with their deliveries. The error is that of [`Router::route`].
    pub(crate) async fn route_published(&self, events: Vec<Event>, lineage: Lineage) -> Result<Vec<NewEvent>, String> {
        let (permits, router) = (&self.inner.publish_permits, self.router());
        let routing = Routing { permits, router, lineage, target: &Target::Matching, held: &None };
        routing.route(events).await.map_err(|(_, message)| message)
    }
}
