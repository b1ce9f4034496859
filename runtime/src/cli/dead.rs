//! `dead`: dead letters, looked at and decided about.

use clap::{Args, Subcommand};

use super::client::Client;
use super::events::print_line;
use super::table::{BOLD, DIM, local_time, short, table};
use super::{Common, Failure, With};
use crate::admin::dead::{Count, Which};
use crate::admin::view::DeadLetter;

#[derive(Debug, Subcommand)]
pub(super) enum Dead {
    /// List dead letters, the oldest first
    List(With<List>),
    /// Show one with its event and its attempts
    Show(With<Show>),
    /// Make them ready again, with fresh attempts
    Redrive(With<Choice>),
    /// Let them go; what they blocked goes on
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
        let letters: Vec<DeadLetter> = Client::find(common)?.get("/api/v1/dead", &query)?;
        if common.reach.json {
            return letters
                .iter()
                .try_for_each(|letter| print_line(&serde_json::to_string(letter).unwrap_or_default()));
        }
        print_line(list(&letters).trim_end())
    }
}

impl Show {
    fn run(&self, common: &Common) -> Result<(), Failure> {
        let letter: DeadLetter = Client::find(common)?.get(&format!("/api/v1/dead/{}", self.delivery), &[])?;
        if common.reach.json {
            return print_line(&serde_json::to_string(&letter).unwrap_or_default());
        }
        print_line(show(&letter).trim_end())
    }
}

fn decide(common: &Common, action: &str, words: &str, choice: Choice) -> Result<(), Failure> {
    let Choice { delivery, function, all } = choice;
    let count: Count =
        Client::find(common)?.post(&format!("/api/v1/dead/{action}"), &Which { delivery, function, all })?;
    if common.reach.json {
        return print_line(&serde_json::to_string(&count).unwrap_or_default());
    }
    print_line(&format!("{} {words}", count.count))
}

fn list(letters: &[DeadLetter]) -> String {
    if letters.is_empty() {
        return "no dead letters".to_owned();
    }
    let row = |letter: &DeadLetter| {
        let text = |name: &str| letter.letter.event.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        let subject =
            if text("subject").is_empty() { String::new() } else { format!(" {}", short(&text("subject"), 32)) };
        vec![
            letter.delivery.id.to_string(),
            letter.delivery.function.clone(),
            format!("{} {}{subject}", letter.letter.seq, text("type")),
            short(letter.delivery.cause.as_deref().unwrap_or_default(), 100),
        ]
    };
    table(&["delivery#", "function", "event", "cause"], &letters.iter().map(row).collect::<Vec<_>>())
}

fn show(letter: &DeadLetter) -> String {
    let DeadLetter { delivery, letter } = letter;
    let mut text = format!(
        "{BOLD}delivery {}{BOLD:#} to {} by {}\n{BOLD}cause{BOLD:#} {}\n",
        delivery.id,
        delivery.function,
        delivery.trigger,
        delivery.cause.as_deref().unwrap_or_default()
    );
    for attempt in &delivery.attempts {
        text.push_str(&format!(
            "{DIM}attempt {} at {}{DIM:#} {} {}\n",
            attempt.attempt,
            local_time(&attempt.started),
            attempt.outcome,
            attempt.message.as_deref().unwrap_or_default()
        ));
    }
    let event = serde_json::to_string_pretty(&letter.event).unwrap_or_default();
    text.push_str(&format!("{BOLD}event {}{BOLD:#}\n{event}\n", letter.seq));
    text
}
