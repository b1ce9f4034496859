//! Shows the progress of a search as one line on a terminal. Each report replaces this line, and the first result
//! removes it.

use std::io::IsTerminal as _;

use serde::Deserialize;

use super::Failure;
use super::client::parse;
use super::text::{DIM, print_error};

/// A line of a response that reports the position of the search: the number of an event or of a delivery.
#[derive(Deserialize)]
struct Searched {
    searched: i64,
}

pub(super) struct Progress {
    /// The name of one searched item, such as "event".
    noun: &'static str,
    is_shown: bool,
}

impl Progress {
    pub(super) fn new(noun: &'static str) -> Self {
        Self { noun, is_shown: false }
    }

    /// Returns the query parameter that requests lines with the progress if standard error is a terminal.
    pub(super) fn parameter() -> (&'static str, String) {
        ("progress", std::io::stderr().is_terminal().to_string())
    }

    /// If this line of a response reports the progress, shows it and returns true. If not, removes the progress from
    /// the terminal and returns false.
    pub(super) fn takes(&mut self, line: &str) -> Result<bool, Failure> {
        if !line.starts_with(r#"{"searched":"#) {
            self.clear();
            return Ok(false);
        }
        let Searched { searched } = parse(line)?;
        self.show(&format!("searching: at {} {searched}", self.noun));
        Ok(true)
    }

    /// Replaces the line on the terminal.
    pub(super) fn show(&mut self, text: &str) {
        print_error(&format!("\r{DIM}{text}{DIM:#}\x1b[K"));
        self.is_shown = true;
    }

    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            print_error("\r\x1b[K");
        }
    }
}
