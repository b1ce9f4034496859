//! `up`, `validate` and `build`: the commands that work on manifests.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::terminal::Terminal;
use super::text::{count, print, print_json};
use super::{Common, Failure, Manifests, Up};
use crate::app;
use crate::app::UpOptions;
use crate::control::AppError;
use evoke_core::bus::Amount;
use evoke_model::Retention;

const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// Task polls between two checks of timers and I/O. Guests that compute yield every millisecond; with tokio's default
/// of 61 polls, a time-out that runs beside many such guests would fire late.
const EVENT_INTERVAL: u32 = 7;

/// How long the process waits at its end for threads that still read or write.
const THREADS_WAIT: Duration = Duration::from_secs(1);

pub(super) fn up(common: &Common, up: Up) -> Result<(), Failure> {
    let options = UpOptions {
        manifests: up.manifests.manifests,
        data: common.data_folder().to_owned(),
        http: up.http,
        admin: common.client_args.admin.unwrap_or(ADMIN),
        watch: up.watch,
        drain: up.drain,
        concurrency: up.concurrency,
        dedup_window: up.limits.dedup_window,
        retention: Retention { age: up.limits.retain, bytes: up.limits.retain_size },
        storage_low: up.limits.storage_low,
        backlog_max: Amount { deliveries: up.limits.pending_max, bytes: up.limits.pending_bytes_max },
    };
    run(common, app::up(options, Arc::new(Terminal)))
}

pub(super) fn validate(common: &Common, manifests: &Manifests) -> Result<(), Failure> {
    let (warnings, apps, functions) = run(common, app::validate(&manifests.manifests))?;
    if common.client_args.json {
        return print_json(&warnings);
    }
    anstream::eprint!("{}", warnings.styled());
    print(&format!("{} with {}: no errors", count(apps, "manifest"), count(functions, "function")))
}

pub(super) fn build(common: &Common, manifests: &Manifests) -> Result<(), Failure> {
    let built = run(common, app::build(&manifests.manifests, &Terminal))?;
    if common.client_args.json {
        return print_json(&serde_json::json!({ "built": built }));
    }
    print(&format!("{built} built"))
}

/// Runs a command of `crate::app` on a new tokio runtime. With `--json`, manifest errors go to standard output.
pub(super) fn run<T>(common: &Common, work: impl Future<Output = Result<T, AppError>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().event_interval(EVENT_INTERVAL).build();
    let runtime = runtime.map_err(|e| Failure::Failed(format!("cannot start threads: {e}")))?;
    let result = runtime.block_on(work);
    // A thread that reads from a file system that does not respond must not keep the process alive.
    runtime.shutdown_timeout(THREADS_WAIT);
    match result {
        Err(AppError::Manifest(found)) if common.client_args.json => {
            print_json(&found)?;
            Err(Failure::Reported)
        }
        result => Ok(result?),
    }
}
