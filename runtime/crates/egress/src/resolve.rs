//! Resolves names to addresses with the resolver of the operating system.
//!
//! A lookup cannot be cancelled: it blocks a thread until the operating system returns, often for longer than its
//! callers wait. So the number of lookups at the same time is limited, and each one holds a place until it ends. The
//! operator of a name decides how long its lookup takes. Therefore, the only lookup of an owner does not wait for
//! lookups of other owners:
//!
//! - Each owner has a place of its own. At most [`OWN_MAX`] owners can use theirs at the same time. A lookup beyond
//!   this limit fails at once.
//! - For further lookups of an owner at the same time, all owners share [`FURTHER_MAX`] places.
//! - An owner is slow for [`SLOW_TIME`] after a lookup that took longer than [`SLOW_MIN`]. Slow owners together can use
//!   half of the places of each kind, and wait for each other.
//!
//! Calls of an owner that need the same name at the same time share one lookup, for [`DNS_MAX`] from its begin. So an owner with a single name, such as
//! an endpoint or a network check, has at most one lookup. No result is cached: each later call looks up the name
//! again.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::watch::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::Error;
use super::limits::{CALLS_MAX, DNS_MAX};

/// Number of owners that can use their own place at the same time. Together with [`FURTHER_MAX`], this is less than the
/// 512 threads that a tokio runtime has for blocking work, because other work needs these threads, too.
const OWN_MAX: usize = 256;
/// Number of further places, which all owners share.
const FURTHER_MAX: usize = 48;
/// Largest number of further places that one owner, such as a function, uses at the same time.
const OWNER_FURTHER_MAX: usize = 7;
/// A lookup that takes longer than this time makes its owner slow.
const SLOW_MIN: Duration = Duration::from_secs(1);
/// Time for which an owner is slow after a slow lookup. A single fast lookup does not end this time: an attacker could
/// use it between any two slow ones.
const SLOW_TIME: Duration = Duration::from_secs(60);
/// Largest number of addresses of a name that are used; further addresses are ignored.
const ADDRESSES_MAX: usize = 16;

/// Looks up names. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Resolver {
    own: Places,
    further: Places,
}

/// The places of one kind.
#[derive(Clone)]
struct Places {
    all: Arc<Semaphore>,
    /// The places that slow owners can use. A slow owner needs a permit of both semaphores.
    slow: Arc<Semaphore>,
}

/// The right to make one lookup.
type Permits = Vec<OwnedSemaphorePermit>;

/// The lookups of one owner.
pub(crate) struct OwnerLookups {
    own: Arc<Semaphore>,
    further: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The newest lookup of each name that waits for a place or is running; at most [`CALLS_MAX`].
    lookups: HashMap<String, Lookup>,
    /// The number of the next lookup.
    next: u64,
    /// The time until which the owner is slow.
    slow_until: Option<Instant>,
}

/// A lookup that calls for the same name can share.
struct Lookup {
    number: u64,
    begun: Instant,
    progress: watch::Receiver<Progress>,
}

/// The progress of a lookup. All calls that wait for the lookup receive it.
struct Progress {
    /// True if the lookup has a place.
    is_started: bool,
    /// The result, when the lookup has ended.
    found: Option<Result<Vec<IpAddr>, Error>>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { own: Places::new(OWN_MAX), further: Places::new(FURTHER_MAX) }
    }
}

impl Places {
    fn new(count: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(count)), slow: Arc::new(Semaphore::new(count / 2)) }
    }
}

impl Default for OwnerLookups {
    fn default() -> Self {
        let of = |permits| Arc::new(Semaphore::new(permits));
        Self { own: of(1), further: of(OWNER_FURTHER_MAX), state: Mutex::default() }
    }
}

