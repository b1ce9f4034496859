//! Searches the stored events of a range of positions, in either direction. The store has no index over types, sources
//! and data, so a search reads the events of the range in bounded steps. A list streams events while it searches. The
//! search for a page of the console has a time limit, and the next request continues the search (see [`Pages`]).

mod pages;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinError;
use tokio::time::Instant;

pub(super) use self::pages::Pages;
use super::access::Exchange;
use super::permits::Scan;
use super::stream::{Lines, PAGE_BYTES_MAX, StreamError};
use evoke_model::clock::UnixMs;
use evoke_model::{DamagedEvent, DeliveryState, EventFilter, ReadEvent, Seq};
use evoke_pattern::Matcher;
use evoke_store::{InspectionStore, StoreError};

/// Maximum number of events in a page, which is one read of the store. [`PAGE_BYTES_MAX`] limits the size of a page.
/// Each page is read on a thread for blocking work. A search with a pattern or a text reads every event, so small pages
/// would cost too many switches between threads.
const PAGE: usize = 256;
/// Number of positions of the first step, and the minimum for all steps. A step of this length takes some milliseconds.
const SPAN_FIRST: i64 = 8 * 1024;
/// Maximum number of positions of a step. Quick steps make the next steps longer. Then a long step may reach events
/// that take longer to read. Because of this maximum, such a step takes at most some tenths of a second.
const SPAN_MAX: i64 = 64 * 1024;
/// A step that takes longer than this makes the next step shorter; any other step makes it longer.
const STEP_TIME: Duration = Duration::from_millis(20);
/// A step that takes less time than this has probably read nothing, because retention removed the events at its
/// positions. Then the search looks up the next stored event and continues there.
const EMPTY_STEP_TIME: Duration = Duration::from_millis(1);
/// While a search finds few events, it sends the found events and its progress at this interval.
pub(super) const SEND_INTERVAL: Duration = Duration::from_millis(100);

/// The conditions of a search. Times are wall-clock times.
#[derive(Default)]
pub(super) struct Conditions {
    /// The type; a trailing `*` matches any ending.
    pub(super) type_: Option<String>,
    pub(super) source: Option<String>,
    /// Only events with a delivery to this function, by full name.
    pub(super) function: Option<String>,
    /// Only events with a delivery in one of these states; empty for any state. If `function` is set, the delivery must
    /// be one to this function.
    pub(super) states: Vec<DeliveryState>,
    pub(super) since_ms: Option<UnixMs>,
    pub(super) until_ms: Option<UnixMs>,
    pub(super) pattern: Option<Matcher<()>>,
    /// Only events whose JSON form contains this text, in upper or lower case.
    pub(super) text: Option<String>,
    pub(super) after: Option<Seq>,
    pub(super) before: Option<Seq>,
}

/// A search for events.
pub(super) struct Search {
    filter: EventFilter,
    /// `None` if the search has neither a pattern nor a text.
    selector: Option<Arc<Selector>>,
    /// Only events after this position.
    pub(super) after: Seq,
    /// Only events before this position; `None` for no bound.
    pub(super) before: Option<Seq>,
}

/// The conditions that need the whole event. The store does not test them.
struct Selector {
    pattern: Option<Matcher<()>>,
    /// In lower case.
    text: Option<String>,
}

/// The line of a list that reports the position of the search.
#[derive(Debug, Serialize)]
struct Progress<T> {
    searched: T,
}

/// Sends the lines of a list during a search.
pub(super) struct Sender<'a> {
    lines: &'a mut Lines,
    /// True if the client asked for lines with the progress.
    reports_progress: bool,
    sent: Instant,
    pace: Pace,
}

/// Adapts the length of the steps of a search to the time that they take.
struct Pace {
    /// Number of positions of the next step.
    span: i64,
    /// True if the last step took less than [`EMPTY_STEP_TIME`].
    was_empty: bool,
}

