//! The record of running work in the data folder. After a crash, it shows which deliveries may have caused the crash.
//! Evoke also runs without this record, so an error of the disk is only logged.

use std::sync::Arc;

use super::data::DataFolder;
use evoke_store::running::{NoRunningLog, RunningLog};
use evoke_store_sqlite::running::{Interrupted, RunningFile};

const NOT_RECORDED: &str = "if a delivery crashes Evoke before the next start, Evoke cannot identify this delivery";

/// The file with the record; `None` if it could not be opened.
#[derive(Clone)]
pub(super) struct Recording(Option<Arc<RunningFile>>);

impl Recording {
    /// Opens the file. Logs and returns the work that was running when the previous process ended without a clean stop.
    pub(super) fn open(data: &DataFolder) -> (Self, Option<Interrupted>) {
        let (file, interrupted) = match RunningFile::open(data.path()) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!("cannot read the file `running` in the data folder: {error}; {NOT_RECORDED}");
                return (Self(None), None);
            }
        };
        if let Some(Interrupted { deliveries, requests, loads, .. }) = &interrupted {
            let deliveries: Vec<_> =
                deliveries.iter().map(|(id, _, name)| format!("delivery {id} of {name}")).collect();
            tracing::warn!(
                "the last process ended without a clean stop (a crash, a kill or a lack of memory). At its end, it may \
                 have been running [{}], handling HTTP requests of [{}], and compiling or loading [{}]",
                deliveries.join(", "),
                requests.join(", "),
                loads.join(", ")
            );
        }
        (Self(Some(Arc::new(file))), interrupted)
    }

    /// Returns the log in which the parts of Evoke record the work that they run. Before [`Recording::begin`], the log
    /// stores nothing.
    pub(super) fn log(&self) -> Arc<dyn RunningLog> {
        match &self.0 {
            Some(file) => file.clone(),
            None => Arc::new(NoRunningLog),
        }
    }

    /// Starts to record, and discards the record of the previous process. So the store must have counted the unclean
    /// end of that process before.
    pub(super) fn begin(&self, concurrency: u32) {
        if let Some(file) = &self.0
            && let Err(error) = file.begin(concurrency.saturating_mul(2))
        {
            tracing::error!("cannot write the file `running` in the data folder: {error}; {NOT_RECORDED}");
        }
    }

    /// Records a clean stop, also after a start that failed.
    pub(super) fn close(&self) {
        if let Some(file) = &self.0
            && let Err(error) = file.close()
        {
            tracing::warn!("cannot record the clean stop in the file `running` of the data folder: {error}");
        }
    }
}
