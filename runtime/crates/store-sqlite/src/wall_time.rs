//! Converts the store times of rows into times of the wall clock, for rows that are shown to users.

use evoke_model::clock::Clock;
use evoke_model::{DeliveryRecord, ReadDelivery, ReadEvent, Replay, StoredEvent};
use evoke_store::Scheduled;

pub(super) trait AtWallTime {
    fn at_wall_time(self, clock: &Clock) -> Self;
}

impl AtWallTime for ReadEvent {
    fn at_wall_time(self, clock: &Clock) -> Self {
        self.map(|stored| StoredEvent { accepted_ms: clock.to_wall(stored.accepted_ms), ..stored })
    }
}

impl AtWallTime for ReadDelivery {
    fn at_wall_time(self, clock: &Clock) -> Self {
        self.map(|record| DeliveryRecord { due_ms: record.due_ms.map(|due_ms| clock.to_wall(due_ms)), ..record })
    }
}

impl AtWallTime for Scheduled {
    /// Keeps the time at which the event is due, because it is already a time of the wall clock.
    fn at_wall_time(self, clock: &Clock) -> Self {
        Self { event: self.event.at_wall_time(clock), ..self }
    }
}

impl AtWallTime for Replay {
    fn at_wall_time(self, clock: &Clock) -> Self {
        Self { created_ms: clock.to_wall(self.created_ms), ..self }
    }
}

impl<T: AtWallTime> AtWallTime for Option<T> {
    fn at_wall_time(self, clock: &Clock) -> Self {
        self.map(|row| row.at_wall_time(clock))
    }
}

impl<T: AtWallTime> AtWallTime for Vec<T> {
    fn at_wall_time(self, clock: &Clock) -> Self {
        self.into_iter().map(|row| row.at_wall_time(clock)).collect()
    }
}
