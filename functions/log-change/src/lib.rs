//! Logs changes of state that monitors report (`evoke.monitor.changed`), each as one line: as an error if the thing is
//! critical, as a warning if it is not ok.

use evoke::{Event, Failure};
use serde::Deserialize;

#[derive(Deserialize)]
struct Change {
    monitor: String,
    state: String,
    previous: String,
    value: Option<f64>,
    unit: String,
    threshold: Option<String>,
    detail: Option<String>,
    missed: bool,
}

#[evoke::function]
fn handle(event: Event) -> Result<(), Failure> {
    let change: Change = event.json()?;
    let subject = event.subject.unwrap_or_default();
    let mut line = format!("{} {subject} is {}, was {}", change.monitor, change.state, change.previous);
    if let Some(value) = change.value {
        line += &format!(": {value}{}", change.unit);
    }
    if let Some(threshold) = change.threshold {
        line += &format!(", the threshold is {threshold}");
    }
    if let Some(detail) = change.detail {
        line += &format!(" ({detail})");
    }
    if change.missed {
        line += "; it changed while Evoke did not run";
    }
    match change.state.as_str() {
        "ok" => evoke::log::info!("{line}"),
        "critical" => evoke::log::error!("{line}"),
        _ => evoke::log::warn!("{line}"),
    }
    Ok(())
}
