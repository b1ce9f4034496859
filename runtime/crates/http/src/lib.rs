//! HTTP: the listener with its bounds, the http source, and the targets that events are sent to.
//!
//! This crate knows no stores and no sandbox: a request becomes an event on the bus, or is answered by the
//! [`source::RequestHandler`] of its route; an event becomes a request to a [`target::HttpTarget`].

pub mod listener;
pub mod problem;
mod signature;
pub mod source;
pub mod target;
