//! Limits the number of requests at a time, by kind. Health requests need no permit.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::tokens::Role;
use evoke_http::problem::Problem;

/// Maximum number of reading requests at a time. Each holds at most one page of a list or one event, as objects and as
/// JSON: typically below 1 MiB.
const READS_MAX: usize = 48;
/// Maximum number of requests at a time that change something: request bodies then need at most 64 MiB.
const CHANGES_MAX: usize = 16;
/// Maximum number of lists that are followed at a time.
const FOLLOWERS_MAX: usize = 32;
/// Maximum number of requests at a time that read much before they respond: a trace reads its tree, a log list searches
/// the files for its first line. The others wait.
const SCANS_MAX: usize = 2;
/// Number of requests besides health requests.
pub(super) const REQUESTS_MAX: usize = READS_MAX + CHANGES_MAX + FOLLOWERS_MAX;

/// `Retry-After` beyond a limit.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The permits of all requests.
pub(super) struct Permits {
    reads: Kind,
    changes: Kind,
    followers: Kind,
    scans: Semaphore,
}

/// The permits of one kind of requests.
struct Kind {
    name: &'static str,
    max: usize,
    all: Arc<Semaphore>,
    /// Viewers get three of four permits, so that they cannot keep operators out.
    of_viewers: Arc<Semaphore>,
}

/// Counts a request until this is dropped.
pub(super) struct Permit {
    _all: OwnedSemaphorePermit,
    _of_viewers: Option<OwnedSemaphorePermit>,
}

impl Permits {
    pub(super) fn new() -> Self {
        Self {
            reads: Kind::new("reading requests", READS_MAX),
            changes: Kind::new("requests that change something", CHANGES_MAX),
            followers: Kind::new("followed lists", FOLLOWERS_MAX),
            scans: Semaphore::new(SCANS_MAX),
        }
    }

    /// Returns a permit for a request; an error if there are too many of its kind.
    pub(super) fn request(&self, method: &Method, role: Role) -> Result<Permit, Problem> {
        if method.is_safe() { self.reads.acquire(role) } else { self.changes.acquire(role) }
    }

    /// Returns a permit for a list that is followed.
    pub(super) fn follower(&self, role: Role) -> Result<Permit, Problem> {
        self.followers.acquire(role)
    }

    /// Waits until few other requests scan. The permit must be dropped before the response is sent: clients may read
    /// slowly.
    pub(super) async fn scan(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.scans.acquire().await.ok()
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
                acquire(&self.of_viewers).map(Some).map_err(|_| self.too_many(self.max / 4 * 3, " of viewers"))
            }
            Role::Operator => Ok(None),
        }?;
        let all = acquire(&self.all).map_err(|_| self.too_many(self.max, ""))?;
        Ok(Permit { _all: all, _of_viewers: of_viewers })
    }

    fn too_many(&self, max: usize, whose: &str) -> Problem {
        let name = self.name;
        let detail = format!("there are {max} {name}{whose} at the moment, the maximum; end one, or try again later");
        Problem::later(RETRY_AFTER, detail)
    }
}
