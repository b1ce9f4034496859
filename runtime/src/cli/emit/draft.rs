//! Makes events from the options and from lines of standard input. Each event gets its id here, before it is sent for
//! the first time, so that an event that is sent again is stored only once.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::super::{Failure, parse_duration};
use evoke_model::clock::{Clock, rfc3339};
use evoke_model::event::{Data, EVENT_SIZE_MAX, Event};
use evoke_model::rfc3339::is_date_time;

const SOURCE_DEFAULT: &str = "/cli";

/// The attributes that the options of the command set in every event.
pub(super) struct Draft {
    type_: Option<String>,
    source: Option<String>,
    subject: Option<String>,
    not_before: Option<String>,
    clock: Clock,
}

impl Draft {
    /// `not_before` is a time or a duration from now.
    pub(super) fn new(
        type_: Option<String>,
        source: Option<String>,
        subject: Option<String>,
        not_before: Option<&str>,
    ) -> Result<Self, Failure> {
        let clock = Clock::system();
        let parse_time = |text: &str| match parse_duration(text) {
            Ok(wait) => Ok(rfc3339(clock.now_ms().saturating_add(milliseconds(wait)))),
            Err(_) if is_date_time(text) => Ok(text.to_owned()),
            Err(_) => Err(Failure::Usage(format!(
                "--not-before is \"{text}\"; expected a time such as 2026-01-31T12:00:00Z, or a duration such as 2h"
            ))),
        };
        let not_before = not_before.map(parse_time).transpose()?;
        Ok(Self { type_, source, subject, not_before, clock })
    }

    pub(super) fn has_type(&self) -> bool {
        self.type_.is_some()
    }

    /// Returns the JSON form of one event. Does not check the event, because the server checks it. The text is on one
    /// line if the data is on one line.
    pub(super) fn event_json(&self, id: Option<String>, data: Option<&RawValue>) -> Result<String, Failure> {
        let event = OneEvent {
            specversion: "1.0",
            type_: self.type_.as_deref(),
            source: self.source.as_deref().unwrap_or(SOURCE_DEFAULT),
            id: id.unwrap_or_else(new_id),
            subject: self.subject.as_deref(),
            notbefore: self.not_before.as_deref(),
            data,
        };
        serde_json::to_string(&event)
            .map_err(|e| Failure::Failed(format!("cannot make an event of these options: {e}")))
    }

    /// Returns the JSON form of the event that a line describes, on one line. With `--type`, the line has only the data
    /// of the event; without it, the complete event. Returns the mistake if the line is wrong.
    pub(super) fn line_to_json(&self, line: &[u8]) -> Result<String, String> {
        match &self.type_ {
            Some(type_) => self.checked(&self.event_of_data(type_, line)?),
            None => self.line_to_event(line),
        }
    }

    /// Checks the JSON form of an event, and returns it on one line.
    pub(super) fn line_to_event(&self, json: &[u8]) -> Result<String, String> {
        self.checked(&Event::from_json(json, |event| self.fill(event)).map_err(|e| e.to_string())?)
    }

    fn checked(&self, event: &Event) -> Result<String, String> {
        event.check_not_before(self.clock.now_ms()).map_err(|e| e.to_string())?;
        match event.size() {
            size if size > EVENT_SIZE_MAX => {
                Err(format!("the event has {size} bytes; the limit is {EVENT_SIZE_MAX} bytes"))
            }
            _ => Ok(event.to_json()),
        }
    }

    fn event_of_data(&self, type_: &str, line: &[u8]) -> Result<Event, String> {
        serde_json::from_slice::<&RawValue>(line).map_err(|e| format!("not JSON: {e}"))?;
        let mut event = Event {
            type_: type_.to_owned(),
            subject: self.subject.clone(),
            data: Data::Json(Bytes::copy_from_slice(line.trim_ascii())),
            ..Event::default()
        };
        self.fill(&mut event);
        event.check().map_err(|e| e.to_string())?;
        Ok(event)
    }

