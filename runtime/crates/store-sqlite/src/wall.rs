//! Converts the store times of rows into times of the wall clock, for inspection.

use evoke_model::clock::Clock;
use evoke_model::{DeliveryRecord, ReadDelivery, ReadEvent, Replay, StoredEvent};

pub(super) fn event_at_wall(clock: &Clock, read: ReadEvent) -> ReadEvent {
    read.map(|stored| StoredEvent { accepted_ms: clock.to_wall(stored.accepted_ms), ..stored })
}

pub(super) fn delivery_at_wall(clock: &Clock, read: ReadDelivery) -> ReadDelivery {
    read.map(|record| DeliveryRecord { due_ms: record.due_ms.map(|due_ms| clock.to_wall(due_ms)), ..record })
}

pub(super) fn replay_at_wall(clock: &Clock, replay: Replay) -> Replay {
    Replay { created_ms: clock.to_wall(replay.created_ms), ..replay }
}
