//! `explain`: which field and operator matched or failed, for each trigger.

use clap::Args;
use serde::Deserialize;

use super::client::{Client, read, segment};
use super::text::{BOLD, DIM, colour, plain, print, print_raw};
use super::{Common, Failure};

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The event: its number (the first column of `evoke events`) or its id
    event: String,
    /// Only the triggers of this function, app/function
    #[arg(long)]
    function: Option<String>,
}

/// What is printed of an explained trigger.
#[derive(Deserialize)]
struct Explained {
    function: String,
    trigger: String,
    matched: bool,
    text: String,
}

impl Explain {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let path = format!("/api/v1/explain/{}", segment(&self.event));
        let query: Vec<_> = self.function.map(|function| ("function", function)).into_iter().collect();
        let answer = Client::find(common)?.get(&path, &query)?;
        if common.reach.json {
            return print_raw(&answer);
        }
        let explained: Vec<Explained> = read(&answer)?;
        if explained.is_empty() {
            return print("no function is declared");
        }
        let text: Vec<String> = explained.iter().map(human).collect();
        print(text.join("\n").trim_end())
    }
}

fn human(explained: &Explained) -> String {
    let Explained { function, trigger, matched, text } = explained;
    let (style, verdict) = if *matched { (colour("done"), "matches") } else { (colour("dead"), "does not match") };
    let mut lines = format!("{BOLD}{function}{BOLD:#} {DIM}{trigger}{DIM:#} {style}{verdict}{style:#}\n");
    for line in text.lines() {
        lines += &format!("  {}\n", plain(line));
    }
    lines
}
