//! The event `evoke.monitor.changed`.

use std::collections::BTreeMap;

use bytes::Bytes;
use evoke_model::clock::rfc3339;
use evoke_model::event::{Data, Event, ID_BYTES_MAX};
use evoke_model::hex;
use evoke_threshold::{Change, ChangeKind, Moment};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::settings::MonitorSource;
use super::watched::{Watched, rounded};

pub(super) const TYPE: &str = "evoke.monitor.changed";

/// Builds the event of a change.
pub(super) fn changed(
    uri: &str,
    config: &MonitorSource,
    subject: &str,
    watched: &Watched,
    change: &Change,
    now: Moment,
) -> Event {
    let at = rfc3339(now.wall_ms);
    let mut data = json!({
        "monitor": config.check.key(),
        "state": change.to,
        "previous": change.from,
        "since": rfc3339(change.since.wall_ms),
        "lasted_ms": change.lasted_ms,
        "missed": change.missed,
        "readings": watched.readings(),
    });
    let fields = [
        ("value", watched.value.map(|value| rounded(value).into())),
        ("unit", Some(config.quantity().symbol().into())),
        ("threshold", threshold(config, change).map(Into::into)),
        ("detail", watched.detail.clone().map(Into::into)),
        ("reminder", (change.kind == ChangeKind::Reminder).then(|| true.into())),
        ("flapping", config.flap.map(|_| watched.machine.is_flapping().into())),
    ];
    if let Some(data) = data.as_object_mut() {
        data.extend(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    }
    Event {
        id: id(&at, subject),
        source: uri.to_owned(),
        type_: TYPE.to_owned(),
        subject: Some(subject.to_owned()),
        time: Some(at),
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: BTreeMap::new(),
        data: Data::Json(Bytes::from(data.to_string())),
        principal: None,
    }
}

/// Derives the id of the event from the time of the change and the subject. So if the event is submitted twice, both
/// have the same id, and the bus stores only one. The path of a file can be too long for an id: then the id has the
/// hash of the path instead.
fn id(at: &str, subject: &str) -> String {
    let id = format!("{at} {subject}");
    if id.len() <= ID_BYTES_MAX { id } else { format!("{at} sha256:{}", hex(&Sha256::digest(subject))) }
}

/// Returns the threshold of the old or the new state, whichever is worse.
fn threshold(config: &MonitorSource, change: &Change) -> Option<String> {
    let worse = change.to.level().max(change.from.level());
    let threshold = match worse? {
        evoke_threshold::Level::Critical => config.critical.or(config.warning),
        evoke_threshold::Level::Warning => config.warning,
        evoke_threshold::Level::Ok => None,
    };
    threshold.map(|threshold| threshold.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_change_of_a_long_path_is_short_and_differs_from_others() {
        let at = "2026-01-31T01:00:00.000Z";
        assert_eq!(id(at, "/a"), format!("{at} /a"));
        let [one, other] = ["1", "2"].map(|end| id(at, &("/long".repeat(800) + end)));
        assert!(one.len() <= ID_BYTES_MAX && one.starts_with(at), "{one}");
        assert_ne!(one, other);
    }
}
