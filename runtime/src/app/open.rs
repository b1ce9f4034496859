//! Opens the parts of the application that reloads do not replace: the store, the logs, the sandbox and the listeners.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;

use super::data::DataFolder;
use super::recording::Recording;
use super::{App, UpOptions};
use crate::admin::Tokens;
use crate::control::{Control, Host, KINDS, Kind, Parts};
use crate::logs::FunctionLogs;
use crate::otlp::Otlp;
use evoke_core::bus;
use evoke_core::bus::Bus;
use evoke_core::dispatcher::Dispatcher;
use evoke_core::replay::Replays;
use evoke_core::router::Router;
use evoke_http::listener::Listener;
use evoke_http::source::{Http, HttpKind, Routes};
use evoke_model::clock::Clock;
use evoke_sandbox::{Compiler, Sandbox, Settings};
use evoke_store::Store;
use evoke_store_sqlite::SqliteStore;
use evoke_store_sqlite::running::Interrupted;
use evoke_telemetry::{Ingress, Metrics};

/// The listeners, bound to their addresses.
pub(super) struct Listeners {
    /// For the http sources.
    pub(super) public: Listener,
    pub(super) admin: Listener,
}

/// Opens these parts. Starts nothing that accepts events.
pub(super) async fn open(
    options: UpOptions,
    mut data: DataFolder,
    host: Arc<dyn Host>,
) -> anyhow::Result<(App, Listeners)> {
    let clock = Clock::system();
    let metrics = Arc::new(Metrics::new());
    // `/metrics` shows every kind of source from the start.
    for ingress in KINDS.iter().copied().map(Kind::ingress).chain([Ingress::API]) {
        metrics.ingress(ingress);
    }
    let (window, commits) = (options.dedup_window, metrics.commits.clone());
    let (recording, interrupted) = Recording::open(&data);
    let opening = |what| format!("cannot open {what} in the data folder {}", data.path().display());
    let store = SqliteStore::open_measured(data.path(), clock.clone(), window, commits);
    let store: Arc<dyn Store> = Arc::new(store.with_context(|| opening("the store, evoke.db,"))?);
    store.limit_descendants(options.descendants_max);
    let exits = store.record_exit(interrupted.as_ref().map(Interrupted::exit)).await;
    let exits = exits.context("cannot count the ends of the process in the store, evoke.db")?;
    let running = recording.log();
    let tokens = Tokens::open(data.path(), clock.clone())?;
    let otlp = Otlp::from_environment(store.instance(), metrics.spans.clone())?;
    let logs = FunctionLogs::open(data.path()).with_context(|| opening("the logs, logs/evoke.jsonl,"))?;
    let settings = Settings {
        cache_dir: Some(options.data.join("compiled")),
        compiler: Compiler::this_program(options.compile),
        concurrency: options.concurrency,
    };
    let sandbox = Sandbox::new(settings)?;
    data.reserve()?;
    let public = bind(options.http, "--http").await?;
    let admin = bind(options.admin, "--admin").await?;

    let limits = bus::Limits { backlog_max: options.backlog_max, ..bus::Limits::default() };
    let spans = otlp.as_ref().map(Otlp::spans).unwrap_or_default();
    let bus = Bus::new(store.clone(), Router::default(), limits).with_spans(spans);
    let dispatcher = Dispatcher::start_on(
        store.clone(),
        bus.clone(),
        clock.clone(),
        options.concurrency,
        running.clone(),
        exits,
        sandbox.guest_threads().clone(),
    );
    let http =
        Http::new(bus.for_ingress(Kind::Listener(&HttpKind).ingress(), &metrics), clock.clone(), Routes::default());
    let replays = Replays::new(store.clone(), bus.clone());
    let parts =
        Parts { store, bus, dispatcher, sandbox, http, logs: logs.sink(), metrics, clock, running, interrupted };
    let control = Control::new(parts, options.manifests.clone(), host.clone());
    let app = App { options, data, host, control, replays, logs, tokens, otlp, recording, started: Instant::now() };
    Ok((app, Listeners { public, admin }))
}

async fn bind(address: SocketAddr, option: &str) -> anyhow::Result<Listener> {
    Listener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; choose another address with {option}; port 0 picks a free port")
    })
}
