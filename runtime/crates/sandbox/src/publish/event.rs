//! Completes the events of a guest: source, id, time, trace context and media type.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Draft;
use crate::outside::Outside;
use evoke_model::clock::{Clock, rfc3339};
use evoke_model::event::{Data, EXTENSIONS_MAX, Event};

/// Names that an extension attribute cannot have, because a draft has a field for them, or Evoke sets them.
const OWN_FIELDS: [&str; 9] =
    ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data"];

/// The origin of the events of one attempt.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// The CloudEvents `source` of every event.
    pub(crate) source: &'a str,
    /// Prefix of generated event ids.
    pub(crate) delivery_id: &'a str,
    /// The event being handled; `None` for an HTTP request.
    pub(crate) cause: Option<&'a Event>,
    pub(crate) clock: &'a Clock,
    pub(crate) outside: &'a Outside,
}

impl Origin<'_> {
    /// Returns the event of a draft. `ordinal` counts the events of the attempt from 0.
    pub(super) fn event_from_draft(&self, draft: Draft, ordinal: usize) -> Result<Event, String> {
        let Draft { type_, subject, datacontenttype, dataschema, extensions, data, id } = draft;
        if extensions.len() > EXTENSIONS_MAX {
            return Err(format!("the event has more than {EXTENSIONS_MAX} extension attributes"));
        }
        let (data, datacontenttype) = payload(data.into(), datacontenttype)?;
        let mut event = Event {
            id: id.filter(|id| !id.is_empty()).unwrap_or_else(|| self.default_id(ordinal)),
            source: self.source.to_owned(),
            type_,
            subject,
            time: Some(self.time()),
            datacontenttype,
            dataschema,
            extensions: self.trace_context(),
            data,
            principal: None,
        };
        let mut names = BTreeSet::new();
        for (name, value) in extensions {
            if !names.insert(name.clone()) {
                let shown: String = name.chars().take(64).collect();
                return Err(format!(
                    "the extension attribute `{shown}` occurs more than once, but an event can have it only once"
                ));
            }
            if OWN_FIELDS.contains(&name.as_str()) {
                return Err(format!(
                    "`{name}` is not an extension attribute: it has a field of its own, or Evoke sets it"
                ));
            }
            event.set(&name, value).map_err(|e| e.to_string())?;
        }
        event.check().map_err(|e| e.to_string())?;
        Ok(event)
    }

    /// Returns the event of a CloudEvents JSON object. Its `source` is replaced with that of the function.
    pub(super) fn event_from_json(&self, json: &[u8], ordinal: usize) -> Result<Event, String> {
        let fill = |event: &mut Event| {
            self.source.clone_into(&mut event.source);
            if event.id.is_empty() {
                event.id = self.default_id(ordinal);
            }
            event.time.get_or_insert_with(|| self.time());
            for (name, value) in self.trace_context() {
                event.extensions.entry(name).or_insert(value);
            }
        };
        Event::from_json(json, fill).map_err(|e| e.to_string())
    }

    fn time(&self) -> String {
        rfc3339(self.outside.publish_ms(self.clock))
    }

    fn default_id(&self, ordinal: usize) -> String {
        format!("{}-{ordinal}", self.delivery_id)
    }

    /// Returns the W3C trace context of the event being handled (CloudEvents extension "distributed tracing").
    fn trace_context(&self) -> BTreeMap<String, String> {
        let carried = ["traceparent", "tracestate"];
        carried
            .iter()
            .filter_map(|name| self.cause?.extensions.get_key_value(*name))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }
}

/// Returns the payload and its media type. If the function sets no media type, the type is detected: JSON, text or
/// bytes. An event without a media type would be parsed as JSON (CloudEvents JSON format, section 3.1).
fn payload(data: Bytes, media_type: Option<String>) -> Result<(Data, Option<String>), String> {
    if media_type.is_some() || data.is_empty() {
        let data = Data::from_bytes(data, media_type.as_deref())
            .map_err(|e| format!("the data is not valid JSON, which its datacontenttype requires: {e}"))?;
        return Ok((data, media_type));
    }
    let guesses = ["application/json", "text/plain; charset=utf-8"];
    let guess = match std::str::from_utf8(&data) {
        Err(_) => "application/octet-stream",
        Ok(_) => guesses.into_iter().find(|g| Data::from_bytes(data.clone(), Some(g)).is_ok()).unwrap_or(guesses[1]),
    };
    Ok((Data::from_bytes(data, Some(guess))?, Some(guess.to_owned())))
}
