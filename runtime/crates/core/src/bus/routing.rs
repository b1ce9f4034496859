//! Routes the events of an offer. The time to match an event grows with its size and with the number of patterns: up to
//! 50 ms for each pattern and MiB. A source calls the bus on a thread that also serves the listeners, so large events
//! are matched on a thread for blocking work.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

use super::{Held, Origin, Target};
use crate::blocking;
use crate::router::Router;
use evoke_model::NewDelivery;
use evoke_model::event::Event;

/// Up to this total size in bytes, the events of an offer are matched on the thread of the caller. Most offers are
/// smaller, and for them a change of the thread would cost more than the matching.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// The limit on large events that are matched at the same time: one for each processor. With more threads that compute,
/// the listeners would wait for a processor.
pub(super) struct MatchPermits(Arc<Semaphore>);

impl Default for MatchPermits {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(available_parallelism().map_or(1, std::num::NonZero::get))))
    }
}

/// The routing of one offer.
pub(super) struct Routing<'a> {
    pub(super) permits: &'a MatchPermits,
    pub(super) router: Arc<Router>,
    pub(super) origin: Origin,
    pub(super) target: &'a Target,
    /// Also kept while an event is matched for a caller that no longer waits.
    pub(super) held: &'a Option<Held>,
    /// The total size of the events so far, in bytes.
    pub(super) bytes: usize,
}

impl Routing<'_> {
    /// Returns the event of this size and its deliveries. The error is that of [`Router::route`].
    pub(super) async fn route(&mut self, event: Event, size: usize) -> (Event, Result<Vec<NewDelivery>, String>) {
        self.bytes += size;
        if self.bytes <= INLINE_BYTES_MAX {
            let routed = self.router.route(&event, Some(self.origin), self.target);
            return (event, routed);
        }
        // An error means that the semaphore is closed, which never happens.
        let permit = self.permits.0.clone().acquire_owned().await;
        let (router, origin, target) = (self.router.clone(), self.origin, self.target.clone());
        let held = self.held.clone();
        blocking::run(move || {
            let _kept = (permit, held);
            let routed = router.route(&event, Some(origin), &target);
            (event, routed)
        })
        .await
    }
}
