//! `logs`: what functions logged.

use clap::Args;

use super::client::Client;
use super::events::print_line;
use super::table::{DIM, colour, local_time};
use super::{Common, Failure};
use crate::logs::Record;

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
    /// At most so many [default: the newest 100]
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
}

impl Logs {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let mut query = vec![("follow", self.follow.to_string())];
        query.extend(self.function.map(|function| ("function", function)));
        query.extend(self.delivery.map(|delivery| ("delivery", delivery.to_string())));
        query.extend(self.limit.map(|limit| ("limit", limit.to_string())));
        Client::find(common)?.lines("/api/v1/logs", &query, |line| {
            if common.reach.json {
                return print_line(line);
            }
            let record: Record = serde_json::from_str(line)
                .map_err(|e| Failure::Failed(format!("the answer is not understood: {e}")))?;
            let style = match record.level.as_str() {
                "error" => colour("dead"),
                "warn" => colour("retry"),
                _ => anstyle::Style::new(),
            };
            print_line(&format!(
                "{DIM}{}{DIM:#} {style}{:<5}{style:#} {} {DIM}delivery {} attempt {}{DIM:#} {}",
                local_time(&record.at),
                record.level,
                record.function,
                record.delivery,
                record.attempt,
                record.text
            ))
        })
    }
}
