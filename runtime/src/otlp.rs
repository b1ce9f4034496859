//! Exports spans to an OpenTelemetry collector, as OTLP over HTTP in protobuf. Standard environment variables configure
//! the export ([`config`]). Without an endpoint in these variables, Evoke makes no spans.
//!
//! Ended spans wait in a bounded queue (`OTEL_BSP_MAX_QUEUE_SIZE`, by default 2,048), from which a thread sends them in
//! batches. Spans that do not fit into the queue are dropped and counted, so telemetry never delays an event. Spans
//! that the collector rejects are also counted.

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
use evoke_telemetry::{SpanMetrics, Spans};

/// Maximum time for sending the last spans when the process stops.
const STOP_MAX: Duration = Duration::from_secs(5);

/// The export to a collector.
pub struct Otlp {
    provider: SdkTracerProvider,
}

/// The reason why the export cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// An environment variable has an unusable value.
    #[error("{variable} is `{value}`: {message}")]
    Variable {
        /// The name of the variable.
        variable: &'static str,
        /// The value of the variable.
        value: String,
        /// What is wrong with the value, and how to correct it.
        message: String,
    },
    /// The OpenTelemetry library rejected the configuration.
    #[error("cannot set up the export of spans: {0}")]
    Exporter(String),
}

impl Otlp {
    /// Sets up the export that the environment variables configure. Returns `None` if no variable names an endpoint, or
    /// if a variable turns tracing off. `instance` distinguishes this Evoke from others (`service.instance.id`).
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
        let queued = Arc::new(AtomicUsize::new(0));
        let exporter = CountingExporter { exporter, queued: queued.clone(), metrics: metrics.clone() };
        let batches = BatchConfigBuilder::default().with_max_queue_size(config.queue_max).build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let processor = BoundedProcessor { processor, queue_max: config.queue_max, queued, metrics };
        let resource = resource(config.service_name, instance);
        let provider = SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).build();
        Ok(Some(Self { provider }))
    }

    /// Returns the factory of the spans that this export sends.
    pub fn spans(&self) -> Spans {
        let scope = InstrumentationScope::builder("evoke").with_version(env!("CARGO_PKG_VERSION")).build();
        Spans::new(self.provider.tracer_with_scope(scope))
    }

    /// Sends the queued spans, for at most [`STOP_MAX`].
    pub async fn stop(self) {
        let stopped = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(STOP_MAX)).await;
        if let Ok(Err(error)) = stopped {
            tracing::warn!("the last spans may not have been sent: {error}");
        }
    }
}

fn resource(service_name: Option<String>, instance: &str) -> Resource {
    let defaults = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance.to_owned()),
    ];
    // `OTEL_RESOURCE_ATTRIBUTES` overrides these attributes.
    let base = Resource::builder_empty().with_service_name("evoke").with_attributes(defaults);
    let detected = base.with_detectors(&[
        Box::new(opentelemetry_sdk::resource::TelemetryResourceDetector),
        Box::new(opentelemetry_sdk::resource::EnvResourceDetector::new()),
    ]);
    service_name.into_iter().fold(detected, |resource, name| resource.with_service_name(name)).build()
}

/// Drops and counts the spans that do not fit into the queue of the library. The library would also drop them, but it
/// does not expose their number.
#[derive(Debug)]
struct BoundedProcessor {
    processor: BatchSpanProcessor,
    queue_max: usize,
    /// Number of spans that have ended and have not reached the exporter.
    queued: Arc<AtomicUsize>,
    metrics: Arc<SpanMetrics>,
}

impl SpanProcessor for BoundedProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.processor.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let reserve = |queued: usize| (queued < self.queue_max).then_some(queued + 1);
        match self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve) {
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

/// Counts the spans that the collector accepted, and those that it rejected or that could not be sent.
#[derive(Debug)]
struct CountingExporter {
    exporter: opentelemetry_otlp::SpanExporter,
    queued: Arc<AtomicUsize>,
    metrics: Arc<SpanMetrics>,
}

impl SpanExporter for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.queued.fetch_sub(count, Ordering::Relaxed);
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