    /// Adds the id, the source, the time and `notbefore` if the event does not have them.
    fn fill(&self, event: &mut Event) {
        if event.id.is_empty() {
            event.id = new_id();
        }
        if event.source.is_empty() {
            event.source = self.source.clone().unwrap_or_else(|| SOURCE_DEFAULT.to_owned());
        }
        event.time.get_or_insert_with(|| rfc3339(self.clock.now_ms()));
        if let Some(not_before) = &self.not_before {
            event.extensions.entry("notbefore".to_owned()).or_insert_with(|| not_before.clone());
        }
    }
}

fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn milliseconds(wait: Duration) -> i64 {
    i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)
}

/// The event to send. Raw JSON keeps the data exactly as given, including the spelling of numbers.
#[derive(Serialize)]
struct OneEvent<'a> {
    specversion: &'static str,
    #[serde(rename = "type")]
    type_: Option<&'a str>,
    source: &'a str,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notbefore: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(type_: Option<&str>, not_before: Option<&str>) -> Draft {
        Draft::new(type_.map(str::to_owned), None, None, not_before).unwrap()
    }

    #[test]
    fn a_line_of_data_becomes_an_event_with_an_id_of_its_own() {
        let draft = draft(Some("temperature"), None);
        let events = [0, 1].map(|_| draft.line_to_json(b" {\"value\": 1.10} ").unwrap());
        let events = events.map(|json| Event::from_json(json.as_bytes(), |_| {}).unwrap());
        assert_eq!(events[0].data.as_bytes(), b"{\"value\": 1.10}");
        assert_eq!((events[0].type_.as_str(), events[0].source.as_str()), ("temperature", "/cli"));
        assert!(events[0].id != events[1].id && events[0].time.is_some());
        assert!(draft.line_to_json(b"{\"value\":").unwrap_err().starts_with("not JSON: EOF"));
    }

    #[test]
    fn a_line_with_an_event_keeps_its_attributes() {
        let draft = draft(None, None);
        let json = draft.line_to_json(br#"{"id":"1","source":"/s","type":"t","a":"b","data":[1]}"#).unwrap();
        let event = Event::from_json(json.as_bytes(), |_| {}).unwrap();
        assert_eq!((event.id.as_str(), event.source.as_str(), &*event.extensions["a"]), ("1", "/s", "b"));
        assert!(draft.line_to_json(b"[1]").is_err());
        assert!(draft.line_to_json(br#"{"source":"/s"}"#).unwrap_err().contains("`type` is missing"));
        let large = format!(r#"{{"type":"t","data":"{}"}}"#, "x".repeat(EVENT_SIZE_MAX));
        assert!(draft.line_to_json(large.as_bytes()).unwrap_err().contains("the limit is 1048576 bytes"));
    }

    #[test]
    fn not_before_is_a_time_or_a_duration() {
        let event = |text| {
            let json = draft(Some("t"), Some(text)).line_to_json(b"1").unwrap();
            Event::from_json(json.as_bytes(), |_| {}).unwrap()
        };
        assert_eq!(event("2020-01-31T12:00:00+01:00").extensions["notbefore"], "2020-01-31T12:00:00+01:00");
        let wait_ms = event("1h").not_before_ms().unwrap() - Clock::system().now_ms();
        assert!((3_590_000..=3_600_000).contains(&wait_ms), "{wait_ms}");
        let wrong = Draft::new(Some("t".into()), None, None, Some("tomorrow")).map(drop).unwrap_err();
        assert!(wrong.to_string().contains("expected a time such as"), "{wrong}");
        // The command checks the limit itself, so that it rejects a line whose event Evoke would refuse later.
        let draft = draft(Some("t"), Some("9000h"));
        assert!(draft.line_to_json(b"1").unwrap_err().contains("366 days"));
    }
}
