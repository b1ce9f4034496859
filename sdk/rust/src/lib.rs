//! SDK for writing Evoke functions in Rust.
//!
//! An Evoke function is a Rust function that handles one event. Each call is an attempt, which succeeds if the function
//! returns `Ok`. Only then do the events that it published and its state writes take effect, all of them together:
//!
//! ```no_run
//! # extern crate evoke_sdk as evoke;
//! use evoke::{Draft, Failure, Json};
//!
//! #[derive(serde::Deserialize)]
//! struct Order { customer: String, total: f64 }
//!
//! #[evoke::function]
//! fn handle(order: Json<Order>) -> Result<(), Failure> {
//!     if order.total <= 0.0 {
//!         return Err(Failure::reject(format!("total is {}, it must be more than 0", order.total)));
//!     }
//!     evoke::log::info!("{} pays {}", order.customer, order.total);
//!     evoke::publish(Draft::new("payment.taken").subject(&order.customer).json(&order.total)?)?;
//!     Ok(())
//! }
//! ```
//!
//! The function's `Cargo.toml` names the crate `evoke` (the attribute requires this name) and builds a `cdylib`:
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//! [dependencies]
//! evoke = { package = "evoke-sdk", path = "../../sdk/rust" }
//! ```
//!
//! See [`macro@function`] for the parameter types, and [`Failure`] for the failures.
//!
//! # HTTP components
//!
//! A component that handles HTTP requests exports `wasi:http/incoming-handler`, for example with the crate `wasip2`. It
//! has no `#[evoke::function]`, and uses [`publish`], [`config`] and [`log`] of this crate:
//!
//! ```ignore
//! impl wasip2::exports::http::incoming_handler::Guest for Orders {
//!     fn handle(request: IncomingRequest, out: ResponseOutparam) {
//!         let id = evoke::publish(Draft::new("order.placed").json(&order)?)?; // stored when the response is set
//!         ResponseOutparam::set(out, Ok(response));
//!     }
//! }
//! ```
//!
//! The request header `evoke-path-NAME` has the value of the path parameter NAME, percent-encoded. Clients cannot set
//! this header.

// Makes `evoke::`, as used by the examples and the attribute, refer to this crate.
extern crate self as evoke;

mod argument;
#[doc(hidden)]
pub mod bindings;
mod bus;
mod change;
pub mod config;
mod event;
mod failure;
pub mod http;
pub mod log;
mod source;
pub mod state;
#[cfg(all(target_family = "wasm", not(feature = "wasi")))]
mod stdio;

pub use argument::{Argument, Json, Outcome};
pub use bindings::evoke::function::types::{Delivery, Draft, Event, Failure, Retry};
pub use bus::{Refused, publish};
pub use change::{Changed, Level, StateChange, Thresholds};
pub use config::secret;
pub use evoke_sdk_macros::function;
pub use failure::OrFail;
pub use source::{FileEvent, FileKind, TimerTick};

/// Support code for the expansion of `#[evoke::function]`; not part of the public API.
#[doc(hidden)]
pub mod __rt {
    pub use crate::argument::{Argument, Outcome};
    pub use crate::bindings::exports::evoke::function::handler::Guest;
    pub use crate::bindings::{self, __export_function as export};
    pub use crate::{Delivery, Event, Failure};

    /// Runs before the function. Makes panics of the function appear in its logs, and stores the delivery's id for the
    /// idempotency keys of HTTP requests.
    pub fn start(delivery: &Delivery) {
        crate::http::start(&delivery.id);
        #[cfg(all(target_family = "wasm", not(feature = "wasi")))]
        std::panic::set_hook(Box::new(crate::stdio::panicked));
    }
}
