//! Encodes every metric, with its name and help text.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::format::{Format, to_prometheus};
use super::{
    AuthRefusal, ConnectionRefusal, FunctionMetrics, Metrics, MonitorHealth, OutboundOutcome, Refusal, RequestOutcome,
};
use evoke_model::outcome::Outcome;
use evoke_model::{Amount, Counts, DeliveryState, Totals};

/// The values that [`Metrics`] does not count. The caller reads them at each scrape.
#[derive(Debug, Clone, Default)]
pub struct ScrapeValues {
    /// The number of pending deliveries, and the size of their events in bytes.
    pub backlog: Amount,
    /// The numbers of events and deliveries in the store; `None` if the store cannot be read.
    pub totals: Option<Totals>,
    /// The size of the store's files, in bytes; `None` if it cannot be read.
    pub size_bytes: Option<u64>,
    /// The queue of each active function.
    pub queues: Vec<Queue>,
    /// The active sources.
    pub sources: Vec<SourceHealth>,
    /// The things that monitors watch.
    pub monitors: Vec<MonitorHealth>,
    /// The listeners, with the validity of their certificates.
    pub listeners: Vec<ListenerHealth>,
    /// The use of the sandbox.
    pub sandbox: Sandbox,
    /// The number of requests that wait for the result of their event. Only sources with `reply` have such requests.
    pub waiting_replies: u64,
}

/// The in-memory queue of a function.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// The full name, `app/function`.
    pub function: String,
    /// Deliveries that are running.
    pub running: u32,
    /// Deliveries that wait in memory until they may run.
    pub held: u32,
    /// True if the circuit of the function is open: its endpoint keeps failing, and deliveries wait. `None` for a
    /// function without an endpoint.
    pub is_circuit_open: Option<bool>,
}

/// The health of a source.
#[derive(Debug, Clone)]
pub struct SourceHealth {
    /// The URI of the source, which is the `source` attribute of its events.
    pub uri: String,
    /// True if the source has a problem and keeps trying.
    pub degraded: bool,
}

/// The health of a listener.
#[derive(Debug, Clone)]
pub struct ListenerHealth {
    /// `public` or `admin`.
    pub name: &'static str,
    /// True if a certificate of the listener has expired or could not be replaced.
    pub degraded: bool,
    /// The earliest time at which a certificate of the listener expires, in seconds since the Unix epoch; `None`
    /// without TLS.
    pub expires_s: Option<u64>,
}

/// The use of the sandbox.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sandbox {
    /// Instances in use now.
    pub instances: u64,
    /// The maximum number of concurrent instances that run deliveries. HTTP requests and short attempts can use further
    /// instances.
    pub instances_max: u64,
    /// Components loaded from the cache of compiled components.
    pub cache_hits: u64,
    /// Components that were compiled.
    pub cache_misses: u64,
}

/// Encodes all metrics as text.
pub fn render(metrics: Arc<Metrics>, values: ScrapeValues, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition { metrics, values }));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Prometheus => to_prometheus(&text),
    })
}

/// All metrics at one scrape, as a collector for the metrics library.
#[derive(Debug)]
struct Exposition {
    metrics: Arc<Metrics>,
    values: ScrapeValues,
}

/// The labels and the value of one series.
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
                // A metric without labels has exactly one series.
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

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer(encoder);
        let functions = super::all(&self.metrics.functions);
        self.process(&mut writer)?;
        self.events(&mut writer, &functions)?;
        self.deliveries(&mut writer, &functions)?;
        self.requests(&mut writer)?;
        self.outbound(&mut writer)?;
        self.monitors(&mut writer)?;
        self.listeners(&mut writer)?;
        self.queues(&mut writer)?;
        self.store(&mut writer)?;
        self.sandbox(&mut writer)?;
        self.spans(&mut writer)
    }
}

impl Exposition {
    fn process(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let info = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        writer.write("evoke_build", "The running version of Evoke", None, MetricType::Info, one(info))?;
        let started = self.metrics.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let started = ConstGauge::new(started.as_secs_f64());
        let (name, help) = ("process_start_time", "Start time of the process, in seconds since the Unix epoch");
        writer.write(name, help, Some(&Unit::Seconds), MetricType::Gauge, one(started))
    }

