//! `explain`: shows for each trigger whether it matches an event, and which fields and operators of the pattern match.

use clap::Args;
use serde::Deserialize;

use super::client::{Client, encode_segment, parse};
use super::text::{BOLD, DIM, colour, escape, print, print_json_text};
use super::{Common, Failure};

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Number of the event (first column of `evoke events`), or its id
    event: String,
    /// Only triggers of this function, app/function
    #[arg(long)]
    function: Option<String>,
}

/// The fields of `control::TriggerExplanation` that are printed.
#[derive(Deserialize)]
struct TriggerExplanation {
    function: String,
    trigger: String,
    matched: bool,
    text: String,
}

impl Explain {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let path = format!("/api/v1/explain/{}", encode_segment(&self.event));
        let query: Vec<_> = self.function.map(|function| ("function", function)).into_iter().collect();
        let response = Client::find(common)?.get(&path, &query)?;
        if common.client_args.json {
            return print_json_text(&response);
        }
        let explained: Vec<TriggerExplanation> = parse(&response)?;
        if explained.is_empty() {
            return print("the active manifests declare no trigger");
        }
        let text: Vec<String> = explained.iter().map(render).collect();
        print(text.join("\n").trim_end())
    }
}

fn render(explained: &TriggerExplanation) -> String {
    let TriggerExplanation { function, trigger, matched, text } = explained;
    let (style, verdict) = if *matched { (colour("done"), "matches") } else { (colour("dead"), "does not match") };
    let (function, trigger) = (escape(function), escape(trigger));
    let mut lines = format!("{BOLD}{function}{BOLD:#} {DIM}{trigger}{DIM:#} {style}{verdict}{style:#}\n");
    // For a trigger with a pattern, the text repeats the verdict in its first line. The verdict is already printed.
    let lines_of_text = text.strip_prefix(verdict).and_then(|rest| rest.strip_prefix('\n')).unwrap_or(text);
    for line in lines_of_text.lines() {
        lines += &format!("  {}\n", escape(line));
    }
    lines
}
