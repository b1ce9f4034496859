//! Issues the receipt of a payment: the second step of the order flow.

use evoke::{Draft, Failure, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Deserialize)]
struct Payment {
    payment: String,
    customer: String,
    total: f64,
    currency: String,
    items: Vec<Value>,
}

#[derive(Serialize)]
struct Receipt<'a> {
    payment: &'a str,
    customer: &'a str,
    text: String,
}

#[evoke::function]
fn handle(payment: Json<Payment>) -> Result<(), Failure> {
    let items = match payment.items.len() {
        1 => "1 item".to_owned(),
        count => format!("{count} items"),
    };
    let text = format!("{items}, {:.2} {}. Thank you, {}!", payment.total, payment.currency, payment.customer);
    let receipt = Receipt { payment: &payment.payment, customer: &payment.customer, text };
    evoke::publish(Draft::new("receipt.issued").subject(&payment.customer).json(&receipt)?)?;
    Ok(())
}
