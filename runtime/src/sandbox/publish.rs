//! What a function publishes: drafts completed to events, checked against its grants, kept until it succeeds.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::bindings::evoke::function::types::Draft;
use crate::clock::{Clock, rfc3339};
use crate::event::{Data, EVENT_SIZE_MAX, Event};

/// The most that one attempt may publish. All of it is held in memory and goes into one commit.
pub(super) const EVENTS_MAX: usize = 1_000;
pub(super) const BYTES_MAX: usize = 8 * 1024 * 1024;

/// Attributes that have a field of their own in a draft, or are filled in.
const OWN_FIELDS: [&str; 9] =
    ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data"];

/// The events that an attempt published so far.
#[derive(Default)]
pub(super) struct Published {
    pub(super) events: Vec<Event>,
    bytes: usize,
    /// The first refusal, for when the function fails for it.
    pub(super) refused: Option<String>,
}

/// What completes a draft.
pub(super) struct Origin<'a> {
    /// The source of what the function publishes, `/app/function`.
    pub(super) source: &'a str,
    /// The types that it may publish.
    pub(super) allowed: &'a [String],
    /// Prefix of the ids that are made up.
    pub(super) delivery_id: &'a str,
    /// The event that it handles.
    pub(super) cause: &'a Event,
    pub(super) clock: &'a Clock,
}

impl Published {
    /// Takes a draft; returns the id of the event, or why it is refused.
    pub(super) fn add(&mut self, draft: Draft, origin: &Origin<'_>) -> Result<String, String> {
        let added = self.try_add(draft, origin);
        if let Err(reason) = &added {
            self.refused.get_or_insert_with(|| reason.clone());
        }
        added
    }

    fn try_add(&mut self, draft: Draft, origin: &Origin<'_>) -> Result<String, String> {
        if self.events.len() >= EVENTS_MAX {
            return Err(format!("one attempt may publish {EVENTS_MAX} events, and this is one more"));
        }
        let event = complete(draft, self.events.len(), origin)?;
        let size = event.size();
        if size > EVENT_SIZE_MAX {
            return Err(format!("the event has {size} bytes; the largest that is accepted has {EVENT_SIZE_MAX}"));
        }
        if self.bytes + size > BYTES_MAX {
            return Err(format!("one attempt may publish {BYTES_MAX} bytes in all, and this event goes beyond"));
        }
        self.bytes += size;
        let id = event.id.clone();
        self.events.push(event);
        Ok(id)
    }
}

fn complete(draft: Draft, ordinal: usize, origin: &Origin<'_>) -> Result<Event, String> {
    let Draft { type_, subject, datacontenttype, dataschema, extensions, data, id } = draft;
    if !origin.allowed.iter().any(|glob| glob_matches(glob, &type_)) {
        return Err(format!(
            "`{type_}` may not be published; to allow it, add it to the function's `allow: {{ publish: [\"{type_}\"] }}`"
        ));
    }
    let (data, datacontenttype) = payload(data.into(), datacontenttype)?;
    let mut event = Event {
        id: id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("{}-{ordinal}", origin.delivery_id)),
        source: origin.source.to_owned(),
        type_,
        subject,
        time: Some(rfc3339(origin.clock.now_ms())),
        datacontenttype,
        dataschema,
        extensions: trace_context(origin.cause),
        data,
    };
    for (name, value) in extensions {
        if OWN_FIELDS.contains(&name.as_str()) {
            return Err(format!("`{name}` is no extension: it has a place of its own, or Evoke fills it in"));
        }
        event.set(&name, value).map_err(|e| e.to_string())?;
    }
    event.check().map_err(|e| e.to_string())?;
    Ok(event)
}

/// The payload and its media type. Where the function names none, it is found out: JSON, text or bytes, because an
/// event without a media type would be taken for JSON (CloudEvents JSON format, section 3.1).
fn payload(data: Bytes, media_type: Option<String>) -> Result<(Data, Option<String>), String> {
    if media_type.is_some() || data.is_empty() {
        let data = Data::from_bytes(data, media_type.as_deref())
            .map_err(|e| format!("the data is not the JSON that its datacontenttype says: {e}"))?;
        return Ok((data, media_type));
    }
    let guesses = ["application/json", "text/plain; charset=utf-8"];
    let guess = match std::str::from_utf8(&data) {
        Err(_) => "application/octet-stream",
        Ok(_) => guesses.into_iter().find(|g| Data::from_bytes(data.clone(), Some(g)).is_ok()).unwrap_or(guesses[1]),
    };
    Ok((Data::from_bytes(data, Some(guess))?, Some(guess.to_owned())))
}

