//! The runtime's own events: what functions can watch about functions, sources and storage. Plain data and pure
//! functions; no I/O here.
//!
//! Their source is [`SOURCE`], which nobody else may use, and they are events like all others: stored, routed, listed,
//! replayed. `data` is JSON.
//!
//! | type | subject | says | `data` |
//! |---|---|---|---|
//! | `evoke.delivery.dead` | `shop/charge` | a delivery was given up | `delivery`, `delivery_id`, `function`, `trigger`, `attempts`, `outcome`, `cause`, `replay`, `order_key`, and of its event `seq`, `id`, `source`, `type`, `subject`, `time` under `event` |
//! | `evoke.function.failing` | `shop/charge` | this many attempts at whatever deliveries failed one after another | `function`, `since`, `attempts`, `delivery`, `outcome`, `message` |
//! | `evoke.function.recovered` | `shop/charge` | one succeeded again | `function`, `since` |
//! | `evoke.source.degraded` | `shop/inbox` | a source does not work fully | `source`, `kind`, `since`, `reason` |
//! | `evoke.source.recovered` | `shop/inbox` | it does again, for [`QUIET`] now | `source`, `kind`, `since` |
//! | `evoke.storage.low` | `storage` | the disk has less room than it should | `since`, `free_bytes`, `total_bytes`, `low_bytes` |
//! | `evoke.storage.recovered` | `storage` | it has a quarter more than that | the same |
//!
//! `since` is when the trouble began, also in what says that it is over. What has no value is left out.
//!
//! **Who gets them.** A trigger only when its pattern names the source or the type word for word: see [`asks_for_them`].
//!
//! **They cannot cause themselves.** Their origin is [`origin`], and so is that of everything that comes of them; a
//! delivery of that origin makes no events of the runtime, however it ends.
//!
//! **A dead letter and its event are one commit.** The others are changes of a level, and each is one commit with the
//! mark that says what was told last: [`levels`].

pub mod levels;
pub mod storage;

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::clock::{UnixMs, rfc3339};
use crate::event::{Data, Event};
use crate::pattern::Pattern;
use crate::store::{DeliveryId, Origin, StoredEvent};

/// The `source` of every event of the runtime, and the scope of its marks.
pub const SOURCE: &str = "/evoke";

/// Every type that there is.
pub const TYPES: [&str; 7] = [
    DEAD,
    "evoke.function.failing",
    "evoke.function.recovered",
    "evoke.source.degraded",
    "evoke.source.recovered",
    "evoke.storage.low",
    "evoke.storage.recovered",
];

const DEAD: &str = "evoke.delivery.dead";

/// Attempts of a function that have to fail one after another before it counts as failing: more than one poisoned event
/// is tried in the first seconds, and fewer than the eight that one is tried by default.
pub const FAILING_ATTEMPTS: u32 = 5;

/// How long a source has to be well before it counts as recovered: one that is overloaded takes an event now and then.
pub const QUIET: Duration = Duration::from_secs(5);

/// The longest text that is taken over from elsewhere, in bytes: an event may be as large as its id.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// Whose share of the backlog these events are, and all that comes of them.
pub fn origin() -> Origin {
    Origin::of(SOURCE)
}

/// Why an event of somebody else is refused: `None` when it is not. Its source and its types are for nobody else, as
/// either is enough to ask for these events.
pub fn refuse(source: &str, type_: &str) -> Option<String> {
    if source == SOURCE {
        return Some(format!(
            "the source `{SOURCE}` is for what Evoke says of itself; give the event a source of your own, such as `/shop`"
        ));
    }
    refuse_type(type_)
}

/// The same for the type alone.
pub fn refuse_type(type_: &str) -> Option<String> {
    TYPES.contains(&type_).then(|| {
        format!("the type `{type_}` is for what Evoke says of itself; give the event a type of your own, such as `shop.failed`")
    })
}

/// Whether a pattern can be seen to ask for these events: it names their source or their type as it is. One that takes
/// everything, or whatever begins somehow, does not: nobody who wrote it thought of them.
pub fn asks_for_them(pattern: &Pattern) -> bool {
    pattern.exact_values("source").is_some() || pattern.exact_values("type").is_some()
}

/// A delivery that is given up.
#[derive(Debug, Clone, Copy)]
pub struct Dead<'a> {
    /// The store's own name.
    pub instance: &'a str,
    /// Which one.
    pub delivery: DeliveryId,
    /// `app/function`.
    pub function: &'a str,
    /// The trigger that matched.
    pub trigger: &'a str,
    /// The order key that is parked with it.
    pub order_key: Option<&'a str>,
    /// Whether it was a replay's.
    pub replay: bool,
    /// Attempts that were made, the last included.
    pub attempts: u32,
    /// How the last one ended.
    pub outcome: &'a str,
    /// Why it is given up.
    pub cause: &'a str,
    /// What was owed.
    pub event: &'a StoredEvent,
}

