//! `dead`: lists, groups, shows, redrives, edits and purges dead letters.

mod edit;

use clap::{Args, Subcommand};

use super::client::{Client, parse};
use super::json_text::pretty;
use super::progress::Progress;
use super::select::{ChangeOptions, parse_time};
use super::table::table;
use super::text::{
    self, BOLD, DIM, EventSummary, colour, escape, format_micros, local_end, local_time, print, print_json_text,
    truncate,
};
use super::{Common, Failure, WithCommon};
use crate::admin::view::{Attempt, Count, DeadGroup, DeadLetter, DeadSelection, Delivery, Status};
use evoke_model::DeliveryId;

#[derive(Debug, Subcommand)]
pub(super) enum Dead {
    /// List dead letters, newest first
    #[command(
        after_help = "Example: evoke dead list --function shop/charge --since 2h\n         evoke dead list --group"
    )]
    List(WithCommon<List>),
    /// Show a dead letter with its event and its attempts
    #[command(after_help = "Example: evoke dead show 7")]
    Show(WithCommon<Show>),
    /// Make dead letters ready to run again, with the full number of attempts
    #[command(after_help = "Example: evoke dead redrive --function shop/charge --cause timeout --dry-run")]
    Redrive(WithCommon<Change>),
    /// Deliver the event of a dead letter again with other data, as a new event and only to the same function. The dead
    /// letter is purged; the old event does not change
    #[command(
        after_help = "Example: evoke dead edit 7 --data '{\"customer\":\"ada\",\"total\":42}'\n         evoke dead edit 7"
    )]
    Edit(edit::WithData),
    /// Discard dead letters. Deliveries that waited behind them are then delivered
    #[command(after_help = "Example: evoke dead purge --all")]
    Purge(WithCommon<Change>),
}

/// The conditions that select dead letters.
#[derive(Debug, Clone, Args)]
struct Conditions {
    /// Only dead letters of this function
    #[arg(long)]
    function: Option<String>,
    /// Only dead letters whose cause contains this text
    #[arg(long, value_name = "TEXT")]
    cause: Option<String>,
    /// Only dead letters of events of this type; a trailing * matches any ending
    #[arg(long = "type", value_name = "TYPE")]
    type_: Option<String>,
    /// Only dead letters whose last attempt ended at or after this time, such as 2026-01-31T12:00:00Z, or this long
    /// ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<String>,
    /// Only dead letters whose last attempt ended before this time, in the formats of --since
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    conditions: Conditions,
    /// Only dead letters with lower numbers than this delivery
    #[arg(long, value_name = "DELIVERY")]
    before: Option<DeliveryId>,
    /// Maximum number of dead letters to list
    #[arg(long, short = 'n', default_value_t = 20, value_name = "N")]
    limit: usize,
    /// Count the dead letters of each function and cause; causes that differ only in numbers count as one
    #[arg(long, conflicts_with_all = ["before", "limit"])]
    group: bool,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// Number of the delivery
    delivery: DeliveryId,
}

#[derive(Debug, Args)]
pub(super) struct Change {
    /// Number of one delivery
    #[arg(
        required_unless_present_any = ["function", "cause", "type_", "since", "until", "all"],
        conflicts_with_all = ["function", "cause", "type_", "since", "until", "all"]
    )]
    delivery: Option<DeliveryId>,
    #[command(flatten)]
    conditions: Conditions,
    /// All dead letters
    #[arg(long, conflicts_with_all = ["function", "cause", "type_", "since", "until"])]
    all: bool,
    #[command(flatten)]
    options: ChangeOptions,
}

impl Dead {
    pub(super) fn run(self, global: &Common) -> Result<(), Failure> {
        match self {
            Self::List(WithCommon { command, common }) => command.run(&common.with_defaults(global)),
            Self::Show(WithCommon { command, common }) => command.run(&common.with_defaults(global)),
            Self::Redrive(WithCommon { command, common }) => {
                command.apply(&common.with_defaults(global), "redrive", "redriven")
            }
            Self::Edit(edit) => edit.run(global),
            Self::Purge(WithCommon { command, common }) => {
                command.apply(&common.with_defaults(global), "purge", "purged")
            }
        }
    }
}

