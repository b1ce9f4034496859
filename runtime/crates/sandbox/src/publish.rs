//! The events that a function publishes: completed, checked against the grants, and buffered until the attempt
//! succeeds.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use bytes::Bytes;

use super::bindings::evoke::function::types::Draft;
use super::invocation::Invocation;
use evoke_model::clock::rfc3339;
use evoke_model::event::{Data, EVENT_SIZE_MAX, Event};
use evoke_model::runtime_events;

/// Limits on the events of one attempt. All of them are held in memory and go into one commit.
pub(super) const EVENTS_MAX: usize = 1_000;
pub(super) const BYTES_MAX: usize = 8 * 1024 * 1024;

/// Attributes that are not extensions: a draft has a field for them, or Evoke sets them.
const OWN_FIELDS: [&str; 9] =
    ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data"];

/// Publishes events for one attempt. Cheap to clone, because the stdout of a command publishes too.
#[derive(Clone)]
pub(super) struct Publisher(pub(super) Arc<Invocation>);

#[derive(Default)]
pub(super) struct Published {
    events: Vec<Event>,
    bytes: usize,
    /// The first refusal, to report the cause if the function fails.
    refused: Option<String>,
}

impl Publisher {
    /// Publishes a draft. Returns the id of the event, or the reason for the refusal.
    pub(super) fn publish_draft(&self, draft: Draft) -> Result<String, String> {
        self.add(|invocation, ordinal| to_event(draft, ordinal, invocation))
    }

    /// Publishes an event in CloudEvents JSON form. Only `type` is required. Its source is always the function's own,
    /// whatever the JSON contains.
    pub(super) fn publish_json(&self, json: &[u8]) -> Result<String, String> {
        self.add(|invocation, ordinal| {
            let fill = |event: &mut Event| {
                event.source.clone_from(&invocation.identity.uri);
                if event.id.is_empty() {
                    event.id = default_id(invocation, ordinal);
                }
                event.time.get_or_insert_with(|| rfc3339(invocation.clock.now_ms()));
                for (name, value) in trace_context(invocation) {
                    event.extensions.entry(name).or_insert(value);
                }
            };
            Event::from_json(json, fill).map_err(|e| e.to_string())
        })
    }

    /// Returns the reason of the first refusal.
    pub(super) fn first_refusal(&self) -> Option<String> {
        self.lock().refused.clone()
    }

    /// Removes and returns the published events.
    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().events)
    }

    fn add(&self, event: impl FnOnce(&Invocation, usize) -> Result<Event, String>) -> Result<String, String> {
        let mut published = self.lock();
        let added = published.add(&self.0, event);
        if let Err(reason) = &added {
            published.refused.get_or_insert_with(|| reason.clone());
        }
        added
    }

    fn lock(&self) -> MutexGuard<'_, Published> {
        self.0.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Published {
    fn add(
        &mut self,
        invocation: &Invocation,
        event: impl FnOnce(&Invocation, usize) -> Result<Event, String>,
    ) -> Result<String, String> {
        if self.events.len() >= EVENTS_MAX {
            return Err(format!("an attempt may publish at most {EVENTS_MAX} events"));
        }
        let event = event(invocation, self.events.len())?;
        may_publish(invocation, &event.type_)?;
        let size = event.size();
        if size > EVENT_SIZE_MAX {
            return Err(format!("the event has {size} bytes; the limit is {EVENT_SIZE_MAX}"));
        }
        if self.bytes + size > BYTES_MAX {
            return Err(format!("an attempt may publish at most {BYTES_MAX} bytes in total"));
        }
        self.bytes += size;
        let id = event.id.clone();
        self.events.push(event);
        Ok(id)
    }
}

fn may_publish(invocation: &Invocation, type_: &str) -> Result<(), String> {
    // The event's source needs no check: it is always the function's own.
    if let Some(refusal) = runtime_events::reserved_type_error(type_) {
        return Err(refusal);
    }
    if invocation.identity.grants.publish.iter().any(|glob| glob_matches(glob, type_)) {
        return Ok(());
    }
    Err(format!(
        "`{type_}` may not be published; to allow it, add it to the function's `allow: {{ publish: [\"{type_}\"] }}`"
    ))
}

