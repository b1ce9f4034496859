//! `events`: lists or follows accepted events.

use clap::Args;
use serde::Deserialize;

use super::client::{Client, parse};
use super::json_text::compact;
use super::progress::Progress;
use super::replay::read_pattern;
use super::select::parse_time;
use super::text::{self, DIM, EventSummary, escape, local_time, print, print_error, print_json_text, truncate};
use super::{Common, Failure};
use crate::admin::view::{Damaged, Envelope};
use evoke_model::Seq;

/// The default of `--limit`. This number of events fits on one screen.
const NEWEST: usize = 20;

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Continue with new events as they are accepted
    #[arg(long, short, conflicts_with_all = ["until", "before", "newest_first"])]
    follow: bool,
    /// Only events of this type; a trailing * matches any ending
    #[arg(long = "type", value_name = "TYPE")]
    type_: Option<String>,
    /// Only events of this source
    #[arg(long)]
    source: Option<String>,
    /// Only events with a delivery to this function
    #[arg(long)]
    function: Option<String>,
    /// Only events accepted at or after this time, such as 2026-01-31T12:00:00Z, or this long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<String>,
    /// Only events accepted before this time, in the formats of --since
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<String>,
    /// Only events that match this event pattern, JSON or @FILE
    #[arg(long, value_name = "JSON")]
    pattern: Option<String>,
    /// Only events whose JSON form contains this text; upper and lower case are not distinguished
    #[arg(long)]
    text: Option<String>,
    /// Only events with higher numbers than this
    #[arg(long, value_name = "NUMBER")]
    after: Option<Seq>,
    /// Only events with lower numbers than this
    #[arg(long, value_name = "NUMBER")]
    before: Option<Seq>,
    /// List the newest events first. Each event is printed as soon as it is found
    #[arg(long)]
    newest_first: bool,
    /// Maximum number of events. With --follow: how many stored events to show before new ones [default: the newest 20;
    /// no limit if --after or --since is given]
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
    /// With --json, print each event in an object with `seq` (the number of the event), `accepted` (the time at which
    /// it was accepted), `origin`, `principal` (the verified sender) and `event`. Without --envelope, only the event
    /// is printed, with its number as the member `seq` (`evokeseq` if the event has an attribute `seq`)
    #[arg(long)]
    envelope: bool,
}

impl Events {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let mut query =
            vec![("follow", self.follow.to_string()), ("envelope", true.to_string()), Progress::parameter()];
        let is_bounded = self.after.is_some() || self.since.is_some();
        let limit = self.limit.or((!is_bounded).then_some(NEWEST));
        query.extend(limit.map(|limit| ("limit", limit.to_string())));
        if self.newest_first {
            query.push(("order", "newest".to_owned()));
        }
        let pattern = self.pattern.as_deref().map(read_pattern).transpose()?;
        let texts = [
            ("type", self.type_),
            ("source", self.source),
            ("function", self.function),
            ("since", self.since),
            ("until", self.until),
            ("pattern", pattern.map(|pattern| pattern.to_string())),
            ("text", self.text),
            ("after", self.after.map(|after| after.to_string())),
            ("before", self.before.map(|before| before.to_string())),
        ];
        query.extend(texts.into_iter().filter_map(|(name, value)| Some((name, value?))));
        let (columns, json) = (text::columns(), common.client_args.json);
        let (mut is_complete, mut is_empty, mut progress) = (true, true, Progress::new("event"));
        Client::find(common)?.lines("/api/v1/events", &query, |line| {
            if progress.takes(line)? {
                return Ok(());
            }
            is_empty = false;
            if line.starts_with(r#"{"damaged":"#) {
                is_complete = false;
                let damaged: Damaged = parse(line)?;
                Failure::Failed(damaged.damaged).print();
                return Ok(());
            }
            match (json, self.envelope) {
                (true, true) => print_json_text(line),
                (true, false) => print_json_text(&with_seq(&parse(line)?)),
                (false, _) => print(&render(&parse(line)?, columns)),
            }
        })?;
        progress.clear();
        if is_empty && !json {
            print_error("no events\n");
        }
        if is_complete { Ok(()) } else { Err(Failure::Reported) }
    }
}

/// Returns the JSON form of an event with its number as the first member. The rest of the text is unchanged.
fn with_seq(envelope: &Envelope) -> String {
    let event = envelope.event.get();
    let has_seq = serde_json::from_str::<HasSeq>(event).is_ok_and(|found| found.seq.is_some());
    let name = if has_seq { "evokeseq" } else { "seq" };
    format!(r#"{{"{name}":{},{}"#, envelope.seq, event.strip_prefix('{').unwrap_or_default())
}

#[derive(Deserialize)]
struct HasSeq {
    #[serde(default)]
    seq: Option<serde::de::IgnoredAny>,
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
    // Without a terminal, the data is also truncated, to keep lines readable.
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

    #[test]
    fn the_number_of_an_event_is_its_first_member_and_hides_no_attribute() {
        let with =
            |event: &str| with_seq(&parse(&format!(r#"{{"seq":7,"accepted":"soon","event":{event}}}"#)).unwrap());
        assert_eq!(with(r#"{"id":"1","data":{"total": 1.10}}"#), r#"{"seq":7,"id":"1","data":{"total": 1.10}}"#);
        assert_eq!(with(r#"{"id":"1","seq":"a"}"#), r#"{"evokeseq":7,"id":"1","seq":"a"}"#);
    }
}
