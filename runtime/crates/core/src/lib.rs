//! The way of an event between its source and its function: bus, router, dispatcher, replay.
//!
//! This crate knows no HTTP, files, SQL or wasmtime. Sources hand events to the [`bus`], which commits them with the
//! deliveries that the [`router`] finds; the [`dispatcher`] runs these through the [`dispatcher::Runner`] that it is given.

pub mod bus;
pub mod dispatcher;
pub mod replay;
pub mod router;
pub mod runtime_events;
pub mod source;
