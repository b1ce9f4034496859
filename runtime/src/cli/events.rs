//! `events`: what was accepted, listed or followed.

use clap::Args;

use super::client::{Client, read};
use super::text::{self, DIM, Glance, compact, cut, local_time, plain, print, print_raw};
use super::{Common, Failure};
use crate::admin::view::{Damaged, Envelope};

/// As many as are seen without scrolling.
const NEWEST: usize = 20;

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
    /// Only events behind this number, the oldest first
    #[arg(long, value_name = "NUMBER")]
    after: Option<i64>,
    /// At most so many; with --follow, so many before it goes on [default: the newest 20; all with --after]
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
    /// With --json, each event as {"seq", "accepted", "event"}: with its number and its time of acceptance
    #[arg(long)]
    envelope: bool,
}

impl Events {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let envelope = self.envelope || !common.reach.json;
        let flags = [("follow", self.follow), ("envelope", envelope)].map(|(name, flag)| (name, flag.to_string()));
        let mut query = Vec::from(flags);
        let limit = self.limit.or(self.after.is_none().then_some(NEWEST));
        query.extend(limit.map(|limit| ("limit", limit.to_string())));
        query.extend(self.type_.map(|type_| ("type", type_)));
        query.extend(self.source.map(|source| ("source", source)));
        query.extend(self.after.map(|after| ("after", after.to_string())));
        let columns = text::columns();
        let mut is_whole = true;
        Client::find(common)?.lines("/api/v1/events", &query, |line| {
            if line.starts_with(r#"{"damaged":"#) {
                is_whole = false;
                let damaged: Damaged = read(line)?;
                Failure::Failed(damaged.damaged).report();
                return Ok(());
            }
            if common.reach.json { print_raw(line) } else { print(&human(&read(line)?, columns)) }
        })?;
        if is_whole { Ok(()) } else { Err(Failure::Reported) }
    }
}

/// One event on one line.
fn human(envelope: &Envelope, columns: Option<usize>) -> String {
    let Glance { source, type_, subject, data, .. } = Glance::at(&envelope.event);
    let time = local_time(&envelope.accepted);
    let seq = envelope.seq;
    let subject = subject.map(|subject| format!(" {}", cut(&subject, Some(40)))).unwrap_or_default();
    let start = format!("{seq:>6}  {time}  {type_:<24}  {source}{subject}");
    let room = columns.map(|columns| columns.saturating_sub(start.chars().count() + 2));
    if room.is_some_and(|room| room < 8) {
        return cut(&start, columns).into_owned();
    }
    // A glance is short also where nothing else cuts it.
    let data =
        data.map(|data| cut(&plain(&compact(&data)), Some(room.unwrap_or(120))).into_owned()).unwrap_or_default();
    format!("{seq:>6}  {DIM}{time}{DIM:#}  {type_:<24}  {source}{subject}  {DIM}{data}{DIM:#}").trim_end().to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_that_fits() {
        let envelope: Envelope = read(
            r#"{"seq":7,"accepted":"soon","event":{"id":"1","source":"/shop/checkout","type":"order.placed","data":{"customer":"ada"}}}"#,
        )
        .unwrap();
        let plain = |columns| anstream::adapter::strip_str(&human(&envelope, columns)).to_string();
        let whole = "     7  soon  order.placed              /shop/checkout  {\"customer\":\"ada\"}";
        assert_eq!(plain(None), whole);
        assert_eq!(plain(Some(66)), "     7  soon  order.placed              /shop/checkout  {\"custome…");
        assert_eq!(plain(Some(50)), "     7  soon  order.placed              /shop/che…");
    }
}