impl List {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let Conditions { function, cause, type_, since, until } = self.conditions;
        let conditions =
            [("function", function), ("cause", cause), ("type", type_), ("since", since), ("until", until)];
        let mut query: Vec<_> = conditions.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let client = Client::find(common)?;
        query.push(Progress::parameter());
        if self.group {
            return groups(&client, &query, common.client_args.json);
        }
        let mut progress = Progress::new("delivery");
        query.extend(self.before.map(|before| ("before", before.to_string())));
        if common.client_args.json {
            query.push(("limit", self.limit.to_string()));
            client.lines("/api/v1/dead", &query, |line| match progress.takes(line)? {
                true => Ok(()),
                false => print_json_text(line),
            })?;
            progress.clear();
            return Ok(());
        }
        // Requests one dead letter more than the limit, to find out whether there are further ones.
        query.push(("limit", self.limit.saturating_add(1).to_string()));
        let mut letters: Vec<DeadLetter> = Vec::new();
        client.lines("/api/v1/dead", &query, |line| {
            if !progress.takes(line)? {
                letters.push(parse(line)?);
            }
            Ok(())
        })?;
        progress.clear();
        if letters.is_empty() {
            let status: Status = parse(&client.get("/api/v1/status", &[])?)?;
            return print(&match status.pending {
                0 => "no dead letters".to_owned(),
                pending => format!("no dead letters; {} pending", text::count(pending, "delivery")),
            });
        }
        let has_more = letters.len() > self.limit;
        letters.truncate(self.limit);
        let rows: Vec<_> = letters.iter().map(row).collect();
        let headings = ["delivery#", "died=?", "function", "tries#?", "event", "key?", "cause"];
        print(&table(&headings, &rows, text::columns()))?;
        if has_more && let Some(last) = letters.last() {
            let id = last.delivery.id;
            print(&format!("{DIM}… and older ones: `evoke dead list --before {id}`; --group counts by cause{DIM:#}"))?;
        }
        Ok(())
    }
}

fn groups(client: &Client, query: &[(&str, String)], json: bool) -> Result<(), Failure> {
    let (mut progress, mut rows) = (Progress::new("delivery"), Vec::new());
    client.lines("/api/v1/dead/groups", query, |line| {
        if progress.takes(line)? {
            return Ok(());
        }
        if json {
            return print_json_text(line);
        }
        let DeadGroup { function, cause, count, first, last, newest } = parse(line)?;
        let time = |at: Option<String>| at.map_or_else(|| "-".to_owned(), |at| local_time(&at));
        let (function, cause) = (escape(&function).into_owned(), escape(&cause).into_owned());
        rows.push(vec![count.to_string(), function, time(first), time(last), newest.to_string(), cause]);
        Ok(())
    })?;
    progress.clear();
    if json {
        return Ok(());
    }
    if rows.is_empty() {
        return print("no dead letters");
    }
    print(&table(&["count#", "function", "first=?", "last=", "newest#?", "cause"], &rows, text::columns()))
}

impl Show {
    fn run(&self, common: &Common) -> Result<(), Failure> {
        let letter = Client::find(common)?.get(&format!("/api/v1/dead/{}", self.delivery), &[])?;
        if common.client_args.json { print_json_text(&letter) } else { print(&show(&parse(&letter)?)) }
    }
}