    fn events(&self, writer: &mut Writer<'_>, functions: &[Arc<FunctionMetrics>]) -> fmt::Result {
        let ingress = self.metrics.ingress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let accepted = ingress.iter().flat_map(|(ingress, counted)| {
            [("new", &counted.new), ("duplicate", &counted.duplicate)]
                .map(|(outcome, counter)| (vec![("source", ingress.name()), ("outcome", outcome)], counter.get()))
        });
        let help = "External events that were accepted, by kind of source and outcome: stored as new, or duplicates";
        writer.counter("evoke_events_accepted", help, accepted)?;
        let refused = ingress.iter().flat_map(|(ingress, counted)| {
            Refusal::ALL.map(|reason| {
                (vec![("source", ingress.name()), ("reason", reason.name())], counted.refused(reason).get())
            })
        });
        let help = "External events that were refused, by kind of source and reason";
        writer.counter("evoke_events_refused", help, refused)?;
        let sources = super::all(&self.metrics.auth);
        let unverified = sources.iter().flat_map(|source| {
            AuthRefusal::ALL.map(|reason| {
                (vec![("source", &*source.source), ("reason", reason.name())], source.refused(reason).get())
            })
        });
        let help = "Requests that got 401 because their sender was not verified, by source and reason";
        writer.counter("evoke_requests_unverified", help, unverified)?;
        let published = functions.iter().map(|f| (vec![("function", &*f.name)], f.published.get()));
        let help = "Events that functions published, counted when the delivery that published them is done";
        writer.counter("evoke_events_published", help, published)?;
        let sources = self.values.sources.iter();
        let degraded = sources.map(|source| (vec![("source", &*source.uri)], u64::from(source.degraded)));
        let help = "1 for a source that has a problem and keeps trying, otherwise 0";
        writer.gauge("evoke_source_degraded", help, degraded)
    }

    fn deliveries(&self, writer: &mut Writer<'_>, functions: &[Arc<FunctionMetrics>]) -> fmt::Result {
        let matched = self.values.totals.iter().map(|totals| (Vec::new(), totals.owed));
        let help = "Deliveries since the store was created; each event has one for each function that it matched";
        writer.counter("evoke_deliveries_matched", help, matched)?;
        let ended = functions.iter().flat_map(|f| {
            [("done", &f.done), ("retry", &f.retried), ("dead", &f.dead)]
                .map(|(outcome, counter)| (vec![("function", &*f.name), ("outcome", outcome)], counter.get()))
        });
        let help = "Ended attempts, by the result for the delivery: done, retried later, or dead letter";
        writer.counter("evoke_deliveries", help, ended)?;
        let attempts = functions.iter().flat_map(|f| {
            let kinds = Outcome::KINDS.iter().zip(&f.attempts);
            kinds.map(|(kind, counter)| (vec![("function", &*f.name), ("outcome", *kind)], counter.get()))
        });
        writer.counter("evoke_attempts", "Ended attempts, by outcome", attempts)?;
        let conflicts = functions.iter().map(|f| (vec![("function", &*f.name)], f.conflicts.get()));
        let help = "Runs of functions that were repeated, because they had read state that another attempt changed";
        writer.counter("evoke_state_conflicts", help, conflicts)?;
        let seconds = Some(&Unit::Seconds);
        let kind = MetricType::Histogram;
        let of = |histogram: fn(&FunctionMetrics) -> &super::Histogram| {
            functions.iter().map(move |f| (vec![("function", &*f.name)], Borrowed(histogram(f))))
        };
        let help = "Duration of attempts";
        writer.write("evoke_attempt_duration", help, seconds, kind, of(|f| &f.duration))?;
        let help = "Time from the acceptance of an event to the start of the first attempt of a delivery";
        writer.write("evoke_delivery_wait", help, seconds, kind, of(|f| &f.wait))?;
        let help = "Time from the acceptance of an event to the end of the attempt that completed its delivery";
        writer.write("evoke_delivery_latency", help, seconds, kind, of(|f| &f.latency))
    }

    fn requests(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let handlers = super::all(&self.metrics.requests);
        let requests = handlers.iter().flat_map(|f| {
            RequestOutcome::ALL.map(|of| (vec![("function", &*f.name), ("outcome", of.name())], f.requests(of).get()))
        });
        writer.counter("evoke_requests", "Requests to functions that handle HTTP requests, by outcome", requests)?;
        let durations = handlers.iter().map(|f| (vec![("function", &*f.name)], Borrowed(&f.duration)));
        let help = "Time from the arrival of an HTTP request at its function to the start of the function's response";
        writer.write("evoke_request_duration", help, Some(&Unit::Seconds), MetricType::Histogram, durations)
    }

