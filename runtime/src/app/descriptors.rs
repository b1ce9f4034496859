//! The number of files and sockets that the process may have open.
//!
//! The usual limit of 1,024 exists for programs that use `select`, and is too low here. Without a free descriptor, the
//! store cannot open a connection for reading, a files source cannot read its folder, and no listener accepts a
//! connection. So clients could stop all of this by opening many connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The wanted limit. It is higher than the number of connections and files that Evoke has open at the same time.
const WANTED: u64 = 16 * 1024;

/// Raises the limit to [`WANTED`], or as far as the system allows.
pub(super) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(WANTED).min(WANTED);
    if current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        tracing::debug!("cannot raise the limit of open files: {error}");
    }
}

/// Returns the maximum number of connections of the public listener: `wanted`, but at most half of the descriptors. The
/// other half is for the store, files, the admin API and outbound requests.
pub(super) fn connections_max(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    limit.map_or(wanted, |limit| wanted.min(limit / 2).max(1))
}
