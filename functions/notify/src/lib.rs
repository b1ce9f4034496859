//! Notifies the customer of the receipt: the last step of the order flow. Here the message is a log line.

use evoke::{Failure, Json};
use serde::Deserialize;

#[derive(Deserialize)]
struct Receipt {
    customer: String,
    text: String,
}

#[evoke::function]
fn handle(receipt: Json<Receipt>) -> Result<(), Failure> {
    evoke::log::info!("to {}: {}", receipt.customer, receipt.text);
    Ok(())
}
