//! HTTP: the listener with its bounds, the http source, and the targets that events are sent to.
//!
//! This crate contains neither the store nor the sandbox. A request becomes an event on the bus, or the
//! [`source::RequestHandler`] of its route handles it. An event becomes a request to a [`target::HttpTarget`].

pub mod listener;
pub mod problem;
mod signature;
pub mod source;
pub mod target;