    fn outbound(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let outbound = self.metrics.outbound.lock().unwrap_or_else(PoisonError::into_inner);
        let hosts: Vec<_> = outbound.values().cloned().collect();
        drop(outbound);
        let requests = hosts.iter().flat_map(|to| {
            OutboundOutcome::ALL.map(|of| {
                let labels = vec![("function", &*to.function), ("host", &*to.host), ("outcome", of.name())];
                (labels, to.requests(of).get())
            })
        });
        let help = "Requests that functions and monitors sent, by host and outcome: status class, or no response";
        writer.counter("evoke_outbound_requests", help, requests)?;
        let durations =
            hosts.iter().map(|to| (vec![("function", &*to.function), ("host", &*to.host)], Borrowed(&to.duration)));
        let help = "Time from the start of a request of a function or monitor to the start of the response";
        writer.write("evoke_outbound_duration", help, Some(&Unit::Seconds), MetricType::Histogram, durations)
    }

    fn listeners(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let counted = [("public", &self.metrics.listeners.public), ("admin", &self.metrics.listeners.admin)];
        let refused = counted.iter().flat_map(|(listener, counted)| {
            ConnectionRefusal::ALL
                .map(|reason| (vec![("listener", *listener), ("reason", reason.name())], counted.refused(reason).get()))
        });
        let help = "Connections that were refused before their first request could be handled, by listener and reason";
        writer.counter("evoke_connections_refused", help, refused)?;
        let listeners = self.values.listeners.iter();
        let degraded = listeners.clone().map(|one| (vec![("listener", one.name)], u64::from(one.degraded)));
        let help = "1 for a listener whose certificate has expired or could not be replaced, otherwise 0";
        writer.gauge("evoke_listener_degraded", help, degraded)?;
        let expiry = listeners.filter_map(|one| Some((vec![("listener", one.name)], ConstGauge::new(one.expires_s?))));
        let name = "evoke_certificate_expiry";
        let help = "Earliest time at which a certificate of the listener expires, in seconds since the Unix epoch";
        writer.write(name, help, Some(&Unit::Seconds), MetricType::Gauge, expiry)
    }

    fn queues(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let ScrapeValues { backlog, totals, queues, waiting_replies, .. } = &self.values;
        let help = "Requests to sources with `reply` that wait for the result of their event";
        writer.gauge("evoke_replies_waiting", help, one(*waiting_replies))?;
        writer.gauge("evoke_deliveries_pending", "Pending deliveries of all functions", one(backlog.deliveries))?;
        let bytes = one(ConstGauge::new(backlog.bytes));
        let (name, help) = ("evoke_deliveries_pending_size", "Size of the events of pending deliveries");
        writer.write(name, help, Some(&Unit::Bytes), MetricType::Gauge, bytes)?;
        let scheduled = totals.iter().map(|totals| (Vec::new(), totals.scheduled));
        writer.gauge(
            "evoke_events_scheduled",
            "Events that wait for the time in their attribute `notbefore`",
            scheduled,
        )?;
        let stored = |state: DeliveryState| {
            let functions = totals.iter().flat_map(|totals| &totals.functions);
            functions.map(move |(name, counts): (&String, &Counts)| (vec![("function", &**name)], counts.get(state)))
        };
        let ready = stored(DeliveryState::Ready);
        writer.gauge("evoke_deliveries_ready", "Deliveries in the store that are ready to run or running", ready)?;
        let retrying = stored(DeliveryState::Retrying);
        writer.gauge(
            "evoke_deliveries_retrying",
            "Deliveries that failed and wait for their next attempt",
            retrying,
        )?;
        let blocked = stored(DeliveryState::Blocked);
        let help = "Deliveries that wait for an earlier delivery with the same order key";
        writer.gauge("evoke_deliveries_blocked", help, blocked)?;
        let dead = stored(DeliveryState::Dead);
        let help = "Dead letters: deliveries that are not retried any more and wait for an operator";
        writer.gauge("evoke_dead_letters", help, dead)?;
        let held = queues.iter().map(|queue| (vec![("function", &*queue.function)], u64::from(queue.held)));
        writer.gauge("evoke_deliveries_held", "Deliveries that wait in memory until they may run", held)?;
        let running = queues.iter().map(|queue| (vec![("function", &*queue.function)], u64::from(queue.running)));
        writer.gauge("evoke_deliveries_running", "Deliveries that are running", running)?;
        self.circuits(writer)
    }

