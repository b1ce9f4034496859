//! `events`: what was accepted, listed or followed.

use std::io::Write;

use clap::Args;

use super::client::Client;
use super::failure::printed;
use super::table::{DIM, local_time, short};
use super::{Common, Failure};
use crate::admin::view::Envelope;

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Go on with events as they come
    #[arg(long, short)]
    follow: bool,
    /// Only this type; a trailing * stands for any ending
    #[arg(long = "type", value_name = "TYPE")]
    type_: Option<String>,
    /// Only this source
    #[arg(long)]
    source: Option<String>,
    /// Only events behind this position, the oldest first
    #[arg(long, value_name = "SEQ")]
    after: Option<i64>,
    /// At most so many [default: the newest 20]
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
    /// With --json: each event with its position, its time of acceptance and its cause
    #[arg(long)]
    envelope: bool,
}

impl Events {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let envelope = self.envelope || !common.reach.json;
        let mut query = vec![("follow", self.follow.to_string()), ("envelope", envelope.to_string())];
        let texts = [("type", self.type_), ("source", self.source)];
        query.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text?))));
        let numbers = [("after", self.after), ("limit", self.limit.and_then(|n| i64::try_from(n).ok()))];
        query.extend(numbers.into_iter().filter_map(|(name, number)| Some((name, number?.to_string()))));
        Client::find(common)?.lines("/api/v1/events", &query, |line| {
            if common.reach.json {
                return print_line(line);
            }
            let envelope: Envelope = serde_json::from_str(line)
                .map_err(|e| Failure::Failed(format!("the answer is not understood: {e}")))?;
            print_line(&human(&envelope))
        })
    }
}

/// One event on one line.
fn human(envelope: &Envelope) -> String {
    let text = |name: &str| envelope.event.get(name).and_then(|v| v.as_str()).unwrap_or_default();
    let time = local_time(&envelope.accepted);
    let subject = if text("subject").is_empty() { String::new() } else { format!(" {}", short(text("subject"), 40)) };
    let data = envelope.event.get("data").map(|data| short(&data.to_string(), 80)).unwrap_or_default();
    format!(
        "{:>6}  {DIM}{time}{DIM:#}  {:<24} {}{subject}  {DIM}{data}{DIM:#}",
        envelope.seq,
        text("type"),
        text("source")
    )
}

/// Prints a line at once, with colours where there is a terminal.
pub(super) fn print_line(line: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    printed(writeln!(out, "{line}").and_then(|()| out.flush()))
}
