//! Keeps the permits of a call until no byte of its request body is in memory.
//!
//! A peer may respond before it takes the request body, and then never take it. The connection still holds the body at
//! that time, although the call has ended. So each part of the body holds the permits of its call, wherever the part is
//! buffered. Otherwise, such a peer could make this process hold any number of bodies.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longest time after the end of a call in which the rest of its request body is sent. Then the connection is closed,
/// unless other calls use it.
pub(crate) const REST_MAX: Duration = Duration::from_secs(5);

/// An extension of a request. Its value, such as a permit for memory, is dropped when no byte of the request body is in
/// memory any more. This may be some seconds after the end of the call.
#[derive(Clone, Debug)]
pub struct UntilSent(pub Arc<dyn Any + Send + Sync>);

/// The permits of a call. The unread part of the request body and each part that is in a buffer hold them.
pub(crate) struct Permits {
    _call: Arc<OwnedSemaphorePermit>,
    _until_sent: Option<UntilSent>,
    /// This field is the last one, because fields are dropped in order: the permits are free when the upload is over.
    _over: DropGuard,
}

impl Permits {
    /// Returns the permits for a request body, and the view of its upload.
    pub(crate) fn new(call: Arc<OwnedSemaphorePermit>, until_sent: Option<UntilSent>) -> (Arc<Self>, Upload) {
        let over = CancellationToken::new();
        let permits = Self { _call: call, _until_sent: until_sent, _over: over.clone().drop_guard() };
        (Arc::new(permits), Upload(Some(over)))
    }

    /// Returns the same bytes, which hold the permits until the last copy of the bytes is dropped.
    pub(crate) fn held_by(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        if bytes.is_empty() { bytes } else { Bytes::from_owner(Part { bytes, _permits: self.clone() }) }
    }
}

/// A part of a request body.
struct Part {
    bytes: Bytes,
    _permits: Arc<Permits>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The view of an upload: whether a part of the request body is still in memory. The default is for a request without a
/// body.
#[derive(Clone, Default)]
pub(crate) struct Upload(Option<CancellationToken>);

impl Upload {
    /// Returns true if no byte of the request body is in memory.
    pub(crate) fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(CancellationToken::is_cancelled)
    }

    /// Waits for the end of the upload, at most [`REST_MAX`]. Returns true if the upload is over.
    pub(crate) async fn ends_in_time(self) -> bool {
        match self.0 {
            None => true,
            Some(over) => timeout(REST_MAX, over.cancelled()).await.is_ok(),
        }
    }
}
