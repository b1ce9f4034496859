//! `pending`: lists, retries, moves and cancels deliveries that are not finished.

mod scheduled;

use clap::{Args, Subcommand};

use super::client::{Client, parse};
use super::select::ChangeOptions;
use super::table::table;
use super::text::{self, DIM, EventSummary, escape, local_time, print, print_json_text};
use super::{Common, Failure, WithCommon};
use crate::admin::view::{self, Count, PendingSelection};
use evoke_model::{DeliveryId, Seq};

#[derive(Debug, Subcommand)]
pub(super) enum Pending {
    /// List pending deliveries (ready, retrying or blocked), oldest first; with --scheduled, list scheduled events
    #[command(after_help = "Examples:\n  evoke pending list --function shop/charge --state retrying\n  \
                            evoke pending list --scheduled")]
    List(WithCommon<List>),
    /// Run retrying deliveries now, instead of at the time of their next attempt. Earlier attempts still count
    /// towards the maximum number of attempts
    #[command(after_help = "Example: evoke pending retry --function shop/charge")]
    Retry(WithCommon<Change>),
    /// Move the pending deliveries of a renamed or removed function, which is in no manifest any more, to another
    /// function
    #[command(after_help = "Example: evoke pending move shop/charge shop/pay")]
    Move(WithCommon<Move>),
    /// Cancel pending deliveries: they become dead letters, and `evoke dead redrive` undoes this. The results of
    /// running attempts are discarded
    ///
    /// A scheduled event that is cancelled is not delivered at its time: its deliveries are purged. `evoke replay` can
    /// deliver the event later.
    #[command(
        after_help = "Examples:\n  evoke pending cancel --root 17\n  evoke pending cancel --event reminder-7\n  \
                            evoke pending cancel --scheduled --pattern '{\"type\":[\"reminder.due\"]}'"
    )]
    Cancel(WithCommon<Cancel>),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only deliveries of this function
    #[arg(long, conflicts_with = "root")]
    function: Option<String>,
    /// Only deliveries of the event with this number and of all events that it caused
    #[arg(long, value_name = "EVENT")]
    root: Option<Seq>,
    /// Only deliveries in this state
    #[arg(long, value_parser = ["ready", "retrying", "blocked"])]
    state: Option<String>,
    /// Only deliveries with higher numbers than this delivery
    #[arg(long, value_name = "DELIVERY")]
    after: Option<DeliveryId>,
    /// Maximum number of deliveries to list
    #[arg(long, short = 'n', default_value_t = 100, value_name = "N")]
    limit: usize,
    /// List the events that wait for the time in their attribute notbefore, in the order of these times
    #[arg(long, conflicts_with_all = ["function", "root", "state", "after"])]
    scheduled: bool,
    /// With --scheduled: only events that match this event pattern, JSON or @FILE
    #[arg(long, value_name = "JSON", requires = "scheduled")]
    pattern: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Change {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    options: ChangeOptions,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Number of one delivery
    delivery: Option<DeliveryId>,
    /// All pending deliveries of this function
    #[arg(long)]
    function: Option<String>,
    /// All pending deliveries of the event with this number and of all events that it caused
    #[arg(long, value_name = "EVENT")]
    root: Option<Seq>,
    /// All pending deliveries
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub(super) struct Cancel {
    /// Number of one delivery
    #[arg(group = "which")]
    delivery: Option<DeliveryId>,
    /// All pending deliveries of this function
    #[arg(group = "which", long)]
    function: Option<String>,
    /// All pending deliveries of the event with this number and of all events that it caused
    #[arg(group = "which", long, value_name = "EVENT")]
    root: Option<Seq>,
    /// All pending deliveries
    #[arg(group = "which", long)]
    all: bool,
    /// The scheduled event with this id or number
    #[arg(group = "which", long, value_name = "EVENT")]
    event: Option<String>,
    /// All scheduled events that match --pattern
    #[arg(group = "which", long, requires = "pattern")]
    scheduled: bool,
    /// With --scheduled: an event pattern, JSON or @FILE
    #[arg(long, value_name = "JSON", requires = "scheduled")]
    pattern: Option<String>,
    #[command(flatten)]
    options: ChangeOptions,
}

#[derive(Debug, Args)]
pub(super) struct Move {
    /// The function that has the deliveries
    from: String,
    /// The function that receives the deliveries
    to: String,
    #[command(flatten)]
    options: ChangeOptions,
}

impl Move {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let Self { from, to, options } = self;
        let body = view::Move { from, to, dry_run: options.dry_run };
        let response = Client::find(common)?.post("/api/v1/pending/move", &body)?;
        options.print_count(common, &response, "delivery", "moved").map(drop)
    }
}

impl Pending {
    pub(super) fn run(self, global: &Common) -> Result<(), Failure> {
        match self {
            Self::List(WithCommon { command, common }) => command.run(&common.with_defaults(global)),
            Self::Retry(WithCommon { command, common }) => {
                command.apply(&common.with_defaults(global), "retry", "made ready", "does not wait for a retry")
            }
            Self::Move(WithCommon { command, common }) => command.run(&common.with_defaults(global)),
            Self::Cancel(WithCommon { command, common }) => command.run(&common.with_defaults(global)),
        }
    }
}

