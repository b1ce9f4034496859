//! Limits the number of concurrent requests of each kind. Health requests, and requests for the files of the console,
//! need no permit.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use http::Method;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;

use super::tokens::Role;
use evoke_http::problem::Problem;

/// Maximum number of concurrent GET and HEAD requests. Each of them has at most one page of a list, or one event, in
/// memory. The objects and their JSON together typically take less than 1 MiB.
const READS_MAX: usize = 48;
/// Maximum number of concurrent requests with other methods. Their bodies need at most 64 MiB together.
const CHANGES_MAX: usize = 16;
/// Maximum number of concurrent lists with `follow=true` and live streams of the console, which stay open.
const FOLLOWERS_MAX: usize = 32;
/// Maximum number of concurrent requests that open a session of the console. These requests need no token, so they have
/// permits of their own: a client without a token cannot use up the permits of other requests.
const SESSION_REQUESTS_MAX: usize = 8;
/// Maximum number of concurrent scans. A scan is the part of a request that reads much data before something is sent.
/// For example, a trace reads its whole tree before its response begins. Further scans wait.
const SCANS_MAX: usize = 2;
/// Maximum number of concurrent scans of viewers, so that viewers alone never make an operator wait.
const SCANS_OF_VIEWERS_MAX: usize = 1;
/// Maximum number of concurrent requests that need a permit.
pub(super) const REQUESTS_MAX: usize = READS_MAX + CHANGES_MAX + FOLLOWERS_MAX + SESSION_REQUESTS_MAX;

/// Up to this size in bytes, a body is read on the thread of its request. Most bodies are smaller, and a change of the
/// thread would cost more than to read them. Only requests that can need a larger body accept one.
pub(super) const INLINE_BODY_MAX: usize = 64 * 1024;

/// `Retry-After` of a request that is refused because of a limit.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The permits of all requests.
pub(super) struct Permits {
    reads: Kind,
    changes: Kind,
    followers: Kind,
    session_requests: Kind,
    scans: Arc<Semaphore>,
    scans_of_viewers: Arc<Semaphore>,
    /// Permits to read large bodies: one for each processor. With more threads that compute, the listeners would wait
    /// for a processor.
    large_bodies: Arc<Semaphore>,
}

/// A permit for a scan. The scan counts as running until all clones of the permit are dropped.
#[derive(Clone)]
pub(super) struct Scan {
    _permits: Arc<[Option<OwnedSemaphorePermit>; 2]>,
}

/// The permits of one kind of requests.
struct Kind {
    name: &'static str,
    max: usize,
    all: Arc<Semaphore>,
    /// Permits for viewers: three quarters of `max`, so that viewers cannot use up the permits of operators.
    of_viewers: Arc<Semaphore>,
}

/// A permit for one request. The request counts as running until the permit is dropped.
pub(super) struct Permit {
    _all: OwnedSemaphorePermit,
    _of_viewers: Option<OwnedSemaphorePermit>,
}

impl Permits {
    pub(super) fn new() -> Self {
        Self {
            reads: Kind::new("GET requests", READS_MAX),
            changes: Kind::new("POST, PUT and DELETE requests", CHANGES_MAX),
            followers: Kind::new("followed lists", FOLLOWERS_MAX),
            session_requests: Kind::new("requests that open a session of the console", SESSION_REQUESTS_MAX),
            scans: Arc::new(Semaphore::new(SCANS_MAX)),
            scans_of_viewers: Arc::new(Semaphore::new(SCANS_OF_VIEWERS_MAX)),
            large_bodies: Arc::new(Semaphore::new(available_parallelism().map_or(1, NonZero::get))),
        }
    }

    /// Returns a permit for a request; an error if there are too many requests of this kind.
    pub(super) fn request(&self, method: &Method, role: Role) -> Result<Permit, Problem> {
        if method.is_safe() { self.reads.acquire(role) } else { self.changes.acquire(role) }
    }

    /// Returns a permit for a list that is followed.
    pub(super) fn follower(&self, role: Role) -> Result<Permit, Problem> {
        self.followers.acquire(role)
    }

    /// Returns a permit for a request that opens a session of the console.
    pub(super) fn session_request(&self) -> Result<Permit, Problem> {
        // The caller has no role yet. All permits are for all callers, like those of operators.
        self.session_requests.acquire(Role::Operator)
    }

