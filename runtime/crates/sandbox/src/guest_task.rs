//! The task of one HTTP request to a guest.
//!
//! The task starts on the thread of the connection. Its first wake moves it to the threads for guests; usually this is
//! the wake of its first turn. So a request that has to wait wakes no thread that has nothing to run yet, and the
//! thread that gives it the turn usually runs it at once. A guest runs only after the move ([`on_guest_threads`]).

use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use evoke_model::outcome::Outcome;

thread_local! {
    static IS_GUEST_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Marks the current thread as one that may run guests.
pub(super) fn mark_guest_thread() {
    IS_GUEST_THREAD.set(true);
}

/// Resolves when the task has moved to the threads for guests. Must be awaited before the guest runs.
pub(super) async fn on_guest_threads() {
    poll_fn(|context| {
        if IS_GUEST_THREAD.get() {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

type Guest = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Dropping this ends the guest.
pub(super) struct GuestTask(Option<Arc<Task>>);

struct Task {
    guests: Handle,
    state: Mutex<State>,
}

enum State {
    /// The thread that started the task polls it for the first time.
    Starts {
        is_woken: bool,
    },
    /// The task waits for its first wake, which moves it to the threads for guests.
    Waits(Guest),
    Moved(JoinHandle<Outcome>),
    Over,
}

impl GuestTask {
    /// Polls `guest` once on this thread. All further polls happen on the threads for guests.
    pub(super) fn start(guests: &Handle, guest: impl Future<Output = Outcome> + Send + 'static) -> Self {
        let state = Mutex::new(State::Starts { is_woken: false });
        let task = Arc::new(Task { guests: guests.clone(), state });
        let mut guest: Guest = Box::pin(guest);
        let polled = {
            // The timers of the guest belong to the runtime of its threads.
            let _runtime = guests.enter();
            let waker = Waker::from(task.clone());
            // A panic ends only this request, as it does on the threads for guests.
            catch_unwind(AssertUnwindSafe(|| guest.as_mut().poll(&mut Context::from_waker(&waker))))
        };
        let mut state = task.lock();
        *state = match (polled, &*state) {
            (Ok(Poll::Ready(_)) | Err(_), _) => State::Over,
            (Ok(Poll::Pending), State::Starts { is_woken: false }) => State::Waits(guest),
            (Ok(Poll::Pending), _) => State::Moved(guests.spawn(guest)),
        };
        drop(state);
        Self(Some(task))
    }

    /// Returns how a guest ended that was stopped or panicked.
    pub(super) async fn end(&mut self) -> Outcome {
        let unavailable = |message: String| Outcome::Unavailable { message };
        match self.0.take().map(|task| task.take()) {
            Some(State::Moved(task)) => task.await.unwrap_or_else(|error| unavailable(error.to_string())),
            _ => unavailable("the guest did not run".into()),
        }
    }

    /// Lets the guest continue on its own, within its time-out.
    pub(super) fn detach(&mut self) {
        self.0 = None;
    }
}

impl Drop for GuestTask {
    fn drop(&mut self) {
        if let Some(State::Moved(task)) = self.0.take().map(|task| task.take()) {
            task.abort();
        }
    }
}

impl Task {
    /// Takes the state out, so that it is not dropped while it is locked: a guest that is dropped can wake other tasks.
    fn take(&self) -> State {
        std::mem::replace(&mut *self.lock(), State::Over)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.lock();
        *state = match std::mem::replace(&mut *state, State::Over) {
            State::Starts { .. } => State::Starts { is_woken: true },
            State::Waits(guest) => State::Moved(self.guests.spawn(guest)),
            other => other,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread::{self, ThreadId};

    use tokio::sync::oneshot;

    use super::*;
    use crate::threads::GuestThreads;

    fn done() -> Outcome {
        Outcome::Done
    }

    #[test]
    fn a_task_waits_on_the_calling_thread_and_runs_on_a_thread_for_guests() {
        let threads = GuestThreads::start().unwrap();
        let (turn, first_turn) = oneshot::channel::<()>();
        let (sender, places) = channel::<ThreadId>();
        let places_sender = sender.clone();
        let task = GuestTask::start(threads.handle(), async move {
            sender.send(thread::current().id()).unwrap();
            first_turn.await.unwrap();
            on_guest_threads().await;
            places_sender.send(thread::current().id()).unwrap();
            done()
        });
        assert_eq!(places.try_recv(), Ok(thread::current().id()));
        turn.send(()).unwrap();
        assert_ne!(places.recv().unwrap(), thread::current().id());
        drop(task);
    }

    #[test]
    fn a_task_that_need_not_wait_moves_at_once_and_ends_with_its_outcome() {
        let threads = GuestThreads::start().unwrap();
        let mut task = GuestTask::start(threads.handle(), async {
            on_guest_threads().await;
            done()
        });
        assert_eq!(threads.handle().block_on(task.end()), Outcome::Done);
    }

    #[test]
    fn a_panic_before_the_first_wait_ends_the_task_alone() {
        let threads = GuestThreads::start().unwrap();
        let mut task = GuestTask::start(threads.handle(), async { panic!("before the first wait") });
        let outcome = threads.handle().block_on(task.end());
        assert!(matches!(outcome, Outcome::Unavailable { .. }));
    }

    #[test]
    fn a_task_that_is_dropped_while_it_waits_releases_what_it_holds() {
        let threads = GuestThreads::start().unwrap();
        let (_turn, first_turn) = oneshot::channel::<()>();
        let held = Arc::new(());
        let holds = held.clone();
        let task = GuestTask::start(threads.handle(), async move {
            let _holds = holds;
            first_turn.await.unwrap();
            done()
        });
        assert_eq!(Arc::strong_count(&held), 2);
        drop(task);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
