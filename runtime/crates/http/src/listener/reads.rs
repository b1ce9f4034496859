//! Finds responses on an HTTP/2 connection that the peer does not read.
//!
//! An HTTP/1 peer that does not read blocks the socket, which `paced.rs` notices. An HTTP/2 peer can leave the window of
//! a stream closed, and read everything else, such as the responses to pings. hyper then waits without a limit, and the
//! response stays in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::body::Activity;
use super::limits::Limits;

/// The most bytes of a response that hyper receives at once. hyper asks for the next piece when the peer has room for
/// it. This shows that the peer has read the previous piece.
pub(super) const PIECE_MAX: usize = 16 * 1024;

/// The responses of a connection for which hyper waits until the peer reads; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct UnreadResponses(Arc<Mutex<Unread>>);

#[derive(Default)]
struct Unread {
    next: u64,
    /// For each response: since when hyper waits for the peer. While hyper waits for the service, the response has no
    /// entry.
    since: HashMap<u64, Instant>,
}

/// One entry of [`UnreadResponses`], which is removed when this is dropped.
pub(super) struct UnreadResponse {
    all: UnreadResponses,
    id: u64,
}

impl UnreadResponses {
    /// Adds a response. Until hyper asks for the first piece, hyper counts as waiting for the peer.
    pub(super) fn add(&self) -> UnreadResponse {
        let mut unread = self.lock();
        let id = unread.next;
        unread.next += 1;
        unread.since.insert(id, Instant::now());
        UnreadResponse { all: self.clone(), id }
    }

    /// Resolves when the peer has read nothing of a response for too long: for [`Limits::write_stall`] plus the time
    /// that one piece takes at [`Limits::rate_min`].
    pub(super) async fn stalled(&self, limits: &Limits, mut activity: watch::Receiver<Activity>) {
        let piece = PIECE_MAX as f64 / f64::from(limits.rate_min.bytes_per_s.max(1));
        let max = limits.write_stall + Duration::from_secs_f64(piece);
        loop {
            if activity.wait_for(|activity| activity.requests > 0).await.is_err() {
                return std::future::pending().await;
            }
            let oldest = self.lock().since.values().min().copied();
            let wait = max.saturating_sub(oldest.map_or(Duration::ZERO, |since| since.elapsed()));
            if wait.is_zero() {
                return;
            }
            sleep(wait).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Unread> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnreadResponse {
    /// Records that hyper asks for the next piece: the peer has read the previous one.
    pub(super) fn is_asked(&self) {
        self.all.lock().since.remove(&self.id);
    }

    /// Records that hyper received a piece, and now waits for the peer.
    pub(super) fn waits_for_peer(&self) {
        self.all.lock().since.insert(self.id, Instant::now());
    }
}

impl Drop for UnreadResponse {
    fn drop(&mut self) {
        self.is_asked();
    }
}
