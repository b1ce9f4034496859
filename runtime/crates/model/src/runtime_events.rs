//! Runtime events: events that the runtime publishes about functions, sources and storage. Functions can subscribe to
//! them. Plain data and pure functions; no I/O here.
//!
//! The `source` of a runtime event is [`SOURCE`], which producers cannot use. Runtime events are stored, routed, listed
//! and replayed like all other events. Their `data` is JSON.
//!
//! | type | subject | meaning | `data` |
//! |---|---|---|---|
//! | `evoke.delivery.dead` | `shop/charge` | a delivery became a dead letter | `delivery`, `delivery_id`, `function`, `trigger`, `attempts`, `outcome`, `cause`, `replay`, `order_key`, and under `event` the `seq`, `id`, `source`, `type`, `subject`, `time` of the delivery's event |
//! | `evoke.function.failing` | `shop/charge` | [`FAILING_ATTEMPTS`] attempts in a row failed, over all deliveries of the function | `function`, `since`, `attempts`, `delivery`, `outcome`, `message` |
//! | `evoke.function.recovered` | `shop/charge` | an attempt of a failing function succeeded | `function`, `since` |
//! | `evoke.function.paused` | `shop/charge` or `shop` | an operator paused a function, or all functions of an app; or the endpoint of a function is gone | `function` or `app`, `since`, `reason` |
//! | `evoke.function.resumed` | `shop/charge` or `shop` | an operator resumed the function, or all functions of the app | `function` or `app`, `since` |
//! | `evoke.circuit.opened` | `shop/tell-crm` | an endpoint keeps failing: its deliveries wait, and single requests (probes) test whether it works again | `function`, `since`, `failures`, `outcome`, `message` |
//! | `evoke.circuit.closed` | `shop/tell-crm` | a probe succeeded: the deliveries that waited are sent | `function`, `since` |
//! | `evoke.source.degraded` | `shop/inbox` | a source does not work, or works only in part | `source`, `kind`, `since`, `reason` |
//! | `evoke.source.recovered` | `shop/inbox` | the source has worked for [`RECOVERY_DELAY`] without a problem | `source`, `kind`, `since` |
//! | `evoke.listener.degraded` | `public` or `admin` | the certificate of a listener has expired, or could not be replaced | `listener`, `since`, `reason` |
//! | `evoke.listener.recovered` | `public` or `admin` | the certificate is valid again, or was replaced | `listener`, `since` |
//! | `evoke.storage.low` | `storage` | the free disk space is below the limit | `since`, `free_bytes`, `total_bytes`, `low_bytes` |
//! | `evoke.storage.recovered` | `storage` | the free disk space is at least a quarter above the limit | as `evoke.storage.low` |
//!
//! `since` is the time when the problem began; the event that reports the recovery has the same `since`. A field
//! without a value is left out.
//!
//! **Routing.** A trigger receives these events only if its pattern names the source or the type exactly: see
//! `evoke_core::runtime_events::selects_runtime_events`.
//!
//! **No feedback loops.** Runtime events, and all events that functions publish because of them, have the origin
//! [`origin`]. A delivery of this origin causes no further runtime events, however it ends.
//!
//! **Commits.** A dead letter and its runtime event are stored in one commit. Every other runtime event reports that a
//! condition has changed, and is stored in one commit with a mark, which records the reported condition: see
//! `evoke_core::runtime_events::conditions`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::claim;
use crate::clock::{UnixMs, rfc3339};
use crate::event::{Data, Event};
use crate::{DamagedEvent, DeliveryId, Origin, StoredEvent};

/// The `source` of every runtime event, and the [scope](crate::Mark::scope) of the [marks](crate::Mark) of the runtime.
pub const SOURCE: &str = "/evoke";

/// The types of all runtime events.
pub const TYPES: [&str; 13] = [
    DEAD,
    "evoke.function.failing",
    "evoke.function.recovered",
    PAUSED,
    RESUMED,
    "evoke.circuit.opened",
    "evoke.circuit.closed",
    "evoke.source.degraded",
    "evoke.source.recovered",
    "evoke.listener.degraded",
    "evoke.listener.recovered",
    "evoke.storage.low",
    "evoke.storage.recovered",
];

