//! Reads the configuration of the span export from environment variables.
//!
//! | variable | meaning |
//! |---|---|
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | the collector's URL, such as `http://localhost:4318`; `/v1/traces` is added |
//! | `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` | the full URL for traces; nothing is added |
//! | `OTEL_EXPORTER_OTLP_(TRACES_)HEADERS` | headers, `name=value,…` |
//! | `OTEL_EXPORTER_OTLP_(TRACES_)TIMEOUT` | the timeout for one batch in milliseconds, default 10000 |
//! | `OTEL_EXPORTER_OTLP_(TRACES_)PROTOCOL` | `http/protobuf`, the only supported protocol |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | the resource that sends the spans; the default service is `evoke` |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | the rule that selects traces to record, such as `always_on` |
//! | `OTEL_BSP_MAX_QUEUE_SIZE`, `OTEL_BSP_SCHEDULE_DELAY`, `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` | how spans are batched |
//! | `OTEL_TRACES_EXPORTER=none`, `OTEL_SDK_DISABLED=true` | no spans are made |
//!
//! The OpenTelemetry library reads headers, attributes, samplers and batch settings. As the specification requires, an
//! empty variable counts as unset, and an invalid value is logged and ignored. As an exception, an endpoint or a
//! protocol that Evoke cannot use is an error.

use std::time::Duration;

use http::Uri;

use super::OtlpError;

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const QUEUE_MAX_DEFAULT: usize = 2_048;

/// The samplers that the library supports.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Config {
    /// The URL to which batches are POSTed.
    pub(super) endpoint: String,
    /// The timeout for one batch.
    pub(super) timeout: Duration,
    /// Maximum number of queued spans.
    pub(super) queue_max: usize,
    pub(super) service_name: Option<String>,
}

impl Config {
    /// Reads the configuration. Returns `None` if tracing is turned off, or if no endpoint is set.
    pub(super) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, OtlpError> {
        let set = |name: &'static str| Some((name, variable(name).filter(|value| !value.trim().is_empty())?));
        if set("OTEL_SDK_DISABLED").is_some_and(|(_, value)| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        match set("OTEL_TRACES_EXPORTER") {
            Some((_, value)) if value == "none" => return Ok(None),
            Some((variable, value)) if value != "otlp" => {
                warn_ignored(variable, &value, "write otlp to export spans, or none to turn tracing off");
            }
            _ => {}
        }
        let own = set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").map(|(name, url)| (name, url.clone(), url));
        let endpoint = own.or_else(|| {
            let (name, url) = set("OTEL_EXPORTER_OTLP_ENDPOINT")?;
            let traces = format!("{}/v1/traces", url.trim_end_matches('/'));
            Some((name, url, traces))
        });
        let Some((name, value, endpoint)) = endpoint else { return Ok(None) };
        check_endpoint(&endpoint).map_err(|message| OtlpError::Variable { variable: name, value, message })?;

        let either = |own, all| set(own).or_else(|| set(all));
        let protocol = either("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL");
        if let Some((variable, value)) = protocol.filter(|(_, value)| value != "http/protobuf") {
            let message =
                "only http/protobuf is supported, which collectors accept on port 4318; use it or unset the variable"
                    .into();
            return Err(OtlpError::Variable { variable, value, message });
        }
        if let Some((variable, value)) = set("OTEL_TRACES_SAMPLER").filter(|(_, v)| !SAMPLERS.contains(&v.as_str())) {
            let instead = format!("parentbased_always_on is used instead; write one of {}", SAMPLERS.join(", "));
            warn_ignored(variable, &value, &instead);
        }
        let timeout = either("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT");
        let timeout_ms = timeout.and_then(number).filter(|ms| *ms > 0);
        let queue_max = set("OTEL_BSP_MAX_QUEUE_SIZE").and_then(number).filter(|size| *size > 0);
        Ok(Some(Self {
            endpoint,
            timeout: timeout_ms.map_or(TIMEOUT_DEFAULT, Duration::from_millis),
            queue_max: queue_max.and_then(|size| usize::try_from(size).ok()).unwrap_or(QUEUE_MAX_DEFAULT),
            service_name: set("OTEL_SERVICE_NAME").map(|(_, name)| name),
        }))
    }
}

fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let example = "write a URL such as http://localhost:4318";
    let uri: Uri = endpoint.parse().map_err(|error| format!("the value is not a URL ({error}); {example}"))?;
    match uri.scheme_str() {
        Some("http") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(()),
        Some("https") => Err("spans can only be sent without TLS: name an http:// endpoint, such as a collector on \
                              this machine or in this cluster (http://localhost:4318) that forwards spans over TLS"
            .into()),
        _ => Err(format!("the value is not an http:// URL; {example}")),
    }
}

fn number((variable, value): (&'static str, String)) -> Option<u64> {
    let number = value.trim().parse().ok();
    if number.is_none() {
        warn_ignored(variable, &value, "write a whole number");
    }
    number
}

fn warn_ignored(variable: &str, value: &str, instead: &str) {
    tracing::warn!("{variable} is `{value}` and is ignored: {instead}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Config>, OtlpError> {
        Config::read(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    fn endpoint(variables: &[(&str, &str)]) -> Option<String> {
        read(variables).unwrap().map(|config| config.endpoint)
    }

    const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

    #[test]
    fn without_an_endpoint_tracing_is_off() {
        assert_eq!(endpoint(&[]), None);
        assert_eq!(endpoint(&[(ALL, ""), (TRACES, " ")]), None);
        assert_eq!(endpoint(&[(ALL, "http://c:4318"), ("OTEL_SDK_DISABLED", "True")]), None);
        assert_eq!(endpoint(&[(ALL, "http://c:4318"), ("OTEL_TRACES_EXPORTER", "none")]), None);
    }

    #[test]
    fn the_path_is_added_to_the_endpoint_of_all_signals_and_not_to_that_of_traces() {
        assert_eq!(endpoint(&[(ALL, "http://c:4318")]).unwrap(), "http://c:4318/v1/traces");
        assert_eq!(endpoint(&[(ALL, "http://c/otel/")]).unwrap(), "http://c/otel/v1/traces");
        assert_eq!(endpoint(&[(ALL, "http://c"), (TRACES, "http://d/in")]).unwrap(), "http://d/in");
    }

    #[test]
    fn an_unusable_destination_is_an_error_that_says_what_would_be_right() {
        for (variables, words) in [
            (vec![(ALL, "https://c:4318")], ["OTEL_EXPORTER_OTLP_ENDPOINT is `https://c:4318`", "without TLS"]),
            (vec![(TRACES, "localhost:4318")], [TRACES, "http://localhost:4318"]),
            (vec![(ALL, "http://")], [ALL, "not a URL"]),
            (vec![(ALL, "http://c"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], ["PROTOCOL is `grpc`", "http/protobuf"]),
        ] {
            let error = read(&variables).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn invalid_numbers_are_ignored() {
        let plain = read(&[(ALL, "http://c")]).unwrap().unwrap();
        assert_eq!((plain.timeout, plain.queue_max), (TIMEOUT_DEFAULT, QUEUE_MAX_DEFAULT));
        let odd = [(ALL, "http://c"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"), ("OTEL_BSP_MAX_QUEUE_SIZE", "0")];
        assert_eq!(read(&odd).unwrap().unwrap(), plain);
        let set = [(ALL, "http://c"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"), ("OTEL_BSP_MAX_QUEUE_SIZE", "9")];
        let set = read(&set).unwrap().unwrap();
        assert_eq!((set.timeout, set.queue_max), (Duration::from_millis(250), 9));
    }
}
