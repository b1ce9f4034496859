//! `trace`: an event and everything that came of it, as a tree.

use clap::Args;

use super::client::{Client, read, segment};
use super::text::{BOLD, DIM, Glance, colour, local_time, micros, plain, print, print_raw};
use super::{Common, Failure};
use crate::admin::view::{Delivery, Node};

#[derive(Debug, Args)]
pub(super) struct TraceEvent {
    /// The event: its number (the first column of `evoke events`) or its id
    event: String,
    /// Start from the event from outside that it came of
    #[arg(long)]
    root: bool,
}

impl TraceEvent {
    pub(super) fn run(&self, common: &Common) -> Result<(), Failure> {
        let path = format!("/api/v1/trace/{}", segment(&self.event));
        let trace = Client::find(common)?.get(&path, &[("root", self.root.to_string())])?;
        if common.reach.json { print_raw(&trace) } else { print(tree(&read(&trace)?).trim_end()) }
    }
}

fn tree(node: &Node) -> String {
    let mut text = String::new();
    event(node, "", "", &mut text);
    if let Some(missing) = &node.missing {
        text += &format!("{DIM}{}{DIM:#}\n", plain(missing));
    }
    if let Some(root) = node.root {
        text += &format!("{DIM}part of what came of event {root}; --root shows all of it{DIM:#}\n");
    }
    text
}

/// Draws an event: `first` stands before its line, `rest` before the lines below it.
fn event(node: &Node, first: &str, rest: &str, text: &mut String) {
    let Glance { id, source, type_, .. } = Glance::at(&node.event);
    let time = local_time(&node.accepted);
    *text += &format!(
        "{DIM}{first}{DIM:#}{BOLD}{type_}{BOLD:#} {DIM}event {} {id} from {source} at {time}{DIM:#}\n",
        node.seq
    );
    if let Some(damage) = &node.damaged {
        let style = colour("damaged");
        *text += &format!("{DIM}{rest}{DIM:#}{style}damaged{style:#} {}\n", plain(damage));
    }
    let mut left = node.deliveries.len();
    for owed in &node.deliveries {
        left -= 1;
        let (branch, stem) = if left == 0 && node.cut.is_none() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        delivery(owed, &format!("{rest}{branch}"), &format!("{rest}{stem}"), text);
    }
    if let Some(reason) = &node.cut {
        *text += &format!("{DIM}{rest}└─ … {}{DIM:#}\n", plain(reason));
    }
    if node.deliveries.is_empty() && first.is_empty() {
        *text += &format!("{DIM}no function is owed it{DIM:#}\n");
    }
}

fn delivery(delivery: &Delivery, first: &str, rest: &str, text: &mut String) {
    let Delivery { id, function, replay, state, due, cause, attempts, published, omitted, .. } = delivery;
    let took = match attempts.as_slice() {
        [] => String::new(),
        [one] => format!("{}, ", micros(one.duration_us)),
        [.., last] => format!("{} attempts, the last {}, ", attempts.len(), micros(last.duration_us)),
    };
    let style = colour(state);
    let replayed = replay.map(|replay| format!(", replay {replay}")).unwrap_or_default();
    *text +=
        &format!("{DIM}{first}{DIM:#}{function} {style}{state}{style:#} {DIM}{took}delivery {id}{replayed}{DIM:#}\n");

    let stem = if published.is_empty() && *omitted == 0 { "   " } else { "│  " };
    let mut note = |line: String| *text += &format!("{DIM}{rest}{stem}{DIM:#}{line}\n");
    for attempt in attempts.iter().filter(|attempt| attempt.outcome != "done") {
        let style = colour(&attempt.outcome);
        let mut lines = attempt.message.as_deref().unwrap_or_default().lines().map(plain);
        let start = format!("{DIM}attempt {}, {}{DIM:#} ", attempt.attempt, micros(attempt.duration_us));
        let message = lines.next().unwrap_or_default();
        note(format!("{start}{style}{}{style:#} {message}", attempt.outcome));
        lines.for_each(|line| note(format!("  {line}")));
    }
    if let Some(due) = due {
        note(format!("{DIM}tried again at {}{DIM:#}", local_time(due)));
    }
    if let Some(cause) = cause {
        note(format!("{DIM}given up:{DIM:#} {}", plain(cause)));
    }

    let mut left = published.len();
    for node in published {
        left -= 1;
        let (branch, stem) = if left == 0 && *omitted == 0 { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        event(node, &format!("{rest}{branch}"), &format!("{rest}{stem}"), text);
    }
    if *omitted > 0 {
        *text += &format!("{DIM}{rest}└─ … and {omitted} more{DIM:#}\n");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
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
        anstream::adapter::strip_str(&tree(&read(&trace.to_string()).unwrap())).to_string()
    }

    #[test]
    fn a_chain_with_a_retry_and_a_dead_end_is_drawn_as_a_tree() {
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
│  │        tried again at later
│  └─ payment.logged event 3 e3 from /shop/charge at soon
└─ shop/audit dead 900 µs, delivery 2
      attempt 1, 900 µs reject no total
        at all\\u{1b}
      given up: reject: no total
";
        assert_eq!(drawn(&event(1, "order.placed", "/shop/checkout", &json!([charge, audit]))), expected);
    }

    #[test]
    fn what_is_not_shown_is_said() {
        assert!(drawn(&event(1, "t", "/s", &json!([]))).ends_with("no function is owed it\n"));
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
part of what came of event 7; --root shows all of it
";
        assert_eq!(drawn(&cut), expected);
    }
}
