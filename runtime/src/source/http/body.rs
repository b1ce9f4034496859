//! Reads request bodies within bounds: each by its source's `max_body`, all together by a budget of memory.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::problem::Problem;
use crate::listener::BodyError;

/// Memory of all bodies that were read and whose events are not committed yet: 24 bodies of a mebibyte, or ten
/// thousands of ordinary ones. Slow senders of large bodies fill it, and not the machine.
const BUDGET: u32 = 24 * 1024 * 1024;
/// A body that is refused is read on for this much and this long, so that a client that sends before it
/// listens gets to read why it is refused.
const DISCARD: (usize, Duration) = (8 * 1024 * 1024, Duration::from_secs(2));

/// The memory that bodies share; cheap to clone.
#[derive(Clone)]
pub(super) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET as usize)))
    }
}

/// A body that was read, and its part of the budget.
pub(super) struct Read {
    pub(super) bytes: Bytes,
    /// Kept until the events of the body are committed.
    pub(super) memory: Memory,
}

/// A part of the budget; an empty body has none.
pub(super) type Memory = Option<OwnedSemaphorePermit>;

impl Budget {
    /// Reads a body of at most `max` bytes.
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
            // Copied: a small frame would keep the whole read buffer alive that it is a part of.
            bytes.extend_from_slice(&data);
            self.charge(&mut memory, bytes.capacity())?;
        }
        Ok(Read { bytes: bytes.freeze(), memory })
    }

    /// Has `memory` cover `bytes`. A body beyond the whole budget needs all of it, rather than never fitting.
    fn charge(&self, memory: &mut Memory, bytes: usize) -> Result<(), Problem> {
        let bytes = u32::try_from(bytes).unwrap_or(BUDGET).min(BUDGET);
        let held = memory.as_ref().map_or(0, |m| u32::try_from(m.num_permits()).unwrap_or(BUDGET));
        if bytes <= held {
            return Ok(());
        }
        let more = self.0.clone().try_acquire_many_owned(bytes - held).map_err(|_| {
            Problem::later(Duration::from_secs(1), "the requests under way fill the memory for bodies; come back later")
        })?;
        match memory {
            Some(memory) => memory.merge(more),
            None => *memory = Some(more),
        }
        Ok(())
    }
}

/// Refuses a body that says beforehand that it is too large.
pub(super) async fn announced_too_large<B>(headers: &HeaderMap, body: &mut B, max: usize) -> Problem
where
    B: Body<Data = Bytes> + Unpin,
{
    // With `Expect: 100-continue` the client listens first.
    if !headers.contains_key(header::EXPECT) {
        discard(body).await;
    }
    Problem::too_large(max)
}

/// Reads on for a moment, and keeps nothing.
pub(super) async fn discard<B: Body<Data = Bytes> + Unpin>(body: &mut B) {
    let (mut left, time) = DISCARD;
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
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn a_body_has_its_bound_and_gives_its_memory_back() {
        let budget = Budget::default();
        let headers = HeaderMap::new();
        let read = budget.read(&headers, Full::from("12345"), 5).await.unwrap();
        assert_eq!(read.bytes, "12345");
        assert!(budget.0.available_permits() < BUDGET as usize);
        drop(read);
        assert_eq!(budget.0.available_permits(), BUDGET as usize);
        assert_eq!(budget.read(&headers, Full::from("123456"), 5).await.err().unwrap().status, 413);
    }

    #[tokio::test]
    async fn bodies_beyond_the_budget_are_refused_until_there_is_room() {
        let budget = Budget::default();
        let headers = HeaderMap::new();
        let held = budget.0.clone().try_acquire_many_owned(BUDGET - 2).unwrap();
        assert_eq!(budget.read(&headers, Full::from("12345"), 5).await.err().unwrap().status, 503);
        drop(held);
        assert!(budget.read(&headers, Full::from("12345"), 5).await.is_ok());
    }
}
