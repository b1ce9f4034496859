//! Black-box tests. Each test runs the real binary as a child process, in a temporary folder and on free loopback
//! ports.

// `.clippy.toml` covers functions marked `#[test]`, not the helpers that they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

mod access;
mod admin_load;
mod backup;
mod campaign;
mod commands;
mod component_kinds;
mod damage;
mod dedup;
mod faults;
mod files;
mod http;
mod inspect;
mod orders;
mod outcomes;
mod overload;
mod reload;
mod replay;
mod retention;
mod runtime_events;
mod shutdown;
mod state;
mod telemetry;
mod tidy;
mod timers;
