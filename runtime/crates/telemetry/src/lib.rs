//! Metrics and spans of the process: atomic counters and histograms, the text that `/metrics` returns, and the spans of
//! an event's path. This crate does no I/O: other crates increment its counters, serve its text, and send its spans to
//! a collector.
//!
//! [`Metrics`] is created once. When a function or a source is loaded, its handle to the counters is looked up once.
//! After that, counting an event takes a few atomic additions and no lookup. Values that exist elsewhere, such as queue
//! lengths and sizes, are read at each scrape: [`ScrapeValues`]. Label values never come from the data of an event,
//! because each new value adds a series.
//!
//! Of the other crates of Evoke, this crate depends only on `evoke-model`, and not on the code that counts, serves the
//! metrics, or exports the spans.
//!
//! ```
//! use std::sync::Arc;
//!
//! use evoke_telemetry::{Format, Ingress, Metrics, ScrapeValues, render};
//!
//! let metrics = Arc::new(Metrics::new());
//! metrics.ingress(Ingress::requests("http")).new.increment();
//! let text = render(metrics, ScrapeValues::default(), Format::OpenMetrics)?;
//! assert!(text.contains(r#"evoke_events_accepted_total{source="http",outcome="new"} 1"#));
//! # Ok::<(), std::fmt::Error>(())
//! ```

mod auth;
mod connections;
mod context;
mod counter;
mod exposition;
mod format;
mod functions;
mod histogram;
mod ingress;
mod monitors;
mod outbound;
mod recent;
mod requests;
mod spans;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

pub use auth::{AuthMetrics, AuthRefusal};
pub use connections::{ConnectionMetrics, ConnectionRefusal, ListenerMetrics};
pub use context::Traceparent;
pub use counter::Counter;
pub use exposition::{ListenerHealth, Queue, Sandbox, ScrapeValues, SourceHealth, render};
pub use format::Format;
pub use functions::{AttemptEnd, FunctionMetrics};
pub use histogram::{Distribution, Histogram};
pub use ingress::{Ingress, IngressMetrics, Refusal};
pub use monitors::{MonitorHealth, MonitorMetrics};
pub use outbound::{OutboundMetrics, OutboundOutcome};
pub use recent::Rates;
pub use requests::{RequestMetrics, RequestOutcome};
pub use spans::{AttemptStart, LiveSpan, OutboundStart, Spans, TraceContext};

/// Metrics of the store's commits.
#[derive(Debug)]
pub struct CommitMetrics {
    /// The number of writes in each commit.
    pub writes: Histogram,
    /// The duration of each commit, including its fsync.
    pub duration: Histogram,
}

impl Default for CommitMetrics {
    fn default() -> Self {
        Self { writes: Histogram::for_counts(), duration: Histogram::for_durations() }
    }
}

/// Counters of ended spans.
#[derive(Debug, Default)]
pub struct SpanMetrics {
    /// Spans that the collector accepted.
    pub exported: Counter,
    /// Spans that the collector did not accept.
    pub failed: Counter,
    /// Spans that did not fit into the queue to the collector.
    pub dropped: Counter,
}

type ByFunctionAndHost = BTreeMap<(Arc<str>, Arc<str>), Arc<OutboundMetrics>>;

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    started: SystemTime,
    /// The counters of each kind of source, in the order of their first use.
    ingress: Mutex<Vec<(Ingress, Arc<IngressMetrics>)>>,
    functions: ByName<FunctionMetrics>,
    recent: recent::Recent,
    requests: ByName<RequestMetrics>,
    /// By function and granted host.
    outbound: Mutex<ByFunctionAndHost>,
    auth: ByName<AuthMetrics>,
    /// The commits of the store.
    pub commits: Arc<CommitMetrics>,
    /// The readings of all monitors.
    pub monitors: Arc<MonitorMetrics>,
    /// The ended spans.
    pub spans: Arc<SpanMetrics>,
    /// The connections of the listeners.
    pub listeners: ListenerMetrics,
}

impl Metrics {
    /// Creates metrics that are all zero. The start time of the process is the time of this call.
    pub fn new() -> Self {
        Self {
            started: SystemTime::now(),
            ingress: Mutex::default(),
            functions: Mutex::default(),
            recent: recent::Recent::new(),
            requests: Mutex::default(),
            outbound: Mutex::default(),
            auth: Mutex::default(),
            commits: Arc::default(),
            monitors: Arc::default(),
            spans: Arc::default(),
            listeners: ListenerMetrics::default(),
        }
    }

    /// Returns the counters of a kind of source. `/metrics` shows these counters from the first call on.
    pub fn ingress(&self, ingress: Ingress) -> Arc<IngressMetrics> {
        let mut all = self.ingress.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, metrics)) = all.iter().find(|(known, _)| *known == ingress) {
            return metrics.clone();
        }
        let metrics = Arc::<IngressMetrics>::default();
        all.push((ingress, metrics.clone()));
        metrics
    }

    /// Returns the metrics of a function, by full name. The metrics are kept when the function is reloaded.
    pub fn function(&self, name: &str) -> Arc<FunctionMetrics> {
        get_or_create(&self.functions, name, FunctionMetrics::new)
    }

    /// Returns the metrics of all functions that run deliveries, sorted by name.
    pub fn functions(&self) -> Vec<Arc<FunctionMetrics>> {
        all(&self.functions)
    }

    /// Returns the metrics of a function that handles HTTP requests, by full name. The metrics are kept when the
    /// function is reloaded.
    pub fn request_metrics(&self, name: &str) -> Arc<RequestMetrics> {
        get_or_create(&self.requests, name, RequestMetrics::new)
    }

    /// Returns the metrics of the requests that a function sends to a host. `function` is the full name. `host` must
    /// come from the manifest, because each new host adds a series. The metrics are kept when the function is
    /// reloaded.
    pub fn outbound(&self, function: &str, host: &str) -> Arc<OutboundMetrics> {
        let mut outbound = self.outbound.lock().unwrap_or_else(PoisonError::into_inner);
        let (function, host): (Arc<str>, Arc<str>) = (function.into(), host.into());
        let new = || Arc::new(OutboundMetrics::new(function.clone(), host.clone()));
        outbound.entry((function.clone(), host.clone())).or_insert_with(new).clone()
    }

    /// Returns the metrics of an http source that verifies the senders of requests. `source` is the URI of the source.
    /// The metrics are kept when the source is reloaded.
    pub fn auth(&self, source: &str) -> Arc<AuthMetrics> {
        get_or_create(&self.auth, source, AuthMetrics::new)
    }
}

/// Metrics by the full name of their function, or by the URI of their source.
type ByName<T> = Mutex<BTreeMap<Arc<str>, Arc<T>>>;

fn get_or_create<T>(by_name: &ByName<T>, name: &str, new: impl FnOnce(Arc<str>) -> T) -> Arc<T> {
    let mut by_name = by_name.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(one) = by_name.get(name) {
        return one.clone();
    }
    let name: Arc<str> = name.into();
    let new = Arc::new(new(name.clone()));
    by_name.insert(name, new.clone());
    new
}

fn all<T>(by_name: &ByName<T>) -> Vec<Arc<T>> {
    by_name.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
