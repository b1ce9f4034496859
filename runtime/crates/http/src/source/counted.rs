//! Response bodies whose memory is counted until the client has read them.
//!
//! A client chooses how long a response stays in memory: it can read slowly. Clients also choose the size of some
//! responses, such as a receipt with long ids, or a reply that repeats their data.

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Body;

use super::handler::Payload;
use super::memory::{Budget, Memory, Owners, Refused};

/// The largest response whose memory is not counted, in bytes.
pub(super) const SMALL_RESPONSE_MAX: usize = 8 * 1024;

/// The body of a response of a source.
pub(super) type ResponseBody = Either<Full<Bytes>, Payload>;

/// If the response is large, holds `memory` until the client has read the response. For a receipt, the memory permit of
/// the request is enough, because a large receipt is at most about as large as the request.
pub(super) fn with_memory(response: Response<Full<Bytes>>, memory: impl Send + 'static) -> Response<ResponseBody> {
    if length(response.body()) <= SMALL_RESPONSE_MAX {
        return response.map(Either::Left);
    }
    response.map(|body| Either::Right(hold(body.map_err(|never| match never {}), memory)))
}

/// Reserves memory for a large response that is complete. Returns an error if the memory is used up, or the share of
/// the source or of the peer is used up.
pub(super) fn reserve(budget: &Budget, owners: Owners, length: usize) -> Result<Option<Memory>, Refused> {
    if length <= SMALL_RESPONSE_MAX {
        return Ok(None);
    }
    let memory = budget.register(owners, length as u64);
    memory.complete(length)?;
    Ok(Some(memory))
}

/// Holds `memory` until the body is dropped.
pub(super) fn hold<B>(body: B, memory: impl Send + 'static) -> Payload
where
    B: Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    let held = body.map_frame(move |frame| {
        let _held = &memory;
        frame
    });
    held.boxed_unsync()
}

/// Returns the length of a complete body, in bytes; 0 for a body that is still being made.
pub(super) fn length(body: &impl Body) -> usize {
    body.size_hint().exact().and_then(|length| usize::try_from(length).ok()).unwrap_or_default()
}
