//! Tells of functions, sources and the disk what changed, with events of the runtime.
//!
//! It looks at everything once a second, and at once when a function's state changes: a trouble that is over before
//! it was looked at is none.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Running;
use crate::clock::Clock;
use crate::dispatcher::Failing;
use crate::runtime_events::SOURCE;
use crate::runtime_events::levels::{Change, Found, Kind, Levels, Subject};
use crate::runtime_events::storage::Room;
use crate::store::StoreError;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the disk is called.
const STORAGE: &str = "storage";

pub(super) struct Lookout {
    running: Arc<Running>,
    clock: Clock,
    /// The data folder: its disk is watched.
    data: PathBuf,
    /// What has to be free on it, in bytes; `None`: as much as is usual.
    storage_low: Option<u64>,
    levels: Levels,
}

impl Lookout {
    /// Reads what was told last, before functions run: one that was failing is failing until it succeeds.
    pub(super) async fn new(
        running: Arc<Running>,
        clock: Clock,
        data: PathBuf,
        storage_low: Option<u64>,
    ) -> Result<Self, StoreError> {
        let told = match running.bus.marks(SOURCE).await {
            // It is all told once more, and noted anew.
            Err(StoreError::Damaged(reason)) => {
                tracing::error!("what was told of functions and sources is not known any more: {reason}");
                BTreeMap::new()
            }
            told => told?,
        };
        let levels = Levels::new(&told);
        running.dispatcher.resume_failing(levels.failing_functions());
        Ok(Self { running, clock, data, storage_low, levels })
    }

    /// Goes on until it is stopped, or the store is closed.
    pub(super) async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.look_around()).await;
    }

    async fn look_around(mut self) {
        loop {
            let found = self.find().await;
            let changes = self.levels.look(found, Instant::now(), self.clock.now_ms());
            let is_calm = changes.is_empty();
            for change in changes {
                if !self.tell(&change).await {
                    break;
                }
                self.levels.told(change);
            }
            // A function that fails and recovers all the time is told of once a second at most.
            match is_calm {
                true => drop(tokio::time::timeout(INTERVAL, self.running.dispatcher.health_changed()).await),
                false => tokio::time::sleep(INTERVAL).await,
            }
        }
    }

    /// Stores what is to be said of a change; `false` when that is for later.
    async fn tell(&self, change: &Change) -> bool {
        let (event, mark) = change.tell(self.running.store.instance(), self.clock.now_ms());
        let what = event.as_ref().map(|event| (event.type_.clone(), event.subject.clone().unwrap_or_default()));
        match (self.running.bus.tell(event, mark).await, what) {
            (Ok(()), Some((type_, subject))) => tracing::info!("{type_}: {subject}"),
            (Ok(()), None) => {}
            (Err(error), what) => {
                // A full disk may have room again; when the store is gone for good it says so itself.
                tracing::debug!("{what:?} is not told yet: {error}");
                return false;
            }
        }
        true
    }

    /// Looks at everything.
    async fn find(&self) -> BTreeMap<Subject, Found> {
        let failing = self.running.dispatcher.failing();
        let functions = self.running.function_ids().into_iter().map(|(name, id)| {
            let found = function(&name, failing.get(&id));
            (Subject { kind: Kind::Function, name }, found)
        });
        let sources = self.running.sources().await.into_iter().map(|source| {
            let mut data = json!({ "source": source.uri, "kind": source.kind });
            if let (Some(reason), Some(data)) = (&source.trouble, data.as_object_mut()) {
                data.insert("reason".into(), reason.as_str().into());
            }
            let name = source.uri.trim_start_matches('/').to_owned();
            (Subject { kind: Kind::Source, name }, Found { trouble: source.trouble.is_some(), since_ms: None, data })
        });
        let mut all: BTreeMap<_, _> = functions.chain(sources).collect();
        let storage = Subject { kind: Kind::Storage, name: STORAGE.to_owned() };
        let was_low = self.levels.is_troubled(&storage);
        let found = match self.room().await {
            Ok(room) => {
                let low = self.storage_low.unwrap_or(room.low_by_default());
                let trouble = room.is_low(low, was_low);
                Found { trouble, since_ms: None, data: room.figures(low) }
            }
            Err(error) => {
                tracing::debug!("the room on the disk is not known: {error}");
                Found { trouble: was_low, since_ms: None, data: json!({}) }
            }
        };
        all.insert(storage, found);
        all
    }

    /// Asked beside the tasks that must not wait: a disk may be far away.
    async fn room(&self) -> std::io::Result<Room> {
        let data = self.data.clone();
        let disk =
            tokio::task::spawn_blocking(move || rustix::fs::statvfs(&data)).await.map_err(std::io::Error::other)??;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(Room { free: bytes(disk.f_bavail), total: bytes(disk.f_blocks) })
    }
}

fn function(name: &str, failing: Option<&Failing>) -> Found {
    let Some(Failing { since_ms, attempts, delivery, outcome, message }) = failing else {
        return Found { trouble: false, since_ms: None, data: json!({ "function": name }) };
    };
    let mut data = json!({ "function": name, "attempts": attempts, "delivery": delivery, "outcome": outcome });
    if let (Some(message), Some(data)) = (message, data.as_object_mut()) {
        data.insert("message".into(), message.as_str().into());
    }
    Found { trouble: true, since_ms: Some(*since_ms), data }
}
