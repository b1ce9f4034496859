//! `dead`: dead letters, looked at and decided about.

use clap::{Args, Subcommand};

use super::client::{Client, read};
use super::table::table;
use super::text::{self, BOLD, DIM, Glance, colour, cut, local_time, micros, plain, print, print_raw};
use super::{Common, Failure, With};
use crate::admin::view::{Attempt, Count, DeadLetter, Delivery, Which};

#[derive(Debug, Subcommand)]
pub(super) enum Dead {
    /// List dead letters, the oldest first
    #[command(after_help = "Example: evoke dead list --function shop/charge")]
    List(With<List>),
    /// Show one with its event and its attempts
    #[command(after_help = "Example: evoke dead show 7")]
    Show(With<Show>),
    /// Make them ready again, with fresh attempts
    #[command(after_help = "Example: evoke dead redrive --function shop/charge")]
    Redrive(With<Choice>),
    /// Let them go; what they blocked goes on
    #[command(after_help = "Example: evoke dead purge --all")]
    Purge(With<Choice>),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those of this function, app/function
    #[arg(long)]
    function: Option<String>,
    /// At most so many
    #[arg(long, short = 'n', default_value_t = 100)]
    limit: usize,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The delivery
    delivery: i64,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Choice {
    /// One delivery
    delivery: Option<i64>,
    /// Those of this function, app/function
    #[arg(long)]
    function: Option<String>,
    /// Every one
    #[arg(long)]
    all: bool,
}

impl Dead {
    pub(super) fn run(self, front: &Common) -> Result<(), Failure> {
        match self {
            Self::List(With { command, common }) => command.run(&common.over(front)),
            Self::Show(With { command, common }) => command.run(&common.over(front)),
            Self::Redrive(With { command, common }) => decide(&common.over(front), "redrive", "ready again", command),
            Self::Purge(With { command, common }) => decide(&common.over(front), "purge", "let go", command),
        }
    }
}

impl List {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.function.map(|function| ("function", function)));
        let client = Client::find(common)?;
        if common.reach.json {
            return client.lines("/api/v1/dead", &query, print_raw);
        }
        let mut rows = Vec::new();
        client.lines("/api/v1/dead", &query, |line| {
            rows.push(row(&read(line)?));
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
        if common.reach.json { print_raw(&letter) } else { print(&show(&read(&letter)?)) }
    }
}

fn decide(common: &Common, action: &str, words: &str, choice: Choice) -> Result<(), Failure> {
    let which = match choice {
        Choice { delivery: Some(id), .. } => Which::Delivery(id),
        Choice { function: Some(name), .. } => Which::Function(name),
        Choice { all, .. } => Which::All(all),
    };
    let answer = Client::find(common)?.post(&format!("/api/v1/dead/{action}"), &which)?;
    let Count { count } = read(&answer)?;
    if let (Which::Delivery(id), 0) = (which, count) {
        return Err(Failure::NotFound(format!("delivery {id} is no dead letter; `evoke dead list` lists them")));
    }
    if common.reach.json {
        return print_raw(&answer);
    }
    print(&format!("{} {words}", text::count(count, "dead letter")))
}

fn row(letter: &DeadLetter) -> Vec<String> {
    let DeadLetter { delivery, event } = letter;
    let Glance { type_, subject, .. } = Glance::at(&event.event);
    let subject = subject.map(|subject| format!(" {}", cut(&subject, Some(32)))).unwrap_or_default();
    let cause = plain(delivery.cause.as_deref().unwrap_or_default()).into_owned();
    vec![delivery.id.to_string(), delivery.function.clone(), format!("{} {type_}{subject}", event.seq), cause]
}

fn show(letter: &DeadLetter) -> String {
    let DeadLetter { delivery, event } = letter;
    let Delivery { id, function, trigger, state, .. } = delivery;
    let style = colour(state);
    let mut text = format!("{BOLD}delivery {id}{BOLD:#} to {function} by {trigger}: {style}{state}{style:#}\n");
    text += &format!("{BOLD}cause{BOLD:#} {}\n", plain(delivery.cause.as_deref().unwrap_or_default()));
    for Attempt { attempt, started, duration_us, outcome, message } in &delivery.attempts {
        let (time, took, style) = (local_time(started), micros(*duration_us), colour(outcome));
        let message = plain(message.as_deref().unwrap_or_default());
        text += &format!("{DIM}attempt {attempt} at {time}, {took}{DIM:#} {style}{outcome}{style:#} {message}\n");
    }
    text += &format!("{BOLD}event {}{BOLD:#} {DIM}accepted {}{DIM:#}", event.seq, local_time(&event.accepted));
    if let Some(damage) = &event.damaged {
        return text + "\n" + &plain(damage);
    }
    let value: Result<serde_json::Value, _> = serde_json::from_str(event.event.get());
    // As it is where it is nested too deeply to be read.
    let json = value.and_then(|value| serde_json::to_string_pretty(&value));
    let json = json.unwrap_or_else(|_| event.event.get().to_owned());
    json.lines().fold(text, |text, line| text + "\n" + &plain(line))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_is_shown_with_its_attempts_and_its_event() {
        let letter: DeadLetter = read(
            r#"{"delivery":{"id":3,"event":7,"function":"shop/charge","trigger":"on[0]","state":"dead","cause":"reject: no total",
                "attempts":[{"attempt":1,"started":"soon","duration_us":900,"outcome":"reject","message":"no\u001btotal"}]},
              "event":{"seq":7,"accepted":"soon","event":{"id":"1","source":"/s","type":"t","subject":"ada"}}}"#,
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
  \"subject\": \"ada\",
  \"type\": \"t\"
}";
        assert_eq!(anstream::adapter::strip_str(&show(&letter)).to_string(), expected);
        assert_eq!(row(&letter), ["3", "shop/charge", "7 t ada", "reject: no total"]);
    }
}
