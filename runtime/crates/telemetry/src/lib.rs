//! Metrics and spans. Plain data: other modules count into it and read it as text; no I/O here.
//!
//! [`Metrics`] is created once. Each function and source gets its handle when it is created or loaded, so that an event
//! costs a few atomic additions and no lookup. Values that exist elsewhere (queues, sizes) are not counted but read at
//! each scrape: [`ScrapeValues`]. Label values are functions and sources, never data from an event.

mod context;
mod exposition;
mod format;
mod histogram;
mod requests;
mod spans;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

pub use context::Traceparent;
pub use exposition::{Queue, Sandbox, ScrapeValues, SourceHealth, render};
pub use format::Format;
pub use histogram::{Distribution, Histogram};
pub use requests::{RequestMetrics, RequestOutcome};
pub use spans::{AttemptStart, LiveSpan, Spans};

use evoke_model::Verdict;
use evoke_model::outcome::Outcome;

/// A counter that only increases.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds 1.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `count`; wraps around on overflow.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns the current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The way through which events enter: a kind of source, or the admin API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingress {
    name: &'static str,
    /// Whether a client waits for the acknowledgement of its events.
    is_request: bool,
}

impl Ingress {
    /// The admin API.
    pub const API: Self = Self::requests("api");

    /// A kind of source whose events are requests of clients, such as `http`.
    pub const fn requests(name: &'static str) -> Self {
        Self { name, is_request: true }
    }

    /// A kind of source that watches something and makes the events itself, such as `files`.
    pub const fn observations(name: &'static str) -> Self {
        Self { name, is_request: false }
    }

    /// The label value in metrics and spans.
    pub fn name(self) -> &'static str {
        self.name
    }
}

/// Why events were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request contains no valid events, or has a format that the source does not accept.
    Invalid,
    /// The events are larger than accepted.
    TooLarge,
    /// Too much is pending or in flight.
    Overloaded,
    /// The source already has its whole share of the backlog.
    Crowding,
    /// The disk is full.
    DiskFull,
    /// The store failed or is closed.
    StoreFailed,
}

impl Refusal {
    const ALL: [Self; 6] =
        [Self::Invalid, Self::TooLarge, Self::Overloaded, Self::Crowding, Self::DiskFull, Self::StoreFailed];

    /// The label value in metrics and spans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooLarge => "too-large",
            Self::Overloaded => "overloaded",
            Self::Crowding => "crowding",
            Self::DiskFull => "disk-full",
            Self::StoreFailed => "store-failed",
        }
    }
}

/// Counters of one kind of source.
#[derive(Debug, Default)]
pub struct IngressMetrics {
    /// Events that were stored as new.
    pub new: Counter,
    /// Events that were already stored.
    pub duplicate: Counter,
    refused: [Counter; Refusal::ALL.len()],
}

impl IngressMetrics {
    /// Events that were refused for this reason.
    pub fn refused(&self, reason: Refusal) -> &Counter {
        // The index is the variant's position in `ALL`, which has the order of the declaration.
        &self.refused[reason as usize]
    }
}

/// The metrics of one function.
#[derive(Debug)]
pub struct FunctionMetrics {
    /// `app/function`.
    pub name: Arc<str>,
    /// Ended attempts, by [`Outcome::KINDS`].
    attempts: [Counter; Outcome::KINDS.len()],
    /// Deliveries that ended as done.
    pub done: Counter,
    /// Attempts after which the delivery is to be retried.
    pub retried: Counter,
    /// Deliveries that became dead letters.
    pub dead: Counter,
    /// Runs that read state which another attempt changed, and that were repeated.
    pub conflicts: Counter,
    /// Events that the function published in attempts that ended as done.
    pub published: Counter,
    /// Durations of attempts.
    pub duration: Histogram,
    /// Time from an event's acceptance to the start of the first attempt, with millisecond precision.
    pub wait: Histogram,
    /// Time from an event's acceptance to the end of the attempt that completed the delivery, with
    /// millisecond precision.
    pub latency: Histogram,
}

impl FunctionMetrics {
    /// Creates the metrics of a function, all zero.
    pub fn new(name: Arc<str>) -> Self {
        Self {
            name,
            attempts: Default::default(),
            done: Counter::default(),
            retried: Counter::default(),
            dead: Counter::default(),
            conflicts: Counter::default(),
            published: Counter::default(),
            duration: Histogram::for_durations(),
            wait: Histogram::for_waits(),
            latency: Histogram::for_waits(),
        }
    }

    /// Counts an ended attempt.
    pub fn attempt_ended(&self, end: &AttemptEnd<'_>) {
        let kind = Outcome::KINDS.iter().position(|kind| *kind == end.outcome);
        let counter = kind.and_then(|at| self.attempts.get(at));
        if let Some(counter) = counter {
            counter.increment();
        }
        self.duration.observe(end.took);
        if let Some(waited) = end.waited {
            self.wait.observe(waited);
        }
        match end.verdict {
            Verdict::Done => {
                self.done.increment();
                self.latency.observe(end.since_accepted);
                if end.published > 0 {
                    self.published.add(end.published as u64);
                }
            }
            Verdict::RetryAt(_) => self.retried.increment(),
            Verdict::Dead(_) => self.dead.increment(),
        }
    }
}

/// An ended attempt, as counted by [`FunctionMetrics`].
#[derive(Debug, Clone, Copy)]
pub struct AttemptEnd<'a> {
    /// [`Outcome::kind`].
    pub outcome: &'a str,
    /// The decision that follows from the outcome.
    pub verdict: &'a Verdict,
    /// The duration of the attempt.
    pub took: Duration,
    /// Time from the event's acceptance to the attempt's start; only for the first attempt.
    pub waited: Option<Duration>,
    /// Time from the event's acceptance to the attempt's end.
    pub since_accepted: Duration,
    /// The number of events that the attempt published.
    pub published: usize,
}

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

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    started: SystemTime,
    /// In the order of the first use.
    ingress: Mutex<Vec<(Ingress, Arc<IngressMetrics>)>>,
    functions: ByName<FunctionMetrics>,
    requests: ByName<RequestMetrics>,
    /// The commits of the store.
    pub commits: Arc<CommitMetrics>,
    /// The ended spans.
    pub spans: Arc<SpanMetrics>,
}

impl Metrics {
    /// Creates metrics that are all zero; the process counts as started now.
    pub fn new() -> Self {
        Self {
            started: SystemTime::now(),
            ingress: Mutex::default(),
            functions: Mutex::default(),
            requests: Mutex::default(),
            commits: Arc::default(),
            spans: Arc::default(),
        }
    }

    /// Returns the counters of a kind of source. `/metrics` shows it from the first call on.
    pub fn ingress(&self, ingress: Ingress) -> Arc<IngressMetrics> {
        let mut all = self.ingress.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, metrics)) = all.iter().find(|(known, _)| *known == ingress) {
            return metrics.clone();
        }
        let metrics = Arc::<IngressMetrics>::default();
        all.push((ingress, metrics.clone()));
        metrics
    }

    /// Returns the metrics of a function, by full name. They survive reloads of the function.
    pub fn function(&self, name: &str) -> Arc<FunctionMetrics> {
        get_or_create(&self.functions, name, FunctionMetrics::new)
    }

    /// Returns the metrics of a function that handles HTTP requests, by full name. They survive reloads of the
    /// function.
    pub fn request_metrics(&self, name: &str) -> Arc<RequestMetrics> {
        get_or_create(&self.requests, name, RequestMetrics::new)
    }
}

/// Metrics by the full name of their function.
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
