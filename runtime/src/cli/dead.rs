//! `dead`: dead letters, looked at and decided about.

use clap::{Args, Subcommand};

use super::client::Client;
use super::events::print_line;
use super::table::{BOLD, DIM, local_time, short, table};
use super::{Common, Failure};
use crate::admin::dead::{Count, Which};
use crate::admin::view::DeadLetter;

#[derive(Debug, Subcommand)]
pub(super) enum Dead {
    /// List dead letters, the oldest first
    List {
        /// Only those of this function, app/function
        #[arg(long)]
        function: Option<String>,
        /// At most so many
        #[arg(long, short = 'n', default_value_t = 100)]
        limit: usize,
    },
    /// Show one with its event and its attempts
    Show {
        /// The delivery
        delivery: i64,
    },
    /// Make them ready again, with fresh attempts
    Redrive(Choice),
    /// Let them go; what they blocked goes on
    Purge(Choice),
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
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let client = Client::find(common)?;
        match self {
            Self::List { function, limit } => {
                let mut query = vec![("limit", limit.to_string())];
                query.extend(function.map(|function| ("function", function)));
                let letters: Vec<DeadLetter> = client.get("/api/v1/dead", &query)?;
                if common.json {
                    return letters.iter().try_for_each(|l| print_line(&serde_json::to_string(l).unwrap_or_default()));
                }
                print_line(list(&letters).trim_end())
            }
            Self::Show { delivery } => {
                let letter: DeadLetter = client.get(&format!("/api/v1/dead/{delivery}"), &[])?;
                if common.json {
                    return print_line(&serde_json::to_string(&letter).unwrap_or_default());
                }
                print_line(show(&letter).trim_end())
            }
            Self::Redrive(choice) => decide(common, &client, "redrive", "ready again", choice),
            Self::Purge(choice) => decide(common, &client, "purge", "let go", choice),
        }
    }
}

fn decide(common: &Common, client: &Client, action: &str, words: &str, choice: Choice) -> Result<(), Failure> {
    let Choice { delivery, function, all } = choice;
    let count: Count = client.post(&format!("/api/v1/dead/{action}"), &Which { delivery, function, all })?;
    if common.json {
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
        let subject = if text("subject").is_empty() { String::new() } else { format!(" {}", short(&text("subject"), 32)) };
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