    /// Waits until fewer than [`SCANS_MAX`] other scans run; for viewers, also until fewer than
    /// [`SCANS_OF_VIEWERS_MAX`] scans of viewers run. The permit must be dropped before the response is sent, because a
    /// slow client would hold it for a long time.
    pub(super) async fn scan(&self, role: Role) -> Scan {
        // Viewers wait for each other first, so that at most one of them is in the queue of `scans`, before operators.
        // Each `ok()` returns a permit, because the semaphores are never closed.
        let of_viewers = match role {
            Role::Viewer => self.scans_of_viewers.clone().acquire_owned().await.ok(),
            Role::Operator => None,
        };
        let all = self.scans.clone().acquire_owned().await.ok();
        Scan { _permits: Arc::new([all, of_viewers]) }
    }

    /// Runs work that reads a body of this size in bytes, or data of this size. Work on more than [`INLINE_BODY_MAX`]
    /// bytes waits for a permit, and runs on a thread for blocking work, like that of [`Scan::run`].
    pub(super) async fn read_body<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        if bytes <= INLINE_BODY_MAX {
            return Ok(work());
        }
        // `ok()` returns a permit, because the semaphore is never closed.
        let permit = self.large_bodies.clone().acquire_owned().await.ok();
        run_blocking(permit, work).await
    }
}

/// Runs work on a thread for blocking work. If the caller no longer waits, the permit is kept until the work ends.
async fn run_blocking<T: Send + 'static>(
    permit: impl Send + 'static,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let work = move || {
        let result = work();
        drop(permit);
        result
    };
    tokio::task::spawn_blocking(work).await
}

impl Scan {
    /// Runs work that computes for long or blocks, on a thread for blocking work: on a thread of the runtime, the
    /// work would delay the public listener. Each check or match of a pattern is such work. If the client
    /// disconnects, the work keeps the permit until it ends.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        run_blocking(self.clone(), work).await
    }
}

impl Kind {
    fn new(name: &'static str, max: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { name, max, all: semaphore(max), of_viewers: semaphore(max / 4 * 3) }
    }

    fn acquire(&self, role: Role) -> Result<Permit, Problem> {
        let acquire = |semaphore: &Arc<Semaphore>| semaphore.clone().try_acquire_owned();
        let of_viewers = match role {
            Role::Viewer => {
                acquire(&self.of_viewers).map(Some).map_err(|_| self.too_many(self.max / 4 * 3, " from viewers"))
            }
            Role::Operator => Ok(None),
        }?;
        let all = acquire(&self.all).map_err(|_| self.too_many(self.max, ""))?;
        Ok(Permit { _all: all, _of_viewers: of_viewers })
    }

    fn too_many(&self, max: usize, whose: &str) -> Problem {
        let name = self.name;
        let detail =
            format!("too many {name}{whose}: the maximum of {max} is reached; end one of them, or try again later");
        Problem::later(RETRY_AFTER, detail)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn viewers_leave_a_scan_to_operators() {
        let permits = Permits::new();
        let scan = |role| permits.scan(role);
        let of_viewer = scan(Role::Viewer).now_or_never().expect("the first scan of a viewer starts");
        let mut waiting = Box::pin(scan(Role::Viewer));
        assert!(waiting.as_mut().now_or_never().is_none(), "a second viewer waits");
        let of_operator = scan(Role::Operator).now_or_never().expect("an operator does not wait for viewers");
        assert!(scan(Role::Operator).now_or_never().is_none(), "only two scans run");
        drop(of_viewer);
        assert!(waiting.as_mut().now_or_never().is_some(), "the second viewer is next");
        drop(of_operator);
    }

    #[tokio::test]
    async fn work_keeps_its_scan_after_its_client_has_left() {
        let permits = Permits::new();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let scan = permits.scan(Role::Viewer).await;
        let work = Box::pin(scan.run(move || ended.recv().is_ok()));
        assert!(work.now_or_never().is_none(), "the work runs, and the request is dropped");
        drop(scan);
        let mut next = Box::pin(permits.scan(Role::Viewer));
        assert!(next.as_mut().now_or_never().is_none());
        end.send(()).unwrap();
        drop(next.await);
    }
}
