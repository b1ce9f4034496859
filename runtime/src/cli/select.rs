//! Parts of commands that select or change many events or deliveries: times, confirmations and the summary of a change.

use std::io::{BufRead, IsTerminal};

use clap::Args;

use super::text::{self, print, print_error, print_json_text};
use super::{Common, Failure, parse_duration};
use crate::admin::view::Count;
use evoke_model::clock::rfc3339;

/// Options of a command that changes all deliveries or events that it selects.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct ChangeOptions {
    /// Change nothing: only show how many deliveries or events are selected
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask for a confirmation. Without a terminal, the command never asks
    #[arg(long, short)]
    pub(super) yes: bool,
}

impl ChangeOptions {
    /// Asks the user on the terminal for a confirmation. Returns an error if the user does not confirm.
    pub(super) fn confirm(self, question: &str) -> Result<(), Failure> {
        let stdin = std::io::stdin();
        if self.yes || !stdin.is_terminal() || !std::io::stderr().is_terminal() {
            return Ok(());
        }
        print_error(&format!("{question} [y/N] "));
        let mut line = String::new();
        let read = stdin.lock().read_line(&mut line);
        let answer = line.trim().to_ascii_lowercase();
        match read.is_ok() && ["y", "yes"].contains(&answer.as_str()) {
            true => Ok(()),
            false => Err(Failure::Failed("not confirmed: nothing was changed".to_owned())),
        }
    }

    /// Prints the number of changed deliveries or events, as in "3 dead letters redriven".
    pub(super) fn print_count(self, common: &Common, response: &str, noun: &str, done: &str) -> Result<u64, Failure> {
        let Count { count } = super::client::parse(response)?;
        if common.client_args.json {
            print_json_text(response)?;
        } else {
            let would = if self.dry_run { "would be " } else { "" };
            print(&format!("{} {would}{done}", text::count(count, noun)))?;
        }
        Ok(count)
    }
}

/// Parses an RFC 3339 time, or a duration before now. Returns the time in RFC 3339.
pub(super) fn parse_time(text: &str) -> Result<String, String> {
    if text.parse::<jiff::Timestamp>().is_ok() {
        return Ok(text.to_owned());
    }
    let ago = parse_duration(text)
        .map_err(|_| "write a time such as 2026-01-31T12:00:00Z, or a duration before now such as 2h")?;
    let ago_ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    Ok(rfc3339(jiff::Timestamp::now().as_millisecond().saturating_sub(ago_ms).max(0)))
}
