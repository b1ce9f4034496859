//! Takes the payment of an order: the first step of the order flow.
//!
//! - An order that can never be paid (no customer, no items, a total of 0 or less) is rejected.
//! - A gateway that is down causes a retry. The order's field `gateway_failures` simulates this: it is the number of
//!   first attempts that the gateway refuses.
//! - Otherwise the function publishes `payment.taken` with the order and the payment's id.

use evoke::{Delivery, Draft, Failure, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

#[derive(Deserialize)]
struct Order {
    customer: String,
    total: Number,
    items: Vec<Value>,
    /// Number of attempts that the gateway refuses before it takes the payment.
    #[serde(default)]
    gateway_failures: u32,
}

#[derive(Serialize)]
struct Payment<'a> {
    payment: String,
    customer: &'a str,
    total: &'a Number,
    currency: String,
    items: &'a [Value],
}

#[evoke::function]
fn handle(order: Json<Order>, delivery: Delivery) -> Result<(), Failure> {
    check(&order)?;
    let payment = pay(&order, &delivery)?;
    evoke::log::info!("{} paid {} {}: {}", payment.customer, payment.total, payment.currency, payment.payment);
    evoke::publish(Draft::new("payment.taken").subject(&order.customer).json(&payment)?)?;
    Ok(())
}

/// Rejects an order that can never be paid.
fn check(order: &Order) -> Result<(), Failure> {
    if order.customer.trim().is_empty() {
        return Err(Failure::reject("the order has no customer"));
    }
    if order.total.as_f64().is_none_or(|total| total <= 0.0) {
        return Err(Failure::reject(format!("the order's total is {}; it must be more than 0", order.total)));
    }
    if order.items.is_empty() {
        return Err(Failure::reject("the order has no items"));
    }
    Ok(())
}

/// Simulates the payment gateway. A real gateway would be called over HTTP, with the delivery's id as idempotency key:
/// the id is the same on every attempt, so no customer pays twice.
fn pay<'a>(order: &'a Order, delivery: &Delivery) -> Result<Payment<'a>, Failure> {
    if delivery.attempt <= order.gateway_failures {
        return Err(Failure::retry(format!("the payment gateway is down (attempt {})", delivery.attempt)));
    }
    Ok(Payment {
        payment: format!("pay-{}", delivery.id),
        customer: &order.customer,
        total: &order.total,
        currency: evoke::config::get("CURRENCY").unwrap_or_else(|| "EUR".into()),
        items: &order.items,
    })
}
