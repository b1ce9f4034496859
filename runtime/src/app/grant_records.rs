//! Stores the use of grants periodically, and a last time at the stop.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::control::Control;
use evoke_store::StoreError;

/// Time between two writes. An unclean end of the process loses the uses of this time.
const INTERVAL: Duration = Duration::from_secs(5);

/// Runs until `stop` is cancelled. Keeps the records of removed grants and functions for `keep`.
pub(super) async fn run(control: Control, keep: Duration, stop: CancellationToken) {
    loop {
        let is_last = stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none();
        match control.store_grant_records(keep, is_last).await {
            Ok(()) => {}
            // A full or locked store may recover: the next round tries again.
            Err(StoreError::Full | StoreError::Busy) if !is_last => {}
            Err(error) => tracing::warn!("the last uses of grants are not recorded: {error}"),
        }
        if is_last {
            return;
        }
    }
}
