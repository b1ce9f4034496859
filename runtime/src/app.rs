//! Runs Evoke: the order of start, run and drain.

mod activity;
mod certificates;
mod data;
mod descriptors;
mod grant_records;
mod health_monitor;
mod idle_memory;
mod invoke;
mod lock_holder;
mod open;
mod recording;
mod retention;
mod service;
mod signals;
mod start_check;
mod task;
mod testing;
mod unused_grants;
mod validate;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

pub use self::certificates::TlsFiles;
use self::certificates::{Certificates, Reloads};
use self::data::{Addresses, DataFolder};
use self::health_monitor::HealthMonitor;
pub use self::invoke::{Invocation, InvokeOptions, invoke};
use self::open::Listeners;
use self::recording::Recording;
use self::service::ServiceManager;
pub use self::signals::StopSignals;
use self::signals::{Request, Signals};
pub use self::start_check::check_start;
use self::task::Task;
pub use self::testing::{Difference, RecordedFile, TestOptions, TestReport, TestResult, test};
pub use self::validate::{build, validate};
use crate::admin;
use crate::admin::{Admin, Readiness};
use crate::control::compiling::Rest;
use crate::control::{AppError, Control, Host, Phase, Progress, manifests};
use crate::logs::FunctionLogs;
use crate::otlp::Otlp;
use evoke_core::bus;
use evoke_core::replay::Replays;
use evoke_core::scheduler::Scheduler;
use evoke_http::listener;
use evoke_http::listener::Proxies;
use evoke_manifest::Checked;
use evoke_model::{DescendantsMax, Retention};
use evoke_sandbox::CompileLimits;
use evoke_telemetry::Ingress;

/// Options of [`up`].
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// Manifest files and folders of manifests; empty means `evoke.yaml`.
    pub manifests: Vec<PathBuf>,
    /// The data folder.
    pub data: PathBuf,
    /// Address on which http sources listen; port 0 picks a free port.
    pub http: SocketAddr,
    /// The certificates for the http address; `None` serves plain HTTP.
    pub http_tls: Option<TlsFiles>,
    /// The proxies in front of the http address.
    pub proxies: Proxies,
    /// How long a connection to the http address stays open for its next request.
    pub keep_alive: Duration,
    /// Address on which the admin API listens.
    pub admin: SocketAddr,
    /// The certificates for the admin API; `None` serves plain HTTP.
    pub admin_tls: Option<TlsFiles>,
    /// True if accepted events, ended attempts and the log lines of functions are reported to the host.
    pub activity: bool,
    /// True if monitors may start programs.
    pub allow_commands: bool,
    /// True if a change of a manifest, a component or a source file of a component causes a reload.
    pub watch: bool,
    /// How long running deliveries may take after a stop signal.
    pub drain: Duration,
    /// Maximum number of deliveries of all functions that run at the same time.
    pub concurrency: u32,
    /// Limits on compiling each component.
    pub compile: CompileLimits,
    /// How long the source and the id of an event are remembered for deduplication.
    pub dedup_window: Duration,
    /// Maximum number and total size of the pending deliveries. Beyond either limit, new events are refused.
    pub backlog_max: bus::Amount,
    /// The dead letters of one source at which its further events are refused.
    pub dead_max: bus::Amount,
    /// Maximum number and total size of the events that one event causes, directly or through events that it caused.
    pub descendants_max: DescendantsMax,
    /// How long after its acceptance a finished event is kept, and the maximum size of the store.
    pub retention: Retention,
    /// The event `evoke.storage.low` is emitted when the free space on the disk of the data folder falls below this
    /// number of bytes. `None` uses the default.
    pub storage_low: Option<u64>,
}