impl List {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let Self { function, root, state, after, limit, scheduled, pattern } = self;
        if scheduled {
            return scheduled::list(common, pattern.as_deref(), limit);
        }
        let conditions = [
            ("function", function),
            ("root", root.map(|root| root.to_string())),
            ("state", state),
            ("after", after.map(|after| after.to_string())),
        ];
        let mut query: Vec<_> = conditions.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let client = Client::find(common)?;
        if common.client_args.json {
            query.push(("limit", limit.to_string()));
            return client.lines("/api/v1/pending", &query, print_json_text);
        }
        // Requests one delivery more than the limit, to find out whether there are further ones.
        query.push(("limit", limit.saturating_add(1).to_string()));
        let mut pending: Vec<view::Pending> = Vec::new();
        client.lines("/api/v1/pending", &query, |line| {
            pending.push(parse(line)?);
            Ok(())
        })?;
        if pending.is_empty() {
            return print("no pending deliveries");
        }
        let has_more = pending.len() > limit;
        pending.truncate(limit);
        let rows: Vec<_> = pending.iter().map(row).collect();
        let headings = ["delivery#", "function", "state", "tries#?", "event", "key?", "waits for"];
        print(&table(&headings, &rows, text::columns()))?;
        if has_more && let Some(last) = pending.last() {
            print(&format!("{DIM}… and newer ones: `evoke pending list --after {}`{DIM:#}", last.delivery.id))?;
        }
        Ok(())
    }
}

impl Change {
    fn apply(self, common: &Common, action: &str, done: &str, unchanged: &str) -> Result<(), Failure> {
        let Self { which: Which { delivery, function, root, all }, options } = self;
        let dry_run = options.dry_run;
        let which = PendingSelection { delivery, function, root, all, dry_run };
        let (client, path) = (Client::find(common)?, format!("/api/v1/pending/{action}"));
        if all && !dry_run {
            let Count { count } = parse(&client.post(&path, &PendingSelection { dry_run: true, ..which.clone() })?)?;
            if count > 0 {
                options.confirm(&format!("{action} {}?", text::count(count, "delivery")))?;
            }
        }
        let response = client.post(&path, &which)?;
        let Count { count } = parse(&response)?;
        if let (Some(id), 0) = (delivery, count) {
            return Err(Failure::NotFound(format!(
                "delivery {id} {unchanged}; `evoke pending list` lists all pending deliveries"
            )));
        }
        options.print_count(common, &response, "delivery", done).map(drop)
    }
}

impl Cancel {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let Self { delivery, function, root, all, event, scheduled: _, pattern, options } = self;
        match (event, pattern) {
            (Some(event), _) => scheduled::cancel(common, event, options),
            (None, Some(pattern)) => scheduled::cancel_matching(common, &pattern, options),
            (None, None) => {
                let change = Change { which: Which { delivery, function, root, all }, options };
                change.apply(common, "cancel", "cancelled", "is not pending")
            }
        }
    }
}

fn row(pending: &view::Pending) -> Vec<String> {
    let view::Pending { delivery, event, running_since, held, blocked_by } = pending;
    let EventSummary { type_, .. } = EventSummary::parse(&event.event);
    let waits_for = match (running_since, blocked_by, &delivery.due) {
        (Some(since), ..) => format!("running since {}", local_time(since)),
        (_, Some(by), _) if by.state == "dead" => format!("dead letter {}", by.delivery),
        (_, Some(by), _) => format!("delivery {} ({})", by.delivery, escape(&by.state)),
        _ if held.as_deref() == Some("paused") => "a resume".to_owned(),
        _ if held.as_deref() == Some("compiling") => "the compiler".to_owned(),
        _ if held.is_some() => "a manifest with this function".to_owned(),
        (.., Some(due)) => format!("retry at {}", local_time(due)),
        _ => "a free slot".to_owned(),
    };
    vec![
        delivery.id.to_string(),
        escape(&delivery.function).into_owned(),
        escape(&delivery.state).into_owned(),
        delivery.attempts.len().to_string(),
        format!("{} {type_}", event.seq),
        escape(delivery.order_key.as_deref().unwrap_or_default()).into_owned(),
        waits_for,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_shows_the_state_the_attempts_the_event_and_what_the_delivery_waits_for() {
        let pending = |more: &str| -> view::Pending {
            parse(&format!(
                r#"{{"delivery":{{"id":3,"event":7,"function":"shop/charge","trigger":"on[0]","state":"retrying","due":"later",
                "order_key":"ada","attempts":[{{"attempt":1,"started":"soon","duration_us":900,"outcome":"retry","message":"no"}}]}},
              "event":{{"seq":7,"accepted":"soon","event":{{"id":"1","source":"/s","type":"t"}}}}{more}}}"#,
            ))
            .unwrap()
        };
        let columns = ["3", "shop/charge", "retrying", "1", "7 t", "ada", "retry at later"];
        assert_eq!(row(&pending("")), columns);
        let waits_for = |more| row(&pending(more)).pop().unwrap();
        assert_eq!(waits_for(r#","running_since":"noon""#), "running since noon");
        assert_eq!(waits_for(r#","blocked_by":{"delivery":2,"state":"dead"}"#), "dead letter 2");
        assert_eq!(waits_for(r#","blocked_by":{"delivery":2,"state":"ready"}"#), "delivery 2 (ready)");
    }
}
