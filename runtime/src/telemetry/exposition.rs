//! Every metric, with its name and what it says.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::format::{Format, older};
use super::{Answered, FunctionMetrics, Ingress, Metrics, Refusal};
use crate::outcome::Outcome;
use crate::store::{Amount, Counts, DeliveryState, Totals};

/// What is asked for when metrics are read.
#[derive(Debug, Clone, Default)]
pub struct Moment {
    /// Deliveries that are owed, with the bytes of their events.
    pub backlog: Amount,
    /// What is in the store; `None` when it does not answer.
    pub totals: Option<Totals>,
    /// The store's files on disk, in bytes; `None` when it does not answer.
    pub size_bytes: Option<u64>,
    /// What waits and runs of each function in force.
    pub queues: Vec<Queue>,
    /// The sources in force.
    pub sources: Vec<SourceHealth>,
    /// The sandbox.
    pub sandbox: Sandbox,
}

/// What waits and runs of a function.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// `app/function`.
    pub function: String,
    /// Deliveries that run.
    pub running: u32,
    /// Deliveries that wait in memory.
    pub held: u32,
}

/// How a source is doing.
#[derive(Debug, Clone)]
pub struct SourceHealth {
    /// The `source` of its events.
    pub uri: String,
    /// Whether it does not work fully.
    pub degraded: bool,
}

/// How the sandbox is doing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sandbox {
    /// Instances that there are now.
    pub instances: u64,
    /// The most that there may be.
    pub instances_max: u64,
    /// Components that were loaded as compiled before.
    pub cache_hits: u64,
    /// Components that had to be compiled.
    pub cache_misses: u64,
}

/// Everything as text.
pub fn render(metrics: Arc<Metrics>, moment: Moment, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Reading { metrics, moment }));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Prometheus => older(&text),
    })
}

/// All metrics at a moment.
#[derive(Debug)]
struct Reading {
    metrics: Arc<Metrics>,
    moment: Moment,
}

/// Labels and what they are of.
type Series<'a, M> = (Vec<(&'static str, &'a str)>, M);

/// Writes metrics one after another, each with all its series.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn write<'a, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        metric_type: MetricType,
        series: impl IntoIterator<Item = Series<'a, M>>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, unit, metric_type)?;
        for (labels, metric) in series {
            if labels.is_empty() {
                // Only one can have none.
                return metric.encode(encoder);
            }
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counter<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = Series<'a, u64>>,
    ) -> fmt::Result {
        let series = series.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value)));
        self.write(name, help, None, MetricType::Counter, series)
    }

    fn gauge<'a>(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = Series<'a, u64>>) -> fmt::Result {
        let series = series.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.write(name, help, None, MetricType::Gauge, series)
    }
}

fn one<'a, M>(value: M) -> [Series<'a, M>; 1] {
    [(Vec::new(), value)]
}

impl Collector for Reading {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer(encoder);
        let functions = super::all(&self.metrics.functions);
        self.process(&mut writer)?;
        self.events(&mut writer, &functions)?;
        self.deliveries(&mut writer, &functions)?;
        self.requests(&mut writer)?;
        self.queues(&mut writer)?;
        self.store(&mut writer)?;
        self.sandbox(&mut writer)?;
        self.spans(&mut writer)
    }
}

impl Reading {
    fn process(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let info = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        writer.write("evoke_build", "What runs", None, MetricType::Info, one(info))?;
        let started = self.metrics.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let started = ConstGauge::new(started.as_secs_f64());
        let (name, help) = ("process_start_time", "When the process started, since the Unix epoch");
        writer.write(name, help, Some(&Unit::Seconds), MetricType::Gauge, one(started))
    }

