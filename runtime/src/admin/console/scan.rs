//! Reads stored events from the newest to the oldest, in bounded steps: a request ends after a time and returns where
//! the next one continues.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use evoke_model::clock::UnixMs;
use evoke_model::{DamagedEvent, EventFilter, ReadEvent, Seq};
use evoke_store::{Store, StoreError};

/// How long a request searches.
const TIME_MAX: Duration = Duration::from_millis(200);
/// Number of events that are read at a time.
const PAGE: usize = 128;
/// Number of bytes that a page of events has at most, or one event.
const PAGE_BYTES_MAX: usize = 256 * 1024;

/// Reads a range of events, newest first.
pub(super) struct Scanner {
    store: Arc<dyn Store>,
    /// The events before this position are not read yet.
    before: Seq,
    since_ms: UnixMs,
    deadline: Instant,
    is_ended: bool,
    /// Number of events that were read.
    pub(super) scanned: u64,
}

/// Where a search starts and ends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Range {
    /// Only events before this position.
    pub(super) before: Option<Seq>,
    /// Only events that were accepted at this time or later, in milliseconds since 1970.
    pub(super) since_ms: Option<UnixMs>,
    /// Only events that were accepted before this time, in milliseconds since 1970.
    pub(super) until_ms: Option<UnixMs>,
}

impl Scanner {
    /// Starts a search. The time of a request starts now.
    pub(super) async fn new(store: Arc<dyn Store>, range: Range) -> Result<Self, StoreError> {
        let deadline = Instant::now() + TIME_MAX;
        let newest = *store.newest().borrow();
        let mut before = range.before.unwrap_or(newest.next());
        if let Some(until_ms) = range.until_ms {
            before = before.min(store.first_since(until_ms).await?);
        }
        let since_ms = range.since_ms.unwrap_or(UnixMs::MIN);
        Ok(Self { store, before, since_ms, deadline, is_ended: false, scanned: 0 })
    }

    /// Returns the next events, newest first; `None` at the end of the range or of the time.
    pub(super) async fn page(&mut self) -> Result<Option<Vec<ReadEvent>>, StoreError> {
        if self.is_ended || Instant::now() >= self.deadline {
            return Ok(None);
        }
        let filter = EventFilter {
            before: Some(self.before),
            limit: PAGE,
            bytes_max: Some(PAGE_BYTES_MAX),
            ..EventFilter::default()
        };
        let mut found = self.store.events(filter).await?;
        found.reverse();
        let Some(oldest) = found.last() else {
            self.is_ended = true;
            return Ok(None);
        };
        self.before = DamagedEvent::seq_of(oldest);
        self.scanned += found.len() as u64;
        // The clock may have jumped between two events, so a page ends the search only as a whole.
        let is_before = |read: &ReadEvent| read.as_ref().is_ok_and(|stored| stored.accepted_ms < self.since_ms);
        if found.iter().all(is_before) {
            self.is_ended = true;
            return Ok(None);
        }
        found.retain(|read| !is_before(read));
        Ok(Some(found))
    }

    /// Ends the search after this event, so that the next one continues before it.
    pub(super) fn stop_after(&mut self, seq: Seq) {
        (self.before, self.is_ended) = (seq, false);
    }

    /// Returns the position before which the next search continues; `None` if nothing is left.
    pub(super) fn next(&self) -> Option<Seq> {
        (!self.is_ended && self.before > Seq(1)).then_some(self.before)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use evoke_model::clock::Clock;
    use evoke_model::event::Event;
    use evoke_model::{Lineage, NewEvent};
    use evoke_store::EventStore as _;
    use evoke_store::memory::MemoryStore;

    /// A store with events 1 to `count`, accepted at 1, 2, … seconds.
    async fn store(count: i64) -> Arc<dyn Store> {
        let now_ms = Arc::new(AtomicI64::new(0));
        let store = Arc::new(MemoryStore::new(Clock::manual(&now_ms)));
        for n in 1..=count {
            now_ms.store(n * 1_000, Ordering::SeqCst);
            let event = Event { id: n.to_string(), source: "/t".into(), type_: "t".into(), ..Event::default() };
            let event = NewEvent { event: Arc::new(event), lineage: Lineage::default(), deliveries: Vec::new() };
            store.accept(vec![event], Vec::new()).await.unwrap();
        }
        store
    }

    async fn seqs(scanner: &mut Scanner) -> Vec<i64> {
        let mut all = Vec::new();
        while let Some(page) = scanner.page().await.unwrap() {
            all.extend(page.iter().map(|read| DamagedEvent::seq_of(read).0));
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn a_range_is_read_from_the_newest_event_to_the_oldest() {
        let store = store(300).await;
        let range = Range { since_ms: Some(100_000), until_ms: Some(250_000), ..Range::default() };
        let mut scanner = Scanner::new(store.clone(), range).await.unwrap();
        assert_eq!(seqs(&mut scanner).await, (100..250).rev().collect::<Vec<_>>());
        assert_eq!(scanner.next(), None);
        for (until_ms, first) in [(0, None), (1_001, Some(1)), (300_000, Some(299)), (i64::MAX, Some(300))] {
            let range = Range { until_ms: Some(until_ms), ..Range::default() };
            let mut scanner = Scanner::new(store.clone(), range).await.unwrap();
            assert_eq!(seqs(&mut scanner).await.first().copied(), first, "{until_ms}");
        }
        let range = Range { before: Some(Seq(3)), ..Range::default() };
        assert_eq!(seqs(&mut Scanner::new(store, range).await.unwrap()).await, [2, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_that_takes_too_long_says_where_to_continue() {
        let store = store(300).await;
        let mut scanner = Scanner::new(store.clone(), Range::default()).await.unwrap();
        assert_eq!(scanner.page().await.unwrap().unwrap().len(), PAGE);
        tokio::time::advance(TIME_MAX).await;
        assert!(scanner.page().await.unwrap().is_none());
        assert_eq!((scanner.next(), scanner.scanned), (Some(Seq(173)), 128));
        scanner.stop_after(Seq(200));
        let rest = Range { before: scanner.next(), ..Range::default() };
        assert_eq!(seqs(&mut Scanner::new(store, rest).await.unwrap()).await.first(), Some(&199));
    }
}
