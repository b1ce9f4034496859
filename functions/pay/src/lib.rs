//! Takes a payment at a payment provider, and publishes the result as `payment.taken` or `payment.declined`. A client
//! that waits for `payment.*` receives this event as its response.
//!
//! The SDK sends the id of the delivery as `Idempotency-Key`, which is the same on every attempt. So the provider takes
//! the money once, also if this function runs again.

use evoke::{Draft, Failure, Json, http};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
struct Payment {
    customer: String,
    amount: u64,
    currency: String,
}

#[derive(Deserialize, Serialize)]
struct Receipt {
    id: String,
    status: String,
}

/// The status of the provider's response to a payment that it declines.
const PAYMENT_REQUIRED: u16 = 402;

#[evoke::function]
fn handle(payment: Json<Payment>) -> Result<(), Failure> {
    let provider = evoke::config::get("PROVIDER").unwrap_or_else(|| "https://api.payments.example".into());
    let response = http::post(format!("{provider}/v1/payments")).json(&*payment)?.send()?;
    let (type_, status) = match response.status() {
        PAYMENT_REQUIRED => ("payment.declined", "402"),
        _ => ("payment.taken", "201"),
    };
    let response = if response.status() == PAYMENT_REQUIRED { response } else { response.ok()? };
    let receipt: Receipt = response.json()?;
    evoke::log::info!("{} of {} {}: {}", receipt.status, payment.amount, payment.currency, receipt.id);
    // The attribute `httpstatus` becomes the status of the response that the client waits for.
    evoke::publish(Draft::new(type_).subject(&payment.customer).extension("httpstatus", status).json(&receipt)?)?;
    Ok(())
}
