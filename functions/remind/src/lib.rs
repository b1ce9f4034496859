//! Reminds customers of orders that they have not paid in time. Two functions of a manifest run this component, and share
//! the state: one schedules reminders, and the other one receives them.
//!
//! - `order.placed`: stores the order as open, and publishes `reminder.due` for later (`REMIND_AFTER_SECONDS`).
//! - `payment.taken`: the order is no longer open.
//! - `reminder.due`, which Evoke delivers at its time: publishes `payment.reminder` if the order is still open.

use std::time::{Duration, SystemTime};

use evoke::{Draft, Event, Failure, config, state};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    order: String,
    #[serde(default)]
    customer: String,
}

#[evoke::function]
fn handle(event: Event) -> Result<(), Failure> {
    let order: Order = event.json()?;
    let open = state::shared()?;
    match event.type_.as_str() {
        "order.placed" => {
            let after = Duration::from_secs(config::parse("REMIND_AFTER_SECONDS")?.unwrap_or(3_600));
            open.set(&order.order, &order.customer)?;
            let due = Draft::new("reminder.due").subject(&order.order).not_before(SystemTime::now() + after);
            evoke::publish(due.json(&order)?)?;
        }
        "payment.taken" => open.delete(&order.order)?,
        "reminder.due" if open.exists(&order.order)? => {
            open.delete(&order.order)?;
            evoke::log::info!("{} has not paid the order {}", order.customer, order.order);
            evoke::publish(Draft::new("payment.reminder").subject(&order.customer).json(&order)?)?;
        }
        // Paid meanwhile.
        "reminder.due" => {}
        other => return Err(Failure::reject(format!("an event of the type {other} is not expected"))),
    }
    Ok(())
}