impl Change {
    fn apply(self, common: &Common, action: &str, done: &str) -> Result<(), Failure> {
        let Self { delivery, all, options, conditions } = self;
        let Conditions { function, cause, type_: r#type, since, until } = conditions;
        let dry_run = options.dry_run;
        let which = DeadSelection { delivery, function, cause, r#type, since, until, all, dry_run };
        let (client, path) = (Client::find(common)?, format!("/api/v1/dead/{action}"));
        if all && !dry_run {
            let Count { count } = parse(&client.post(&path, &DeadSelection { dry_run: true, ..which.clone() })?)?;
            if count > 0 {
                options.confirm(&format!("{action} {}?", text::count(count, "dead letter")))?;
            }
        }
        let response = client.post(&path, &which)?;
        let Count { count } = parse(&response)?;
        if let (Some(id), 0) = (delivery, count) {
            return Err(Failure::NotFound(format!(
                "delivery {id} is not a dead letter; `evoke dead list` lists all dead letters"
            )));
        }
        options.print_count(common, &response, "dead letter", done).map(drop)
    }
}

fn row(letter: &DeadLetter) -> Vec<String> {
    let DeadLetter { delivery, event } = letter;
    let EventSummary { type_, subject, .. } = EventSummary::parse(&event.event);
    let subject = subject.map(|subject| format!(" {}", truncate(&subject, Some(32)))).unwrap_or_default();
    let cause = escape(delivery.cause.as_deref().unwrap_or_default()).into_owned();
    let function = escape(&delivery.function).into_owned();
    let died =
        delivery.attempts.last().map_or_else(|| "-".to_owned(), |last| local_end(&last.started, last.duration_us));
    let key = escape(delivery.order_key.as_deref().unwrap_or_default()).into_owned();
    let (tries, event) = (delivery.attempts.len().to_string(), format!("{} {type_}{subject}", event.seq));
    vec![delivery.id.to_string(), died, function, tries, event, key, cause]
}

fn show(letter: &DeadLetter) -> String {
    let DeadLetter { delivery, event } = letter;
    let Delivery { id, function, trigger, state, order_key, .. } = delivery;
    let (style, function, trigger) = (colour(state), escape(function), escape(trigger));
    let key = order_key.as_deref().map(|key| format!(", key {}", escape(key))).unwrap_or_default();
    let mut text = format!("{BOLD}delivery {id}{BOLD:#} to {function} by {trigger}{key}: {style}{state}{style:#}\n");
    text += &format!("{BOLD}cause{BOLD:#} {}\n", escape(delivery.cause.as_deref().unwrap_or_default()));
    for Attempt { attempt, started, duration_us, outcome, message } in &delivery.attempts {
        let (time, took, style) = (local_time(started), format_micros(*duration_us), colour(outcome));
        let message = escape(message.as_deref().unwrap_or_default());
        text += &format!("{DIM}attempt {attempt} at {time}, {took}{DIM:#} {style}{outcome}{style:#} {message}\n");
    }
    text += &format!("{BOLD}event {}{BOLD:#} {DIM}accepted {}{DIM:#}", event.seq, local_time(&event.accepted));
    if let Some(damage) = &event.damaged {
        return text + "\n" + &escape(damage);
    }
    pretty(event.event.get()).lines().fold(text, |text, line| text + "\n" + &escape(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn show_prints_a_dead_letter_with_its_attempts_and_its_event() {
        let letter: DeadLetter = parse(
            r#"{"delivery":{"id":3,"event":7,"function":"shop/charge","trigger":"on[0]","state":"dead","cause":"reject: no total",
                "attempts":[{"attempt":1,"started":"soon","duration_us":900,"outcome":"reject","message":"no\u001btotal"}]},
              "event":{"seq":7,"accepted":"soon","event":{"id":"1","source":"/s","type":"t","subject":"ada","data":1.0}}}"#,
        )
        .unwrap();
        let expected = "\
delivery 3 to shop/charge by on[0]: dead
cause reject: no total
attempt 1 at soon, 900 µs reject no\\u{1b}total
event 7 accepted soon
{
  \"id\": \"1\",
  \"source\": \"/s\",
  \"type\": \"t\",
  \"subject\": \"ada\",
  \"data\": 1.0
}";
        assert_eq!(anstream::adapter::strip_str(&show(&letter)).to_string(), expected);
        assert_eq!(row(&letter), ["3", "soon", "shop/charge", "1", "7 t ada", "", "reject: no total"]);
    }
}
