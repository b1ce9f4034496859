//! Typed events of the built-in sources.

use crate::argument::{Argument, parse};
use crate::{Delivery, Event, Failure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// An event of a `files:` source.
///
/// ```no_run
/// # extern crate evoke_sdk as evoke;
/// #[evoke::function]
/// fn handle(file: evoke::FileEvent) -> Result<(), evoke::Failure> {
///     evoke::log::info!("{} has {} bytes, {} of them here", file.path, file.size, file.bytes()?.len());
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FileEvent {
    /// The kind of change; set from the event's type.
    #[serde(skip, default)]
    pub kind: FileKind,
    /// Path relative to the source's folder, with `/` as the separator.
    pub path: String,
    /// Size of the file, in bytes.
    #[serde(default)]
    pub size: u64,
    /// Time of the last modification, RFC 3339; empty for a removed file.
    #[serde(default)]
    pub modified: String,
    /// SHA-256 of the content, in hexadecimal. For a removed file, this is the hash of the content that the source read
    /// last. Empty if the source did not read the file.
    #[serde(default)]
    pub sha256: String,
    /// The content, if it is text and small enough.
    #[serde(default)]
    pub content: Option<String>,
    /// The content in base64, if it is small enough, but not text.
    #[serde(default)]
    pub content_base64: Option<String>,
    /// The reason why the content is not in the event.
    #[serde(default)]
    pub content_omitted: Option<String>,
}

/// The change that a file event reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileKind {
    /// `evoke.file.created`
    #[default]
    Created,
    /// `evoke.file.modified`
    Modified,
    /// `evoke.file.removed`
    Removed,
}

impl FileEvent {
    /// Returns the content's bytes.
    ///
    /// # Errors
    /// A reject if the content is not in the event: the file is too large or was removed, or the source does not
    /// include contents.
    pub fn bytes(&self) -> Result<Vec<u8>, Failure> {
        match (&self.content, &self.content_base64, &self.content_omitted) {
            (Some(text), ..) => Ok(text.clone().into_bytes()),
            (None, Some(encoded), _) => STANDARD
                .decode(encoded)
                .map_err(|error| Failure::reject(format!("the content of {} is not base64: {error}", self.path))),
            (None, None, Some(why)) => {
                Err(Failure::reject(format!("the content of {} is not in the event: {why}", self.path)))
            }
            (None, None, None) => Err(Failure::reject(format!("the content of {} is not in the event", self.path))),
        }
    }
}

impl Argument for FileEvent {
    fn from_event(event: &Event, _: &Delivery) -> Result<Self, Failure> {
        let kind = match event.type_.as_str() {
            "evoke.file.created" => FileKind::Created,
            "evoke.file.modified" => FileKind::Modified,
            "evoke.file.removed" => FileKind::Removed,
            other => {
                return Err(Failure::reject(format!("{other} is not an event of a files source")));
            }
        };
        Ok(Self { kind, ..parse(event)? })
    }
}

/// A tick of a `timer:` source.
///
/// ```no_run
/// # extern crate evoke_sdk as evoke;
/// #[evoke::function]
/// fn handle(tick: evoke::TimerTick) {
///     evoke::log::info!("it is {}", tick.scheduled);
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TimerTick {
    /// The time at which the tick was due, RFC 3339. The function may run later, for example after a restart.
    pub scheduled: String,
}

impl Argument for TimerTick {
    fn from_event(event: &Event, _: &Delivery) -> Result<Self, Failure> {
        parse(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event_type: &str, data: &str) -> Event {
        Event {
            id: "1".into(),
            source: "/app/files".into(),
            type_: event_type.into(),
            subject: None,
            time: None,
            datacontenttype: Some("application/json".into()),
            dataschema: None,
            extensions: Vec::new(),
            data: data.into(),
        }
    }

    fn delivery() -> Delivery {
        Delivery { id: "d".into(), attempt: 1, deadline_ms: 1_000, replay: false, trigger: "t".into() }
    }

    fn file(event_type: &str, data: &str) -> Result<FileEvent, Failure> {
        FileEvent::from_event(&event(event_type, data), &delivery())
    }

    #[test]
    fn a_file_event_has_its_kind_and_its_bytes() {
        let text = file("evoke.file.modified", r#"{"path":"a.csv","size":2,"content":"hi"}"#).unwrap();
        assert_eq!((text.kind, text.bytes().unwrap()), (FileKind::Modified, b"hi".to_vec()));
        let binary = file("evoke.file.created", r#"{"path":"a","size":1,"content_base64":"/w=="}"#).unwrap();
        assert_eq!(binary.bytes().unwrap(), [0xff]);
    }

    #[test]
    fn missing_content_is_a_reject_with_the_reason() {
        let large = file("evoke.file.created", r#"{"path":"a","content_omitted":"larger than 1 MiB"}"#).unwrap();
        let failure = large.bytes().unwrap_err();
        assert_eq!(failure, Failure::reject("the content of a is not in the event: larger than 1 MiB"));
        let removed = file("evoke.file.removed", r#"{"path":"a"}"#).unwrap();
        assert!(matches!(removed.bytes(), Err(Failure::Reject(_))));
    }

    #[test]
    fn an_event_of_another_source_is_a_reject() {
        let failure = file("order.placed", r#"{"path":"a"}"#).unwrap_err();
        assert_eq!(failure, Failure::reject("order.placed is not an event of a files source"));
        let tick = TimerTick::from_event(&event("evoke.timer.tick", "{}"), &delivery()).unwrap_err();
        assert!(tick.message().contains("missing field `scheduled`"), "{tick:?}");
    }
}
