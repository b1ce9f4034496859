//! The health monitor: emits a runtime event when the health of a function, an endpoint, a source, a listener or the
//! disk changes.
//!
//! The monitor polls once a second, and also when the health of a function changes. Conditions that clear between two
//! polls are not reported.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::control::{Control, ListenerHandle, ListenerStatus, Parts};
use crate::disk::disk_space;
use evoke_core::dispatcher::{Failing, OpenCircuit};
use evoke_core::runtime_events::SOURCE;
use evoke_core::runtime_events::conditions::{Change, Conditions, Kind, Observation, Subject};
use evoke_model::FunctionId;
use evoke_store::StoreError;

/// Time between two polls.
const INTERVAL: Duration = Duration::from_secs(1);

/// Name of the disk in events.
const STORAGE: &str = "storage";

pub(super) struct HealthMonitor {
    control: Control,
    /// The data folder, whose disk is monitored.
    data: PathBuf,
    /// Free space below which the disk counts as low, in bytes; `None` uses the default.
    storage_low: Option<u64>,
    /// The listeners of the process.
    listeners: [Arc<ListenerHandle>; 2],
    conditions: Conditions,
}

impl HealthMonitor {
    /// Reads the last reported health from the store, and gives it to the dispatcher. Must run before the first
    /// attempt: a function that was failing before the start counts as failing until one of its attempts succeeds.
    pub(super) async fn new(
        control: Control,
        data: PathBuf,
        storage_low: Option<u64>,
        listeners: [Arc<ListenerHandle>; 2],
    ) -> Result<Self, StoreError> {
        let Parts { bus, dispatcher, .. } = control.parts();
        let reported = match bus.marks(SOURCE).await {
            // Without the last reported health, each problem that still exists is reported again.
            Err(StoreError::Damaged(reason)) => {
                tracing::error!("cannot read which problems were reported before; they are reported again: {reason}");
                BTreeMap::new()
            }
            reported => reported?,
        };
        let conditions = Conditions::new(&reported);
        dispatcher.restore_failing(conditions.failing_functions());
        dispatcher.restore_circuits(conditions.open_circuits());
        Ok(Self { control, data, storage_low, listeners, conditions })
    }

