//! The bytes that an attempt, or a single call, may send and receive.

use std::sync::atomic::{AtomicU64, Ordering};

/// Default limit on the total size of all request bodies that share an allowance, in bytes.
const SENT_MAX: u64 = 64 * 1024 * 1024;
/// Default limit on the total size of all response bodies that share an allowance, in bytes.
const RECEIVED_MAX: u64 = 64 * 1024 * 1024;

/// The remaining bytes of request and response bodies. Calls that share an allowance share the bytes.
#[derive(Debug)]
pub struct Allowance {
    sent_max: u64,
    received_max: u64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Default for Allowance {
    /// Allows 64 MiB in each direction.
    fn default() -> Self {
        Self::new(SENT_MAX, RECEIVED_MAX)
    }
}

impl Allowance {
    /// Allows `sent_max` bytes of request bodies, and `received_max` bytes of response bodies.
    pub fn new(sent_max: u64, received_max: u64) -> Self {
        Self { sent_max, received_max, sent: AtomicU64::new(0), received: AtomicU64::new(0) }
    }

    /// Counts bytes of a request body that are about to be sent. Returns the limit as the error if it would be
    /// exceeded. The bytes do not count then, because they are not sent.
    pub(crate) fn send(&self, bytes: usize) -> Result<(), u64> {
        let (bytes, max) = (bytes as u64, self.sent_max);
        let add = |sent: u64| sent.checked_add(bytes).filter(|sum| *sum <= max);
        self.sent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map(|_| ()).map_err(|_| max)
    }

    /// Counts received bytes of a response body. Returns the limit as the error if it is exceeded. The bytes count even
    /// then, because they were received. Otherwise, further calls could receive any number of such parts.
    pub(crate) fn receive(&self, bytes: usize) -> Result<(), u64> {
        let bytes = bytes as u64;
        // Sums that do not fit are not possible: no peer can send 2^64 bytes.
        let received = self.received.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if received <= self.received_max { Ok(()) } else { Err(self.received_max) }
    }
}
