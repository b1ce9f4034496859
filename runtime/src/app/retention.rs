//! Makes the store remove finished events periodically.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use evoke_model::text::count;
use evoke_model::{Actor, Retention};
use evoke_store::{Store, StoreError};

/// Maximum time between two runs. If events arrive at 100 MB/s, the store grows by 1 GB in this time.
const INTERVAL_MAX: Duration = Duration::from_secs(10);
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// A scope is a named lock in the store. Only the process that owns this one runs retention.
const SCOPE: &str = "retention";

/// Runs until `stop` is cancelled, or the store fails or is closed.
pub(super) async fn run(store: Arc<dyn Store>, retention: Retention, stop: CancellationToken) {
    let interval = (retention.age / 10).clamp(INTERVAL_MIN, INTERVAL_MAX);
    while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
        match run_once(&*store, retention).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!("retention removed {}", count(removed, "event")),
            // The next run tries again: the disk may have room then.
            Err(StoreError::Full) => tracing::warn!("retention cannot run: the disk is full"),
            // The store itself has already logged that it is locked.
            Err(error @ StoreError::Busy) => tracing::debug!("retention cannot run: {error}"),
            Err(error @ StoreError::Unreachable(_)) => tracing::warn!("retention cannot run: {error}"),
            // The next run may still remove undamaged events.
            Err(StoreError::Damaged(reason)) => tracing::error!("retention found damaged data: {reason}"),
            Err(error) => {
                tracing::debug!("retention ends: {error}");
                return;
            }
        }
    }
}

/// Removes finished events, and returns their number. Does nothing if another process owns the scope.
async fn run_once(store: &dyn Store, retention: Retention) -> Result<u64, StoreError> {
    match store.own(SCOPE).await? {
        Some(_owned) => store.retain(&Actor::Runtime, retention).await,
        None => Ok(0),
    }
}