    fn events(&self, writer: &mut Writer<'_>, functions: &[Arc<FunctionMetrics>]) -> fmt::Result {
        let ingress: Vec<_> = Ingress::ALL.into_iter().map(|i| (i.name(), self.metrics.ingress(i))).collect();
        let accepted = ingress.iter().flat_map(|(name, counted)| {
            [("new", &counted.new), ("duplicate", &counted.duplicate)]
                .map(|(outcome, counter)| (vec![("source", *name), ("outcome", outcome)], counter.get()))
        });
        let help = "Events from outside that were acknowledged, by kind of source: stored, or known already";
        writer.counter("evoke_events_accepted", help, accepted)?;
        let refused = ingress.iter().flat_map(|(name, counted)| {
            Refusal::ALL
                .map(|reason| (vec![("source", *name), ("reason", reason.name())], counted.refused(reason).get()))
        });
        let help = "Events from outside that were refused before the acknowledgement, by kind of source";
        writer.counter("evoke_events_refused", help, refused)?;
        let published = functions.iter().map(|f| (vec![("function", &*f.name)], f.published.get()));
        let help = "Events that functions published, with deliveries that are done";
        writer.counter("evoke_events_published", help, published)?;
        let sources = self.moment.sources.iter();
        let degraded = sources.map(|source| (vec![("source", &*source.uri)], u64::from(source.degraded)));
        writer.gauge("evoke_source_degraded", "1 for a source that does not work fully, and tries on", degraded)
    }

    fn deliveries(&self, writer: &mut Writer<'_>, functions: &[Arc<FunctionMetrics>]) -> fmt::Result {
        let matched = self.moment.totals.iter().map(|totals| (Vec::new(), totals.owed));
        let help = "Deliveries that stored events are owed, in the store's life: one for each function that matched";
        writer.counter("evoke_deliveries_matched", help, matched)?;
        let ended = functions.iter().flat_map(|f| {
            [("done", &f.done), ("retry", &f.retried), ("dead", &f.dead)]
                .map(|(outcome, counter)| (vec![("function", &*f.name), ("outcome", outcome)], counter.get()))
        });
        let help = "What became of deliveries after an attempt: done, to be tried again, a dead letter";
        writer.counter("evoke_deliveries", help, ended)?;
        let attempts = functions.iter().flat_map(|f| {
            let kinds = Outcome::KINDS.iter().zip(&f.attempts);
            kinds.map(|(kind, counter)| (vec![("function", &*f.name), ("outcome", *kind)], counter.get()))
        });
        writer.counter("evoke_attempts", "Attempts by how they ended", attempts)?;
        let conflicts = functions.iter().map(|f| (vec![("function", &*f.name)], f.conflicts.get()));
        let help = "Runs that read state which another changed: nothing is kept of them, and the function ran again";
        writer.counter("evoke_state_conflicts", help, conflicts)?;
        let seconds = Some(&Unit::Seconds);
        let kind = MetricType::Histogram;
        let of = |histogram: fn(&FunctionMetrics) -> &super::Histogram| {
            functions.iter().map(move |f| (vec![("function", &*f.name)], Observed(histogram(f))))
        };
        let help = "How long attempts took";
        writer.write("evoke_attempt_duration", help, seconds, kind, of(|f| &f.duration))?;
        let help = "From the acceptance of an event to the start of its first attempt";
        writer.write("evoke_delivery_wait", help, seconds, kind, of(|f| &f.wait))?;
        let help = "From the acceptance of an event to the end of the attempt that did it";
        writer.write("evoke_delivery_latency", help, seconds, kind, of(|f| &f.latency))
    }

    fn requests(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let answering = super::all(&self.metrics.answering);
        let requests = answering.iter().flat_map(|f| {
            Answered::ALL.map(|of| (vec![("function", &*f.name), ("outcome", of.name())], f.requests(of).get()))
        });
        writer.counter("evoke_requests", "Requests to functions that answer them themselves", requests)?;
        let took = answering.iter().map(|f| (vec![("function", &*f.name)], Observed(&f.duration)));
        let help = "How long the answers of such functions took to begin";
        writer.write("evoke_request_duration", help, Some(&Unit::Seconds), MetricType::Histogram, took)
    }

