//! The scheduler: releases events when the time in their attribute `notbefore` has come.
//!
//! The store orders the waiting events by their time, and the scheduler holds only the next few of them. An event is
//! routed when it is due, with the router of that moment. One commit creates its deliveries and removes it from the
//! schedule. So its deliveries are created exactly once, even if the process ends at any point.
//!
//! The schedule follows the wall clock. After a jump forward, all events up to the new time are due immediately. After
//! a jump back, events wait until the wall clock shows their time. The scheduler notices a jump within [`POLL`].

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::blocking;
use crate::bus::Bus;
use evoke_model::clock::{Clock, UnixMs};
use evoke_model::{NewDelivery, ReadEvent, Seq};
use evoke_store::{Scheduled, Store, StoreError};

/// The maximum number of events per commit: 64 MiB if all have the largest size. Other writes run between these
/// commits.
const BATCH_MAX: usize = 64;
/// The longest time between two reads of the wall clock. The clock can jump.
const POLL: Duration = Duration::from_secs(1);
/// The wait before a retry after an error of the store.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// The name under which a scheduler takes the ownership of the schedule in the store, so that only one of several
/// processes releases events.
const SCOPE: &str = "/evoke/schedule";

/// Releases the scheduled events of one store.
pub struct Scheduler {
    store: Arc<dyn Store>,
    bus: Bus,
    clock: Clock,
    /// Damaged events that were found and logged. They stay in the schedule.
    damaged: HashSet<Seq>,
}

impl Scheduler {
    /// Creates a scheduler. Events are routed with the active router of `bus`.
    pub fn new(store: Arc<dyn Store>, bus: Bus, clock: Clock) -> Self {
        Self { store, bus, clock, damaged: HashSet::new() }
    }

    /// Releases events when they are due, until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let store = self.store.clone();
        let mut ownership = None;
        let mut next_ms = UnixMs::MIN;
        while !stop.is_cancelled() {
            if ownership.is_none() {
                ownership = store.own(SCOPE).await.ok().flatten();
            }
            let now_ms = self.clock.now_ms();
            let until_ms = next_ms.min(store.alarm().earliest_ms()).saturating_sub(now_ms);
            let wait = match u64::try_from(until_ms) {
                _ if ownership.is_none() => POLL,
                Ok(ms) if ms > 0 => Duration::from_millis(ms).min(POLL),
                _ => match self.release_due(now_ms).await {
                    Ok(next) => {
                        next_ms = next.unwrap_or(UnixMs::MAX);
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!("cannot release the scheduled events that are due; trying again: {error}");
                        STORE_RETRY
                    }
                },
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
                () = store.alarm().changed() => {}
            }
        }
    }

    /// Releases a batch of due events, the earliest first. Returns the time at which the next event is due.
    async fn release_due(&mut self, now_ms: UnixMs) -> Result<Option<UnixMs>, StoreError> {
        // The store sets the alarm when it adds an event to the schedule. The alarm is reset before the read. So the
        // read finds every event that was added before the reset, and a later event sets the alarm again.
        self.store.alarm().reset();
        let (due, next_ms) = self.store.due_events(now_ms, BATCH_MAX + self.damaged.len()).await?;
        let (intact, damaged): (Vec<_>, Vec<_>) = due.into_iter().partition(|scheduled| scheduled.event.is_ok());
        for Scheduled { seq, event, .. } in damaged {
            if let Err(damaged) = event
                && self.damaged.insert(seq)
            {
                tracing::error!("{damaged}; the event is not delivered; restore the file from a backup");
            }
        }
        let has_intact = !intact.is_empty();
        let (store, bus) = (self.store.clone(), self.bus.clone());
        let route_all = move || {
            let route = |one: Scheduled| (one.seq, route(&*store, &bus, &one.event));
            intact.into_iter().map(route).collect::<Vec<_>>()
        };
        let released = if has_intact { blocking::run(route_all).await } else { Vec::new() };
        if !released.is_empty()
            && let Err(error) = self.store.release_events(released).await
        {
            // The events are still due. The alarm makes sure that the next call finds them.
            self.store.alarm().set(now_ms);
            return Err(error);
        }
        Ok(next_ms)
    }
}

/// Returns the deliveries that a scheduled event gets if it is released now. Large events take long to match, so this
/// must run on a thread for blocking work.
pub fn route(store: &dyn Store, bus: &Bus, event: &ReadEvent) -> Vec<NewDelivery> {
    let Ok(stored) = event else { return Vec::new() };
    let origin_uri = store.origin_uri(stored.lineage.origin);
    let routed = bus.router().route_due(stored, origin_uri.as_deref());
    routed.unwrap_or_else(|error| {
        // This error is not expected: the bus already routed the event when the event was accepted. So the data is
        // valid.
        tracing::error!("cannot route the scheduled event {}, so no function receives it: {error}", stored.seq);
        Vec::new()
    })
}

#[cfg(test)]
mod tests;
