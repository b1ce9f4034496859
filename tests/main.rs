//! Black-box tests: each drives the real binary from outside, in a folder of its own, on free ports of the loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

mod commands;
mod crash;
mod fates;
mod faults;
mod files;
mod http;
mod kinds;
mod orders;
mod reload;
mod tidy;
mod timers;
