//! Events and deliveries in maps.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use super::{ById, Delivery, Inner, Row, index};
use crate::LoadLimit;
use crate::backlog::Share;
use crate::descendants::Chains;
use crate::running::UncleanExit;
use crate::validate::Validation;
use evoke_model::clock::UnixMs;
use evoke_model::{
    Accepted, ChainState, Completed, Completion, Counts, DeadFilter, DeliveryId, DeliveryRecord, DeliveryState,
    FunctionId, NewDelivery, NewEvent, Origin, PendingFilter, ReadyDelivery, ReplayId, Seq, StoredEvent, Stream,
    Totals, Verdict,
};

impl Inner {
    /// Returns the position of the newest event; 0 if there is none yet.
    pub(super) fn newest(&self) -> Seq {
        Seq(self.events.len() as i64)
    }

    fn newest_delivery(&self) -> DeliveryId {
        DeliveryId(self.deliveries.len() as i64)
    }

    pub(super) fn event(&self, seq: Seq) -> Option<&Row> {
        self.events.get(index(seq.0))?.as_ref()
    }

    pub(super) fn delivery(&self, id: DeliveryId) -> Option<&Delivery> {
        self.deliveries.get(index(id.0))?.as_ref()
    }

    pub(super) fn ready_delivery(&self, id: DeliveryId) -> Option<ReadyDelivery> {
        let delivery = self.delivery(id)?;
        Some(ReadyDelivery {
            id,
            function: delivery.function,
            trigger: delivery.trigger.clone(),
            attempts: delivery.attempts.len() as u32,
            attempts_forgiven: delivery.forgiven,
            since_ms: delivery.since_ms,
            replay: delivery.replay,
            origin: delivery.event.lineage.origin,
            event: Ok(delivery.event.clone()),
        })
    }

