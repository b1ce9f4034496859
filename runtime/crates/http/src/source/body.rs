//! Reads request bodies within limits: `max_body` of the source for each body, and [`super::memory`] for all bodies
//! together.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Body;

use super::memory::{Budget, Memory, Owners, REQUEST_BYTES, Refused};
use crate::listener::BodyError;
use crate::problem::Problem;

/// The bytes of a body, and the permit for their memory.
pub(super) struct Read {
    pub(super) bytes: Bytes,
    /// Must be held until the events of the body are committed.
    pub(super) memory: Memory,
}

/// Reads a body of at most `max` bytes. A larger body is refused with 413. Memory is reserved as the bytes arrive, and
/// not for the announced length; if no memory is free, the body is refused with 503. The listener reads the rest of a
/// refused body.
pub(super) async fn read<B>(budget: &Budget, owners: Owners, mut body: B, max: usize) -> Result<Read, Problem>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Error + 'static,
{
    let announced = body.size_hint();
    if announced.lower() > max as u64 {
        return Err(Problem::too_large(max));
    }
    let length_max = announced.exact().and_then(|length| usize::try_from(length).ok()).unwrap_or(max);
    let memory = budget.register(owners, announced.lower());
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        let frame = tokio::select! {
            biased;
            () = memory.gives_way() => return Err(Refused::GaveWay.into()),
            frame = body.frame() => frame,
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > max {
            return Err(Problem::too_large(max));
        }
        if length > bytes.capacity() {
            // The capacity is doubled, so that a body of many frames is copied only a few times.
            let capacity = length.max((bytes.capacity() * 2).min(length_max));
            memory.grow(capacity)?;
            bytes.reserve_exact(capacity - bytes.len());
        }
        // The bytes are copied, because even a small frame would keep alive the whole read buffer that it points into.
        bytes.extend_from_slice(&data);
    }
    memory.complete(bytes.capacity() + REQUEST_BYTES)?;
    Ok(Read { bytes: bytes.into(), memory })
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::later(Duration::from_secs(1), "the memory for requests is full; retry later"),
            Refused::GaveWay => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                "the body arrived slowly, and other requests needed its memory; send it again without pauses",
            ),
        }
    }
}

fn broken(error: &(dyn Error + 'static)) -> Problem {
    match error.downcast_ref::<BodyError>() {
        Some(BodyError::Slow) => Problem::slow(),
        _ => Problem::malformed(format!("the body cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::{IpAddr, Ipv4Addr};

    use futures_util::{StreamExt as _, stream};
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;
    use crate::source::memory::{SMALL_MAX, TOTAL_BYTES, YIELD_AGE};
    use evoke_core::bus::Origin;

    const OWNERS: Owners = Owners { source: Origin(1), peer: IpAddr::V4(Ipv4Addr::LOCALHOST) };

    async fn read_all(budget: &Budget, body: &'static str, max: usize) -> Result<Read, Problem> {
        read(budget, OWNERS, Full::<Bytes>::from(body), max).await
    }

    #[tokio::test]
    async fn a_body_is_limited_and_returns_its_memory() {
        let budget = Budget::default();
        let all = read_all(&budget, "12345", 5).await.unwrap();
        assert_eq!((&*all.bytes, budget.used()), (&b"12345"[..], 5 + REQUEST_BYTES));
        drop(all);
        assert_eq!(budget.used(), 0);
        assert_eq!(read_all(&budget, "123456", 5).await.err().unwrap().status, 413);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn bodies_beyond_the_memory_are_refused_until_memory_is_free() {
        let budget = Budget::default();
        let mut held = Vec::new();
        while held.len() * SMALL_MAX < TOTAL_BYTES / 2 {
            let memory = budget.register(OWNERS, 0);
            memory.grow(SMALL_MAX).unwrap();
            held.push(memory);
        }
        assert_eq!(read_all(&budget, "12345", 5).await.err().unwrap().status, 503);
        held.pop();
        assert!(read_all(&budget, "12345", 5).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_is_refused_when_another_one_needs_its_memory() {
        let budget = Budget::default();
        let bytes = Bytes::from(vec![b'x'; SMALL_MAX]);
        let never_ends = || {
            let first = stream::iter([Ok::<_, Infallible>(Frame::data(bytes.clone()))]);
            StreamBody::new(Box::pin(first.chain(stream::pending())))
        };
        let slow = (0..TOTAL_BYTES / 2 / SMALL_MAX).map(|_| {
            let (budget, body) = (budget.clone(), never_ends());
            tokio::spawn(async move { read(&budget, OWNERS, body, 1 << 20).await.err().unwrap() })
        });
        let slow: Vec<_> = slow.collect();
        tokio::time::sleep(YIELD_AGE * 2).await;
        assert!(read_all(&budget, "12345", 5).await.is_ok());
        tokio::time::sleep(Duration::from_millis(1)).await;
        let refused: Vec<_> = slow.iter().filter(|task| task.is_finished()).collect();
        assert_eq!(refused.len(), 1);
        slow.into_iter().for_each(|task| task.abort());
    }
}
