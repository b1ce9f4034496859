//! Has the store remove what is over, from time to time.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::{Retention, Store, StoreError};

/// Between two looks: at a hundred megabytes a second the store grows by a gigabyte meanwhile.
const INTERVAL_MAX: Duration = Duration::from_secs(10);
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Goes on until it is stopped, or the store is closed.
pub(super) async fn run(store: Arc<dyn Store>, retention: Retention, stop: CancellationToken) {
    let interval = (retention.age / 10).clamp(INTERVAL_MIN, INTERVAL_MAX);
    while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
        match store.retain(retention).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!("retention removed {removed} events"),
            // A disk that is full may have room again, not least through this.
            Err(StoreError::Full) => tracing::warn!("retention found no room on the disk to work in"),
            // The rest may go on.
            Err(StoreError::Damaged(reason)) => tracing::error!("retention: {reason}"),
            Err(error) => {
                tracing::debug!("retention ends: {error}");
                return;
            }
        }
    }
}