    /// Writes the circuits of the functions that send their deliveries to an endpoint.
    fn circuits(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let with_circuit = || self.values.queues.iter().filter(|queue| queue.is_circuit_open.is_some());
        let open = with_circuit()
            .map(|queue| (vec![("function", &*queue.function)], u64::from(queue.is_circuit_open == Some(true))));
        writer.gauge(
            "evoke_circuit_open",
            "1 for a function whose deliveries wait because its endpoint keeps failing, otherwise 0",
            open,
        )?;
        let functions = super::all(&self.metrics.functions);
        let failed = functions
            .iter()
            .filter(|f| with_circuit().any(|queue| *queue.function == *f.name))
            .map(|f| (vec![("function", &*f.name)], f.failed_probes.get()));
        let help = "Failed requests that tested an endpoint with an open circuit; they do not count as attempts";
        writer.counter("evoke_circuit_failed_probes", help, failed)
    }

    fn store(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let (commits, totals) = (&self.metrics.commits, self.values.totals.iter());
        let stored = totals.map(|totals| (Vec::new(), totals.events));
        let help = "Events stored since the store was created, including those that functions published";
        writer.counter("evoke_events_stored", help, stored)?;
        let kind = MetricType::Histogram;
        writer.write(
            "evoke_commit_writes",
            "Number of writes in a commit",
            None,
            kind,
            one(Borrowed(&commits.writes)),
        )?;
        let help = "Duration of commits, including their fsync";
        let (seconds, duration) = (Some(&Unit::Seconds), one(Borrowed(&commits.duration)));
        writer.write("evoke_commit_duration", help, seconds, kind, duration)?;
        let size = self.values.size_bytes.iter().map(|bytes| (Vec::new(), ConstGauge::new(*bytes)));
        writer.write(
            "evoke_store_size",
            "Size of the store's files on disk",
            Some(&Unit::Bytes),
            MetricType::Gauge,
            size,
        )
    }

    fn monitors(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let states = self.values.monitors.iter().map(|watched| {
            (vec![("monitor", &*watched.monitor), ("subject", &*watched.subject)], u64::from(watched.state))
        });
        let help = "State of each thing that a monitor watches: 0 ok, 1 warning, 2 critical, 3 unknown";
        writer.gauge("evoke_monitor_state", help, states)?;
        let values = self.values.monitors.iter().filter_map(|watched| {
            let labels = vec![("monitor", &*watched.monitor), ("subject", &*watched.subject), ("unit", &*watched.unit)];
            Some((labels, ConstGauge::new(watched.value?)))
        });
        let help = "Value of the last reading of a watched thing, in the unit of the label `unit`";
        writer.write("evoke_monitor_value", help, None, MetricType::Gauge, values)?;
        let monitors = &self.metrics.monitors;
        let help = "Readings that monitors took; a monitor that watches three things takes three readings each time";
        writer.counter("evoke_monitor_readings", help, one(monitors.readings.get()))?;
        let help = "Time from the scheduled time of a monitor's reading to the start of the reading";
        let lateness = one(Borrowed(&monitors.lateness));
        writer.write("evoke_monitor_lateness", help, Some(&Unit::Seconds), MetricType::Histogram, lateness)
    }

    fn sandbox(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let Sandbox { instances, instances_max, cache_hits, cache_misses } = self.values.sandbox;
        writer.gauge("evoke_sandbox_instances", "Sandbox instances in use", one(instances))?;
        let help = "Maximum number of concurrent sandbox instances that run deliveries";
        writer.gauge("evoke_sandbox_instances_max", help, one(instances_max))?;
        let loads = [("hit", cache_hits), ("miss", cache_misses)].map(|(result, n)| (vec![("result", result)], n));
        let help = "Components loaded since the process started: from the cache (`hit`) or newly compiled (`miss`)";
        writer.counter("evoke_compiled_cache_loads", help, loads)
    }

    fn spans(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let spans = &self.metrics.spans;
        let ended = [("exported", &spans.exported), ("failed", &spans.failed), ("dropped", &spans.dropped)]
            .map(|(outcome, counter)| (vec![("outcome", outcome)], counter.get()));
        let help = "Ended spans: accepted by the collector, not accepted, or dropped because the queue was full";
        writer.counter("evoke_trace_spans", help, ended)
    }
}

/// Lets the metrics library encode a histogram that is only borrowed.
struct Borrowed<'a>(&'a super::Histogram);

impl EncodeMetric for Borrowed<'_> {
    fn encode(&self, encoder: prometheus_client::encoding::MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.0.metric_type()
    }
}
