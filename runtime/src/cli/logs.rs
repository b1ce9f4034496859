//! `logs`: lists or follows the log lines of functions.

use clap::Args;

use super::client::{Client, parse};
use super::select::parse_time;
use super::text::{DIM, colour, escape, local_time, print, print_json_text};
use super::{Common, Failure};
use crate::logs::Line;
use evoke_model::DeliveryId;

#[derive(Debug, Args)]
pub(super) struct Logs {
    /// Only lines of this function
    #[arg(long)]
    function: Option<String>,
    /// Only lines of the delivery with this number
    #[arg(long)]
    delivery: Option<DeliveryId>,
    /// Continue with new lines as they are written
    #[arg(long, short)]
    follow: bool,
    /// Only lines at or after this time, such as 2026-01-31T12:00:00Z, or this long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<String>,
    /// Maximum number of lines. With --follow: how many stored lines to show before new ones [default: 100; no limit if
    /// --since is given]
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
}

impl Logs {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let mut query = vec![("follow", self.follow.to_string())];
        query.extend(self.limit.map(|limit| ("limit", limit.to_string())));
        query.extend(self.since.map(|since| ("since", since)));
        query.extend(self.function.map(|function| ("function", function)));
        query.extend(self.delivery.map(|delivery| ("delivery", delivery.to_string())));
        Client::find(common)?.lines("/api/v1/logs", &query, |line| {
            if common.client_args.json { print_json_text(line) } else { print(&render(&parse(line)?)) }
        })
    }
}

fn render(line: &Line) -> String {
    let Line { at, level, function, delivery, attempt, text } = line;
    let style = colour(level);
    let (time, function, text) = (local_time(at), escape(function.as_deref().unwrap_or("evoke")), escape(text));
    let which = match (delivery, attempt) {
        (Some(delivery), Some(attempt)) => format!(" {DIM}delivery {delivery} attempt {attempt}{DIM:#}"),
        _ => String::new(),
    };
    format!("{DIM}{time}{DIM:#} {style}{level:<5}{style:#} {function}{which} {text}")
}