/// Runs until SIGTERM or Ctrl-C is received or the store fails, and then drains. A signal during the start ends the
/// start, and also a `build:` command that is running. A second signal ends the drain.
pub async fn up(options: UpOptions, host: Arc<dyn Host>) -> Result<(), AppError> {
    let mut signals = Signals::new().context("cannot receive signals")?;
    descriptors::raise_limit();
    let open = async {
        let manifests = prepare(&options, &*host).await?;
        let data = DataFolder::acquire(&options.data)?;
        let (app, listeners) = open::open(options, data, host.clone()).await?;
        Ok::<_, AppError>((app, listeners, manifests))
    };
    let (app, listeners, manifests) = tokio::select! {
        opened = open => opened?,
        () = signals.stop() => return Ok(()),
    };
    let mut tasks = Tasks::default();
    let started = tokio::select! {
        started = app.start(&mut tasks, listeners, manifests) => started.map(Some),
        () = signals.stop() => Ok(None),
    };
    let ended = match started {
        Ok(Some(rest)) => app.run_until_stopped(rest, &mut signals).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    let (dispatcher, recording) = (app.control.parts().dispatcher.clone(), app.recording.clone());
    // The future owns the lock of the data folder. Pinned here, it keeps the lock until this function returns, also
    // after a second signal.
    let mut drain = std::pin::pin!(app.drain(tasks));
    let closed = tokio::select! {
        closed = &mut drain => closed,
        () = signals.second_stop() => {
            let deliveries = dispatcher.unfinished();
            host.report(Progress::Ended { deliveries });
            // The operator ended the process, and no delivery crashed it. So the stop counts as clean: the next start
            // does not suspect the deliveries that are running now.
            recording.close();
            Err(anyhow::anyhow!("a second signal ended Evoke before the running deliveries had ended"))
        }
    };
    ended?;
    Ok(closed?)
}

/// Loads the manifests and builds their components. With `--watch`, waits until the user has corrected the mistakes in
/// the manifests.
async fn prepare(options: &UpOptions, host: &dyn Host) -> Result<Vec<Checked>, AppError> {
    loop {
        // The fingerprint is taken before the manifests are read, so that a change during the load is noticed.
        let before = manifests::fingerprint(&options.manifests, &[]);
        match manifests::prepare(&options.manifests, host).await {
            Err(AppError::Manifest(errors)) if options.watch => {
                host.report(Progress::Waiting(&errors));
                watch::changed(|| manifests::fingerprint(&options.manifests, &[]), before).await;
            }
            prepared => return prepared,
        }
    }
}

/// The running application.
struct App {
    options: UpOptions,
    data: DataFolder,
    host: Arc<dyn Host>,
    control: Control,
    replays: Replays,
    logs: FunctionLogs,
    /// The valid tokens of the admin API.
    tokens: admin::Tokens,
    /// Exports spans to a collector; `None` if no collector is configured.
    otlp: Option<Otlp>,
    /// Records the running work, so that the next start after a crash can read which work was running.
    recording: Recording,
    /// The listeners, whose addresses are in `listen.json`.
    addresses: Addresses,
    /// The certificates of the listeners with TLS.
    certificates: Vec<Certificates>,
    /// When the process started.
    started: Instant,
    /// The service manager, which is notified of the start, of reloads and of the stop.
    service: ServiceManager,
}

/// The tasks of a running application, except those of its sources and functions. After a failed start, only some of
/// the tasks exist.
#[derive(Default)]
struct Tasks {
    admin: Option<Task>,
    http: Option<Task>,
    retention: Option<Task>,
    replays: Option<Task>,
    scheduler: Option<Task>,
    monitor: Option<Task>,
    readings: Option<Task>,
    grant_records: Option<Task>,
}

impl App {
    /// Serves the admin API, loads the functions, and then accepts events. Returns the components that are still being
    /// compiled. Also after an error, the caller must drain, because some of the `tasks` may have started.
    async fn start(&self, tasks: &mut Tasks, listeners: Listeners, manifests: Vec<Checked>) -> Result<Rest, AppError> {
        let Listeners { public, admin } = listeners;
        let (http_url, admin_url) = (self.addresses.http.url(), self.addresses.admin.url());
        self.host.report(Progress::Starting { admin: admin_url });
        let api = self.admin();
        tasks.admin = Some(Task::spawn(|stop| admin::serve(Arc::new(Admin { stop, ..api }), admin)));
        let (path, storage_low) = (self.data.path().to_owned(), self.options.storage_low);
        let listeners = [self.addresses.http.clone(), self.addresses.admin.clone()];
        let monitor = HealthMonitor::new(self.control.clone(), path, storage_low, listeners).await;
        let monitor = monitor.context("cannot read the last reported health from the store, evoke.db")?;
        self.recording.begin(self.options.concurrency);
        let paused = self.control.restore_paused().await;
        paused.context("cannot read the paused functions from the store, evoke.db")?;
        let records = self.control.restore_grant_records().await;
        records.context("cannot read the use of grants from the store, evoke.db")?;
        let rest = self.control.start(manifests).await?;

        let parts = self.control.parts();
        let limits = listener::Limits::default();
        let (drain, keep_alive) = (self.options.drain.min(limits.drain), self.options.keep_alive);
        let connections_max = descriptors::connections_max(limits.connections_max);
        let limits = listener::Limits { drain, keep_alive, connections_max, ..limits };
        tasks.http = Some(Task::spawn(|stop| parts.http.clone().serve(public, limits, stop)));
        self.control.set_phase(Phase::Running);
        tasks.retention = Some(Task::spawn(|stop| retention::run(parts.store.clone(), self.options.retention, stop)));
        tasks.replays = Some(Task::spawn(|stop| self.replays.clone().run(parts.dispatcher.clone(), stop)));
        let scheduler = Scheduler::new(parts.store.clone(), parts.bus.clone(), parts.clock.clone());
        // The scheduler immediately routes all events that are due. Before the functions are loaded, it would route
        // these events to no function.
        tasks.scheduler = Some(Task::spawn(|stop| scheduler.run(stop)));
        tasks.monitor = Some(Task::spawn(|stop| monitor.run(stop)));
        let (monitors, bus) = (parts.services.monitors.clone(), parts.bus.clone());
        tasks.readings = Some(Task::spawn(|stop| monitors.store_readings(bus, parts.clock.clone(), stop)));
        let (control, keep) = (self.control.clone(), self.options.retention.age);
        tasks.grant_records = Some(Task::spawn(|stop| grant_records::run(control, keep, stop)));
        let runtimes = [Handle::current(), parts.sandbox.guest_threads().clone()];
        // This task ends with the process.
        drop(tokio::spawn(idle_memory::run(runtimes, parts.sandbox.clone())));
        let is_written = self.data.write_addresses(&self.addresses)?;
        if !is_written {
            tracing::warn!(
                "the disk is full: listen.json is written when there is room; until then, other commands need \
                 `--admin {admin_url}`"
            );
        }
        self.host.report(Progress::Listening { http: http_url, admin: admin_url });
        self.service.ready();
        Ok(rest)
    }

    /// Waits for a stop signal, and reloads on request until then. Returns an error if the store fails, or if one of
    /// the components that are still being compiled cannot be loaded.
    async fn run_until_stopped(&self, rest: Rest, signals: &mut Signals) -> Result<(), AppError> {
        let loading = async {
            if !rest.is_empty() {
                self.host.report(Progress::Compiling { functions: rest.names().into_iter().collect() });
                self.control.finish_loading(rest).await?;
            }
            self.host.report(Progress::Ready);
            std::future::pending().await
        };
        let reloads = async {
            match self.options.watch {
                true => watch::run(&self.control, &*self.host).await,
                false => std::future::pending().await,
            }
        };
        let activity = async {
            if self.options.activity {
                activity::run(&self.control, &self.logs, &*self.host).await;
            }
            std::future::pending::<()>().await;
        };
        let certificates = self.certificate_reloads();
        tokio::select! {
            () = self.reload_until_stopped(signals) => Ok(()),
            failed = loading => failed,
            reason = self.control.parts().store.failure() => Err(AppError::StoreFailed(reason)),
            () = reloads => Ok(()),
            () = activity => Ok(()),
            () = certificates.watch() => Ok(()),
            () = self.data.keep_addresses(&self.addresses) => Ok(()),
            () = self.service.answer_watchdog(&*self.control.parts().store) => Ok(()),
        }
    }

    fn certificate_reloads(&self) -> Reloads<'_> {
        let Self { certificates, addresses, data, control, host, .. } = self;
        Reloads { certificates, addresses, data, clock: &control.parts().clock, host: &**host }
    }

    /// Reloads each time a signal requests a reload, until a signal requests a stop.
    async fn reload_until_stopped(&self, signals: &mut Signals) {
        while let Request::Reload = signals.next().await {
            let reload = async {
                self.service.reloading();
                self.certificate_reloads().all().await;
                watch::reload(&self.control, &*self.host, "SIGHUP was received").await;
                self.service.ready();
            };
            tokio::select! {
                () = reload => {}
                () = signals.stop() => return,
            }
        }
    }

    /// Stops everything: first the sources of events, then the attempts, then the store. Returns an error if the store
    /// does not close cleanly.
    async fn drain(self, tasks: Tasks) -> anyhow::Result<()> {
        let Tasks { admin, http, retention, replays, scheduler, monitor, readings, grant_records } = tasks;
        self.service.stopping();
        let parts = self.control.parts();
        // A process whose start failed has accepted no events, so there is no drain to report.
        if self.control.phase() == Phase::Running {
            self.host.report(Progress::Draining { limit: self.options.drain });
        }
        self.control.set_phase(Phase::Draining);
        // The health monitor stops first. Otherwise it could report functions and sources as failing because they stop.
        task::stop(monitor).await;
        task::stop(http).await;
        self.control.stop_sources().await;
        task::stop(readings).await;
        if let Some(retention) = &retention {
            retention.cancel();
        }
        task::stop(scheduler).await;
        task::stop(replays).await;
        let deliveries = parts.dispatcher.drain(self.options.drain).await;
        if deliveries > 0 {
            self.host.report(Progress::Interrupted { deliveries });
        }
        task::stop(retention).await;
        // This task stops after the last attempt, so that it also stores which grants that attempt used.
        task::stop(grant_records).await;
        let closed = parts.store.close().await;
        task::stop(admin).await;
        self.logs.flush().await;
        if let Some(otlp) = self.otlp {
            otlp.stop().await;
        }
        self.recording.close();
        closed.context("the store did not close cleanly")
    }

    /// Returns the handles that the admin API needs.
    fn admin(&self) -> Admin {
        let parts = self.control.parts();
        Admin {
            control: self.control.clone(),
            store: parts.store.clone(),
            bus: parts.bus.for_ingress(Ingress::API, &parts.metrics),
            logs: self.logs.clone(),
            replays: self.replays.clone(),
            clock: parts.clock.clone(),
            started: self.started,
            metrics: parts.metrics.clone(),
            tokens: self.tokens.clone(),
            listener: self.addresses.admin.clone(),
            public: Some(self.addresses.http.clone()),
            data: std::path::absolute(self.data.path()).unwrap_or_else(|_| self.data.path().to_owned()),
            readiness: Readiness::default(),
            console: admin::Console::default(),
            stop: CancellationToken::new(),
        }
    }
}