const DEAD: &str = "evoke.delivery.dead";

/// The type of the event that reports a pause.
pub const PAUSED: &str = "evoke.function.paused";
/// The type of the event that reports the end of a pause.
pub const RESUMED: &str = "evoke.function.resumed";

/// A function is failing after this many failed attempts in a row. A single event that always fails reaches this number
/// only after some seconds, because of the waits between its attempts. The number is below 8, the default maximum
/// number of attempts per delivery, so that a single event can reach it at all.
pub const FAILING_ATTEMPTS: u32 = 5;

/// A source has recovered when it has had no problem for this time. The delay is needed because an overloaded source
/// accepts single events between refusals, which does not mean that it has recovered.
pub const RECOVERY_DELAY: Duration = Duration::from_secs(5);

/// The maximum length in bytes of a text that a runtime event copies from another event or message. Without this limit,
/// a copied id could be as large as a whole event.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// Returns the origin of runtime events and of all events that they cause. The limit of pending deliveries is shared
/// between origins; deliveries of these events count towards the share of this origin.
pub fn origin() -> Origin {
    Origin::RUNTIME
}

/// Returns an error message if an event from a source or an operator uses the reserved source or one of [`TYPES`], else
/// `None`. A function whose pattern names one of these would take such an event for a runtime event.
pub fn reserved_error(source: &str, type_: &str) -> Option<String> {
    if source == SOURCE {
        return Some(format!(
            "the source `{SOURCE}` is reserved for Evoke's own events; use another source, such as `/shop`"
        ));
    }
    TYPES.contains(&type_).then(|| reserved_type(type_))
}

/// Returns an error message if `type_` is a type of the runtime (`evoke.*`), which functions and producers must not
/// use; else `None`.
pub fn reserved_type_error(type_: &str) -> Option<String> {
    claim::is_runtime_type(type_).then(|| reserved_type(type_))
}

fn reserved_type(type_: &str) -> String {
    format!("the type `{type_}` is reserved for Evoke's own events; use another type, such as `shop.failed`")
}

/// The content of an `evoke.delivery.dead` event.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetter<'a> {
    /// The unique name of the store.
    pub instance: &'a str,
    /// The delivery that became a dead letter.
    pub delivery: DeliveryId,
    /// The full name of the function, `app/function`.
    pub function: &'a str,
    /// The trigger that matched.
    pub trigger: &'a str,
    /// The order key: the dead letter blocks later deliveries with this key. `None` if the delivery is not ordered.
    pub order_key: Option<&'a str>,
    /// True if the delivery belongs to a replay.
    pub replay: bool,
    /// The number of attempts, the last included.
    pub attempts: u32,
    /// The kind of the outcome of the last attempt.
    pub outcome: &'a str,
    /// Why the delivery became a dead letter.
    pub cause: &'a str,
    /// The delivery's event.
    pub event: Result<&'a StoredEvent, &'a DamagedEvent>,
}

impl DeadLetter<'_> {
    /// Builds the event. The id depends on the delivery and its number of attempts, so building the event again gives
    /// the same id.
    pub fn to_event(&self, now_ms: UnixMs) -> Event {
        let Self { instance, delivery, function, trigger, order_key, replay, attempts, outcome, cause, event } = *self;
        let (seq, original) = match event {
            Ok(stored) => (stored.seq, stored.event.clone()),
            Err(damaged) => (damaged.seq, Arc::default()),
        };
        let mut about = Map::new();
        about.insert("seq".into(), json!(seq));
        let attributes =
            [("id", Some(&original.id)), ("source", Some(&original.source)), ("type", Some(&original.type_))];
        let optional = [("subject", original.subject.as_ref()), ("time", original.time.as_ref())];
        for (name, value) in attributes.into_iter().chain(optional) {
            about.extend(value.map(|value| (name.to_owned(), truncated(value).into())));
        }
        let mut data = json!({
            "delivery": delivery,
            "delivery_id": format!("{instance}-{delivery}"),
            "function": function,
            "trigger": trigger,
            "attempts": attempts,
            "outcome": outcome,
            "cause": truncated(cause),
            "replay": replay,
            "event": about,
        });
        if let (Some(key), Some(data)) = (order_key, data.as_object_mut()) {
            data.insert("order_key".into(), truncated(key).into());
        }
        let id = format!("{instance}-dead-{delivery}-{attempts}");
        let mut dead_letter = new_event(id, DEAD, function, &data, now_ms);
        // The new event continues the trace of the delivery's event (CloudEvents extension "distributed tracing").
        for name in ["traceparent", "tracestate"] {
            dead_letter
                .extensions
                .extend(original.extensions.get_key_value(name).map(|(name, value)| (name.clone(), value.clone())));
        }
        dead_letter
    }
}

