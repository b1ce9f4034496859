//! If a task wakes itself while it is polled, polls the task again immediately instead of scheduling the task.
//!
//! A request and the work on its connection run in one task (see `connection.rs`), and hyper passes messages between
//! them through channels. Each message wakes the task that is being polled at that moment. The runtime would schedule
//! the task once more and wake another thread to run it, which costs more than the whole request. Here, such a wake-up
//! only repeats the poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// After this many polls in a row, the task is woken and scheduled as usual, so that other tasks can run in between.
const POLLS_MAX: usize = 8;

/// Nothing is polled at the moment, so a wake-up wakes the task.
const IDLE: u8 = 0;
const POLLING: u8 = 1;
/// Woken while polling.
const WOKEN: u8 = 2;

/// Polls a future for a task. Several tasks may use the same `SelfWake`, but only one at a time.
pub(crate) struct SelfWake {
    shared: Arc<Shared>,
    waker: Waker,
}

#[derive(Default)]
struct Shared {
    state: AtomicU8,
    task: AtomicWaker,
}

impl SelfWake {
    pub(crate) fn new() -> Self {
        let shared = Arc::<Shared>::default();
        Self { waker: Waker::from(shared.clone()), shared }
    }

    /// Calls `poll`. Repeats the call while it returns pending and a wake-up came during the call, but makes at most
    /// [`POLLS_MAX`] calls in total.
    pub(crate) fn poll<T>(&self, cx: &Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let Shared { state, task } = &*self.shared;
        task.register(cx.waker());
        for _ in 0..POLLS_MAX {
            state.store(POLLING, Ordering::Release);
            if let Poll::Ready(value) = poll(&mut Context::from_waker(&self.waker)) {
                state.store(IDLE, Ordering::Release);
                return Poll::Ready(value);
            }
            if state.compare_exchange(POLLING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Poll::Pending;
            }
        }
        state.store(IDLE, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let while_polling = self.state.compare_exchange(POLLING, WOKEN, Ordering::AcqRel, Ordering::Acquire);
        if while_polling == Err(IDLE) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_is_woken_after_its_poll_and_not_by_itself() {
        let (place, count) = (SelfWake::new(), Arc::<Count>::default());
        let task = Waker::from(count.clone());
        let cx = Context::from_waker(&task);
        let woken = || count.0.load(Ordering::Relaxed);
        let mut polls = 0;
        let mut waker = None;
        // Each of the first two polls wakes the task.
        let polled = place.poll(&cx, |cx| {
            polls += 1;
            if polls <= 2 {
                cx.waker().wake_by_ref();
            }
            waker = Some(cx.waker().clone());
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!((polls, woken()), (3, 0));
        waker.unwrap().wake();
        assert_eq!(woken(), 1);
        // A value ends the polling. The wake-up before it has no effect, because nothing is left to do.
        let polled = place.poll(&cx, |cx| {
            cx.waker().wake_by_ref();
            Poll::Ready(7)
        });
        assert_eq!((polled, woken()), (Poll::Ready(7), 1));
        // A future that always wakes itself is scheduled after some polls, so that other tasks can run.
        polls = 0;
        let polled = place.poll(&cx, |cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!((polls, woken()), (POLLS_MAX, 2));
    }

    #[test]
    fn no_wake_up_of_another_thread_is_lost() {
        let place = SelfWake::new();
        for _ in 0..1_000 {
            let is_done = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let mut thread = None;
            let done = is_done.clone();
            let value = std::future::poll_fn(|cx| {
                place.poll(cx, |cx| {
                    if is_done.load(Ordering::Acquire) {
                        return Poll::Ready(7);
                    }
                    let (waker, done) = (cx.waker().clone(), done.clone());
                    thread.get_or_insert_with(|| {
                        std::thread::spawn(move || {
                            done.store(true, Ordering::Release);
                            waker.wake();
                        })
                    });
                    Poll::Pending
                })
            });
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            assert_eq!(runtime.block_on(value), 7);
            thread.unwrap().join().unwrap();
        }
    }
}
