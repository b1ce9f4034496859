//! Where spans go: to an OpenTelemetry collector, as OTLP over HTTP in protobuf. The standard environment variables
//! say where ([`config`]); without an endpoint nothing is traced.
//!
//! Spans that ended wait in a bounded queue (2,048, `OTEL_BSP_MAX_QUEUE_SIZE`) for a thread that sends them in batches.
//! What does not fit, or is not taken, is counted and gone: telemetry never holds up an event.

mod client;
mod config;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
};

use self::client::Client;
use self::config::Config;
use crate::telemetry::{SpanMetrics, Spans};

/// The most that the last spans may take when the process stops.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A way to a collector.
pub struct Otlp {
    provider: SdkTracerProvider,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// A variable says what cannot be done.
    #[error("{variable} is `{value}`: {message}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What it is set to.
        value: String,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// The library refused what the environment says.
    #[error("spans cannot be sent: {0}")]
    Exporter(String),
}

impl Otlp {
    /// The way that the environment describes; `None` when it names no endpoint. `instance` tells this Evoke from
    /// others.
    pub fn from_environment(instance: &str, metrics: Arc<SpanMetrics>) -> Result<Option<Self>, OtlpError> {
        let variable = |name: &str| std::env::var(name).ok();
        let Some(config) = Config::read(variable)? else { return Ok(None) };
        let client = Client::new(&config.endpoint, config.timeout);
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(&config.endpoint)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(config.timeout)
            .build()
            .map_err(|error| OtlpError::Exporter(error.to_string()))?;
        let waiting = Arc::new(AtomicUsize::new(0));
        let exporter = Counting { exporter, waiting: waiting.clone(), metrics: metrics.clone() };
        let batches = BatchConfigBuilder::default().with_max_queue_size(config.queue_max).build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let processor = Bounded { processor, queue_max: config.queue_max, waiting, metrics };
        let resource = resource(config.service_name, instance);
        let provider = SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).build();
        Ok(Some(Self { provider }))
    }

    /// What starts spans that go this way.
    pub fn spans(&self) -> Spans {
        let scope = InstrumentationScope::builder("evoke").with_version(env!("CARGO_PKG_VERSION")).build();
        Spans::of(self.provider.tracer_with_scope(scope))
    }

    /// Sends what waits, for some seconds at most.
    pub async fn stop(self) {
        let stopped = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(STOP_MAX)).await;
        if let Ok(Err(error)) = stopped {
            tracing::warn!("the last spans may not have been sent: {error}");
        }
    }
}

fn resource(service_name: Option<String>, instance: &str) -> Resource {
    let own = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance.to_owned()),
    ];
    // What the environment says (`OTEL_RESOURCE_ATTRIBUTES`) goes over what is known here.
    let known = Resource::builder_empty().with_service_name("evoke").with_attributes(own);
    let detected = known.with_detectors(&[
        Box::new(opentelemetry_sdk::resource::TelemetryResourceDetector),
        Box::new(opentelemetry_sdk::resource::EnvResourceDetector::new()),
    ]);
    service_name.into_iter().fold(detected, |resource, name| resource.with_service_name(name)).build()
}

/// Counts spans that the queue has no room for; the library's own count cannot be asked for.
#[derive(Debug)]
struct Bounded {
    processor: BatchSpanProcessor,
    queue_max: usize,
    /// Spans between the end and the exporter.
    waiting: Arc<AtomicUsize>,
    metrics: Arc<SpanMetrics>,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.processor.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let room = |waiting: usize| (waiting < self.queue_max).then_some(waiting + 1);
        match self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room) {
            Ok(_) => self.processor.on_end(span),
            Err(_) => self.metrics.dropped.increment(),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.processor.set_resource(resource);
    }
}

/// Counts what the collector took and what not.
#[derive(Debug)]
struct Counting {
    exporter: opentelemetry_otlp::SpanExporter,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<SpanMetrics>,
}

impl SpanExporter for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        let result = self.exporter.export(batch).await;
        let counter = if result.is_ok() { &self.metrics.exported } else { &self.metrics.failed };
        counter.add(count as u64);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
