//! Which events a replay is about, and to whom they go.

use serde::{Deserialize, Serialize};

use super::LOOK_MAX;
use crate::clock::UnixMs;
use crate::pattern::Pattern;
use crate::router::Router;
use crate::store::{EventFilter, FunctionId, NewDelivery, Seq, Store, StoreError, StoredEvent};

/// What a replay is asked for. An event has to meet all of it; without anything every stored event is meant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Only to this function, `app/function`; by default to all that match.
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
    /// Only events that match this event pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<serde_json::Value>,
    /// Only the event with this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Seq>,
    /// At most so many deliveries a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}

/// A filter, checked and ready to be used.
pub(super) struct Wanted {
    events: EventFilter,
    pattern: Option<Pattern>,
    function: Option<FunctionId>,
}

impl Wanted {
    /// The error says what is wrong and what would be right.
    pub(super) fn new(filter: &Filter, function: Option<FunctionId>) -> Result<Self, String> {
        if let Some(rate) = filter.rate
            && !(rate > 0.0 && rate.is_finite())
        {
            return Err(format!("rate is {rate}; give how many deliveries a second, more than 0"));
        }
        if filter.event.is_some_and(|seq| seq < 1) {
            return Err("event is the number of an event, from 1".into());
        }
        let pattern = match &filter.pattern {
            Some(json) => Some(Pattern::parse(json).map_err(|mistakes| {
                let all: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
                format!("the pattern is none: {}", all.join("; "))
            })?),
            None => None,
        };
        let events = EventFilter {
            type_: filter.r#type.clone(),
            since_ms: time("since", filter.since.as_deref())?,
            until_ms: time("until", filter.until.as_deref())?,
            ..EventFilter::default()
        };
        Ok(Self { events, pattern, function })
    }

    /// At most `limit` events that may be meant, behind `position` and up to `until`, and how far it looked.
    pub(super) async fn look(
        &self,
        store: &dyn Store,
        position: Seq,
        until: Seq,
        limit: usize,
    ) -> Result<(Vec<StoredEvent>, Seq), StoreError> {
        let end = until.min(position.saturating_add(LOOK_MAX));
        let (after, before) = (Some(position), Some(end.saturating_add(1)));
        let found = store.events(EventFilter { after, before, limit, ..self.events.clone() }).await?;
        let looked_to = match found.last() {
            Some(last) if found.len() >= limit => last.seq,
            _ => end,
        };
        Ok((found, looked_to))
    }

    /// Who is offered an event again.
    pub(super) fn deliveries(&self, router: &Router, event: &StoredEvent) -> Vec<NewDelivery> {
        if let Some(damage) = &event.damage {
            tracing::error!("{damage}; it is not replayed");
            return Vec::new();
        }
        let event = &*event.event;
        // Who was accepted is an event: its data is what it says.
        let meant = self.pattern.as_ref().is_none_or(|pattern| pattern.matches(&event.view()).unwrap_or_default());
        let mut deliveries = if meant { router.route_again(event).unwrap_or_default() } else { Vec::new() };
        if let Some(function) = self.function {
            deliveries.retain(|delivery| delivery.function == function);
        }
        deliveries
    }
}

fn time(name: &str, text: Option<&str>) -> Result<Option<UnixMs>, String> {
    let Some(text) = text else { return Ok(None) };
    let time: jiff::Timestamp =
        text.parse().map_err(|_| format!("{name} is \"{text}\"; write a time such as 2026-01-31T12:00:00Z"))?;
    Ok(Some(time.as_millisecond()))
}
