//! Black-box tests: each drives the real binary from outside, in a folder of its own, on free ports of the loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

mod backup;
mod campaign;
mod commands;
mod crash;
mod damage;
mod dedup;
mod fates;
mod faults;
mod files;
mod http;
mod inspect;
mod kinds;
mod orders;
mod overload;
mod reload;
mod replay;
mod retention;
mod runtime_events;
mod state;
mod telemetry;
mod tidy;
mod timers;
