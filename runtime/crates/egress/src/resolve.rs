//! Resolves names to addresses with the resolver of the operating system.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::error::Error;
use super::limits::DNS_MAX;

/// Largest number of lookups of the process at the same time. Each lookup blocks a thread, possibly for longer than
/// [`DNS_MAX`].
const LOOKUPS_MAX: usize = 32;
/// Largest number of DNS lookups for one owner, such as a function, at the same time. So an owner whose name servers do
/// not respond cannot use up the lookups of the process.
pub(crate) const OWNER_LOOKUPS_MAX: usize = 8;
/// Largest number of addresses of a name that are used; further addresses are ignored.
const ADDRESSES_MAX: usize = 16;

/// Looks up names.
pub(crate) struct Resolver {
    lookups: Arc<Semaphore>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Resolver {
    /// Returns the addresses of a name, in the order of the operating system. The wait for permits counts towards the
    /// time limit.
    pub(crate) async fn resolve(
        &self,
        io: &Handle,
        own_lookups: &Arc<Semaphore>,
        host: &str,
        port: u16,
    ) -> Result<Vec<IpAddr>, Error> {
        let deadline = Instant::now() + DNS_MAX;
        let timed_out = || Error::DnsTimeout { host: host.to_owned(), after: DNS_MAX };
        let internal = || Error::Internal("the lookup of a name was interrupted".into());
        // `acquire_owned` fails only if the semaphore is closed, which never happens.
        let own = timeout_at(deadline, own_lookups.clone().acquire_owned()).await.map_err(|_| timed_out())?;
        let permit = timeout_at(deadline, self.lookups.clone().acquire_owned()).await.map_err(|_| timed_out())?;
        let name = host.to_owned();
        // The task holds the permits until the thread of the lookup is free, also after the caller has stopped waiting.
        let lookup = io.spawn(async move {
            let _permits = (own, permit);
            let found = tokio::net::lookup_host((name.as_str(), port)).await?;
            Ok::<_, std::io::Error>(found.map(|address: SocketAddr| address.ip()).take(ADDRESSES_MAX).collect())
        });
        let found: Result<Vec<IpAddr>, _> =
            timeout_at(deadline, lookup).await.map_err(|_| timed_out())?.map_err(|_| internal())?;
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
}
