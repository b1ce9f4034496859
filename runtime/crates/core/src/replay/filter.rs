//! The filter of a replay: which events are delivered again, and to which functions.

use serde::{Deserialize, Serialize};

use super::{ReplayError, SCAN_MAX};
use crate::router::Router;
use evoke_model::clock::UnixMs;
use evoke_model::text::parser_message;
use evoke_model::{DamagedEvent, EventFilter, FunctionId, Json, NewDelivery, ReadEvent, Seq, StoredEvent};
use evoke_pattern::{Matcher, Pattern};
use evoke_store::{InspectionStore, StoreError};

/// The filter of a replay. An event must satisfy all fields that are set; an empty filter selects every stored event.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Delivers only to this function, `app/function`; by default to all matching functions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Only events that were accepted at this time or later, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Only events that were accepted before this time, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Only events of this type; a trailing `*` matches any ending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Only events of this source, `/app/source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Only events that match this event pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Json>,
    /// Only the event with this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Seq>,
    /// The maximum number of deliveries per second; more than 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}

/// A filter that was checked and compiled.
pub struct CompiledFilter {
    /// The filter as requested.
    filter: Filter,
    events: EventFilter,
    pattern: Option<Matcher<()>>,
    function: Option<FunctionId>,
}

/// Returns why the stored filter of a replay is not valid, or `None` if it is valid. Long patterns take long to check,
/// so this must run on a thread for blocking work.
pub fn stored_filter_error(text: &str) -> Option<String> {
    let filter: Filter = match serde_json::from_str(text) {
        Ok(filter) => filter,
        Err(error) => return Some(parser_message(&error)),
    };
    CompiledFilter::new(filter, None).err().map(|error| error.to_string())
}

impl CompiledFilter {
    /// Compiles a filter. `function` is the id of the filter's function. Long patterns take long to compile, so this
    /// must run on a thread for blocking work. The error gives the mistake and the correct form.
    pub(super) fn new(filter: Filter, function: Option<FunctionId>) -> Result<Self, ReplayError> {
        let (events, pattern) = Self::parse(&filter).map_err(ReplayError::Filter)?;
        Ok(Self { filter, events, pattern, function })
    }

    fn parse(filter: &Filter) -> Result<(EventFilter, Option<Matcher<()>>), String> {
        if let Some(rate) = filter.rate
            && !(rate > 0.0 && rate.is_finite())
        {
            return Err(format!("`rate` is {rate}; expected a number of deliveries per second, more than 0"));
        }
        if let Some(seq) = filter.event
            && seq < Seq(1)
        {
            return Err(format!("`event` is {seq}; expected the number of an event, from 1"));
        }
        let pattern = match &filter.pattern {
            Some(json) => {
                let pattern = Pattern::parse(json).map_err(|mistakes| {
                    let all: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
                    format!("the pattern is not valid: {}", all.join("; "))
                })?;
                Some(pattern.matcher())
            }
            None => None,
        };
        let events = EventFilter {
            type_: filter.r#type.clone(),
            source: filter.source.clone(),
            since_ms: parse_time("since", filter.since.as_deref())?,
            until_ms: parse_time("until", filter.until.as_deref())?,
            ..EventFilter::default()
        };
        Ok((events, pattern))
    }

    /// Returns the filter as requested.
    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Reads at most `limit` candidate events after `position`, up to and including `until`. Stops earlier when the
    /// events have `bytes_max` bytes together. Leaves out damaged events. Also returns the position up to which the
    /// store was scanned. [`CompiledFilter::deliveries`] checks the pattern and the function later.
    pub(super) async fn next_events(
        &self,
        store: &dyn InspectionStore,
        position: Seq,
        until: Seq,
        limit: usize,
        bytes_max: Option<usize>,
    ) -> Result<(Vec<StoredEvent>, Seq), StoreError> {
        let end = until.min(Seq(position.0.saturating_add(SCAN_MAX)));
        let (after, before) = (Some(position), Some(end.next()));
        let found = store.events(EventFilter { after, before, limit, bytes_max, ..self.events.clone() }).await?;
        let scanned_to = match found.last() {
            Some(last) if EventFilter::is_cut(&found, limit, bytes_max) => DamagedEvent::seq_of(last),
            _ => end,
        };
        let intact =
            |read: ReadEvent| read.inspect_err(|damaged| tracing::error!("{damaged}; the event is not replayed")).ok();
        Ok((found.into_iter().filter_map(intact).collect(), scanned_to))
    }

    /// Returns the deliveries of an event in this replay. The list is empty if the event does not match. Large events
    /// take long to match, so this must run on a thread for blocking work.
    pub(super) fn deliveries(
        &self,
        store: &dyn InspectionStore,
        router: &Router,
        stored: &StoredEvent,
    ) -> Vec<NewDelivery> {
        let event = &*stored.event;
        // Matching cannot fail: an accepted event has valid data.
        let is_match = |matcher: &Matcher<()>| matcher.matches_any(&event.into()).unwrap_or_default();
        let matches = self.pattern.as_ref().is_none_or(is_match);
        let mut deliveries = Vec::new();
        if matches {
            let origin_uri = store.origin_uri(stored.lineage.origin);
            deliveries = router.route_replay(stored, origin_uri.as_deref()).unwrap_or_default();
        }
        if let Some(function) = self.function {
            deliveries.retain(|delivery| delivery.function == function);
        }
        deliveries
    }
}

fn parse_time(name: &str, text: Option<&str>) -> Result<Option<UnixMs>, String> {
    let Some(text) = text else { return Ok(None) };
    let time: jiff::Timestamp =
        text.parse().map_err(|_| format!("`{name}` is \"{text}\"; expected a time such as 2026-01-31T12:00:00Z"))?;
    Ok(Some(time.as_millisecond()))
}
