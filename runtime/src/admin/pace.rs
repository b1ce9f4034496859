//! Response bodies with a time limit: the response ends early if the client reads too slowly, or if its token is no
//! longer valid.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use super::permits::Permit;
use super::tokens::Caller;
use evoke_http::listener::{ConnectionHandle, Kept};
use evoke_model::clock::Clock;

/// Maximum size of a part of a response. Larger responses are sent in parts.
pub(super) const PART_BYTES_MAX: usize = 64 * 1024;
/// How long a client may take to read one part.
pub(super) const PART_TIME_MAX: Duration = Duration::from_secs(30);
/// Interval of the checks whether a part has waited longer than [`PART_TIME_MAX`].
const INTERVAL: Duration = Duration::from_secs(1);

/// The permit, connection and caller that a response holds until its last byte.
pub(super) struct Hold {
    pub(super) caller: Caller,
    pub(super) clock: Clock,
    pub(super) connection: Option<ConnectionHandle>,
    pub(super) _kept: Option<Kept>,
    pub(super) _permit: Arc<Mutex<Option<Permit>>>,
}

/// Returns `body` in parts, with limited time for each part. A small body is returned unchanged.
pub(super) fn pace(body: Body, hold: Hold) -> Body {
    if body.size_hint().upper().is_some_and(|bytes| bytes <= PART_BYTES_MAX as u64) {
        return body;
    }
    let (waiting, cut, ended) = (Arc::default(), CancellationToken::new(), CancellationToken::new());
    tokio::spawn(watch(Arc::clone(&waiting), hold, cut.clone(), ended.clone()));
    let paced =
        Paced { body, rest: Bytes::new(), waiting, cut: Box::pin(cut.cancelled_owned()), _ended: ended.drop_guard() };
    Body::new(paced)
}

/// The time since which a part waits to be sent to the client; `None` while the client waits for the next part.
type Waiting = Arc<Mutex<Option<Instant>>>;

/// Cuts the response off if the client reads too slowly, or if its token is no longer valid. Drops the permit at the
/// end of the response.
async fn watch(waiting: Waiting, hold: Hold, cut: CancellationToken, ended: CancellationToken) {
    let slow = async {
        let is_slow = || {
            let since = *waiting.lock().unwrap_or_else(PoisonError::into_inner);
            since.is_some_and(|since| since.elapsed() > PART_TIME_MAX)
        };
        while !is_slow() {
            sleep(INTERVAL).await;
        }
    };
    let reason = tokio::select! {
        () = ended.cancelled() => return,
        () = slow => "the client took more than 30 s to read 64 KiB",
        () = hold.caller.invalid(&hold.clock) => "the token is no longer valid",
    };
    tracing::info!("a response to a request with the token {} was cut off: {reason}", hold.caller.name);
    cut.cancel();
    if let Some(connection) = &hold.connection {
        connection.close();
    }
}

struct Paced {
    body: Body,
    /// The part of a frame that is not sent yet.
    rest: Bytes,
    waiting: Waiting,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _ended: DropGuard,
}

/// The error that ends the body of a response which was cut off.
#[derive(Debug, thiserror::Error)]
#[error("the response was cut off")]
struct CutOff;

impl Paced {
    fn set_waiting(&self, since: Option<Instant>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new(CutOff))));
        }
        if this.rest.is_empty() {
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                Poll::Pending => {
                    this.set_waiting(None);
                    return Poll::Pending;
                }
                ended => return ended,
            }
        }
        let part = this.rest.split_to(this.rest.len().min(PART_BYTES_MAX));
        this.set_waiting(Some(Instant::now()));
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
