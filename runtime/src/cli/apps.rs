//! `up`, `validate` and `build`: the commands that work on manifests.

use std::net::{Ipv4Addr, SocketAddr};

use super::text::{count, print, print_json};
use super::{Common, Failure, Manifests, Up};
use crate::app::{self, AppError, UpOptions};
use crate::bus::Amount;
use crate::store::Retention;

const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// Polls between two looks at timers and I/O. Guests that compute give way every millisecond; at tokio's default of
/// 61 polls a time-out beside many of them would come late.
const EVENT_INTERVAL: u32 = 7;

pub(super) fn up(common: &Common, up: Up) -> Result<(), Failure> {
    let options = UpOptions {
        manifests: up.manifests.manifests,
        data: common.folder().to_owned(),
        http: up.http,
        admin: common.reach.admin.unwrap_or(ADMIN),
        watch: up.watch,
        drain: up.drain,
        concurrency: up.concurrency,
        dedup_window: up.bounds.dedup_window,
        retention: Retention { age: up.bounds.retain, bytes: up.bounds.retain_size },
        storage_low: up.bounds.storage_low,
        backlog_max: Amount { deliveries: up.bounds.pending_max, bytes: up.bounds.pending_bytes_max },
    };
    run(common, app::up(options))
}

pub(super) fn validate(common: &Common, manifests: &Manifests) -> Result<(), Failure> {
    let (warnings, apps, functions) = run(common, app::validate(&manifests.manifests))?;
    if common.reach.json {
        return print_json(&warnings);
    }
    anstream::eprint!("{}", warnings.styled());
    print(&format!("{} with {}: no mistakes", count(apps, "manifest"), count(functions, "function")))
}

pub(super) fn build(common: &Common, manifests: &Manifests) -> Result<(), Failure> {
    let built = run(common, app::build(&manifests.manifests))?;
    if common.reach.json {
        return print_json(&serde_json::json!({ "built": built }));
    }
    print(&format!("{built} built"))
}

/// Runs one of the app's commands. For machines, mistakes go to standard output.
pub(super) fn run<T>(common: &Common, work: impl Future<Output = Result<T, AppError>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().event_interval(EVENT_INTERVAL).build();
    let runtime = runtime.map_err(|e| Failure::Failed(format!("cannot start threads: {e}")))?;
    match runtime.block_on(work) {
        Err(AppError::Mistakes(found)) if common.reach.json => {
            print_json(&found)?;
            Err(Failure::Reported)
        }
        result => Ok(result?),
    }
}
