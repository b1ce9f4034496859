//! Searches from the newest event to the oldest, for a limited time. The response of a request has the position from
//! which the next request continues the search.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Conditions, PAGE, Pace, Search};
use crate::admin::ApiResult;
use crate::admin::permits::Scan;
use evoke_model::{ReadEvent, Seq};
use evoke_store::{Store, StoreError};

/// How long a request searches.
const TIME_MAX: Duration = Duration::from_millis(200);

/// The pages of a search, newest first.
pub(in crate::admin) struct Pages {
    store: Arc<dyn Store>,
    search: Search,
    pace: Pace,
    /// The position of the newest event when the search started. No later event was searched.
    pub(in crate::admin) newest: Seq,
    /// All events from this position to the newest have been searched.
    before: Seq,
    deadline: Instant,
    /// The permit of the request.
    scan: Scan,
    /// Number of positions that were searched.
    pub(in crate::admin) searched: u64,
}

impl Pages {
    /// Starts a search. Its time limit starts now.
    pub(in crate::admin) async fn new(
        store: Arc<dyn Store>,
        conditions: Conditions,
        scan: Scan,
    ) -> Result<Self, StoreError> {
        let deadline = Instant::now() + TIME_MAX;
        let newest = *store.newest().borrow();
        let search = Search::new(&*store, conditions).await?;
        let before = search.end(newest);
        Ok(Self { store, search, pace: Pace::new(), newest, before, deadline, scan, searched: 0 })
    }

    /// Searches the next page of older events, and returns those that match, newest first. The list may be empty.
    /// Returns `None` at the end of the range, or when the time limit has passed.
    pub(in crate::admin) async fn next(&mut self) -> ApiResult<Option<Vec<ReadEvent>>> {
        if self.rest().is_none() || Instant::now() >= self.deadline {
            return Ok(None);
        }
        let (found, searched) = self.search.previous(&*self.store, self.before, PAGE, &mut self.pace).await?;
        self.move_to(searched);
        Ok(Some(self.search.select(found, &self.scan).await?))
    }

    /// Ends the search at the event `seq` of the last page. The next request continues with the next older event.
    pub(in crate::admin) fn stop_after(&mut self, seq: Seq) {
        self.move_to(seq);
    }

    /// Returns the position before which the next request continues; `None` if all events were searched.
    pub(in crate::admin) fn rest(&self) -> Option<Seq> {
        (self.before > self.search.after.next()).then_some(self.before)
    }

    fn move_to(&mut self, before: Seq) {
        self.searched = self.searched.saturating_add_signed(self.before.0 - before.0);
        self.before = before;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use evoke_model::clock::Clock;
    use evoke_model::event::Event;
    use evoke_model::{DamagedEvent, Lineage, NewEvent};
    use evoke_store::EventStore as _;
    use evoke_store::memory::MemoryStore;

    use crate::admin::permits::Permits;
    use crate::admin::tokens::Role;

    /// A store with events 1 to `count`, accepted at 1, 2, … seconds.
    async fn store(count: i64) -> Arc<dyn Store> {
        let now_ms = Arc::new(AtomicI64::new(0));
        let store = Arc::new(MemoryStore::new(Clock::manual(&now_ms)));
        for n in 1..=count {
            now_ms.store(n * 1_000, Ordering::SeqCst);
            let type_ = if n % 100 == 0 { "hundred" } else { "t" }.to_owned();
            let event = Event { id: n.to_string(), source: "/t".into(), type_, ..Event::default() };
            let event = NewEvent { event: Arc::new(event), lineage: Lineage::default(), deliveries: Vec::new() };
            store.accept(vec![event], Vec::new()).await.unwrap();
        }
        store
    }

    async fn pages(store: &Arc<dyn Store>, range: Conditions) -> Pages {
        Pages::new(store.clone(), range, Permits::new().scan(Role::Viewer).await).await.unwrap()
    }

    async fn seqs(pages: &mut Pages) -> Vec<i64> {
        let mut all = Vec::new();
        while let Some(page) = pages.next().await.unwrap() {
            all.extend(page.iter().map(|read| DamagedEvent::seq_of(read).0));
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn a_range_is_read_from_the_newest_event_to_the_oldest() {
        let store = store(300).await;
        let range = Conditions { since_ms: Some(100_000), until_ms: Some(250_000), ..Conditions::default() };
        let mut found = pages(&store, range).await;
        assert_eq!(seqs(&mut found).await, (100..250).rev().collect::<Vec<_>>());
        assert_eq!((found.rest(), found.searched), (None, 150));
        for (until_ms, first) in [(0, None), (1_001, Some(1)), (300_000, Some(299)), (i64::MAX, Some(300))] {
            let range = Conditions { until_ms: Some(until_ms), ..Conditions::default() };
            assert_eq!(seqs(&mut pages(&store, range).await).await.first().copied(), first, "{until_ms}");
        }
        let range = Conditions { before: Some(Seq(3)), ..Conditions::default() };
        assert_eq!(seqs(&mut pages(&store, range).await).await, [2, 1]);
        for conditions in [
            Conditions { type_: Some("hun*".into()), ..Conditions::default() },
            Conditions { text: Some("HUNDRED".into()), ..Conditions::default() },
        ] {
            let mut found = pages(&store, conditions).await;
            assert_eq!(seqs(&mut found).await, [300, 200, 100]);
            assert_eq!(found.searched, 300);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_that_takes_too_long_says_where_to_continue() {
        let store = store(300).await;
        let mut found = pages(&store, Conditions::default()).await;
        assert_eq!(found.next().await.unwrap().unwrap().len(), PAGE);
        tokio::time::advance(TIME_MAX).await;
        assert!(found.next().await.unwrap().is_none());
        assert_eq!((found.rest(), found.searched), (Some(Seq(45)), PAGE as u64));
        found.stop_after(Seq(250));
        assert_eq!(found.searched, 51);
        let rest = Conditions { before: found.rest(), ..Conditions::default() };
        assert_eq!(seqs(&mut pages(&store, rest).await).await.first(), Some(&249));
    }
}
