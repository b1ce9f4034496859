//! The JSON form of timers.

use serde::{Deserialize, Serialize};

use evoke_model::{DeliveryId, Seq};

/// A timer with its ticks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Timer {
    /// The URI of the timer's source.
    pub source: String,
    /// The schedule, such as `every 1m`.
    pub schedule: String,
    /// The time from an instant of the schedule to its tick, in milliseconds, because of the timer's `jitter`.
    #[serde(default)]
    pub delay_ms: i64,
    /// The next instants of the schedule, in order.
    pub next: Vec<String>,
    /// The last ticks, in order.
    pub last: Vec<Tick>,
}

/// A tick of a timer, at a past instant of its schedule.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tick {
    /// The instant of the schedule, RFC 3339.
    pub scheduled: String,
    /// The number of the event; absent if the tick was skipped, or if retention removed the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Seq>,
    /// The reason why the tick was skipped: `overlap` if deliveries of the previous tick were pending, or `late` if the
    /// tick could not be stored within the `start_deadline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// The deliveries of the event.
    pub deliveries: Vec<TickDelivery>,
}

/// A delivery of a tick.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TickDelivery {
    /// The number of the delivery.
    pub delivery: DeliveryId,
    /// `app/function`.
    pub function: String,
    /// The state of the delivery, such as `done`.
    pub state: String,
    /// The number of attempts that ended.
    pub attempts: usize,
    /// Why the delivery became a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}
