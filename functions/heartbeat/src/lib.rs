//! Publishes `heartbeat` for every tick of a timer, with the time at which the tick was due.

use evoke::{Draft, Failure, TimerTick};
use serde::Serialize;

#[derive(Serialize)]
struct Heartbeat<'a> {
    scheduled: &'a str,
}

#[evoke::function]
fn handle(tick: TimerTick) -> Result<(), Failure> {
    evoke::publish(Draft::new("heartbeat").json(&Heartbeat { scheduled: &tick.scheduled })?)?;
    Ok(())
}
