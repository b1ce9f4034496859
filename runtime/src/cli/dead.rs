//! `dead`: lists, shows, redrives and purges dead letters.

use clap::{Args, Subcommand};

use super::client::{Client, parse};
use super::json_text::pretty;
use super::table::table;
use super::text::{
    self, BOLD, DIM, EventSummary, colour, escape, format_micros, local_time, print, print_json_text, truncate,
};
use super::{Common, Failure, WithCommon};
use crate::admin::view::{Attempt, Count, DeadLetter, DeadSelection, Delivery};
use evoke_model::DeliveryId;

#[derive(Debug, Subcommand)]
pub(super) enum Dead {
    /// List dead letters, oldest first
    #[command(after_help = "Example: evoke dead list --function shop/charge")]
    List(WithCommon<List>),
    /// Show a dead letter with its event and its attempts
    #[command(after_help = "Example: evoke dead show 7")]
    Show(WithCommon<Show>),
    /// Make dead letters ready to run again, with the full number of attempts
    #[command(after_help = "Example: evoke dead redrive --function shop/charge")]
    Redrive(WithCommon<Selection>),
    /// Discard dead letters; deliveries that they blocked continue
    #[command(after_help = "Example: evoke dead purge --all")]
    Purge(WithCommon<Selection>),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only dead letters of this function, app/function
    #[arg(long)]
    function: Option<String>,
    /// Maximum number of dead letters to list
    #[arg(long, short = 'n', default_value_t = 100)]
    limit: usize,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// Number of the delivery
    delivery: DeliveryId,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Selection {
    /// Number of one delivery
    delivery: Option<DeliveryId>,
    /// All dead letters of this function, app/function
    #[arg(long)]
    function: Option<String>,
    /// All dead letters
    #[arg(long)]
    all: bool,
}

impl Dead {
    pub(super) fn run(self, global: &Common) -> Result<(), Failure> {
        match self {
            Self::List(WithCommon { command, common }) => command.run(&common.with_defaults(global)),
            Self::Show(WithCommon { command, common }) => command.run(&common.with_defaults(global)),
            Self::Redrive(WithCommon { command, common }) => {
                apply(&common.with_defaults(global), "redrive", "redriven", command)
            }
            Self::Purge(WithCommon { command, common }) => {
                apply(&common.with_defaults(global), "purge", "purged", command)
            }
        }
    }
}

impl List {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.function.map(|function| ("function", function)));
        let client = Client::find(common)?;
        if common.client_args.json {
            return client.lines("/api/v1/dead", &query, print_json_text);
        }
        let mut rows = Vec::new();
        client.lines("/api/v1/dead", &query, |line| {
            rows.push(row(&parse(line)?));
            Ok(())
        })?;
        if rows.is_empty() {
            return print("no dead letters");
        }
        print(&table(&["delivery#", "function", "event", "cause"], &rows, text::columns()))
    }
}

impl Show {
    fn run(&self, common: &Common) -> Result<(), Failure> {
        let letter = Client::find(common)?.get(&format!("/api/v1/dead/{}", self.delivery), &[])?;
        if common.client_args.json { print_json_text(&letter) } else { print(&show(&parse(&letter)?)) }
    }
}

fn apply(common: &Common, action: &str, done: &str, selection: Selection) -> Result<(), Failure> {
    let which = match selection {
        Selection { delivery: Some(id), .. } => DeadSelection::Delivery(id),
        Selection { function: Some(name), .. } => DeadSelection::Function(name),
        Selection { all, .. } => DeadSelection::All(all),
    };
    let response = Client::find(common)?.post(&format!("/api/v1/dead/{action}"), &which)?;
    let Count { count } = parse(&response)?;
    if let (DeadSelection::Delivery(id), 0) = (which, count) {
        return Err(Failure::NotFound(format!(
            "delivery {id} is not a dead letter; `evoke dead list` lists all dead letters"
        )));
    }
    if common.client_args.json {
        return print_json_text(&response);
    }
    print(&format!("{} {done}", text::count(count, "dead letter")))
}

fn row(letter: &DeadLetter) -> Vec<String> {
    let DeadLetter { delivery, event } = letter;
    let EventSummary { type_, subject, .. } = EventSummary::parse(&event.event);
    let subject = subject.map(|subject| format!(" {}", truncate(&subject, Some(32)))).unwrap_or_default();
    let cause = escape(delivery.cause.as_deref().unwrap_or_default()).into_owned();
    let function = escape(&delivery.function).into_owned();
    vec![delivery.id.to_string(), function, format!("{} {type_}{subject}", event.seq), cause]
}

fn show(letter: &DeadLetter) -> String {
    let DeadLetter { delivery, event } = letter;
    let Delivery { id, function, trigger, state, .. } = delivery;
    let (style, function, trigger) = (colour(state), escape(function), escape(trigger));
    let mut text = format!("{BOLD}delivery {id}{BOLD:#} to {function} by {trigger}: {style}{state}{style:#}\n");
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
        assert_eq!(row(&letter), ["3", "shop/charge", "7 t ada", "reject: no total"]);
    }
}
