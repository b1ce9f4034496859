//! Credentials in requests: values that a function puts into a request are shown nowhere, and those that its grant adds
//! do not come back to it.

use serde_json::json;

use super::{call, manifest};
use crate::support::Evoke;
use crate::telemetry::collector::{Collector, Reply};

/// In a host, the value is written in lower case.
const VALUE: &str = "Zqvw-0123456789";

#[test]
fn a_secret_in_the_host_or_the_method_of_a_request_is_in_no_span_log_line_or_record() {
    let collector = Collector::start(Reply::Ok);
    let endpoint = collector.endpoint();
    let secrets = "publish: [called]\n      secrets: { KEY: { env: KEY } }";
    let mut evoke = Evoke::with(&manifest("[]").replace("publish: [called]", secrets));
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
    evoke.set_environment(&[&environment[..], &[("KEY", VALUE)]].concat());
    evoke.up();
    let order = json!({ "url": format!("http://a.{VALUE}.example/"), "method": VALUE });
    let called = call(&evoke, &order);
    assert!(called[0]["error"].is_string(), "{called:?}");
    // Its acceptance, the attempt, the request and the published event.
    let spans = format!("{:?}", collector.spans(4));
    assert!(spans.contains("a.[secret KEY].example") && spans.contains("\"[secret KEY]\""), "{spans}");
    let event = evoke.events("lab.in")[0]["id"].as_str().unwrap().to_owned();
    let records = [&["logs", "--limit", "1000"][..], &["trace", &event]].map(|arguments| evoke.stdout(arguments));
    let all = spans + &records.concat() + &evoke.log();
    assert!(all.contains("[secret KEY] a.[secret KEY].example failed"), "{all}");
    assert!(!all.to_ascii_lowercase().contains("zqvw"), "{all}");
}
