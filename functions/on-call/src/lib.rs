//! Receives the events that Evoke publishes about itself (`evoke.delivery.dead`, `evoke.function.failing`, …), logs
//! each as one line and publishes it as `alert.raised` or `alert.cleared`, with that line as `text`.

use evoke::{Draft, Event, Failure};
use serde_json::{Value, json};

#[evoke::function]
fn handle(event: Event) -> Result<(), Failure> {
    let data: Value = event.json()?;
    let text = |name: &str| data[name].as_str().unwrap_or_default();
    let subject = event.subject.as_deref().unwrap_or_default();
    let summary = match event.type_.as_str() {
        "evoke.delivery.dead" => {
            format!("gave up delivery {} after {}: {}", data["delivery"], attempts(&data), text("cause"))
        }
        "evoke.function.failing" => {
            format!("has been failing since {}: {}, {}", text("since"), text("outcome"), text("message"))
        }
        "evoke.source.degraded" => format!("is degraded: {}", text("reason")),
        "evoke.storage.low" => format!("has {} bytes left of {}", data["free_bytes"], data["total_bytes"]),
        _ => format!("has recovered from a problem that began at {}", text("since")),
    };
    let line = format!("{subject} {summary}");
    evoke::log::info!("{line}");
    let alert = if event.type_.ends_with(".recovered") { "alert.cleared" } else { "alert.raised" };
    evoke::publish(Draft::new(alert).subject(subject).json(&json!({ "text": line, "cause": event.type_ }))?)?;
    Ok(())
}

fn attempts(data: &Value) -> String {
    match data["attempts"].as_u64() {
        Some(1) => "one attempt".to_owned(),
        Some(number) => format!("{number} attempts"),
        None => "some attempts".to_owned(),
    }
}