/// The W3C trace context goes on from the cause (CloudEvents extension "distributed tracing").
fn trace_context(cause: &Event) -> BTreeMap<String, String> {
    let carried = ["traceparent", "tracestate"];
    carried
        .iter()
        .filter_map(|name| cause.extensions.get_key_value(*name))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// Whether `text` matches `glob`, in which `*` stands for any run of characters.
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
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

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

    fn with_origin<T>(run: impl FnOnce(&Origin<'_>) -> T) -> T {
        let cause = br#"{"id":"1","source":"/a","type":"t","traceparent":"00-aa-bb-01","other":"x"}"#;
        let cause = Event::from_json(cause, |_| {}).unwrap();
        let allowed = ["payment.*".to_owned(), "done".to_owned()];
        let clock = Clock::system();
        run(&Origin { source: "/shop/charge", allowed: &allowed, delivery_id: "s-7", cause: &cause, clock: &clock })
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
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
        with_origin(|origin| {
            let mut published = Published::default();
            assert_eq!(published.add(draft("done", b""), origin).unwrap(), "s-7-0");
            assert_eq!(published.add(draft("payment.charged", br#"{"a":1}"#), origin).unwrap(), "s-7-1");
            let named = Draft { id: Some("mine".into()), ..draft("done", b"") };
            assert_eq!(published.add(named, origin).unwrap(), "mine");
            let event = &published.events[1];
            assert_eq!((event.source.as_str(), event.time.is_some()), ("/shop/charge", true));
            assert_eq!(event.extensions, BTreeMap::from([("traceparent".into(), "00-aa-bb-01".into())]));
            assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
        });
    }

    #[test]
    fn data_without_a_media_type_survives_the_json_form() {
        with_origin(|origin| {
            for (data, kind) in [
                (&b"{\"a\":1}"[..], "application/json"),
                (b"hello", "text/plain; charset=utf-8"),
                (b"\xff\x00", "application/octet-stream"),
            ] {
                let mut published = Published::default();
                published.add(draft("done", data), origin).unwrap();
                let event = &published.events[0];
                assert_eq!(event.datacontenttype.as_deref(), Some(kind));
                assert_eq!(&Event::from_json(event.to_json().as_bytes(), |_| {}).unwrap(), event);
            }
        });
    }

    #[test]
    fn what_is_refused_is_told_and_the_first_refusal_is_kept() {
        with_origin(|origin| {
            let mut published = Published::default();
            let extended = |name: &str| Draft { extensions: vec![(name.into(), "x".into())], ..draft("done", b"") };
            let bad_json = Draft { datacontenttype: Some("application/json".into()), ..draft("done", b"{") };
            for (draft, reason) in [
                (draft("order.placed", b""), "`allow: { publish: [\"order.placed\"] }`"),
                (draft("", b""), "may not be published"),
                (extended("source"), "`source` is no extension"),
                (extended("Bad-Name"), "no attribute name"),
                (bad_json, "not the JSON"),
                (draft("done", &vec![b'1'; EVENT_SIZE_MAX]), "the largest that is accepted"),
            ] {
                let error = published.add(draft, origin).unwrap_err();
                assert!(error.contains(reason), "{error}");
            }
            assert!(published.refused.unwrap().contains("order.placed"));
            assert!(published.events.is_empty());
        });
    }

    #[test]
    fn an_attempt_publishes_a_bounded_number_of_events_and_bytes() {
        with_origin(|origin| {
            let mut published = Published::default();
            for _ in 0..EVENTS_MAX {
                published.add(draft("done", b""), origin).unwrap();
            }
            assert!(published.add(draft("done", b""), origin).unwrap_err().contains("1000 events"));
            let mut published = Published::default();
            for _ in 0..8 {
                published.add(draft("done", &vec![b'1'; 1_000_000]), origin).unwrap();
            }
            assert!(published.add(draft("done", &vec![b'1'; 1_000_000]), origin).unwrap_err().contains("bytes in all"));
        });
    }
}
