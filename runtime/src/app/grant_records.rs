//! Stores which grants the functions have used: periodically, and a last time when Evoke stops.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::control::Control;
use evoke_store::StoreError;

/// Time between two writes. If the process ends without a clean stop, the uses since the last write are lost.
const INTERVAL: Duration = Duration::from_secs(5);

/// Runs until `stop` is cancelled. Keeps the records of grants and functions for `keep` after their removal from the
/// manifests.
pub(super) async fn run(control: Control, keep: Duration, stop: CancellationToken) {
    loop {
        let is_last = stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none();
        match control.store_grant_records(keep, is_last).await {
            Ok(()) => {}
            // A full or locked store may recover: the next round tries again.
            Err(StoreError::Full | StoreError::Busy) if !is_last => {}
            Err(error) => tracing::warn!("cannot store the latest uses of grants: {error}"),
        }
        if is_last {
            return;
        }
    }
}
