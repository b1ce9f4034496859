//! Metrics of the connections of the listeners.

use std::sync::Arc;

use super::Counter;

/// Why a connection was refused before its first request could be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionRefusal {
    /// Too many connections, in total or from one client.
    Limit,
    /// A TLS handshake that failed, for example because the client has no valid certificate.
    Handshake,
    /// The TLS handshake or the header of the PROXY protocol took too long.
    SlowHandshake,
    /// A request without TLS on a listener with TLS.
    PlainHttp,
    /// A proxy's connection without a valid header of the PROXY protocol.
    ProxyHeader,
}

impl ConnectionRefusal {
    /// Every reason, in the order of the declaration.
    pub(super) const ALL: [Self; 5] =
        [Self::Limit, Self::Handshake, Self::SlowHandshake, Self::PlainHttp, Self::ProxyHeader];

    /// Returns the value of the label `reason`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Handshake => "handshake",
            Self::SlowHandshake => "slow-handshake",
            Self::PlainHttp => "plain-http",
            Self::ProxyHeader => "proxy-header",
        }
    }
}

/// Counters of one listener.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    refused: [Counter; ConnectionRefusal::ALL.len()],
}

impl ConnectionMetrics {
    /// Returns the counter of the connections that were refused for this reason.
    pub fn refused(&self, reason: ConnectionRefusal) -> &Counter {
        // The index is the variant's position in `ALL`, which has the order of the declaration.
        &self.refused[reason as usize]
    }
}

/// Counters of both listeners.
#[derive(Debug, Default)]
pub struct ListenerMetrics {
    /// The listener of the http sources.
    pub public: Arc<ConnectionMetrics>,
    /// The listener of the admin API.
    pub admin: Arc<ConnectionMetrics>,
}
