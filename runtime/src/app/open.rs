//! Opens the parts of the application that reloads do not replace: the store, the logs, the sandbox and the listeners.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::runtime::Handle;

use super::certificates::{Certificates, TlsFiles};
use super::data::{Addresses, DataFolder};
use super::recording::Recording;
use super::service::ServiceManager;
use super::{App, UpOptions};
use crate::admin;
use crate::admin::Tokens;
use crate::control::{Control, Host, KINDS, Kind, ListenerHandle, Parts};
use crate::logs::FunctionLogs;
use crate::otlp::Otlp;
use evoke_core::bus;
use evoke_core::bus::Bus;
use evoke_core::dispatcher::Dispatcher;
use evoke_core::replay::Replays;
use evoke_core::router::Router;
use evoke_egress::Client;
use evoke_http::listener::{Listener, Tls};
use evoke_http::source::{Http, HttpKind, Routes};
use evoke_model::DeliveryId;
use evoke_model::clock::Clock;
use evoke_sandbox::{Compiler, Sandbox, Settings};
use evoke_sources::Services;
use evoke_sources::monitor::Monitors;
use evoke_store::running::UncleanExit;
use evoke_store::{Store, StoreError};
use evoke_store_sqlite::SqliteStore;
use evoke_store_sqlite::running::Interrupted;
use evoke_telemetry::{CommitMetrics, Ingress, Metrics};

/// The listeners, bound to their addresses.
pub(super) struct Listeners {
    /// For the http sources.
    pub(super) public: Listener,
    pub(super) admin: Listener,
}

/// Opens the parts of the application. Starts nothing that accepts events.
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
    let store = open_store(data.path(), clock.clone(), window, commits).await;
    let store = store.map_err(|error| match error {
        StoreError::Full => {
            anyhow::anyhow!("the disk is full: free some space on it, or raise the quota of this user, and start again")
        }
        error => error.into(),
    });
    let store: Arc<dyn Store> = Arc::new(store.with_context(|| opening("the store, evoke.db,"))?);
    let descendants_max = options.descendants_max;
    store.limit_descendants(descendants_max.into());
    let exits = count_exit(&*store, interrupted.as_ref().map(Interrupted::exit)).await;
    let exits = exits.context("cannot read or update the record of crashes and kills in the store, evoke.db")?;
    let has_suspects = !exits.is_empty();
    let running = recording.log();
    let tokens = Tokens::open(data.path(), clock.clone())?;
    let otlp = Otlp::from_environment(store.instance(), metrics.spans.clone())?;
    let logs = FunctionLogs::open(data.path()).with_context(|| opening("the logs, in the folder logs,"))?;
    let settings = Settings {
        cache_dir: Some(options.data.join("compiled")),
        compiler: Compiler::this_program(options.compile),
        concurrency: options.concurrency,
    };
    let outbound = Client::new(Handle::current(), metrics.clone());
    let monitors = Monitors::new(outbound.clone(), options.allow_commands, metrics.monitors.clone());
    let spans = otlp.as_ref().map(Otlp::spans).unwrap_or_default();
    let sandbox = Sandbox::with_client(settings, outbound, spans.clone())?;
    data.reserve()?;
    let (listeners, addresses, certificates) = listen(&options, &metrics, &clock).await?;

    let limits = bus::Limits { backlog_max: options.backlog_max, dead_max: options.dead_max, ..bus::Limits::default() };
    let bus = Bus::new(store.clone(), Router::default(), limits).with_clock(clock.clone()).with_spans(spans);
    let dispatcher = Dispatcher::start_recorded(
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
    let parts = Parts {
        store,
        bus,
        dispatcher,
        sandbox,
        http,
        services: Services { monitors },
        logs: logs.sink(),
        metrics,
        clock,
        descendants_max,
        dedup_window: window,
        running,
        interrupted,
        has_suspects,
    };
    let control = Control::new(parts, options.manifests.clone(), host.clone());
    let app = App {
        options,
        data,
        host,
        control,
        replays,
        logs,
        tokens,
        otlp,
        recording,
        addresses,
        certificates,
        started: Instant::now(),
        service: ServiceManager::from_environment(),
    };
    Ok((app, listeners))
}

