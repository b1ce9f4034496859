//! The threads that run guests. They belong to a tokio runtime of their own, so that incoming connections and the
//! host's timers never wait for a guest. The HTTP requests that guests send run on these threads, too.

use std::io;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime};

use super::guest_task::mark_guest_thread;

/// Number of task polls after which a thread checks timers and I/O again. One poll of a guest can take 1 ms, because a
/// guest that computes yields only at ticks (`engine::TICK`). With tokio's default of 61 polls, a time-out could fire
/// 60 ms late if many guests compute.
const EVENT_INTERVAL: u32 = 7;

pub(super) fn processors() -> u32 {
    available_parallelism().map_or(1, |processors| u32::try_from(processors.get()).unwrap_or(u32::MAX))
}

/// The threads for guests. Dropping this value stops the threads, without waiting for the guests.
pub(super) struct GuestThreads(Option<Runtime>, Handle);

impl GuestThreads {
    /// Starts two threads for each processor. Attempts that compute for more than a tick occupy at most one thread for
    /// each processor, because they need turns (see `turns`). So the other threads stay free for attempts that end
    /// sooner.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2 * processors() as usize)
            .thread_name("guests")
            .event_interval(EVENT_INTERVAL)
            .on_thread_start(mark_guest_thread)
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