fn default_id(invocation: &Invocation, ordinal: usize) -> String {
    format!("{}-{ordinal}", invocation.delivery_id)
}

fn to_event(draft: Draft, ordinal: usize, invocation: &Invocation) -> Result<Event, String> {
    let Draft { type_, subject, datacontenttype, dataschema, extensions, data, id } = draft;
    let (data, datacontenttype) = payload(data.into(), datacontenttype)?;
    let mut event = Event {
        id: id.filter(|id| !id.is_empty()).unwrap_or_else(|| default_id(invocation, ordinal)),
        source: invocation.identity.uri.clone(),
        type_,
        subject,
        time: Some(rfc3339(invocation.clock.now_ms())),
        datacontenttype,
        dataschema,
        extensions: trace_context(invocation),
        data,
    };
    for (name, value) in extensions {
        if OWN_FIELDS.contains(&name.as_str()) {
            return Err(format!("`{name}` is not an extension attribute: it has a field of its own, or Evoke sets it"));
        }
        event.set(&name, value).map_err(|e| e.to_string())?;
    }
    event.check().map_err(|e| e.to_string())?;
    Ok(event)
}

/// Returns the payload and its media type. If the function sets no media type, it is detected: JSON, text or bytes. An
/// event without a media type would be parsed as JSON (CloudEvents JSON format, section 3.1).
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

