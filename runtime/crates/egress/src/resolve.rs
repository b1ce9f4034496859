//! Resolves names to addresses with the resolver of the operating system.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::Error;
use super::limits::DNS_MAX;

/// Largest number of lookups of the process at the same time, without those of [`RESERVED_MAX`]. Each lookup blocks a
/// thread, possibly for longer than [`DNS_MAX`].
const LOOKUPS_MAX: usize = 48;
/// Number of further lookups of the process at the same time. Each owner may use only one of them. So owners whose name
/// servers do not respond cannot hold all lookups, and other owners can still look up names.
const RESERVED_MAX: usize = 16;
/// Largest number of DNS lookups for one owner, such as a function, at the same time.
const OWNER_LOOKUPS_MAX: usize = 8;
/// Largest number of addresses of a name that are used; further addresses are ignored.
const ADDRESSES_MAX: usize = 16;

/// Looks up names.
pub(crate) struct Resolver {
    lookups: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
}

/// The lookups of one owner.
pub(crate) struct OwnerLookups {
    all: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
}

/// The right to make one lookup.
type Permits = Vec<OwnedSemaphorePermit>;

impl Default for Resolver {
    fn default() -> Self {
        let of = |permits| Arc::new(Semaphore::new(permits));
        Self { lookups: of(LOOKUPS_MAX), reserved: of(RESERVED_MAX) }
    }
}

impl Default for OwnerLookups {
    fn default() -> Self {
        let of = |permits| Arc::new(Semaphore::new(permits));
        Self { all: of(OWNER_LOOKUPS_MAX), reserved: of(1) }
    }
}

impl Resolver {
    /// Returns the addresses of a name, in the order of the operating system. If too many lookups of other owners are
    /// running, the lookup waits for them until `deadline`, but at most for [`DNS_MAX`]. If it cannot start by then,
    /// the error is [`Error::TooManyLookups`] and not [`Error::DnsTimeout`], because the name servers of `host` did not
    /// cause the wait. A lookup that has started ends after [`DNS_MAX`].
    pub(crate) async fn resolve(
        &self,
        io: &Handle,
        own: &OwnerLookups,
        (host, port): (&str, u16),
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, Error> {
        let timed_out = || Error::DnsTimeout { host: host.to_owned(), after: DNS_MAX };
        let internal = || Error::Internal("the lookup of a name was interrupted".into());
        // Only lookups of the same owner hold these permits. So the name servers of this owner's hosts are the cause of
        // the wait, and the error is `DnsTimeout`.
        let own_permit = timeout(DNS_MAX, own.all.clone().acquire_owned()).await;
        let own_permit = own_permit.map_err(|_| timed_out())?.map_err(|_| internal())?;
        let waited = timeout_at(deadline.min(Instant::now() + DNS_MAX), self.permits(own, own_permit)).await;
        let permits = waited.map_err(|_| Error::TooManyLookups { host: host.to_owned() })?.map_err(|_| internal())?;
        let name = host.to_owned();
        // The task holds the permits until the thread of the lookup is free, also after the caller has stopped waiting.
        let lookup = io.spawn(async move {
            let _permits = permits;
            let found = tokio::net::lookup_host((name.as_str(), port)).await?;
            Ok::<_, std::io::Error>(found.map(|address: SocketAddr| address.ip()).take(ADDRESSES_MAX).collect())
        });
        let found: Result<Vec<IpAddr>, _> =
            timeout(DNS_MAX, lookup).await.map_err(|_| timed_out())?.map_err(|_| internal())?;
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

    /// Waits until the process may make one more lookup. Returns all permits of the lookup, `own_permit` included.
    /// Fails only if a semaphore is closed, which never happens.
    async fn permits(&self, own: &OwnerLookups, own_permit: OwnedSemaphorePermit) -> Result<Permits, AcquireError> {
        let permit = |of: &Arc<Semaphore>| of.clone().acquire_owned();
        let mut permits = vec![own_permit];
        let reserved = async { Ok([permit(&own.reserved).await?, permit(&self.reserved).await?]) };
        tokio::select! {
            biased;
            one = permit(&self.lookups) => permits.push(one?),
            both = reserved => permits.extend(both?),
        }
        Ok(permits)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn take(resolver: &Resolver, own: &OwnerLookups) -> Option<Permits> {
        let own_permit = own.all.clone().try_acquire_owned().ok()?;
        resolver.permits(own, own_permit).now_or_never().map(Result::unwrap)
    }

    #[test]
    fn owners_whose_lookups_hang_leave_lookups_for_other_owners() {
        let resolver = Resolver::default();
        let hanging: Vec<_> = std::iter::repeat_with(OwnerLookups::default).take(10).collect();
        let held: Vec<_> = hanging.iter().flat_map(|own| std::iter::from_fn(|| take(&resolver, own))).collect();
        assert_eq!(hanging.first().unwrap().all.available_permits(), 0);
        assert!(held.len() < LOOKUPS_MAX + RESERVED_MAX);
        let other = OwnerLookups::default();
        let one = take(&resolver, &other).expect("a reserved lookup");
        assert!(take(&resolver, &other).is_none(), "an owner has one reserved lookup");
        drop(one);
        drop(take(&resolver, &other).expect("the lookup is free again"));
        drop(held);
        let all: Vec<_> = std::iter::from_fn(|| take(&resolver, &other)).collect();
        assert_eq!(all.len(), OWNER_LOOKUPS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_a_lookup_is_no_time_out_of_the_name_and_ends_at_the_deadline() {
        let (resolver, own) = (Resolver::default(), OwnerLookups::default());
        let others: Vec<_> = std::iter::repeat_with(OwnerLookups::default).take(30).collect();
        let _held: Vec<_> = others.iter().flat_map(|own| std::iter::from_fn(|| take(&resolver, own))).collect();
        for (time, limit) in [(DNS_MAX * 9, DNS_MAX), (DNS_MAX / 5, DNS_MAX / 5)] {
            let started = Instant::now();
            let found = resolver.resolve(&Handle::current(), &own, ("localhost", 80), started + time).await;
            let error = found.unwrap_err();
            assert_eq!(error, Error::TooManyLookups { host: "localhost".into() });
            assert!(!error.is_timeout() && started.elapsed() >= limit && started.elapsed() < limit * 2);
        }
    }
}