/// Returns a runtime event with this JSON `data`.
pub fn new_event(id: String, type_: &str, subject: &str, data: &Value, now_ms: UnixMs) -> Event {
    Event {
        id,
        source: SOURCE.to_owned(),
        type_: type_.to_owned(),
        subject: Some(subject.to_owned()),
        time: Some(rfc3339(now_ms)),
        datacontenttype: Some("application/json".to_owned()),
        data: Data::Json(Bytes::from(data.to_string())),
        ..Event::default()
    }
}

/// Truncates a text that is longer than [`TEXT_BYTES_MAX`] bytes at a character boundary, and appends `…`.
pub fn truncated(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EVENT_SIZE_MAX;
    use crate::{Lineage, Seq};

    fn dead(event: &StoredEvent) -> DeadLetter<'_> {
        DeadLetter {
            instance: "s1",
            delivery: DeliveryId(7),
            function: "shop/charge",
            trigger: "on[0]",
            order_key: Some("ada"),
            replay: false,
            attempts: 3,
            outcome: "retry",
            cause: "gave up",
            event: Ok(event),
        }
    }

    fn stored(json: &Value) -> StoredEvent {
        let event = Event::from_json(json.to_string().as_bytes(), |_| {}).unwrap();
        StoredEvent { seq: Seq(5), accepted_ms: 0, lineage: Lineage::default(), event: Arc::new(event) }
    }

    #[test]
    fn a_dead_letter_event_has_all_fields_and_continues_the_trace() {
        let event = stored(
            &json!({ "id": "1", "source": "/shop/checkout", "type": "order.placed", "traceparent": "00-1-2-01" }),
        );
        let dead_letter = dead(&event).to_event(1_700_000_000_000);
        dead_letter.check().unwrap();
        assert_eq!(
            (dead_letter.source.as_str(), dead_letter.type_.as_str(), dead_letter.id.as_str()),
            (SOURCE, DEAD, "s1-dead-7-3")
        );
        assert_eq!(dead_letter.subject.as_deref(), Some("shop/charge"));
        assert_eq!(dead_letter.extensions.get("traceparent").map(String::as_str), Some("00-1-2-01"));
        let data: Value = serde_json::from_slice(dead_letter.data.as_bytes()).unwrap();
        let expected = json!({
            "delivery": 7, "delivery_id": "s1-7", "function": "shop/charge", "trigger": "on[0]", "attempts": 3,
            "outcome": "retry", "cause": "gave up", "replay": false, "order_key": "ada",
            "event": { "seq": 5, "id": "1", "source": "/shop/checkout", "type": "order.placed" },
        });
        assert_eq!(data, expected);
    }

    #[test]
    fn copied_texts_are_truncated() {
        let long = "ü".repeat(200_000);
        // An earlier version stored such ids and types.
        let mut event = stored(&json!({ "id": "1", "source": "/s", "type": "t", "subject": long }));
        event.event = Arc::new(Event { id: long.clone(), type_: long.clone(), ..(*event.event).clone() });
        let dead_letter = DeadLetter { cause: &long, order_key: Some(&long), ..dead(&event) }.to_event(0);
        assert!(dead_letter.size() < EVENT_SIZE_MAX / 10, "{}", dead_letter.size());
        assert!(serde_json::from_slice::<Value>(dead_letter.data.as_bytes()).is_ok());
    }
}
