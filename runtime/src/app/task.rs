//! Background tasks that stop on request.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A background task. Dropping this handle does not stop the task.
pub(super) struct Task {
    stop: CancellationToken,
    handle: JoinHandle<()>,
}

impl Task {
    /// Spawns a future that ends soon after its token is cancelled.
    pub(super) fn spawn<F>(work: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future + Send + 'static,
    {
        let stop = CancellationToken::new();
        let work = work(stop.clone());
        Self { stop, handle: tokio::spawn(async move { drop(work.await) }) }
    }

    /// Asks the task to stop, and does not wait.
    pub(super) fn cancel(&self) {
        self.stop.cancel();
    }

    /// Stops the task, and waits for its end.
    pub(super) async fn stop(self) {
        self.cancel();
        let _ = self.handle.await;
    }
}

/// Stops a task if there is one, and waits for its end.
pub(super) async fn stop(task: Option<Task>) {
    if let Some(task) = task {
        task.stop().await;
    }
}
