//! The threads on which guests run: a tokio runtime of their own, so that the listeners' connections and the host's
//! timers never wait for a guest. The requests that guests send run on these threads, too.

use std::io;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime};

/// Task polls between two checks of timers and I/O. One poll of a guest can take a tick of 1 ms. With tokio's default
/// of 61 polls, a time-out beside many computing guests could fire 60 ms late.
const EVENT_INTERVAL: u32 = 7;

/// Returns the number of processors.
pub(super) fn processors() -> u32 {
    available_parallelism().map_or(1, |processors| u32::try_from(processors.get()).unwrap_or(u32::MAX))
}

/// The threads for guests. Dropping them stops the threads, without waiting for the guests.
pub(super) struct GuestThreads(Option<Runtime>, Handle);

impl GuestThreads {
    /// Starts one thread for each turn on a processor (`turns`), and as many again for short attempts.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2 * processors() as usize)
            .thread_name("guests")
            .event_interval(EVENT_INTERVAL)
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self(Some(runtime), handle))
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.1
    }
}

impl Drop for GuestThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
