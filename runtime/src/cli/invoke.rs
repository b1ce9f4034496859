//! `invoke`: one function, here, without a server.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::emit::text_of;
use super::state::shown;
use super::text::{BOLD, DIM, colour, micros, plain, print, print_json};
use super::{Common, Failure, apps};
use crate::admin::view::StateChange;
use crate::app::{self, InvokeOptions, Invoked};
use crate::outcome::Outcome;
use crate::state::{Change, KEY_BYTES_MAX, Touched};

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
    /// What the function's state holds before: KEY=VALUE, the value as it is kept (the SDK keeps JSON); repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = entry)]
    state: Vec<(String, String)>,
    /// The same of the state that the functions of the app share
    #[arg(long, value_name = "KEY=VALUE", value_parser = entry)]
    shared_state: Vec<(String, String)>,
    /// Where the function is declared: a manifest or a folder of manifests [default: evoke.yaml]
    #[arg(long = "manifest", short, value_name = "MANIFEST|DIR")]
    manifests: Vec<PathBuf>,
}

impl Invoke {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let Self { function, event, attempt, state, shared_state, manifests } = self;
        let (event, data) = (text_of(&event)?, common.folder().to_owned());
        let options = InvokeOptions { manifests, function, event, attempt, state, shared_state, data };
        let invoked = apps::run(common, app::invoke(options))?;
        let printed =
            if common.reach.json { print_json(&machine(&invoked)) } else { print(human(&invoked).trim_end()) };
        printed?;
        if invoked.attempt.outcome == Outcome::Done { Ok(()) } else { Err(Failure::Reported) }
    }
}

fn entry(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, as in seen=7")?;
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(format!("a key has 1 to {KEY_BYTES_MAX} bytes"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn machine(invoked: &Invoked) -> serde_json::Value {
    let Invoked { function, attempt, logs } = invoked;
    let logs: Vec<_> = logs.iter().map(|line| json!({ "level": line.level.name(), "text": line.text })).collect();
    let changes = attempt.state.keys.iter().filter_map(|touched| {
        let change = touched.change.as_ref()?;
        Some(StateChange::new(&touched.bucket, &touched.key, change.value()))
    });
    json!({
        "function": function,
        "outcome": attempt.outcome.kind(),
        "message": attempt.outcome.message(),
        "published": attempt.published,
        "state": changes.collect::<Vec<_>>(),
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
    for Touched { bucket, key, change, .. } in &attempt.state.keys {
        let now = match change {
            None => continue,
            Some(Change::Set(value)) => format!("= {}", shown(value)),
            Some(Change::Delete) => "deleted".to_owned(),
        };
        text += &format!("{DIM}state{DIM:#} {} {} {now}\n", plain(bucket), plain(key));
    }
    text
}