impl Search {
    /// Makes a search. `since_ms`, `until_ms`, `after` and `before` determine its range of positions.
    pub(super) async fn new(store: &dyn InspectionStore, conditions: Conditions) -> Result<Self, StoreError> {
        let Conditions { type_, source, function, states, since_ms, until_ms, pattern, text, after, before } =
            conditions;
        let (mut after, mut before) = (after.unwrap_or(Seq(0)), before);
        if let Some(since_ms) = since_ms {
            after = after.max(Seq(store.first_since(since_ms).await?.0 - 1));
        }
        if let Some(until_ms) = until_ms {
            let first = store.first_since(until_ms).await?;
            before = Some(before.map_or(first, |before| before.min(first)));
        }
        let filter = EventFilter { type_, source, function, states, since_ms, until_ms, ..EventFilter::default() };
        let selector = Selector { pattern, text: text.map(|text| text.to_lowercase()) };
        let is_needed = selector.pattern.is_some() || selector.text.is_some();
        Ok(Self { filter, selector: is_needed.then(|| selector.into()), after, before })
    }

    /// Returns those events that passed the filter of the store and also match the pattern and the text. A damaged
    /// event matches only if the search has neither a pattern nor a text.
    async fn select(&self, found: Vec<ReadEvent>, scan: &Scan) -> Result<Vec<ReadEvent>, JoinError> {
        let Some(selector) = self.selector.clone() else { return Ok(found) };
        scan.run(move || found.into_iter().filter(|read| selector.selects(read)).collect()).await
    }

    /// Like [`Self::select`], for requests that have no permit for a scan. Waits for a permit if the search has a
    /// pattern or a text.
    async fn select_in_scan(&self, found: Vec<ReadEvent>, exchange: &Exchange) -> Result<Vec<ReadEvent>, JoinError> {
        match self.selector.is_none() || found.is_empty() {
            true => Ok(found),
            false => self.select(found, &exchange.scan().await).await,
        }
    }

    /// Reads a page of events after `after`. Returns the events that match, and the last position that was searched. At
    /// the end of the range, this is the last position before `end`.
    pub(super) async fn next(
        &self,
        store: &dyn InspectionStore,
        after: Seq,
        end: Seq,
        limit: usize,
        sender: &mut Sender<'_>,
        exchange: &Exchange,
    ) -> Result<(Vec<ReadEvent>, Seq), StreamError> {
        let before = end.min(Seq(after.0.saturating_add(sender.pace.span + 1)));
        let page = EventFilter { after: Some(after), before: Some(before), ..self.page(limit) };
        let limit = page.limit;
        let found = sender.pace.measure(store.events(page)).await?;
        let mut searched = match found.last() {
            Some(last) if EventFilter::is_cut(&found, limit, Some(PAGE_BYTES_MAX)) => DamagedEvent::seq_of(last),
            _ => Seq(before.0 - 1),
        };
        if found.is_empty() && sender.pace.was_empty && searched.next() < end {
            let next = EventFilter { after: Some(searched), before: Some(end), limit: 1, ..EventFilter::default() };
            searched = Seq(store.events(next).await?.first().map_or(end, DamagedEvent::seq_of).0 - 1);
        }
        Ok((self.select_in_scan(found, exchange).await?, searched))
    }

    /// Reads a page of events at positions below `before`, and does not test the pattern and the text yet. Returns the
    /// events, newest first, and the lowest position that was searched, which is the `before` of the next call.
    async fn previous(
        &self,
        store: &dyn InspectionStore,
        before: Seq,
        limit: usize,
        pace: &mut Pace,
    ) -> Result<(Vec<ReadEvent>, Seq), StoreError> {
        let above = self.after.max(Seq(before.0.saturating_sub(pace.span + 1)));
        let page = EventFilter { above: Some(above), before: Some(before), ..self.page(limit) };
        let limit = page.limit;
        let found = pace.measure(store.events(page)).await?;
        let mut searched = match found.first() {
            Some(first) if EventFilter::is_cut(&found, limit, Some(PAGE_BYTES_MAX)) => DamagedEvent::seq_of(first),
            _ => above.next(),
        };
        if found.is_empty() && pace.was_empty && above > self.after {
            let next =
                EventFilter { above: Some(self.after), before: Some(searched), limit: 1, ..EventFilter::default() };
            searched = store.events(next).await?.first().map_or(self.after, DamagedEvent::seq_of).next();
        }
        Ok((found.into_iter().rev().collect(), searched))
    }

