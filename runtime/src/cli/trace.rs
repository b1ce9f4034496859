//! `trace`: shows an event, its deliveries and the events they published, as a tree.

use clap::Args;

use super::client::{Client, encode_segment, parse};
use super::text::{BOLD, DIM, EventSummary, colour, escape, format_micros, local_time, print, print_json_text};
use super::{Common, Failure};
use crate::admin::view::{Delivery, Node};

#[derive(Debug, Args)]
pub(super) struct Trace {
    /// Number of the event (first column of `evoke events`), or its id
    event: String,
    /// Start the tree at the first event of the chain of causes, not at this event
    #[arg(long)]
    root: bool,
}

impl Trace {
    pub(super) fn run(&self, common: &Common) -> Result<(), Failure> {
        let path = format!("/api/v1/trace/{}", encode_segment(&self.event));
        let trace = Client::find(common)?.get(&path, &[("root", self.root.to_string())])?;
        if common.client_args.json { print_json_text(&trace) } else { print(tree(&parse(&trace)?).trim_end()) }
    }
}

fn tree(node: &Node) -> String {
    let mut text = String::new();
    event(node, "", "", &mut text);
    if let Some(missing) = &node.missing {
        text += &format!("{DIM}{}{DIM:#}\n", escape(missing));
    }
    if let Some(root) = node.root {
        text += &format!("{DIM}part of the trace of event {root}; --root shows the whole trace{DIM:#}\n");
    }
    text
}

/// Draws an event and its deliveries. `first` is the prefix of the first line, and `rest` the prefix of the other
/// lines.
fn event(node: &Node, first: &str, rest: &str, text: &mut String) {
    let EventSummary { id, source, type_, .. } = EventSummary::parse(&node.event);
    let time = local_time(&node.accepted);
    // The origin is the source through which the event entered. It is shown only if the event has another `source`.
    // Then the producer chose the `source`, or an operator sent the event.
    let origin = node.origin.as_deref().filter(|origin| node.published_by.is_none() && **origin != *source);
    let through = origin.map(|origin| format!(" through {}", escape(origin))).unwrap_or_default();
    let sender = node.principal.as_deref().map(|principal| format!(" by {}", escape(principal))).unwrap_or_default();
    *text += &format!(
        "{DIM}{first}{DIM:#}{BOLD}{type_}{BOLD:#} {DIM}event {} {id} from {source}{through}{sender} at {time}{DIM:#}\n",
        node.seq
    );
    if let Some(damage) = &node.damaged {
        let style = colour("damaged");
        *text += &format!("{DIM}{rest}{DIM:#}{style}damaged{style:#} {}\n", escape(damage));
    }
    let mut remaining = node.deliveries.len();
    for child in &node.deliveries {
        remaining -= 1;
        let (branch, stem) =
            if remaining == 0 && node.cut.is_none() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        delivery(child, &format!("{rest}{branch}"), &format!("{rest}{stem}"), text);
    }
    if let Some(reason) = &node.cut {
        *text += &format!("{DIM}{rest}└─ … {}{DIM:#}\n", escape(reason));
    }
    if node.deliveries.is_empty() && first.is_empty() {
        *text += &format!("{DIM}no function matched this event{DIM:#}\n");
    }
}

