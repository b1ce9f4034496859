//! Black-box tests. Each test runs the real binary as a child process, in a temporary folder and on free loopback
//! ports.

// `.clippy.toml` covers functions marked `#[test]`, not the helpers that they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

mod access;
mod admin_load;
mod backup;
mod brakes;
mod build_commands;
mod busy;
mod campaign;
mod certificates;
mod claims;
mod clients;
mod clock_jumps;
mod cloudevents;
mod commands;
mod compile;
mod component_kinds;
mod crashes;
mod damage;
mod data_folder;
mod dedup;
mod deliver;
mod exact_numbers;
mod examples;
mod faults;
mod files;
mod files_appear;
mod hostile;
mod hostile_http;
mod http;
mod http_publish;
mod inspect;
mod log_shares;
mod manifest_mistakes;
mod neighbours;
mod orders;
mod outbound;
mod outcomes;
mod overload;
mod proxies;
mod redaction;
mod reload;
mod replay;
mod replies;
mod requests;
mod retention;
mod runtime_events;
mod shutdown;
mod signals;
mod slow_clients;
mod state;
mod store_files;
mod storms;
mod telemetry;
mod tidy;
mod timers;
mod tls;
mod user_files;
mod webhooks;