/// Returns the W3C trace context of the event being handled (CloudEvents extension "distributed tracing").
fn trace_context(invocation: &Invocation) -> BTreeMap<String, String> {
    let carried = ["traceparent", "tracestate"];
    let cause = invocation.cause.as_ref();
    carried
        .iter()
        .filter_map(|name| cause?.extensions.get_key_value(*name))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// Returns true if `text` matches `glob`, in which `*` matches any run of characters.
fn glob_matches(glob: &str, text: &str) -> bool {
    let Some((first, rest)) = glob.split_once('*') else { return glob == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some((_, after)) = text.split_once(piece) else { return false };
        text = after;
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::super::Grants;
    use super::super::function::Identity;
    use super::*;
    use evoke_model::clock::Clock;

    fn draft(type_: &str, data: &[u8]) -> Draft {
        Draft {
            type_: type_.into(),
            subject: None,
            datacontenttype: None,
            dataschema: None,
            extensions: vec![],
            data: data.to_vec(),
            id: None,
        }
    }

    fn new_publisher() -> Publisher {
        let cause = br#"{"id":"1","source":"/a","type":"t","traceparent":"00-aa-bb-01","other":"x"}"#;
        let grants = Grants { publish: vec!["payment.*".into(), "done".into()], ..Grants::default() };
        let identity = Arc::new(Identity { grants, ..Identity::named("shop/charge") });
        let cause = Arc::new(Event::from_json(cause, |_| {}).unwrap());
        Publisher(Invocation::new(identity, ("s-7".into(), 1), Some(cause), Arc::new(|_| {}), Clock::system()))
    }

    #[test]
    fn a_star_matches_any_run_of_characters() {
        for (glob, yes, no) in [
            ("payment.*", "payment.charged", "payments"),
            ("*", "", "\u{0}"),
            ("a*b*c", "a-b-b-c", "a-c-b"),
            ("a*a", "aa", "a"),
            ("exact", "exact", "exactly"),
            ("*.failed", "payment.failed", "payment.failed.x"),
        ] {
            assert!(glob_matches(glob, yes), "{glob} {yes}");
            assert!(glob == "*" || !glob_matches(glob, no), "{glob} {no}");
        }
    }

    #[test]
    fn a_draft_gets_source_id_time_and_the_trace_context_of_its_cause() {
        let publisher = new_publisher();
        assert_eq!(publisher.publish_draft(draft("done", b"")).unwrap(), "s-7-0");
        assert_eq!(publisher.publish_draft(draft("payment.charged", br#"{"a":1}"#)).unwrap(), "s-7-1");
        let named = Draft { id: Some("mine".into()), ..draft("done", b"") };
        assert_eq!(publisher.publish_draft(named).unwrap(), "mine");
        let event = &publisher.take()[1];
        assert_eq!((event.source.as_str(), event.time.is_some()), ("/shop/charge", true));
        assert_eq!(event.extensions, BTreeMap::from([("traceparent".into(), "00-aa-bb-01".into())]));
        assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
    }

    #[test]
    fn data_without_a_media_type_survives_the_json_form() {
        for (data, kind) in [
            (&b"{\"a\":1}"[..], "application/json"),
            (b"hello", "text/plain; charset=utf-8"),
            (b"\xff\x00", "application/octet-stream"),
        ] {
            let publisher = new_publisher();
            publisher.publish_draft(draft("done", data)).unwrap();
            let event = &publisher.take()[0];
            assert_eq!(event.datacontenttype.as_deref(), Some(kind));
            assert_eq!(&Event::from_json(event.to_json().as_bytes(), |_| {}).unwrap(), event);
        }
    }

    #[test]
    fn a_refusal_names_its_reason_and_the_first_one_is_recorded() {
        let publisher = new_publisher();
        let extended = |name: &str| Draft { extensions: vec![(name.into(), "x".into())], ..draft("done", b"") };
        let bad_json = Draft { datacontenttype: Some("application/json".into()), ..draft("done", b"{") };
        for (draft, reason) in [
            (draft("order.placed", b""), "`allow: { publish: [\"order.placed\"] }`"),
            (draft("", b""), "`type` is missing"),
            (extended("source"), "`source` is not an extension"),
            (extended("Bad-Name"), "not an attribute name"),
            (bad_json, "not valid JSON"),
            (draft("done", &vec![b'1'; EVENT_SIZE_MAX]), "the limit is"),
        ] {
            let error = publisher.publish_draft(draft).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert!(publisher.first_refusal().unwrap().contains("order.placed"));
        assert!(publisher.take().is_empty());
    }

    #[test]
    fn an_attempt_publishes_a_bounded_number_of_events_and_bytes() {
        let publisher = new_publisher();
        for _ in 0..EVENTS_MAX {
            publisher.publish_draft(draft("done", b"")).unwrap();
        }
        assert!(publisher.publish_draft(draft("done", b"")).unwrap_err().contains("1000 events"));
        let publisher = new_publisher();
        for _ in 0..8 {
            publisher.publish_draft(draft("done", &vec![b'1'; 1_000_000])).unwrap();
        }
        assert!(publisher.publish_draft(draft("done", &vec![b'1'; 1_000_000])).unwrap_err().contains("bytes in total"));
    }

    #[test]
    fn a_json_event_requires_only_a_type_and_keeps_its_other_attributes() {
        let publisher = new_publisher();
        assert_eq!(publisher.publish_json(br#"{"type":"done"}"#).unwrap(), "s-7-0");
        let line = br#"{"type":"done","id":"mine","source":"/forged","time":"2026-01-31T12:00:00Z","subject":"s",
            "traceparent":"own","data":{"n":1.0}}"#;
        assert_eq!(publisher.publish_json(line).unwrap(), "mine");
        let [first, second] = &publisher.take()[..] else { panic!() };
        assert_eq!((first.source.as_str(), first.time.is_some()), ("/shop/charge", true));
        assert_eq!(first.extensions, BTreeMap::from([("traceparent".into(), "00-aa-bb-01".into())]));
        assert_eq!((second.source.as_str(), second.time.as_deref()), ("/shop/charge", Some("2026-01-31T12:00:00Z")));
        assert_eq!((second.subject.as_deref(), second.extensions["traceparent"].as_str()), (Some("s"), "own"));
        assert_eq!(second.data.as_bytes(), br#"{"n":1.0}"#);
        for (line, reason) in [
            (&br#"{"type":"order.placed"}"#[..], "`allow: { publish: [\"order.placed\"] }`"),
            (br#"{"data":1}"#, "`type` is missing"),
            (b"connecting...", "not a JSON object"),
        ] {
            let error = publisher.publish_json(line).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
