//! `events`: lists or follows accepted events.

use clap::Args;

use super::client::{Client, parse};
use super::json_text::compact;
use super::text::{self, DIM, EventSummary, escape, local_time, print, print_json_text, truncate};
use super::{Common, Failure};
use crate::admin::view::{Damaged, Envelope};
use evoke_model::Seq;

/// The default limit: fits on one screen.
const NEWEST: usize = 20;

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Continue with new events as they are accepted
    #[arg(long, short)]
    follow: bool,
    /// Only events of this type; a trailing * matches any ending
    #[arg(long = "type", value_name = "TYPE")]
    type_: Option<String>,
    /// Only events of this source
    #[arg(long)]
    source: Option<String>,
    /// Only events after this number
    #[arg(long, value_name = "NUMBER")]
    after: Option<Seq>,
    /// Maximum number of events; with --follow, the number of stored events to show first [default: the newest 20; with
    /// --after all]
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
    /// With --json, print each event as {"seq", "accepted", "event"}: with its number, the time it was accepted, its
    /// origin and its verified sender
    #[arg(long)]
    envelope: bool,
}

impl Events {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let envelope = self.envelope || !common.client_args.json;
        let flags = [("follow", self.follow), ("envelope", envelope)].map(|(name, flag)| (name, flag.to_string()));
        let mut query = Vec::from(flags);
        let limit = self.limit.or(self.after.is_none().then_some(NEWEST));
        query.extend(limit.map(|limit| ("limit", limit.to_string())));
        query.extend(self.type_.map(|type_| ("type", type_)));
        query.extend(self.source.map(|source| ("source", source)));
        query.extend(self.after.map(|after| ("after", after.to_string())));
        let columns = text::columns();
        let mut is_complete = true;
        Client::find(common)?.lines("/api/v1/events", &query, |line| {
            if line.starts_with(r#"{"damaged":"#) {
                is_complete = false;
                let damaged: Damaged = parse(line)?;
                Failure::Failed(damaged.damaged).print();
                return Ok(());
            }
            if common.client_args.json { print_json_text(line) } else { print(&render(&parse(line)?, columns)) }
        })?;
        if is_complete { Ok(()) } else { Err(Failure::Reported) }
    }
}

/// Formats an event on one line, truncated to the width of the terminal.
fn render(envelope: &Envelope, columns: Option<usize>) -> String {
    let EventSummary { source, type_, subject, data, .. } = EventSummary::parse(&envelope.event);
    let time = local_time(&envelope.accepted);
    let seq = envelope.seq;
    let subject = subject.map(|subject| format!(" {}", truncate(&subject, Some(40)))).unwrap_or_default();
    let sender = envelope.principal.as_deref().map(|sender| format!(" by {}", escape(sender))).unwrap_or_default();
    let start = format!("{seq:>6}  {time}  {type_:<24}  {source}{sender}{subject}");
    let room = columns.map(|columns| columns.saturating_sub(start.chars().count() + 2));
    if room.is_some_and(|room| room < 8) {
        return truncate(&start, columns).into_owned();
    }
    // Without a terminal the data is truncated too, to keep lines readable.
    let data = data
        .map(|data| truncate(&escape(&compact(data.get())), Some(room.unwrap_or(120))).into_owned())
        .unwrap_or_default();
    format!("{seq:>6}  {DIM}{time}{DIM:#}  {type_:<24}  {source}{sender}{subject}  {DIM}{data}{DIM:#}")
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_truncated_to_the_terminal_width() {
        let envelope: Envelope = parse(
            r#"{"seq":7,"accepted":"soon","event":{"id":"1","source":"/shop/checkout","type":"order.placed","data":{"customer": "ada", "total": 1.10}}}"#,
        )
        .unwrap();
        let rendered = |columns| anstream::adapter::strip_str(&render(&envelope, columns)).to_string();
        let whole = "     7  soon  order.placed              /shop/checkout  {\"customer\":\"ada\",\"total\":1.10}";
        assert_eq!(rendered(None), whole);
        assert_eq!(rendered(Some(66)), "     7  soon  order.placed              /shop/checkout  {\"custome…");
        assert_eq!(rendered(Some(50)), "     7  soon  order.placed              /shop/che…");
    }
}
