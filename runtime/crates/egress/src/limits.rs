//! The bounds of requests.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::allowance::Allowance;

/// Longest wait of a call for the result of a name lookup that is running. The wait for a place of the lookup has the
/// same limit.
pub const DNS_MAX: Duration = Duration::from_secs(5);
/// Longest wait for a connection, over all addresses that are tried.
pub const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest wait for a TLS handshake.
pub const TLS_MAX: Duration = Duration::from_secs(5);
/// The default of [`Limits::first_byte_timeout`], and the largest value of [`Limits::between_bytes_timeout`].
pub const FIRST_BYTE_MAX: Duration = Duration::from_secs(5);
/// Largest number of calls of an owner at the same time. A call lasts until its response body has ended or is dropped,
/// and until no byte of its request body is in memory.
/// Each call holds at most two buffers of [`HEAD_BYTES_MAX`].
pub const CALLS_MAX: usize = 128;
/// Largest number of connections of an owner at the same time, including idle connections.
pub const CONNECTIONS_MAX: usize = 128;
/// Largest head of a response, in bytes.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Largest number of headers of a response.
pub const HEADERS_MAX: usize = 100;

/// The limits of one request. Time-outs that are longer than the constants of this module are shortened to these
/// constants, except [`Limits::first_byte_timeout`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// The time at which the call ends, including its response body.
    pub deadline: Instant,
    /// Limit on the time for making a connection, including the TLS handshake. The time starts after the name lookup.
    pub connect_timeout: Duration,
    /// Limit on the wait for the head of the response, after the request was sent. The value has no upper bound except
    /// the deadline. For a guest, the sandbox limits the value to [`FIRST_BYTE_MAX`].
    pub first_byte_timeout: Duration,
    /// Limit on the wait between two parts of the response body.
    pub between_bytes_timeout: Duration,
    /// The bytes of bodies that may still be sent and received; several calls may share them.
    pub allowance: Arc<Allowance>,
}

impl Limits {
    /// Returns limits for one call that ends within `time`, with the default allowance.
    pub fn within(time: Duration) -> Self {
        Self {
            deadline: Instant::now() + time,
            connect_timeout: CONNECT_MAX + TLS_MAX,
            first_byte_timeout: FIRST_BYTE_MAX,
            between_bytes_timeout: FIRST_BYTE_MAX,
            allowance: Arc::default(),
        }
    }
}
