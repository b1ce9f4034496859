//! `logs`: what functions logged.

use clap::Args;

use super::client::{Client, read};
use super::text::{DIM, colour, local_time, plain, print, print_raw};
use super::{Common, Failure};
use crate::logs::Line;

#[derive(Debug, Args)]
pub(super) struct Logs {
    /// Only this function, app/function
    #[arg(long)]
    function: Option<String>,
    /// Only this delivery
    #[arg(long)]
    delivery: Option<i64>,
    /// Go on with lines as they come
    #[arg(long, short)]
    follow: bool,
    /// At most so many; with --follow, so many before it goes on
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
    limit: usize,
}

impl Logs {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let mut query = vec![("follow", self.follow.to_string()), ("limit", self.limit.to_string())];
        query.extend(self.function.map(|function| ("function", function)));
        query.extend(self.delivery.map(|delivery| ("delivery", delivery.to_string())));
        Client::find(common)?.lines("/api/v1/logs", &query, |line| {
            if common.reach.json { print_raw(line) } else { print(&human(&read(line)?)) }
        })
    }
}

fn human(line: &Line) -> String {
    let Line { at, level, function, delivery, attempt, text } = line;
    let style = colour(level);
    let (time, function, text) = (local_time(at), plain(function.as_deref().unwrap_or("evoke")), plain(text));
    let which = match (delivery, attempt) {
        (Some(delivery), Some(attempt)) => format!(" {DIM}delivery {delivery} attempt {attempt}{DIM:#}"),
        _ => String::new(),
    };
    format!("{DIM}{time}{DIM:#} {style}{level:<5}{style:#} {function}{which} {text}")
}
