//! Runs work that computes for long on a thread for blocking work. On a worker thread of tokio, the work would delay
//! the listeners, which run there, too.

use std::panic::resume_unwind;

/// Runs work on a thread for blocking work. A panic of the work continues in the caller.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The tokio runtime is shutting down. The runtime will drop the caller, so no result is needed.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::mpsc;

    /// Occupies the only thread for blocking work of a [`runtime`] until it is dropped.
    pub(crate) struct Gate {
        _open: mpsc::Sender<()>,
    }

    impl Gate {
        pub(crate) fn close() -> Self {
            let (open, opened) = mpsc::channel::<()>();
            tokio::task::spawn_blocking(move || opened.recv());
            Self { _open: open }
        }
    }

    /// Returns a runtime with paused time and one thread for blocking work.
    pub(crate) fn runtime() -> tokio::runtime::Runtime {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).max_blocking_threads(1).build().unwrap()
    }

    /// Lets all tasks run until they wait for something.
    pub(crate) async fn run_all_tasks() {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    #[should_panic(expected = "routing failed")]
    async fn a_panic_of_the_work_continues_in_the_caller() {
        super::run(|| panic!("routing failed")).await;
    }
}
