//! What is measured and what is traced. Plain data: others count into it, and ask for it as text; no I/O here.
//!
//! [`Metrics`] is made once. Whoever counts is given its part of it when it is made or loaded, so that an event costs
//! a few atomic additions and no look-up. What can be asked for when metrics are read (queues, sizes) is not counted
//! but asked for then: [`Moment`]. Labels are functions and sources, never anything that an event brings.

mod answers;
mod context;
mod exposition;
mod format;
mod histogram;
mod spans;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

pub use answers::{AnswerMetrics, Answered};
pub use context::Traceparent;
pub use exposition::{Moment, Queue, Sandbox, SourceHealth, render};
pub use format::Format;
pub use histogram::{Distribution, Histogram};
pub use spans::{Attempting, Live, Spans};

use crate::outcome::Outcome;
use crate::store::Verdict;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Through which kind of source an event comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ingress {
    /// An http source.
    Http,
    /// A files source.
    Files,
    /// A timer.
    Timer,
    /// By hand, through the admin API.
    Api,
}

impl Ingress {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Http, Self::Files, Self::Timer, Self::Api];

    /// The word for it, as a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Files => "files",
            Self::Timer => "timer",
            Self::Api => "api",
        }
    }
}

/// Why events were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// They are no events, or not in a form that the source takes.
    Invalid,
    /// They are larger than is taken.
    TooLarge,
    /// Too much is pending or under way.
    Overloaded,
    /// Their source owns as much of what is pending as is free.
    Crowding,
    /// The disk is full.
    DiskFull,
    /// The store failed or is closed.
    StoreFailed,
}

impl Refusal {
    const ALL: [Self; 6] =
        [Self::Invalid, Self::TooLarge, Self::Overloaded, Self::Crowding, Self::DiskFull, Self::StoreFailed];

    /// The word for it, as a label.
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

/// What came in through one kind of source.
#[derive(Debug, Default)]
pub struct IngressMetrics {
    /// Events that were stored.
    pub new: Counter,
    /// Events that were known.
    pub duplicate: Counter,
    refused: [Counter; Refusal::ALL.len()],
}

impl IngressMetrics {
    /// Events that were not taken, for this reason.
    pub fn refused(&self, reason: Refusal) -> &Counter {
        // In the order of `ALL`, which is that of the declaration.
        &self.refused[reason as usize]
    }
}

/// How one function is doing.
#[derive(Debug)]
pub struct FunctionMetrics {
    /// `app/function`.
    pub name: Arc<str>,
    /// Attempts that ended, by [`Outcome::KINDS`].
    attempts: [Counter; Outcome::KINDS.len()],
    /// Deliveries that are done.
    pub done: Counter,
    /// Times that a delivery was to be tried again.
    pub retried: Counter,
    /// Deliveries that became dead letters.
    pub dead: Counter,
    /// Runs that read state which another changed, and that were made again.
    pub conflicts: Counter,
    /// Events that it published with what is done.
    pub published: Counter,
    /// How long attempts took.
    pub duration: Histogram,
    /// From an event's acceptance to the start of the first attempt, to the millisecond.
    pub wait: Histogram,
    /// From an event's acceptance to the end of the attempt that did it, to the millisecond.
    pub latency: Histogram,
}

impl FunctionMetrics {
    /// Of a function that did nothing yet.
    pub fn new(name: Arc<str>) -> Self {
        Self {
            name,
            attempts: Default::default(),
            done: Counter::default(),
            retried: Counter::default(),
            dead: Counter::default(),
            conflicts: Counter::default(),
            published: Counter::default(),
            duration: Histogram::of_durations(),
            wait: Histogram::of_waits(),
            latency: Histogram::of_waits(),
        }
    }

    /// Counts an attempt that ended.
    pub fn attempted(&self, attempted: &Attempted<'_>) {
        let kind = Outcome::KINDS.iter().position(|known| *known == attempted.outcome);
        let counter = kind.and_then(|at| self.attempts.get(at));
        if let Some(counter) = counter {
            counter.increment();
        }
        self.duration.observe(attempted.took);
        if let Some(waited) = attempted.waited {
            self.wait.observe(waited);
        }
        match attempted.verdict {
            Verdict::Done => {
                self.done.increment();
                self.latency.observe(attempted.since_accepted);
                if attempted.published > 0 {
                    self.published.add(attempted.published as u64);
                }
            }
            Verdict::RetryAt(_) => self.retried.increment(),
            Verdict::Dead(_) => self.dead.increment(),
        }
    }
}

/// An attempt that ended, as it is counted.
#[derive(Debug, Clone, Copy)]
pub struct Attempted<'a> {
    /// [`Outcome::kind`].
    pub outcome: &'a str,
    /// What follows.
    pub verdict: &'a Verdict,
    /// How long it took.
    pub took: Duration,
    /// From the event's acceptance to its start; of the first attempt only.
    pub waited: Option<Duration>,
    /// From the event's acceptance to its end.
    pub since_accepted: Duration,
    /// Events that it published.
    pub published: usize,
}

/// How the store commits.
#[derive(Debug)]
pub struct CommitMetrics {
    /// Writes in each commit.
    pub writes: Histogram,
    /// How long each took, its fsync included.
    pub duration: Histogram,
}

impl Default for CommitMetrics {
    fn default() -> Self {
        Self { writes: Histogram::of_counts(), duration: Histogram::of_durations() }
    }
}

/// What became of the spans that ended.
#[derive(Debug, Default)]
pub struct SpanMetrics {
    /// The collector has them.
    pub exported: Counter,
    /// The collector did not take them.
    pub failed: Counter,
    /// The queue to the collector was full.
    pub dropped: Counter,
}

/// All that is counted.
#[derive(Debug)]
pub struct Metrics {
    started: SystemTime,
    ingress: [Arc<IngressMetrics>; Ingress::ALL.len()],
    functions: ByName<FunctionMetrics>,
    answering: ByName<AnswerMetrics>,
    /// How the store commits.
    pub commits: Arc<CommitMetrics>,
    /// What became of the spans that ended.
    pub spans: Arc<SpanMetrics>,
}

impl Metrics {
    /// Nothing counted yet, in a process that starts now.
    pub fn new() -> Self {
        Self {
            started: SystemTime::now(),
            ingress: Default::default(),
            functions: Mutex::default(),
            answering: Mutex::default(),
            commits: Arc::default(),
            spans: Arc::default(),
        }
    }

    /// What comes in through a kind of source.
    pub fn ingress(&self, ingress: Ingress) -> Arc<IngressMetrics> {
        self.ingress[ingress as usize].clone()
    }

    /// How a function is doing, by full name. What was counted outlives its reloads.
    pub fn function(&self, name: &str) -> Arc<FunctionMetrics> {
        of_name(&self.functions, name, FunctionMetrics::new)
    }

    /// How a function that answers requests is doing, likewise.
    pub fn answering(&self, name: &str) -> Arc<AnswerMetrics> {
        of_name(&self.answering, name, AnswerMetrics::new)
    }
}

/// By name, what is counted of something.
type ByName<T> = Mutex<BTreeMap<Arc<str>, Arc<T>>>;

fn of_name<T>(known: &ByName<T>, name: &str, new: impl FnOnce(Arc<str>) -> T) -> Arc<T> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(one) = known.get(name) {
        return one.clone();
    }
    let name: Arc<str> = name.into();
    let new = Arc::new(new(name.clone()));
    known.insert(name, new.clone());
    new
}

fn all<T>(known: &ByName<T>) -> Vec<Arc<T>> {
    known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