    fn queues(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let Moment { backlog, totals, queues, .. } = &self.moment;
        writer.gauge(
            "evoke_deliveries_pending",
            "Deliveries that are owed, of all functions",
            one(backlog.deliveries),
        )?;
        let bytes = one(ConstGauge::new(backlog.bytes));
        let (name, help) = ("evoke_deliveries_pending_size", "The events of deliveries that are owed");
        writer.write(name, help, Some(&Unit::Bytes), MetricType::Gauge, bytes)?;
        let stored = |state: DeliveryState| {
            let functions = totals.iter().flat_map(|totals| &totals.functions);
            functions.map(move |(name, counts): (&String, &Counts)| (vec![("function", &**name)], counts.get(state)))
        };
        let ready = stored(DeliveryState::Ready);
        writer.gauge("evoke_deliveries_ready", "Deliveries that could run now or do, in the store", ready)?;
        let retrying = stored(DeliveryState::Retrying);
        writer.gauge("evoke_deliveries_retrying", "Deliveries that wait for another attempt", retrying)?;
        let blocked = stored(DeliveryState::Blocked);
        let help = "Deliveries that wait for an earlier one of their order key";
        writer.gauge("evoke_deliveries_blocked", help, blocked)?;
        let dead = stored(DeliveryState::Dead);
        writer.gauge("evoke_dead_letters", "Deliveries that were given up and wait for a person", dead)?;
        let held = queues.iter().map(|queue| (vec![("function", &*queue.function)], u64::from(queue.held)));
        writer.gauge("evoke_deliveries_held", "Deliveries that wait in memory", held)?;
        let running = queues.iter().map(|queue| (vec![("function", &*queue.function)], u64::from(queue.running)));
        writer.gauge("evoke_deliveries_running", "Deliveries that run", running)
    }

    fn store(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let (commits, totals) = (&self.metrics.commits, self.moment.totals.iter());
        let stored = totals.map(|totals| (Vec::new(), totals.events));
        let help = "Events that were stored in the store's life, published ones included";
        writer.counter("evoke_events_stored", help, stored)?;
        let kind = MetricType::Histogram;
        writer.write("evoke_commit_writes", "Writes in a commit", None, kind, one(Observed(&commits.writes)))?;
        let help = "How long commits took, their fsync included";
        let (seconds, duration) = (Some(&Unit::Seconds), one(Observed(&commits.duration)));
        writer.write("evoke_commit_duration", help, seconds, kind, duration)?;
        let size = self.moment.size_bytes.iter().map(|bytes| (Vec::new(), ConstGauge::new(*bytes)));
        writer.write("evoke_store_size", "The store's files on disk", Some(&Unit::Bytes), MetricType::Gauge, size)
    }

    fn sandbox(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let Sandbox { instances, instances_max, cache_hits, cache_misses } = self.moment.sandbox;
        writer.gauge("evoke_sandbox_instances", "Instances that are in use", one(instances))?;
        writer.gauge("evoke_sandbox_instances_max", "Instances that there may be at once", one(instances_max))?;
        let loads = [("hit", cache_hits), ("miss", cache_misses)].map(|(result, n)| (vec![("result", result)], n));
        let help = "Components that were loaded: compiled before, or compiled for it";
        writer.counter("evoke_compiled_cache_loads", help, loads)
    }

    fn spans(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let spans = &self.metrics.spans;
        let ended = [("exported", &spans.exported), ("failed", &spans.failed), ("dropped", &spans.dropped)]
            .map(|(outcome, counter)| (vec![("outcome", outcome)], counter.get()));
        let help = "Spans that ended: the collector has them, did not take them, or the queue to it was full";
        writer.counter("evoke_trace_spans", help, ended)
    }
}

/// A histogram that belongs to somebody else.
struct Observed<'a>(&'a super::Histogram);

impl EncodeMetric for Observed<'_> {
    fn encode(&self, encoder: prometheus_client::encoding::MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.0.metric_type()
    }
}