fn delivery(delivery: &Delivery, first: &str, rest: &str, text: &mut String) {
    let Delivery { id, function, replay, state, due, cause, attempts, published, omitted, .. } = delivery;
    let took = match attempts.as_slice() {
        [] => String::new(),
        [one] => format!("{}, ", format_micros(one.duration_us)),
        [.., last] => format!("{} attempts, the last {}, ", attempts.len(), format_micros(last.duration_us)),
    };
    let (style, function) = (colour(state), escape(function));
    let replayed = replay.map(|replay| format!(", replay {replay}")).unwrap_or_default();
    *text +=
        &format!("{DIM}{first}{DIM:#}{function} {style}{state}{style:#} {DIM}{took}delivery {id}{replayed}{DIM:#}\n");

    let stem = if published.is_empty() && *omitted == 0 { "   " } else { "│  " };
    let mut note = |line: String| *text += &format!("{DIM}{rest}{stem}{DIM:#}{line}\n");
    // A successful attempt (`done`) has a message if it sent requests or changed stored state. A successful attempt
    // without a message is not shown.
    for attempt in attempts.iter().filter(|attempt| attempt.outcome != "done" || attempt.message.is_some()) {
        let style = colour(&attempt.outcome);
        let mut lines = attempt.message.as_deref().unwrap_or_default().lines().map(escape);
        let start = format!("{DIM}attempt {}, {}{DIM:#} ", attempt.attempt, format_micros(attempt.duration_us));
        let message = lines.next().unwrap_or_default();
        note(format!("{start}{style}{}{style:#} {message}", attempt.outcome));
        lines.for_each(|line| note(format!("  {line}")));
    }
    if let Some(due) = due {
        note(format!("{DIM}next attempt at {}{DIM:#}", local_time(due)));
    }
    if let Some(cause) = cause {
        note(format!("{DIM}dead letter:{DIM:#} {}", escape(cause)));
    }

    let mut remaining = published.len();
    for node in published {
        remaining -= 1;
        let (branch, stem) = if remaining == 0 && *omitted == 0 { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        event(node, &format!("{rest}{branch}"), &format!("{rest}{stem}"), text);
    }
    if *omitted > 0 {
        *text += &format!("{DIM}{rest}└─ … and {omitted} more{DIM:#}\n");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn attempt(n: u32, outcome: &str, message: Option<&str>) -> Value {
        json!({ "attempt": n, "started": "then", "duration_us": 900, "outcome": outcome, "message": message })
    }

    fn event(seq: i64, type_: &str, source: &str, deliveries: &Value) -> Value {
        let event = json!({ "type": type_, "source": source, "id": format!("e{seq}") });
        json!({ "seq": seq, "accepted": "soon", "hops": 0, "event": event, "deliveries": deliveries })
    }

    fn drawn(trace: &Value) -> String {
        anstream::adapter::strip_str(&tree(&parse(&trace.to_string()).unwrap())).to_string()
    }

    #[test]
    fn a_chain_with_a_retry_and_a_dead_letter_is_drawn_as_a_tree() {
        let notify = json!({ "id": 3, "event": 2, "function": "shop/notify", "trigger": "on[0]", "state": "retrying",
            "due": "later", "attempts": [attempt(1, "timeout", Some("reached its timeout of 2s"))] });
        let taken = event(2, "payment.taken", "/shop/charge", &json!([notify]));
        let logged = event(3, "payment.logged", "/shop/charge", &json!([]));
        let charge = json!({ "id": 1, "event": 1, "function": "shop/charge", "trigger": "on[0]", "state": "done",
            "attempts": [attempt(1, "retry", Some("gateway down")), attempt(2, "done", None)], "published": [taken, logged] });
        let audit = json!({ "id": 2, "event": 1, "function": "shop/audit", "trigger": "on[0]", "state": "dead",
            "cause": "reject: no total", "attempts": [attempt(1, "reject", Some("no total\nat all\u{1b}"))] });
        let expected = "\
order.placed event 1 e1 from /shop/checkout at soon
├─ shop/charge done 2 attempts, the last 900 µs, delivery 1
│  │  attempt 1, 900 µs retry gateway down
│  ├─ payment.taken event 2 e2 from /shop/charge at soon
│  │  └─ shop/notify retrying 900 µs, delivery 3
│  │        attempt 1, 900 µs timeout reached its timeout of 2s
│  │        next attempt at later
│  └─ payment.logged event 3 e3 from /shop/charge at soon
└─ shop/audit dead 900 µs, delivery 2
      attempt 1, 900 µs reject no total
        at all\\u{1b}
      dead letter: reject: no total
";
        assert_eq!(drawn(&event(1, "order.placed", "/shop/checkout", &json!([charge, audit]))), expected);
    }

    #[test]
    fn omitted_deliveries_and_events_are_mentioned() {
        let mut claimed = event(1, "t", "/s", &json!([]));
        claimed["origin"] = "/shop/hook".into();
        let expected = "t event 1 e1 from /s through /shop/hook at soon\nno function matched this event\n";
        assert_eq!(drawn(&claimed), expected);
        let mut verified = event(1, "t", "/s", &json!([]));
        verified["principal"] = "github:new".into();
        let expected = "t event 1 e1 from /s by github:new at soon\nno function matched this event\n";
        assert_eq!(drawn(&verified), expected);
        let fan_out = json!({ "id": 1, "event": 1, "function": "a/f", "trigger": "on[0]", "state": "done",
            "attempts": [], "omitted": 9 });
        let mut cut = event(1, "t", "/s", &json!([fan_out]));
        cut["cut"] = "the trace ends here".into();
        cut["root"] = 7.into();
        let expected = "\
t event 1 e1 from /s at soon
├─ a/f done delivery 1
│  └─ … and 9 more
└─ … the trace ends here
part of the trace of event 7; --root shows the whole trace
";
        assert_eq!(drawn(&cut), expected);
    }
}