    fn page(&self, limit: usize) -> EventFilter {
        // With a pattern or a text, perhaps only a few events of a page match. So the page has the full size then, even
        // if `limit` is small.
        let limit = if self.selector.is_some() { PAGE } else { limit.min(PAGE) };
        EventFilter { limit, bytes_max: Some(PAGE_BYTES_MAX), ..self.filter.clone() }
    }

    /// Returns the first position after the range. `newest` is the position of the newest event.
    pub(super) fn end(&self, newest: Seq) -> Seq {
        self.before.map_or(newest.next(), |before| before.min(newest.next()))
    }

    /// Finds the newest `limit` matching events, newest first. Calls `each` for each event, and sends the line if
    /// `each` returns one. Returns the position of the oldest of these events; `None` if fewer than `limit` events
    /// match.
    pub(super) async fn newest_first(
        &self,
        store: &dyn InspectionStore,
        newest: Seq,
        limit: usize,
        sender: &mut Sender<'_>,
        exchange: &Exchange,
        each: impl Fn(&ReadEvent) -> Option<String>,
    ) -> Result<Option<Seq>, StreamError> {
        let (mut before, mut remaining, mut last) = (self.end(newest), limit, None);
        while remaining > 0 && before > self.after.next() {
            sender.lines.ready().await?;
            let (found, searched) = self.previous(store, before, remaining, &mut sender.pace).await?;
            let found = self.select_in_scan(found, exchange).await?;
            for read in found.into_iter().take(remaining) {
                remaining -= 1;
                last = Some(DamagedEvent::seq_of(&read));
                if let Some(line) = each(&read) {
                    drop(read);
                    sender.lines.line(line).await?;
                }
            }
            before = searched;
            sender.searched(searched).await?;
        }
        Ok(if remaining == 0 { last } else { None })
    }
}

impl Selector {
    fn selects(&self, read: &ReadEvent) -> bool {
        let Ok(stored) = read else { return false };
        let event = &*stored.event;
        let matches = |matcher: &Matcher<()>| matcher.matches_any(&event.into()).unwrap_or_default();
        self.pattern.as_ref().is_none_or(matches)
            && self.text.as_ref().is_none_or(|text| event.to_json().to_lowercase().contains(text))
    }
}

impl<'a> Sender<'a> {
    pub(super) fn new(lines: &'a mut Lines, reports_progress: bool) -> Self {
        Self { lines, reports_progress, sent: Instant::now(), pace: Pace::new() }
    }

    pub(super) fn lines(&mut self) -> &mut Lines {
        self.lines
    }

    /// Sends the found events and the progress if [`SEND_INTERVAL`] has passed since they were last sent.
    pub(super) async fn searched(&mut self, searched: impl Serialize) -> Result<(), StreamError> {
        if self.sent.elapsed() < SEND_INTERVAL {
            return Ok(());
        }
        if self.reports_progress {
            self.lines.json(&Progress { searched }).await?;
        }
        self.lines.flush().await?;
        self.sent = Instant::now();
        Ok(())
    }
}

impl Pace {
    fn new() -> Self {
        Self { span: SPAN_FIRST, was_empty: false }
    }

    /// Runs a step, and adapts the length of the next step to the time that this step took.
    async fn measure<T>(&mut self, step: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let result = step.await;
        self.was_empty = start.elapsed() < EMPTY_STEP_TIME;
        self.span = match start.elapsed() {
            elapsed if elapsed > STEP_TIME => (self.span / 2).max(SPAN_FIRST),
            _ => (self.span * 2).min(SPAN_MAX),
        };
        result
    }
}
