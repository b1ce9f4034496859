//! `invoke`: one function, here, without a server.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::emit::text_of;
use super::text::{BOLD, DIM, colour, micros, plain, print, print_json};
use super::{Common, Failure, apps};
use crate::app::{self, InvokeOptions, Invoked};
use crate::outcome::Outcome;

#[derive(Debug, Args)]
pub(super) struct Invoke {
    /// The function, app/function, or its name alone where only one app has it
    function: String,
    /// The event: a CloudEvent in JSON, @FILE, or @- for standard input; id, source, type and time may be left out
    #[arg(long, value_name = "JSON|@FILE")]
    event: String,
    /// Which attempt the function is told it is
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    attempt: u32,
    /// Where the function is declared: a manifest or a folder of manifests [default: evoke.yaml]
    #[arg(long = "manifest", short, value_name = "MANIFEST|DIR")]
    manifests: Vec<PathBuf>,
}

impl Invoke {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let Self { function, event, attempt, manifests } = self;
        let (event, data) = (text_of(&event)?, common.folder().to_owned());
        let invoked = apps::run(common, app::invoke(InvokeOptions { manifests, function, event, attempt, data }))?;
        let printed =
            if common.reach.json { print_json(&machine(&invoked)) } else { print(human(&invoked).trim_end()) };
        printed?;
        if invoked.attempt.outcome == Outcome::Done { Ok(()) } else { Err(Failure::Reported) }
    }
}

fn machine(invoked: &Invoked) -> serde_json::Value {
    let Invoked { function, attempt, logs } = invoked;
    let logs: Vec<_> = logs.iter().map(|line| json!({ "level": line.level.name(), "text": line.text })).collect();
    json!({
        "function": function,
        "outcome": attempt.outcome.kind(),
        "message": attempt.outcome.message(),
        "published": attempt.published,
        "logs": logs,
        "duration_us": u64::try_from(attempt.duration.as_micros()).unwrap_or(u64::MAX),
        "memory_bytes": attempt.memory_bytes,
    })
}

fn human(invoked: &Invoked) -> String {
    let Invoked { function, attempt, logs } = invoked;
    let kind = attempt.outcome.kind();
    let style = colour(kind);
    let duration = micros(u64::try_from(attempt.duration.as_micros()).unwrap_or(u64::MAX));
    let memory = attempt.memory_bytes / 1024;
    let mut text =
        format!("{BOLD}{function}{BOLD:#} {style}{kind}{style:#} {DIM}in {duration}, {memory} KiB of memory{DIM:#}\n");
    if let Some(message) = attempt.outcome.message() {
        text += &format!("  {}\n", plain(&message));
    }
    for line in logs {
        text += &format!("{DIM}{:<5}{DIM:#} {}\n", line.level.name(), plain(&line.text));
    }
    for event in &attempt.published {
        text += &format!("{DIM}published{DIM:#} {}\n", plain(&event.to_json()));
    }
    text
}
