//! Receives readings `{"path": "/", "used": 87.5}` in percent, and publishes `disk.changed` when the level of a disk
//! changes: `ok`, `warning` or `critical`. The configuration sets the thresholds `WARNING` and `CRITICAL` and the
//! margin `CLEAR`, in percent.

use evoke::{Failure, Json, StateChange, Thresholds, config};

#[derive(serde::Deserialize)]
struct Reading {
    path: String,
    used: f64,
}

#[evoke::function]
fn handle(reading: Json<Reading>) -> Result<(), Failure> {
    let percent = |key, default| config::parse::<f64>(key).map(|value| value.unwrap_or(default));
    let limits = Thresholds::rising(percent("WARNING", 80.0)?, percent("CRITICAL", 90.0)?);
    let limits = limits.clear(percent("CLEAR", 5.0)?);
    if let Some(changed) = StateChange::of(&reading.path, "disk.changed").level(&limits, reading.used)? {
        evoke::log::info!("{} is {}% full: {:?} after {:?}", reading.path, reading.used, changed.to, changed.from);
    }
    Ok(())
}
