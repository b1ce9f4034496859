//! Takes the payment of an order: the first step of the order flow.
//!
//! - An order that can never be paid (no customer, no items, a total of 0 or less) is rejected.
//! - A gateway that is down is a retry. The order's field `gateway_failures` plays that: the gateway refuses the
//!   first so many attempts.
//! - Otherwise `payment.taken` is published: the order, and the payment's id.

use evoke::{Delivery, Draft, Failure, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

#[derive(Deserialize)]
struct Order {
    customer: String,
    total: Number,
    items: Vec<Value>,
    /// How many attempts the gateway refuses before it takes the payment.
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

/// What is wrong with the order, if anything is.
fn check(order: &Order) -> Result<(), Failure> {
    if order.customer.trim().is_empty() {
        return Err(Failure::reject("the order names no customer"));
    }
    if order.total.as_f64().is_none_or(|total| total <= 0.0) {
        return Err(Failure::reject(format!("the order's total is {}, it has to be more than 0", order.total)));
    }
    if order.items.is_empty() {
        return Err(Failure::reject("the order has no items"));
    }
    Ok(())
}

/// The payment gateway. A real one is called over HTTP, with the delivery's id as idempotency key: it is the
/// same on every attempt, so nobody pays twice.
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