/// Reads the certificates and binds the listeners.
pub(super) async fn listen(
    options: &UpOptions,
    metrics: &Metrics,
    clock: &Clock,
) -> anyhow::Result<(Listeners, Addresses, Vec<Certificates>)> {
    let read = |listener, files: &Option<TlsFiles>, http2| {
        files.clone().map(|files| Certificates::open(listener, files, http2, clock)).transpose()
    };
    let (public_files, admin_files) =
        (read("public", &options.http_tls, true)?, read("admin", &options.admin_tls, admin::HTTP2)?);
    let tls = |certificates: &Option<Certificates>| certificates.as_ref().map(Certificates::tls);
    let (public_tls, admin_tls) = (tls(&public_files), tls(&admin_files));
    let with_tls = |listener: Listener, tls: &Option<Tls>| match tls {
        Some(tls) => listener.with_tls(tls.clone()),
        None => listener,
    };
    let public = bind(options.http, "--http").await?.with_proxies(options.proxies.clone());
    let public = with_tls(public.with_metrics(metrics.listeners.public.clone()), &public_tls);
    let admin = bind(options.admin, "--admin").await?.with_metrics(metrics.listeners.admin.clone());
    let admin = with_tls(admin, &admin_tls);
    let address = |listener: &Listener| listener.local_addr().context("cannot read the address of a listener");
    let addresses = Addresses {
        http: ListenerHandle::new("public", address(&public)?, public_tls),
        admin: ListenerHandle::new("admin", address(&admin)?, admin_tls),
    };
    let certificates = [public_files, admin_files].into_iter().flatten().collect();
    Ok((Listeners { public, admin }, addresses, certificates))
}

/// Opens the store. Waits while another program holds a lock on the store. If the disk is full and the store exists,
/// waits until there is room for the files that SQLite makes beside the store. If the disk is full and there is no
/// store yet, returns an error.
async fn open_store(
    folder: &Path,
    clock: Clock,
    dedup_window: Duration,
    metrics: Arc<CommitMetrics>,
) -> Result<SqliteStore, StoreError> {
    /// Time between two tries on a full disk.
    const ROOM_INTERVAL: Duration = Duration::from_secs(1);
    let mut waits_since = None;
    let mut waits_for_room = false;
    loop {
        let (path, clock, metrics) = (folder.to_owned(), clock.clone(), metrics.clone());
        // Opening may wait long for a lock. On a separate thread, this wait does not delay a stop.
        let opened =
            tokio::task::spawn_blocking(move || SqliteStore::open_measured(&path, clock, dedup_window, metrics));
        match opened.await.map_err(|_| StoreError::Closed)? {
            Err(StoreError::Busy) if waits_since.is_none() => {
                waits_since = Some(Instant::now());
                tracing::warn!(
                    "another program has locked evoke.db in {}: the start waits until this program releases the lock; Ctrl-C \
                     or SIGTERM ends the wait",
                    folder.display()
                );
            }
            Err(StoreError::Busy) => {}
            Err(StoreError::Full) if folder.join("evoke.db").metadata().is_ok_and(|store| store.len() > 0) => {
                if !waits_for_room {
                    waits_for_room = true;
                    tracing::warn!(
                        "the disk of the data folder {} is full: the start waits until there is room; Ctrl-C or SIGTERM \
                         ends the wait",
                        folder.display()
                    );
                }
                tokio::time::sleep(ROOM_INTERVAL).await;
            }
            opened => {
                if let Some(since) = waits_since {
                    tracing::warn!("the lock on evoke.db was released after {:?}", since.elapsed());
                }
                return opened;
            }
        }
    }
}

/// Counts the unclean end of the previous process, if `exit` is `Some`. Returns the deliveries that were running at
/// unclean ends, each with the number of these ends: pending deliveries, and dead letters, which an operator may
/// redrive. For a dead letter, the number is always 1, because a redrive sets the number to 1. The dispatcher runs each
/// of these deliveries alone, to find the delivery that crashes the process. On a full disk, the end of the previous
/// process is not counted. Then only the deliveries that were running at this end are returned, each with the number 1.
async fn count_exit(store: &dyn Store, exit: Option<UncleanExit>) -> Result<BTreeMap<DeliveryId, u32>, StoreError> {
    match store.record_exit(exit.clone()).await {
        Err(StoreError::Full) => {
            tracing::error!("cannot store that the previous process ended without a clean stop: the disk is full");
            let attempts = exit.map(|exit| exit.attempts).unwrap_or_default();
            Ok(attempts.into_iter().map(|(delivery, _)| (delivery, 1)).collect())
        }
        counted => counted,
    }
}

async fn bind(address: SocketAddr, option: &str) -> anyhow::Result<Listener> {
    Listener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; choose another address with {option}; port 0 picks a free port")
    })
}
