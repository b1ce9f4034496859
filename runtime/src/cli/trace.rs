//! `trace`: an event and everything that came of it, as a tree.

use clap::Args;

use super::client::Client;
use super::table::{BOLD, DIM, colour, local_time, micros};
use super::{Common, Failure};
use crate::admin::view::{Trace, TracedDelivery};

#[derive(Debug, Args)]
pub(super) struct TraceEvent {
    /// The event: its position (the first column of `evoke events`) or its id
    event: String,
}

impl TraceEvent {
    pub(super) fn run(&self, common: &Common) -> Result<(), Failure> {
        let path = format!("/api/v1/trace/{}", percent_encoded(&self.event));
        let client = Client::find(common)?;
        if common.reach.json {
            let trace: serde_json::Value = client.get(&path, &[])?;
            return super::events::print_line(&trace.to_string());
        }
        let trace: Trace = client.get(&path, &[])?;
        super::events::print_line(tree(&trace).trim_end())
    }
}

/// A path segment: everything but unreserved characters is encoded (RFC 3986, section 2.3).
fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn tree(trace: &Trace) -> String {
    let mut text = String::new();
    event(trace, "", "", &mut text);
    text
}

fn event(trace: &Trace, first: &str, rest: &str, text: &mut String) {
    let attribute = |name: &str| trace.envelope.event.get(name).and_then(|v| v.as_str()).unwrap_or_default();
    text.push_str(&format!(
        "{DIM}{first}{DIM:#}{BOLD}{}{BOLD:#} {DIM}event {} from {} at {}{DIM:#}\n",
        attribute("type"),
        trace.envelope.seq,
        attribute("source"),
        local_time(&trace.envelope.accepted)
    ));
    let last = trace.deliveries.len();
    for (index, traced) in trace.deliveries.iter().enumerate() {
        let is_last = index + 1 == last && !trace.cut;
        let (branch, stem) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        delivery(traced, &format!("{rest}{branch}"), &format!("{rest}{stem}"), text);
    }
    if trace.cut {
        text.push_str(&format!("{DIM}{rest}└─ … and more{DIM:#}\n"));
    }
    if trace.deliveries.is_empty() && first.is_empty() {
        text.push_str(&format!("{DIM}no function is owed it{DIM:#}\n"));
    }
}

fn delivery(traced: &TracedDelivery, first: &str, rest: &str, text: &mut String) {
    let delivery = &traced.delivery;
    let state = colour(&delivery.state);
    let took = match delivery.attempts.as_slice() {
        [] => String::new(),
        [one] => micros(one.duration_us),
        [.., last] => format!("{} attempts, the last {}", delivery.attempts.len(), micros(last.duration_us)),
    };
    text.push_str(&format!(
        "{DIM}{first}{DIM:#}{} {state}{}{state:#} {DIM}{took} delivery {}{DIM:#}\n",
        delivery.function, delivery.state, delivery.id
    ));
    let stem = if traced.published.is_empty() { "   " } else { "│  " };
    let failed = delivery.attempts.iter().filter(|attempt| attempt.outcome != "done");
    for attempt in failed {
        let style = colour(&attempt.outcome);
        let message = attempt.message.as_deref().unwrap_or_default();
        let mut lines = message.lines();
        text.push_str(&format!(
            "{DIM}{rest}{stem}attempt {}{DIM:#} {style}{}{style:#} {}\n",
            attempt.attempt,
            attempt.outcome,
            lines.next().unwrap_or_default()
        ));
        lines.for_each(|line| text.push_str(&format!("{DIM}{rest}{stem}  {DIM:#}{line}\n")));
    }
    if let Some(due) = &delivery.due {
        text.push_str(&format!("{DIM}{rest}{stem}tried again at {}{DIM:#}\n", local_time(due)));
    }
    if let Some(cause) = &delivery.cause {
        text.push_str(&format!("{DIM}{rest}{stem}given up:{DIM:#} {}\n", cause.lines().next().unwrap_or_default()));
    }
    let last = traced.published.len();
    for (index, published) in traced.published.iter().enumerate() {
        let (branch, under) = if index + 1 == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        event(published, &format!("{rest}{branch}"), &format!("{rest}{under}"), text);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_chain_with_a_retry_and_a_dead_end_is_drawn_as_a_tree() {
        let attempt = |n: u32, outcome: &str, message: Option<&str>| json!({ "attempt": n, "started": "2026-01-31T12:00:00Z", "duration_us": 900, "outcome": outcome, "message": message });
        let event = |seq: i64, type_: &str, source: &str, deliveries: serde_json::Value| json!({ "seq": seq, "accepted": "soon", "hops": 0, "event": { "type": type_, "source": source }, "deliveries": deliveries });
        let end = event(2, "payment.taken", "/shop/charge", json!([]));
        let charge = json!({ "id": 1, "event": 1, "function": "shop/charge", "trigger": "on[0]", "state": "done",
            "attempts": [attempt(1, "retry", Some("gateway down")), attempt(2, "done", None)], "published": [end] });
        let audit = json!({ "id": 2, "event": 1, "function": "shop/audit", "trigger": "on[0]", "state": "dead",
            "cause": "reject: no total", "attempts": [attempt(1, "reject", Some("no total"))], "published": [] });
        let trace: Trace =
            serde_json::from_value(event(1, "order.placed", "/shop/checkout", json!([charge, audit]))).unwrap();
        let expected = "\
order.placed event 1 from /shop/checkout at soon
├─ shop/charge done 2 attempts, the last 900µs delivery 1
│  │  attempt 1 retry gateway down
│  └─ payment.taken event 2 from /shop/charge at soon
└─ shop/audit dead 900µs delivery 2
      attempt 1 reject no total
      given up: reject: no total
";
        assert_eq!(anstream::adapter::strip_str(&tree(&trace)).to_string(), expected);
    }
}
