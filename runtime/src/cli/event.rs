//! `event`: shows one event in full, with the functions that received it and the results, and with the functions that
//! did not receive it and why.

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::client::{Client, encode_segment, parse};
use super::json_text::pretty;
use super::text::{BOLD, DIM, colour, escape, format_micros, local_time, print, print_json};
use super::{Common, Failure};
use crate::admin::view::{Delivery, Envelope};

#[derive(Debug, Args)]
pub(super) struct Event {
    /// Number of the event (first column of `evoke events`), or its id
    event: String,
}

/// The output of `--json`. The event and the explanations are raw JSON, so they stay unchanged.
#[derive(Serialize)]
struct Whole {
    event: Envelope,
    deliveries: Vec<Delivery>,
    triggers: Vec<Box<RawValue>>,
}

/// The fields of `control::TriggerExplanation` that are printed.
#[derive(Debug, Deserialize)]
struct Explanation {
    function: String,
    trigger: String,
    matched: bool,
    text: String,
}

impl Event {
    pub(super) fn run(&self, common: &Common) -> Result<(), Failure> {
        let client = Client::find(common)?;
        let text = client.get(&format!("/api/v1/events/{}", encode_segment(&self.event)), &[])?;
        let envelope: Envelope = parse(&text)?;
        let mut deliveries: Vec<Delivery> = Vec::new();
        client.lines(&format!("/api/v1/events/{}/deliveries", envelope.seq), &[], |line| {
            deliveries.push(parse(line)?);
            Ok(())
        })?;
        let explained = client.get(&format!("/api/v1/explain/{}", envelope.seq), &[])?;
        if common.client_args.json {
            return print_json(&Whole { event: envelope, deliveries, triggers: parse(&explained)? });
        }
        print(render(&envelope, &deliveries, &parse::<Vec<Explanation>>(&explained)?).trim_end())
    }
}

fn render(envelope: &Envelope, deliveries: &[Delivery], explained: &[Explanation]) -> String {
    let Envelope { seq, accepted, origin, principal, due, event, .. } = envelope;
    let origin = origin.as_deref().map(|origin| format!(" through {}", escape(origin))).unwrap_or_default();
    let sender = principal.as_deref().map(|sender| format!(" by {}", escape(sender))).unwrap_or_default();
    let mut text = format!("{BOLD}event {seq}{BOLD:#} {DIM}accepted {}{origin}{sender}{DIM:#}\n", local_time(accepted));
    for line in pretty(event.get()).lines() {
        text += &format!("{}\n", escape(line));
    }
    text += &match due {
        Some(due) => format!("\n{BOLD}scheduled for {}{BOLD:#}\n", local_time(due)),
        None if deliveries.is_empty() => format!("\n{BOLD}delivered to no function{BOLD:#}\n"),
        None => format!("\n{BOLD}delivered to{BOLD:#}\n"),
    };
    for delivery in deliveries {
        text += &render_delivery(delivery);
    }
    // If a trigger matches now but its function has no delivery, the trigger was added or changed after the event was
    // accepted.
    let received = |function: &str| deliveries.iter().any(|delivery| delivery.function == function);
    let others: Vec<_> = explained.iter().filter(|one| !received(&one.function)).collect();
    if !others.is_empty() {
        let yet = if due.is_some() { " yet" } else { "" };
        text += &format!("\n{BOLD}not delivered{yet} to{BOLD:#}\n");
    }
    for Explanation { function, trigger, matched, text: reason } in others {
        let reason = match matched {
            true if due.is_some() => "matches now".into(),
            true => "matches now, but did not when the event was accepted; `evoke replay` delivers it".into(),
            false => {
                let reason = reason.strip_prefix("does not match\n").unwrap_or(reason);
                reason.lines().map(escape).collect::<Vec<_>>().join("\n    ")
            }
        };
        text += &format!("  {}{DIM} {}{DIM:#}\n    {reason}\n", escape(function), escape(trigger));
    }
    text
}

fn render_delivery(delivery: &Delivery) -> String {
    let Delivery { id, function, trigger, state, cause, due, replay, attempts, .. } = delivery;
    let style = colour(state);
    let replayed = replay.map(|replay| format!(", replay {replay}")).unwrap_or_default();
    let took = attempts.last().map(|last| format!(" in {}", format_micros(last.duration_us))).unwrap_or_default();
    let tries = if attempts.len() > 1 { format!(" after {} attempts", attempts.len()) } else { String::new() };
    let mut text = format!(
        "  {} {style}{state}{style:#}{DIM}{took}{tries} by {}, delivery {id}{replayed}{DIM:#}\n",
        escape(function),
        escape(trigger)
    );
    if let Some(due) = due {
        text += &format!("    next attempt at {}\n", local_time(due));
    }
    let last_message = || attempts.last().filter(|last| last.outcome != "done").map(describe);
    if let Some(reason) = cause.clone().or_else(last_message) {
        text += &format!("    {}\n", escape(&reason));
    }
    text
}

fn describe(attempt: &crate::admin::view::Attempt) -> String {
    match &attempt.message {
        Some(message) => format!("{}: {message}", attempt.outcome),
        None => attempt.outcome.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_shown_with_its_deliveries_and_the_reasons_of_the_others() {
        let envelope: Envelope = parse(
            r#"{"seq":7,"accepted":"soon","origin":"/evoke/emit","event":{"id":"1","source":"/s","type":"t","data":{"n":1.0}}}"#,
        )
        .unwrap();
        let deliveries: Vec<Delivery> = parse(
            r#"[{"id":3,"event":7,"function":"shop/charge","trigger":"on[0]","state":"retrying","due":"later",
                 "attempts":[{"attempt":1,"started":"soon","duration_us":900,"outcome":"retry","message":"down"}]}]"#,
        )
        .unwrap();
        let explained: Vec<Explanation> = parse(
            r#"[{"function":"shop/charge","trigger":"on[0]","matched":true,"text":"matches"},
                {"function":"shop/receipt","trigger":"on[0]","matched":false,"text":"type: is t"},
                {"function":"shop/audit","trigger":"on[0]","matched":true,"text":"matches"}]"#,
        )
        .unwrap();
        let expected = "\
event 7 accepted soon through /evoke/emit
{
  \"id\": \"1\",
  \"source\": \"/s\",
  \"type\": \"t\",
  \"data\": {
    \"n\": 1.0
  }
}

delivered to
  shop/charge retrying in 900 µs by on[0], delivery 3
    next attempt at later
    retry: down

not delivered to
  shop/receipt on[0]
    type: is t
  shop/audit on[0]
    matches now, but did not when the event was accepted; `evoke replay` delivers it
";
        let rendered = render(&envelope, &deliveries, &explained);
        assert_eq!(anstream::adapter::strip_str(&rendered).to_string(), expected);
        let waiting = render(&Envelope { due: Some("noon".into()), ..envelope }, &[], &explained);
        let waiting = anstream::adapter::strip_str(&waiting).to_string();
        assert!(waiting.contains("\nscheduled for noon\n\nnot delivered yet to\n"), "{waiting}");
        assert!(waiting.contains("  shop/audit on[0]\n    matches now\n"), "{waiting}");
    }
}
