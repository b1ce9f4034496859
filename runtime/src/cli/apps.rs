//! `up`, `validate` and `build`: the commands that work on manifests.

use std::io::IsTerminal as _;
use std::sync::Arc;

use super::address::AdminAddress;
use super::client::Client;
use super::terminal::Terminal;
use super::text::{count, print, print_error, print_json};
use super::{ClientArgs, Common, Failure, Manifests, Up, Validate, grants};
use crate::admin::view::FunctionGrants;
use crate::app;
use crate::app::{StopSignals, UpOptions};
use crate::control::AppError;
use evoke_core::bus::Amount;
use evoke_manifest::Severity;
use evoke_model::{DescendantsMax, Retention};

/// The number of tasks that a tokio thread polls before it checks timers and I/O again. A poll that parses a large
/// event takes a millisecond, so with tokio's default of 61, a time-out could fire 60 ms late. Guests do not delay
/// timers, because they run on other threads.
const EVENT_INTERVAL: u32 = 7;

pub(super) fn up(common: &Common, up: Up) -> Result<(), Failure> {
    let admin = common.client_args.admin.as_ref().unwrap_or(&AdminAddress::DEFAULT);
    let admin_tls = up.network.admin_tls().map_err(Failure::Usage)?;
    let options = UpOptions {
        manifests: up.manifests.manifests,
        data: common.data_folder().to_owned(),
        http: up.http,
        http_tls: up.network.http_tls(up.http).map_err(Failure::Usage)?,
        proxies: up.network.proxies(),
        keep_alive: up.keep_alive,
        admin: admin.to_listen(admin_tls.is_some()).map_err(Failure::Usage)?,
        admin_tls,
        activity: !up.quiet && std::io::stderr().is_terminal(),
        allow_commands: up.allow_commands,
        watch: up.watch,
        drain: up.drain,
        concurrency: up.concurrency,
        dedup_window: up.limits.dedup_window,
        retention: Retention { age: up.limits.retain, bytes: up.limits.retain_size },
        storage_low: up.limits.storage_low,
        compile: up.compile.limits(),
        descendants_max: DescendantsMax { events: up.limits.descendants_max, bytes: up.limits.descendants_bytes_max },
        backlog_max: Amount { deliveries: up.limits.pending_max, bytes: up.limits.pending_bytes_max },
        dead_max: Amount { deliveries: up.limits.dead_max, bytes: up.limits.dead_bytes_max },
    };
    if up.check {
        let (warnings, apps, functions) = run(common, app::check_start(&options))?;
        print_error(&warnings.styled());
        return print(&format!("{} with {}: ready to start", count(apps, "manifest"), count(functions, "function")));
    }
    // `up` handles the signals itself, because it drains before it ends.
    block_on(common, app::up(options, Arc::new(Terminal)))
}

pub(super) fn validate(common: &Common, validate: &Validate) -> Result<(), Failure> {
    let Validate { manifests, strict, compile } = validate;
    let used = if *strict { Some(used_grants(common)?) } else { None };
    // A missing secret is only a warning, because a machine that only checks manifests may not have the secrets.
    let (data, limits) = (common.data_folder(), compile.limits());
    let validated = app::validate(&manifests.manifests, data, limits, Severity::Warning, used.as_deref());
    let (warnings, apps, functions) = run(common, validated)?;
    if common.client_args.json {
        return print_json(&warnings);
    }
    print_error(&warnings.styled());
    print(&format!("{} with {}: no errors", count(apps, "manifest"), count(functions, "function")))
}

/// Reads the grants and their use from a running Evoke or, if none runs, from the store in the data folder.
fn used_grants(common: &Common) -> Result<Vec<FunctionGrants>, Failure> {
    let stopped = match Client::find(common).and_then(|client| grants::read(&client, &[])) {
        Err(Failure::NotRunning(reason)) => reason,
        found => return found,
    };
    let folder = common.existing_data_folder()?;
    if common.client_args.admin.is_some() || !folder.join("evoke.db").exists() {
        let help = "--strict needs the store of an Evoke that ran these functions; name its data folder with --offline";
        return Err(Failure::NotRunning(format!("{stopped}; {help}")));
    }
    let client_args = ClientArgs { offline: Some(folder), ..common.client_args.clone() };
    grants::read(&Client::find(&Common { client_args, ..common.clone() })?, &[])
}

pub(super) fn build(common: &Common, manifests: &Manifests) -> Result<(), Failure> {
    let built = run(common, app::build(&manifests.manifests, &Terminal))?;
    if common.client_args.json {
        return print_json(&serde_json::json!({ "built": built }));
    }
    print(&format!("{built} built"))
}

/// Runs a command of `crate::app` on a new tokio runtime. SIGTERM and Ctrl-C interrupt the command, and also end a
/// `build:` command that it is running.
pub(super) fn run<T>(common: &Common, work: impl Future<Output = Result<T, AppError>>) -> Result<T, Failure> {
    let interruptible = async {
        let mut stop = StopSignals::new().map_err(anyhow::Error::from)?;
        tokio::select! {
            result = work => result,
            () = stop.received() => Err(anyhow::anyhow!("interrupted").into()),
        }
    };
    block_on(common, interruptible)
}

/// Runs a command of `crate::app` on a new tokio runtime. With `--json`, manifest errors go to standard output.
fn block_on<T>(common: &Common, work: impl Future<Output = Result<T, AppError>>) -> Result<T, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().event_interval(EVENT_INTERVAL).on_thread_start(evoke_fs::shorten_time_slice);
    let runtime = builder.build();
    let runtime = runtime.map_err(|e| Failure::Failed(format!("cannot start threads: {e}")))?;
    let result = runtime.block_on(work);
    // Does not wait for threads that still compile a component after an interruption, or that read from a file system
    // that does not respond.
    runtime.shutdown_background();
    match result {
        Err(AppError::Manifest(found)) if common.client_args.json => {
            print_json(&found)?;
            Err(Failure::Reported)
        }
        result => Ok(result?),
    }
}
