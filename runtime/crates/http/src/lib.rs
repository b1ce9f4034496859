//! HTTP: the listener with its bounds, and the http source.
//!
//! This crate knows no stores and no sandbox: a request becomes an event on the bus, or is answered by the
//! [`source::RequestHandler`] of its route.

pub mod listener;
pub mod problem;
pub mod source;
