//! Builds the event of a change to a file.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::tracker::Change;
use super::version::Version;
use evoke_model::event::{Data, Event};
use evoke_model::hex;

/// The file content for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// No content: the manifest does not request it.
    NotRequested,
    /// The whole content.
    Whole(Bytes),
    /// No content, for this reason.
    Omitted(String),
}

#[derive(Serialize)]
struct Body<'a> {
    path: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    sha256: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_omitted: Option<&'a str>,
}

/// Builds the event of `change` to the file `name`, whose new version is `version`. Returns `None` for a change without
/// an event.
pub(super) fn event(
    source: &str,
    name: &str,
    change: &Change,
    version: Option<&Version>,
    content: &Content,
    time: String,
) -> Option<Event> {
    let (kind, version) = match (change, version) {
        (Change::Created, Some(version)) => ("created", version),
        (Change::Modified, Some(version)) => ("modified", version),
        (Change::Removed(version), _) => ("removed", version),
        _ => return None,
    };
    let mut body = Body {
        path: name,
        size: version.stamp.size,
        modified: None,
        sha256: &version.sha256,
        content: None,
        content_base64: None,
        content_omitted: None,
    };
    if kind != "removed" {
        body.modified = jiff::Timestamp::from_nanosecond(version.stamp.mtime_ns.into()).ok().map(|at| at.to_string());
        match content {
            Content::NotRequested => {}
            Content::Whole(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => body.content = Some(text),
                Err(_) => body.content_base64 = Some(BASE64.encode(bytes)),
            },
            Content::Omitted(reason) => body.content_omitted = Some(reason),
        }
    }
    Some(Event {
        id: id(kind, name, version),
        source: source.to_owned(),
        type_: format!("evoke.file.{kind}"),
        subject: Some(name.to_owned()),
        time: Some(time),
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: BTreeMap::new(),
        // Serialising numbers and strings cannot fail.
        data: Data::Json(Bytes::from(serde_json::to_vec(&body).unwrap_or_default())),
        principal: None,
    })
}

/// Derives the event id. The same change to the same version always has the same id; any other change has another id.
/// The ctime is part of the id, because a file can come back with its old mtime (moved out and in again, or restored
/// from a backup). That is another change, and needs another id.
fn id(kind: &str, name: &str, version: &Version) -> String {
    let stamp = version.stamp;
    let mut hasher = Sha256::new();
    hasher.update(name.as_bytes());
    // A zero byte ends the name: names contain no control characters, so two different inputs cannot look the same.
    hasher.update([0]);
    hasher.update(stamp.mtime_ns.to_be_bytes());
    hasher.update(stamp.ctime_ns.to_be_bytes());
    hasher.update(stamp.size.to_be_bytes());
    hasher.update(version.sha256.as_bytes());
    let digest = hex(&hasher.finalize());
    format!("{kind}-{}", digest.get(..32).unwrap_or_default())
}