    /// Polls until `stop` is cancelled.
    pub(super) async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.poll()).await;
    }

    async fn poll(mut self) {
        loop {
            self.control.parts().metrics.sample();
            self.pause_gone().await;
            let (functions, renamed) = self.control.function_ids_and_renamed();
            renamed.iter().for_each(|take_over| self.conditions.rename(take_over));
            let found = self.observe(functions).await;
            let changes = self.conditions.observe(found, Instant::now(), self.control.parts().clock.now_ms());
            let is_unchanged = changes.is_empty();
            for change in changes {
                if !self.report(&change).await {
                    break;
                }
                self.conditions.mark_reported(change);
            }
            // After a change, waits the whole interval. So a function that alternates between failing and working
            // causes at most one event a second.
            match is_unchanged {
                true => drop(tokio::time::timeout(INTERVAL, self.control.parts().dispatcher.health_changed()).await),
                false => tokio::time::sleep(INTERVAL).await,
            }
        }
    }

    /// Pauses each function whose endpoint has responded that it is gone for good. If the pause cannot be stored, the
    /// function still starts no attempts, and the next poll tries again.
    async fn pause_gone(&self) {
        match self.control.pause_gone().await {
            Ok(paused) => {
                for name in paused {
                    tracing::warn!(
                        "{name} is paused: its endpoint is gone for good; correct its URL and run `evoke resume {name}`"
                    );
                }
            }
            Err(error) => tracing::debug!("cannot pause a function whose endpoint is gone: {error}"),
        }
    }

    /// Stores the event of a change, and the mark that the change was reported, in one commit. Returns false if the
    /// store failed. The next poll then detects the change again.
    async fn report(&self, change: &Change) -> bool {
        let Parts { store, bus, clock, .. } = self.control.parts();
        let (event, mark) = change.to_event_and_mark(store.instance(), clock.now_ms());
        let summary = event.as_ref().map(|event| (event.type_.clone(), event.subject.clone().unwrap_or_default()));
        match (bus.publish_runtime_event(event, mark).await, summary) {
            (Ok(()), Some((type_, subject))) => tracing::info!("{type_}: {subject}"),
            (Ok(()), None) => {}
            (Err(error), summary) => {
                // The store may work again later: a full disk may get free space. A permanent failure is reported by
                // the store itself.
                tracing::debug!("{summary:?} is not reported yet: {error}");
                return false;
            }
        }
        true
    }

    /// Returns the current health of the active functions and their circuits, the active sources, the listeners with
    /// TLS and the disk. There may be thousands of functions, circuits and sources. So those without trouble are left
    /// out, unless their trouble was reported before and their recovery must be reported now.
    async fn observe(&self, functions: BTreeMap<String, FunctionId>) -> BTreeMap<Subject, Observation> {
        let (failing, circuits) =
            (self.control.parts().dispatcher.failing(), self.control.parts().dispatcher.circuits());
        let functions = functions.into_iter().flat_map(|(name, id)| {
            let subject = |kind| Subject { kind, name: name.clone() };
            let circuit = circuits.get(&id).map(Option::as_ref).and_then(|open| {
                let circuit = subject(Kind::Circuit);
                self.matters(&circuit, open.is_some()).then(|| (circuit, circuit_state(&name, open)))
            });
            let (function, failing) = (subject(Kind::Function), failing.get(&id));
            let function =
                self.matters(&function, failing.is_some()).then(|| (function, function_health(&name, failing)));
            function.into_iter().chain(circuit)
        });
        let sources = self.control.sources().await.into_iter().filter_map(|source| {
            let name = source.uri.trim_start_matches('/').to_owned();
            let subject = Subject { kind: Kind::Source, name };
            let trouble = source.trouble.is_some();
            if !self.matters(&subject, trouble) {
                return None;
            }
            let mut data = json!({ "source": source.uri, "kind": source.kind });
            if let (Some(reason), Some(data)) = (&source.trouble, data.as_object_mut()) {
                data.insert("reason".into(), reason.as_str().into());
            }
            Some((subject, Observation { trouble, since_ms: None, data }))
        });
        let now_ms = self.control.parts().clock.now_ms();
        let with_tls = self.listeners.iter().filter(|listener| listener.tls.is_some());
        let listeners = with_tls.map(|listener| {
            let subject = Subject { kind: Kind::Listener, name: listener.name.to_owned() };
            (subject, listener_health(&listener.status(now_ms)))
        });
        let mut all: BTreeMap<_, _> = functions.chain(sources).chain(listeners).collect();
        let storage = Subject { kind: Kind::Storage, name: STORAGE.to_owned() };
        let was_low = self.conditions.has_trouble(&storage);
        let found = match disk_space(&self.data).await {
            Ok(space) => {
                let low = self.storage_low.unwrap_or(space.default_low_bytes());
                let trouble = space.is_low(low, was_low);
                Observation { trouble, since_ms: None, data: space.to_json(low) }
            }
            Err(error) => {
                tracing::debug!("cannot read the free space of the disk: {error}");
                Observation { trouble: was_low, since_ms: None, data: json!({}) }
            }
        };
        all.insert(storage, found);
        all
    }

    /// Returns true if the subject has trouble now, or if its trouble was reported and its recovery was not.
    fn matters(&self, subject: &Subject, trouble: bool) -> bool {
        trouble || self.conditions.has_trouble(subject)
    }
}

fn function_health(name: &str, failing: Option<&Failing>) -> Observation {
    let Some(Failing { since_ms, attempts, delivery, outcome, message }) = failing else {
        return Observation { trouble: false, since_ms: None, data: json!({ "function": name }) };
    };
    let mut data = json!({ "function": name, "attempts": attempts, "delivery": delivery, "outcome": outcome });
    if let (Some(message), Some(data)) = (message, data.as_object_mut()) {
        data.insert("message".into(), message.as_str().into());
    }
    Observation { trouble: true, since_ms: Some(*since_ms), data }
}

fn listener_health(listener: &ListenerStatus) -> Observation {
    let mut data = json!({ "listener": listener.name });
    if let (Some(reason), Some(data)) = (&listener.trouble, data.as_object_mut()) {
        data.insert("reason".into(), reason.as_str().into());
    }
    Observation { trouble: listener.trouble.is_some(), since_ms: None, data }
}

fn circuit_state(name: &str, open: Option<&OpenCircuit>) -> Observation {
    let Some(OpenCircuit { since_ms, failures, outcome, message, .. }) = open.filter(|open| open.is_reported) else {
        return Observation { trouble: false, since_ms: None, data: json!({ "function": name }) };
    };
    let mut data = json!({ "function": name, "failures": failures, "outcome": outcome });
    if let (Some(message), Some(data)) = (message, data.as_object_mut()) {
        data.insert("message".into(), message.as_str().into());
    }
    Observation { trouble: true, since_ms: Some(*since_ms), data }
}
