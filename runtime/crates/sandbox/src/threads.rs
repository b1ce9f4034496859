//! The threads on which guests run: tokio runtimes of their own, so that connections and the host's timers never wait
//! for a guest. Attempts start on threads with the priority of the host's. An attempt that computes for long moves to
//! threads that give way to all others ([`give_way`]), so that it does not delay them on a machine that is busy.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use super::priority::give_way;

/// Task polls between two checks of timers and I/O. One poll of a guest can take a tick of 1 ms. With tokio's default of
/// 61 polls, a time-out beside many computing guests could fire 60 ms late.
const EVENT_INTERVAL: u32 = 7;

/// Whether the attempt that a thread polls can move to the threads that give way.
#[derive(Clone, Copy, PartialEq)]
enum Move {
    Impossible,
    Possible,
    Wanted,
}

thread_local! {
    static MOVE: Cell<Move> = const { Cell::new(Move::Impossible) };
}

/// Returns the number of processors.
pub(super) fn processors() -> u32 {
    available_parallelism().map_or(1, |processors| u32::try_from(processors.get()).unwrap_or(u32::MAX))
}

/// The threads for guests: one for each processor of each kind. Dropping them stops the threads, without waiting for the
/// guests.
pub(super) struct GuestThreads {
    quick: Threads,
    slow: Threads,
}

struct Threads(Option<Runtime>, Handle);

impl GuestThreads {
    pub(super) fn start() -> io::Result<Self> {
        let quick = Threads::start("guests", || {})?;
        let slow = Threads::start("guests-slow", give_way)?;
        Ok(Self { quick, slow })
    }

    /// Returns the threads on which attempts start.
    pub(super) fn handle(&self) -> &Handle {
        &self.quick.1
    }

    /// Returns the threads on which attempts go on that compute for long.
    pub(super) fn slow_handle(&self) -> &Handle {
        &self.slow.1
    }

    /// Runs an attempt to its end: on this thread, or, after [`give_way_to_others`], on a thread that gives way.
    pub(super) async fn run<T: Send + 'static>(&self, attempt: Pin<Box<dyn Future<Output = T> + Send>>) -> T {
        let mut here = Some(attempt);
        let ended = poll_fn(|context| {
            let Some(attempt) = &mut here else { return Poll::Pending };
            MOVE.set(Move::Possible);
            let polled = attempt.as_mut().poll(context);
            match (polled, MOVE.replace(Move::Impossible)) {
                (Poll::Ready(output), _) => Poll::Ready(Some(output)),
                (Poll::Pending, Move::Wanted) => Poll::Ready(None),
                (Poll::Pending, _) => Poll::Pending,
            }
        });
        match (ended.await, here) {
            (Some(output), _) => output,
            (None, Some(attempt)) => match AbortOnDrop(self.slow.1.spawn(attempt)).join().await {
                Ok(output) => output,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The threads have stopped, so this attempt does not end.
                    Err(_) => pending().await,
                },
            },
            (None, None) => pending().await,
        }
    }
}

/// Moves the attempt that calls this to a thread that gives way to others. Does nothing if the attempt is there, or does
/// not run in [`GuestThreads::run`].
pub(super) async fn give_way_to_others() {
    poll_fn(|_| match MOVE.get() {
        Move::Impossible => Poll::Ready(()),
        Move::Possible | Move::Wanted => {
            MOVE.set(Move::Wanted);
            Poll::Pending
        }
    })
    .await;
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> AbortOnDrop<T> {
    async fn join(mut self) -> Result<T, tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Threads {
    fn start(name: &str, on_start: impl Fn() + Send + Sync + 'static) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(processors() as usize)
            .thread_name(name)
            .on_thread_start(on_start)
            .event_interval(EVENT_INTERVAL)
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self(Some(runtime), handle))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    fn thread_name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    #[test]
    fn an_attempt_moves_when_it_asks_and_is_dropped_with_its_caller() {
        let threads = Arc::new(GuestThreads::start().unwrap());
        let (quick, runner) = (threads.handle().clone(), threads.clone());
        let names = quick.block_on(quick.spawn(async move {
            let attempt = async {
                let first = thread_name();
                give_way_to_others().await;
                let moved = thread_name();
                give_way_to_others().await;
                (first, moved, thread_name())
            };
            runner.run(Box::pin(attempt)).await
        }));
        let [quick_name, slow_name] = ["guests", "guests-slow"].map(str::to_owned);
        assert_eq!(names.unwrap(), (quick_name, slow_name.clone(), slow_name));

        let held = Arc::new(());
        let (guest, runner) = (held.clone(), threads);
        quick.block_on(async {
            let caller = quick.spawn(async move {
                let attempt = async move {
                    let _guest = guest;
                    give_way_to_others().await;
                    pending::<()>().await;
                };
                runner.run(Box::pin(attempt)).await;
            });
            caller.abort();
            assert!(caller.await.unwrap_err().is_cancelled());
            while Arc::strong_count(&held) > 1 {
                tokio::task::yield_now().await;
            }
        });
    }

    #[tokio::test]
    async fn an_attempt_that_nothing_moves_goes_on_where_it_is() {
        let name = thread_name();
        give_way_to_others().await;
        assert_eq!(thread_name(), name);
    }
}