impl Dead<'_> {
    /// What is said of it.
    pub fn event(&self, now_ms: UnixMs) -> Event {
        let Self { instance, delivery, function, trigger, order_key, replay, attempts, outcome, cause, event } = *self;
        let owed = &event.event;
        let mut about = Map::new();
        about.insert("seq".into(), event.seq.into());
        let attributes = [("id", Some(&owed.id)), ("source", Some(&owed.source)), ("type", Some(&owed.type_))];
        let optional = [("subject", owed.subject.as_ref()), ("time", owed.time.as_ref())];
        for (name, value) in attributes.into_iter().chain(optional) {
            about.extend(value.map(|value| (name.to_owned(), clipped(value).into())));
        }
        let mut data = json!({
            "delivery": delivery,
            "delivery_id": format!("{instance}-{delivery}"),
            "function": function,
            "trigger": trigger,
            "attempts": attempts,
            "outcome": outcome,
            "cause": clipped(cause),
            "replay": replay,
            "event": about,
        });
        if let (Some(key), Some(data)) = (order_key, data.as_object_mut()) {
            data.insert("order_key".into(), clipped(key).into());
        }
        let id = format!("{instance}-dead-{delivery}-{attempts}");
        let mut said = event_of(id, DEAD, function, &data, now_ms);
        // It belongs to the trace of the event (CloudEvents extension "distributed tracing").
        for name in ["traceparent", "tracestate"] {
            said.extensions
                .extend(owed.extensions.get_key_value(name).map(|(name, value)| (name.clone(), value.clone())));
        }
        said
    }
}

fn event_of(id: String, type_: &str, subject: &str, data: &Value, now_ms: UnixMs) -> Event {
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

/// As much of a text as is taken over.
fn clipped(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::EVENT_SIZE_MAX;
    use crate::store::Lineage;

    fn dead(event: &StoredEvent) -> Dead<'_> {
        Dead {
            instance: "s1",
            delivery: 7,
            function: "shop/charge",
            trigger: "on[0]",
            order_key: Some("ada"),
            replay: false,
            attempts: 3,
            outcome: "retry",
            cause: "gave up",
            event,
        }
    }

    fn stored(json: &Value) -> StoredEvent {
        let event = Event::from_json(json.to_string().as_bytes(), |_| {}).unwrap();
        StoredEvent { seq: 5, accepted_ms: 0, lineage: Lineage::default(), event: Arc::new(event), damage: None }
    }

    #[test]
    fn a_dead_letters_event_has_all_that_a_watcher_needs_and_goes_on_with_the_trace() {
        let owed = stored(
            &json!({ "id": "1", "source": "/shop/checkout", "type": "order.placed", "traceparent": "00-1-2-01" }),
        );
        let said = dead(&owed).event(1_700_000_000_000);
        said.check().unwrap();
        assert_eq!((said.source.as_str(), said.type_.as_str(), said.id.as_str()), (SOURCE, DEAD, "s1-dead-7-3"));
        assert_eq!(said.subject.as_deref(), Some("shop/charge"));
        assert_eq!(said.extensions.get("traceparent").map(String::as_str), Some("00-1-2-01"));
        let data: Value = serde_json::from_slice(said.data.as_bytes()).unwrap();
        let expected = json!({
            "delivery": 7, "delivery_id": "s1-7", "function": "shop/charge", "trigger": "on[0]", "attempts": 3,
            "outcome": "retry", "cause": "gave up", "replay": false, "order_key": "ada",
            "event": { "seq": 5, "id": "1", "source": "/shop/checkout", "type": "order.placed" },
        });
        assert_eq!(data, expected);
    }

    #[test]
    fn what_is_taken_over_is_bounded() {
        let long = "ü".repeat(200_000);
        let owed = stored(&json!({ "id": long, "source": "/s", "type": long, "subject": long }));
        let said = Dead { cause: &long, order_key: Some(&long), ..dead(&owed) }.event(0);
        assert!(said.size() < EVENT_SIZE_MAX / 10, "{}", said.size());
        assert!(serde_json::from_slice::<Value>(said.data.as_bytes()).is_ok());
    }

    #[test]
    fn a_pattern_asks_for_them_when_it_names_their_source_or_type_word_for_word() {
        for (pattern, asks) in [
            (json!({ "source": ["/evoke"] }), true),
            (json!({ "type": ["order.placed", "evoke.delivery.dead"] }), true),
            (json!({ "type": [{ "prefix": "evoke." }], "source": ["/evoke"] }), true),
            (json!({ "type": [{ "prefix": "evoke." }] }), false),
            (json!({ "source": [{ "exists": true }] }), false),
            (json!({ "source": ["/evoke", { "prefix": "/" }] }), false),
            (json!({ "type": [{ "anything-but": "order.placed" }] }), false),
            (json!({ "$or": [{ "source": ["/evoke"] }, { "type": [{ "prefix": "" }] }] }), false),
        ] {
            assert_eq!(asks_for_them(&Pattern::parse(&pattern).unwrap()), asks, "{pattern}");
        }
    }
}
