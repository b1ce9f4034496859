//! The listeners of the process: their addresses, certificates and health.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use evoke_http::listener::{Certificate, Tls};
use evoke_model::clock::{UnixMs, rfc3339};

/// The URL of a listener, without a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenUrl {
    /// The address to which the listener is bound. If port 0 was requested, its port is the one that was assigned.
    pub address: SocketAddr,
    /// True if the listener has TLS.
    pub tls: bool,
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }
}

/// A listener of the process.
#[derive(Debug)]
pub struct ListenerHandle {
    /// `public` or `admin`.
    pub name: &'static str,
    /// The address of the listener.
    pub address: SocketAddr,
    /// The certificates of a listener with TLS.
    pub tls: Option<Tls>,
    /// The reason why the certificates could not be replaced at the last try; `None` if they were replaced.
    reload_error: Mutex<Option<String>>,
}

/// The health of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerStatus {
    /// `public` or `admin`.
    pub name: &'static str,
    /// The URL of the listener.
    pub url: ListenUrl,
    /// The earliest time at which a certificate expires.
    pub expires_ms: Option<UnixMs>,
    /// Why the listener is degraded; `None` if it works.
    pub trouble: Option<String>,
}

impl ListenerHandle {
    /// Makes the handle of a listener that is bound to an address.
    pub fn new(name: &'static str, address: SocketAddr, tls: Option<Tls>) -> Arc<Self> {
        Arc::new(Self { name, address, tls, reload_error: Mutex::default() })
    }

    /// Returns the URL of the listener.
    pub fn url(&self) -> ListenUrl {
        ListenUrl { address: self.address, tls: self.tls.is_some() }
    }

    /// Sets the reason why the certificates could not be replaced; `None` after a successful replacement.
    pub fn set_reload_error(&self, error: Option<String>) {
        *self.reload_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Returns the health at this time.
    pub fn status(&self, now_ms: UnixMs) -> ListenerStatus {
        let expires_ms = self.tls.as_ref().and_then(|tls| first_end(&tls.certificates()));
        let error = self.reload_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ended = expires_ms.filter(|end| *end < now_ms);
        let ended = ended.map(|end| format!("its certificate expired on {}", rfc3339(end)));
        let trouble = match (error, ended) {
            (Some(error), Some(ended)) => Some(format!("{ended}; {error}")),
            (error, ended) => error.or(ended),
        };
        ListenerStatus { name: self.name, url: self.url(), expires_ms, trouble }
    }
}

/// Returns the earliest time at which a certificate expires.
pub fn first_end(certificates: &[Certificate]) -> Option<UnixMs> {
    certificates.iter().map(|certificate| certificate.not_after_s.saturating_mul(1_000)).min()
}