impl Resolver {
    /// Returns the addresses of a name, in the order of the operating system. If the lookup has no place, it waits for
    /// one until `deadline`, but at most for [`DNS_MAX`]. If it cannot start by then, the error is
    /// [`Error::TooManyLookups`] and not [`Error::DnsTimeout`], because the name servers of `host` did not cause the
    /// wait. When the lookup has started, the wait for its result is limited to [`DNS_MAX`].
    pub(crate) async fn resolve(
        &self,
        io: &Handle,
        owner: &Arc<OwnerLookups>,
        (host, port): (&str, u16),
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, Error> {
        self.resolve_by(io, owner, host, deadline, look_up(host.to_owned(), port)).await
    }

    /// Same as [`Resolver::resolve`], with `lookup` as the lookup. `lookup` is dropped if the owner is already looking
    /// up the name.
    async fn resolve_by(
        &self,
        io: &Handle,
        owner: &Arc<OwnerLookups>,
        host: &str,
        deadline: Instant,
        lookup: impl Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
    ) -> Result<Vec<IpAddr>, Error> {
        let no_place = || Error::TooManyLookups { host: host.to_owned() };
        let timed_out = || Error::DnsTimeout { host: host.to_owned(), after: DNS_MAX };
        let interrupted = || Error::Internal("the lookup of a name was interrupted".into());
        let mut progress = self.join(io, owner, host, lookup).ok_or_else(no_place)?;
        let place_end = deadline.min(Instant::now() + DNS_MAX);
        let started = reach(&mut progress, |progress| progress.is_started || progress.found.is_some());
        timeout_at(place_end, started).await.map_err(|_| no_place())?.map_err(|_| interrupted())?;
        let ended = reach(&mut progress, |progress| progress.found.is_some());
        timeout(DNS_MAX, ended).await.map_err(|_| timed_out())?.map_err(|_| interrupted())?;
        let found = progress.borrow().found.clone();
        found.unwrap_or_else(|| Err(interrupted()))
    }

    /// Returns the progress of the owner's lookup of a name. Starts `lookup` if the owner is not looking up the name
    /// yet. The lookup continues if its callers stop waiting. Returns `None` if the owner has too many lookups.
    fn join(
        &self,
        io: &Handle,
        owner: &Arc<OwnerLookups>,
        host: &str,
        lookup: impl Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
    ) -> Option<watch::Receiver<Progress>> {
        let mut state = owner.lock();
        // A lookup that hangs can do so because of a failure of the network that has ended since. So it is not shared
        // for longer than a call waits.
        if let Some(lookup) = state.lookups.get(host).filter(|lookup| lookup.begun.elapsed() < DNS_MAX) {
            return Some(lookup.progress.clone());
        }
        if state.lookups.len() >= CALLS_MAX {
            return None;
        }
        let is_slow = state.slow_until.is_some_and(|until| Instant::now() < until);
        // Usually, a place is free, and no caller has to wait for the task to find this out.
        let place = self.place(owner, is_slow).now_or_never();
        let is_started = matches!(place, Some(Some(_)));
        let (report, progress) = watch::channel(Progress { is_started, found: None });
        let number = state.next;
        state.next += 1;
        let shared = Lookup { number, begun: Instant::now(), progress: progress.clone() };
        state.lookups.insert(host.to_owned(), shared);
        drop(state);
        let (resolver, entry) = (self.clone(), Entry { owner: owner.clone(), host: host.to_owned(), number });
        io.spawn(async move {
            let place = match place {
                Some(place) => place,
                None => timeout(DNS_MAX, resolver.place(&entry.owner, is_slow)).await.ok().flatten(),
            };
            let found = match place {
                // The place is held until the thread of the lookup is free.
                Some(_place) => {
                    report.send_modify(|progress| progress.is_started = true);
                    entry.owner.run(&entry.host, lookup).await
                }
                None => Err(Error::TooManyLookups { host: entry.host.clone() }),
            };
            drop(entry);
            report.send_modify(|progress| progress.found = Some(found));
        });
        Some(progress)
    }

    /// Waits for a place: for the own place of the owner or for a further one. Returns `None` if the own place of the
    /// owner is free, but too many other owners use theirs.
    async fn place(&self, owner: &OwnerLookups, is_slow: bool) -> Option<Permits> {
        let own = async {
            let mut permits = vec![acquire(&owner.own).await?];
            if is_slow {
                permits.push(acquire(&self.own.slow).await?);
            }
            permits.push(self.own.all.clone().try_acquire_owned().ok()?);
            Some(permits)
        };
        let further = async {
            let mut permits = vec![acquire(&owner.further).await?];
            if is_slow {
                permits.push(acquire(&self.further.slow).await?);
            }
            permits.push(acquire(&self.further.all).await?);
            Some(permits)
        };
        tokio::select! {
            biased;
            permits = own => permits,
            permits = further => permits,
        }
    }
}

impl OwnerLookups {
    /// Runs a lookup that has a place. If it takes long, the owner is slow from then on.
    async fn run(
        &self,
        host: &str,
        lookup: impl Future<Output = io::Result<Vec<IpAddr>>>,
    ) -> Result<Vec<IpAddr>, Error> {
        let mut lookup = pin!(lookup);
        let fast = timeout(SLOW_MIN, lookup.as_mut()).await;
        let found = match fast {
            Ok(found) => found,
            Err(_) => {
                self.set_slow();
                let found = lookup.await;
                self.set_slow();
                found
            }
        };
        let no_address = |message: String| Error::Dns { host: host.to_owned(), message };
        let mut addresses = found.map_err(|error| no_address(error.to_string()))?;
        let mut seen = Vec::with_capacity(addresses.len());
        addresses.retain(|address| {
            !seen.contains(address) && {
                seen.push(*address);
                true
            }
        });
        if addresses.is_empty() { Err(no_address("it has no address".into())) } else { Ok(addresses) }
    }

    fn set_slow(&self) {
        self.lock().slow_until = Some(Instant::now() + SLOW_TIME);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry of a lookup in [`State::lookups`]. Dropping this removes the entry, also when the task of the lookup
/// panics because no thread can be started.
struct Entry {
    owner: Arc<OwnerLookups>,
    host: String,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.owner.lock();
        // A newer lookup can have replaced this one.
        if state.lookups.get(&self.host).is_some_and(|lookup| lookup.number == self.number) {
            state.lookups.remove(&self.host);
        }
    }
}

/// Returns the addresses of a name from the operating system.
async fn look_up(host: String, port: u16) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((host.as_str(), port)).await?;
    Ok(found.map(|address: SocketAddr| address.ip()).take(ADDRESSES_MAX).collect())
}

/// Waits until `is_reached` returns true. Returns an error if the task of the lookup ended before.
async fn reach(progress: &mut watch::Receiver<Progress>, is_reached: fn(&Progress) -> bool) -> Result<(), RecvError> {
    progress.wait_for(is_reached).await.map(drop)
}

/// Returns `None` only if the semaphore is closed, which never happens.
async fn acquire(permits: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    permits.clone().acquire_owned().await.ok()
}

#[cfg(test)]
mod tests;
