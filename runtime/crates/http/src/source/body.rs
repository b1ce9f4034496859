//! Reads request bodies within bounds: each body by its source's `max_body`, all bodies together by a memory budget.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::listener::BodyError;
use crate::problem::Problem;

/// The memory, in bytes, for all bodies whose events are not committed yet: 24 bodies of a mebibyte, or ten thousands
/// of ordinary ones. Slow senders of large bodies exhaust this budget and not the machine's memory.
const BUDGET_BYTES: u32 = 24 * 1024 * 1024;
/// How much of a refused body is still read, in bytes and time. A client that sends its whole body before it reads the
/// response then sees why the body was refused.
const DISCARD_MAX: (usize, Duration) = (8 * 1024 * 1024, Duration::from_secs(2));

/// The memory budget that all bodies share; cheap to clone.
#[derive(Clone)]
pub(super) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_BYTES as usize)))
    }
}

/// A body and its share of the memory budget.
pub(super) struct Read {
    pub(super) bytes: Bytes,
    /// Hold this until the events of the body are committed.
    pub(super) memory: Memory,
}

/// A share of the memory budget; `None` for an empty body.
pub(super) type Memory = Option<OwnedSemaphorePermit>;

impl Budget {
    /// Reads a body of at most `max` bytes. A larger one is a 413, a full memory budget a 503.
    pub(super) async fn read<B>(&self, headers: &HeaderMap, mut body: B, max: usize) -> Result<Read, Problem>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Error + 'static,
    {
        if body.size_hint().lower() > max as u64 {
            return Err(announced_too_large(headers, &mut body, max).await);
        }
        let mut bytes = BytesMut::new();
        let mut memory = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > max {
                drop((bytes, memory));
                discard(&mut body).await;
                return Err(Problem::too_large(max));
            }
            // Copied: a small frame would keep alive the whole read buffer that it points into.
            bytes.extend_from_slice(&data);
            self.charge(&mut memory, bytes.capacity())?;
        }
        Ok(Read { bytes: bytes.freeze(), memory })
    }

    /// Grows `memory` to cover `bytes`. A body larger than the whole budget takes all of it: otherwise it could never
    /// be read.
    fn charge(&self, memory: &mut Memory, bytes: usize) -> Result<(), Problem> {
        let bytes = u32::try_from(bytes).unwrap_or(BUDGET_BYTES).min(BUDGET_BYTES);
        let held = memory.as_ref().map_or(0, |m| u32::try_from(m.num_permits()).unwrap_or(BUDGET_BYTES));
        if bytes <= held {
            return Ok(());
        }
        let more = self.0.clone().try_acquire_many_owned(bytes - held).map_err(|_| {
            Problem::later(Duration::from_secs(1), "the memory for request bodies is full; retry later")
        })?;
        match memory {
            Some(memory) => memory.merge(more),
            None => *memory = Some(more),
        }
        Ok(())
    }
}

/// Refuses a body whose announced length is too large.
pub(super) async fn announced_too_large<B>(headers: &HeaderMap, body: &mut B, max: usize) -> Problem
where
    B: Body<Data = Bytes> + Unpin,
{
    // With `Expect: 100-continue` the client waits for the response before it sends the body.
    if !headers.contains_key(header::EXPECT) {
        discard(body).await;
    }
    Problem::too_large(max)
}

/// Reads and drops a limited part of the rest of the body, see [`DISCARD_MAX`].
pub(super) async fn discard<B: Body<Data = Bytes> + Unpin>(body: &mut B) {
    let (mut left, time) = DISCARD_MAX;
    let _ = timeout(time, async {
        while let Some(Ok(frame)) = body.frame().await {
            match frame.data_ref().map_or(0, Bytes::len) {
                length if length > left => return,
                length => left -= length,
            }
        }
    })
    .await;
}

fn broken(error: &(dyn Error + 'static)) -> Problem {
    match error.downcast_ref::<BodyError>() {
        Some(BodyError::Slow) => Problem::slow(),
        _ => Problem::malformed(format!("the body cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn a_body_is_limited_and_returns_its_memory() {
        let budget = Budget::default();
        let headers = HeaderMap::new();
        let read = budget.read(&headers, Full::from("12345"), 5).await.unwrap();
        assert_eq!(read.bytes, "12345");
        assert!(budget.0.available_permits() < BUDGET_BYTES as usize);
        drop(read);
        assert_eq!(budget.0.available_permits(), BUDGET_BYTES as usize);
        assert_eq!(budget.read(&headers, Full::from("123456"), 5).await.err().unwrap().status, 413);
    }

    #[tokio::test]
    async fn bodies_beyond_the_memory_budget_are_refused_until_memory_is_free() {
        let budget = Budget::default();
        let headers = HeaderMap::new();
        let held = budget.0.clone().try_acquire_many_owned(BUDGET_BYTES - 2).unwrap();
        assert_eq!(budget.read(&headers, Full::from("12345"), 5).await.err().unwrap().status, 503);
        drop(held);
        assert!(budget.read(&headers, Full::from("12345"), 5).await.is_ok());
    }
}