    /// Returns the first of these deliveries, up to the limit.
    pub(super) fn load(&self, ids: impl Iterator<Item = DeliveryId>, limit: LoadLimit) -> Vec<ReadyDelivery> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for delivery in ids.filter_map(|id| self.ready_delivery(id)) {
            if limit.is_reached(found.len(), bytes) {
                break;
            }
            bytes += delivery.event_size();
            found.push(delivery);
        }
        found
    }

    pub(super) fn insert(&mut self, new: NewEvent, ready: &mut Vec<DeliveryId>) -> Accepted {
        let NewEvent { event, lineage, deliveries } = new;
        let (seq, accepted_ms) = (self.newest().next(), self.clock.store_ms());
        let stored = Arc::new(StoredEvent { seq, accepted_ms, lineage, event });
        let scheduled_ms = stored.event.not_before_ms().filter(|due_ms| *due_ms > self.clock.now_ms());
        let by_id = ById { stored: stored.clone(), released_ms: scheduled_ms.map(|_| UnixMs::MAX) };
        let since_ms = accepted_ms.saturating_sub(self.dedup_window_ms);
        if let Some(known) = self.by_id.get(&by_id)
            && known.since_ms() > since_ms
        {
            return Accepted::Duplicate(known.stored.seq);
        }
        self.by_id.replace(by_id);
        if let Some(root) = lineage.root
            && lineage.hops > 0
        {
            let of_chain = self.descendants.entry(root).or_default();
            of_chain.events += 1;
            of_chain.bytes += stored.event.size() as u64;
        }
        if let Some(cause) = lineage.cause {
            self.published.entry(cause).or_default().push(seq);
        }
        let first_delivery = self.newest_delivery().next();
        let owed = if scheduled_ms.is_some() { 0 } else { deliveries.len() };
        self.owed += owed as u64;
        self.events.push(Some(Row { stored: stored.clone(), first_delivery, owed, scheduled_ms, released_ms: None }));
        match scheduled_ms {
            Some(due_ms) => self.schedule(due_ms, &stored),
            None => deliveries.into_iter().for_each(|new| self.insert_delivery(&stored, new, None, ready)),
        }
        Accepted::New(seq)
    }

    fn insert_all(&mut self, events: &[NewEvent], ready: &mut Vec<DeliveryId>) {
        for new in events {
            self.insert(new.clone(), ready);
        }
    }

    /// Adds a live or replayed delivery of an event.
    pub(super) fn insert_delivery(
        &mut self,
        event: &Arc<StoredEvent>,
        new: NewDelivery,
        replay: Option<ReplayId>,
        ready: &mut Vec<DeliveryId>,
    ) {
        let NewDelivery { function, trigger, order_key } = new;
        let id = self.newest_delivery().next();
        let blocked = order_key.as_ref().is_some_and(|key| {
            let unfinished = self.unfinished.entry((function, replay, key.clone())).or_default();
            unfinished.insert(id);
            unfinished.first() != Some(&id)
        });
        let row = self.events.get(index(event.seq.0)).and_then(Option::as_ref);
        let is_released = replay.is_none() && row.is_some_and(|row| row.released_ms.is_some());
        let delivery = Delivery {
            event: event.clone(),
            function,
            trigger,
            order_key,
            replay,
            is_released,
            state: DeliveryState::Blocked,
            cause: None,
            due_ms: None,
            attempts: Vec::new(),
            forgiven: 0,
            since_ms: self.clock.store_ms(),
        };
        self.backlog.add(share(&delivery));
        self.deliveries.push(Some(delivery));
        if !blocked {
            self.make_ready(id, ready);
        }
    }

    pub(super) fn make_ready(&mut self, id: DeliveryId, ready: &mut Vec<DeliveryId>) {
        if let Some(delivery) = self.deliveries.get_mut(index(id.0)).and_then(Option::as_mut) {
            delivery.state = DeliveryState::Ready;
            self.ready.entry(delivery.lane()).or_default().insert(id);
            ready.push(id);
        }
    }

    /// Removes a done or purged delivery from its order key, and makes the next delivery of the key ready.
    pub(super) fn finish(&mut self, id: DeliveryId, ready: &mut Vec<DeliveryId>) {
        let Some(delivery) = self.delivery(id) else { return };
        let Some(key) = delivery.order_key.clone() else { return };
        let lane = (delivery.function, delivery.replay, key);
        let Some(unfinished) = self.unfinished.get_mut(&lane) else { return };
        unfinished.remove(&id);
        match unfinished.first().copied() {
            None => drop(self.unfinished.remove(&lane)),
            Some(next) => {
                let next_state = self.delivery(next).map(|d| d.state);
                if next_state == Some(DeliveryState::Blocked) {
                    self.make_ready(next, ready);
                }
            }
        }
    }

    pub(super) fn complete(&mut self, completion: &Completion, ready: &mut Vec<DeliveryId>) -> Completed {
        let Completion { delivery: id, record, verdict, publishes, state, .. } = completion;
        let id = *id;
        let Some(delivery) = self.deliveries.get_mut(index(id.0)).and_then(Option::as_mut) else {
            return Completed::Superseded;
        };
        let is_pending = matches!(delivery.state, DeliveryState::Ready | DeliveryState::Retrying);
        if !is_pending || delivery.attempts.len() + 1 != record.attempt as usize {
            return Completed::Superseded;
        }
        if *verdict == Verdict::Done
            && let Err(message) = self.check_descendants(publishes)
        {
            return Completed::TooManyDescendants(message);
        }
        let Some(delivery) = self.deliveries.get_mut(index(id.0)).and_then(Option::as_mut) else {
            return Completed::Superseded;
        };
        match self.buckets.validate(state) {
            Validation::Valid(valid) => self.buckets.apply(state, valid),
            Validation::Conflict(place) => return Completed::Conflict(place),
            Validation::OverQuota(refusal) => return Completed::OverQuota(refusal),
        }
        match delivery.state {
            DeliveryState::Ready => {
                self.ready.entry(delivery.lane()).or_default().remove(&id);
            }
            DeliveryState::Retrying => {
                let due_ms = delivery.due_ms.take().unwrap_or_default();
                self.due.entry(delivery.lane()).or_default().remove(&(due_ms, id));
            }
            _ => {}
        }
        // Most deliveries have one attempt, so reserve memory for only one.
        delivery.attempts.reserve_exact(1);
        delivery.attempts.push(record.clone());
        if !matches!(verdict, Verdict::RetryAt(_)) {
            self.backlog.remove(share(delivery));
        }
        match verdict {
            Verdict::Done => {
                delivery.state = DeliveryState::Done;
                self.put_recording(completion);
                self.insert_all(publishes, ready);
                self.finish(id, ready);
                return Completed::Committed;
            }
            Verdict::RetryAt(due_ms) => {
                delivery.state = DeliveryState::Retrying;
                delivery.due_ms = Some(*due_ms);
                self.due.entry(delivery.lane()).or_default().insert((*due_ms, id));
            }
            Verdict::Dead(cause) => {
                delivery.state = DeliveryState::Dead;
                self.dead_change.add(share(delivery));
                delivery.cause = Some(cause.clone());
            }
        }
        self.put_recording(completion);
        self.insert_all(publishes, ready);
        Completed::Committed
    }

    fn check_descendants(&self, publishes: &[NewEvent]) -> Result<(), String> {
        let count = |root| Ok::<_, Infallible>(self.descendants.get(&root).copied().unwrap_or_default());
        match Chains::default().check(publishes, &self.descendants_limits, count) {
            Ok(checked) => checked.map(drop),
            Err(never) => match never {},
        }
    }

    pub(super) fn chain(&self, delivery: DeliveryId) -> Vec<String> {
        let mut names = Vec::new();
        let mut next = Some(delivery);
        while let Some(delivery) = next.and_then(|id| self.delivery(id)) {
            names.push(self.name(delivery.function).to_owned());
            next = delivery.event.lineage.cause;
        }
        names.reverse();
        names
    }

    /// Searches the events from the root on, because all events of a chain have later positions than its root.
    pub(super) fn chain_state(&self, root: Seq, wanted: &dyn Fn(&str) -> bool) -> ChainState {
        let (mut dead, mut is_pending) = (None, false);
        for row in self.events.iter().skip(index(root.0)).flatten() {
            let StoredEvent { seq, lineage, event, .. } = &*row.stored;
            if (*seq != root && lineage.root != Some(root)) || lineage.origin == Origin::RUNTIME {
                continue;
            }
            // A check of the hops alone is not enough: if a function of another chain sent the request that created the
            // root, the root has hops, too.
            if lineage.root == Some(root) && lineage.hops > 0 && wanted(&event.type_) {
                return ChainState::Published(Ok((*row.stored).clone()));
            }
            for (id, delivery) in row.deliveries().filter_map(|id| Some((id, self.delivery(id)?))) {
                is_pending |= delivery.is_pending();
                if delivery.state == DeliveryState::Dead && dead.is_none() {
                    let last = delivery.attempts.last().map(|record| record.outcome.clone().into_owned());
                    dead = Some(ChainState::dead(id, delivery.cause.as_deref(), last));
                }
            }
        }
        dead.unwrap_or(if is_pending { ChainState::Pending } else { ChainState::Finished })
    }

    pub(super) fn record_exit(&mut self, exit: Option<UncleanExit>) -> BTreeMap<DeliveryId, u32> {
        let (deliveries, exits) = (&self.deliveries, &mut self.exits);
        let find = |id: DeliveryId| deliveries.get(index(id.0)).and_then(Option::as_ref);
        if let Some(UncleanExit { run, attempts }) = exit
            && self.exit_run.replace(run) != Some(run)
        {
            for (id, attempt) in attempts {
                let is_next = find(id).is_some_and(|delivery| {
                    matches!(delivery.state, DeliveryState::Ready | DeliveryState::Retrying)
                        && delivery.attempts.len() + 1 == attempt as usize
                });
                if is_next {
                    *exits.entry(id).or_default() += 1;
                }
            }
        }
        let finished = |delivery: &Delivery| matches!(delivery.state, DeliveryState::Done | DeliveryState::Purged);
        exits.retain(|id, _| find(*id).is_some_and(|delivery| !finished(delivery)));
        let is_dead = |id: DeliveryId| find(id).is_some_and(|delivery| delivery.state == DeliveryState::Dead);
        exits.iter().map(|(id, count)| (*id, if is_dead(*id) { 1 } else { *count })).collect()
    }

    pub(super) fn dead<'a>(&'a self, which: &'a DeadFilter) -> impl Iterator<Item = DeliveryId> + 'a {
        let meant = move |id: DeliveryId, delivery: &Delivery| match which {
            DeadFilter::All => true,
            DeadFilter::Function(name) => self.name(delivery.function) == name,
            DeadFilter::Delivery(one) => id == *one,
            DeadFilter::Deliveries(ids) => ids.contains(&id),
        };
        let all = (1..).map(DeliveryId).zip(&self.deliveries);
        let all = all.filter_map(|(id, delivery)| Some((id, delivery.as_ref()?)));
        all.filter(move |(id, d)| d.state == DeliveryState::Dead && meant(*id, d)).map(|(id, _)| id)
    }

    pub(super) fn pending<'a>(&'a self, which: &'a PendingFilter) -> impl Iterator<Item = DeliveryId> + 'a {
        let meant = move |id: DeliveryId, delivery: &Delivery| match which {
            PendingFilter::All => true,
            PendingFilter::Function(name) => self.name(delivery.function) == name,
            PendingFilter::Root(seq) => delivery.event.seq == *seq || delivery.event.lineage.root == Some(*seq),
            PendingFilter::Delivery(one) => id == *one,
        };
        let all = (1..).map(DeliveryId).zip(&self.deliveries);
        let all = all.filter_map(|(id, delivery)| Some((id, delivery.as_ref()?)));
        all.filter(move |(id, delivery)| delivery.is_pending() && meant(*id, delivery)).map(|(id, _)| id)
    }

    pub(super) fn cancel(&mut self, which: &PendingFilter, cause: &str) -> u64 {
        let ids: Vec<_> = self.pending(which).collect();
        for id in &ids {
            let Some(delivery) = self.deliveries.get_mut(index(id.0)).and_then(Option::as_mut) else { continue };
            if let Some(ready) = self.ready.get_mut(&delivery.lane()) {
                ready.remove(id);
            }
            if let Some(due_ms) = delivery.due_ms.take()
                && let Some(due) = self.due.get_mut(&delivery.lane())
            {
                due.remove(&(due_ms, *id));
            }
            delivery.state = DeliveryState::Dead;
            delivery.cause = Some(cause.to_owned());
            self.backlog.remove(share(delivery));
            self.dead_change.add(share(delivery));
            self.cancelled.push((delivery.function, *id));
        }
        ids.len() as u64
    }

    fn dead_ids(&self, which: &DeadFilter) -> Vec<DeliveryId> {
        self.dead(which).collect()
    }

    pub(super) fn has_pending(&self, event: Seq) -> bool {
        let mut deliveries = self.event(event).into_iter().flat_map(Row::deliveries);
        deliveries.any(|id| self.delivery(id).is_some_and(Delivery::is_pending))
    }

    pub(super) fn name(&self, function: FunctionId) -> &str {
        self.functions.get(index(function.0)).map(String::as_str).unwrap_or_default()
    }

    pub(super) fn record(&self, id: DeliveryId) -> Option<DeliveryRecord> {
        let delivery = self.delivery(id)?;
        Some(DeliveryRecord {
            id,
            event: delivery.event.seq,
            function: self.name(delivery.function).to_owned(),
            trigger: delivery.trigger.to_string(),
            order_key: delivery.order_key.clone(),
            replay: delivery.replay,
            state: delivery.state,
            cause: delivery.cause.clone(),
            due_ms: delivery.due_ms,
            attempts: delivery.attempts.clone(),
        })
    }

    pub(super) fn redrive(&mut self, which: &DeadFilter, ready: &mut Vec<DeliveryId>) -> u64 {
        let ids = self.dead_ids(which);
        let now_ms = self.clock.store_ms();
        for id in &ids {
            if let Some(delivery) = self.deliveries.get_mut(index(id.0)).and_then(Option::as_mut) {
                delivery.forgiven = delivery.attempts.len() as u32;
                delivery.since_ms = now_ms;
                delivery.cause = None;
                if let Some(count) = self.exits.get_mut(id) {
                    *count = 1;
                }
                self.backlog.add(share(delivery));
                self.dead_change.remove(share(delivery));
            }
            if self.is_first_of_key(*id) {
                self.make_ready(*id, ready);
            } else if let Some(delivery) = self.deliveries.get_mut(index(id.0)).and_then(Option::as_mut) {
                delivery.state = DeliveryState::Blocked;
            }
        }
        ids.len() as u64
    }

    /// Returns true if no earlier delivery of the order key is unfinished.
    fn is_first_of_key(&self, id: DeliveryId) -> bool {
        let Some(delivery) = self.delivery(id) else { return true };
        let Some(key) = delivery.order_key.clone() else { return true };
        let unfinished = self.unfinished.get(&(delivery.function, delivery.replay, key));
        unfinished.and_then(BTreeSet::first).is_none_or(|first| *first == id)
    }

    pub(super) fn purge(&mut self, which: &DeadFilter, ready: &mut Vec<DeliveryId>) -> u64 {
        let ids = self.dead_ids(which);
        for id in &ids {
            if let Some(delivery) = self.deliveries.get_mut(index(id.0)).and_then(Option::as_mut) {
                delivery.state = DeliveryState::Purged;
                self.dead_change.remove(share(delivery));
            }
            self.finish(*id, ready);
        }
        ids.len() as u64
    }

    pub(super) fn totals(&self) -> Totals {
        let mut functions: BTreeMap<String, Counts> = BTreeMap::new();
        for delivery in self.deliveries.iter().flatten() {
            let counts = functions.entry(self.name(delivery.function).to_owned()).or_default();
            *counts.get_mut(delivery.state) += 1;
        }
        for (function, (done, purged)) in &self.removed_deliveries {
            let counts = functions.entry(self.name(*function).to_owned()).or_default();
            counts.done += done;
            counts.purged += purged;
            counts.removed += done + purged;
        }
        Totals {
            events: self.events.len() as u64,
            owed: self.owed,
            replayed: self.replayed,
            scheduled: self.scheduled.len() as u64,
            removed: self.removed,
            functions,
        }
    }
}

impl Delivery {
    fn is_pending(&self) -> bool {
        matches!(self.state, DeliveryState::Ready | DeliveryState::Retrying | DeliveryState::Blocked)
    }

    /// Returns the queue in which the delivery waits.
    pub(super) fn lane(&self) -> (FunctionId, Stream) {
        (self.function, Stream::of(self.replay))
    }
}

/// Returns the contribution of a delivery to the backlog. Replayed deliveries count for no source, because replays have
/// a limit of their own.
pub(super) fn share(delivery: &Delivery) -> Share {
    let Delivery { event, replay, is_released, .. } = delivery;
    let of = if *is_released { Share::of_released } else { Share::of };
    let share = of(&event.event, &event.lineage);
    if replay.is_none() { share } else { Share { origin: Origin::default(), ..share } }
}
