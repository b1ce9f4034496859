//! `invoke`: runs one function locally, without a server.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::compile::CompileOptions;
use super::emit::read_argument;
use super::state::one_line;
use super::terminal::Terminal;
use super::text::{BOLD, DIM, colour, escape, format_micros, print, print_json};
use super::{Common, Failure, apps};
use crate::admin::view::StateChange;
use crate::app;
use crate::app::{Invocation, InvokeOptions};
use evoke_model::outcome::Outcome;
use evoke_model::state::{Change, KEY_BYTES_MAX, Touched};

#[derive(Debug, Args)]
pub(super) struct Invoke {
    /// The function: app/function, or only the name of the function if just one app has a function of this name
    function: String,
    /// The event: a CloudEvent in JSON, @FILE, or @- for standard input; id, source, type and time are optional
    #[arg(long, value_name = "JSON|@FILE")]
    event: String,
    /// The attempt number to give to the function with the event
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    attempt: u32,
    /// Initial state of the function: KEY=VALUE. VALUE is stored unchanged; functions that use the SDK expect JSON,
    /// where a string has quotes. Repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_entry)]
    state: Vec<(String, String)>,
    /// Initial state shared by the functions of the app: KEY=VALUE; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_entry)]
    shared_state: Vec<(String, String)>,
    /// Manifest file, or folder of manifests, that declares the function [default: evoke.yaml]
    #[arg(long = "manifest", short, value_name = "MANIFEST|DIR")]
    manifests: Vec<PathBuf>,
    #[command(flatten)]
    compile: CompileOptions,
}

impl Invoke {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let Self { function, event, attempt, state, shared_state, manifests, compile } = self;
        let compile = compile.limits();
        let (event, data) = (read_argument(&event)?, common.data_folder().to_owned());
        let options = InvokeOptions { manifests, function, event, attempt, state, shared_state, data, compile };
        let invoked = apps::run(common, app::invoke(options, &Terminal))?;
        let printed =
            if common.client_args.json { print_json(&to_json(&invoked)) } else { print(render(&invoked).trim_end()) };
        printed?;
        if invoked.attempt.outcome == Outcome::Done { Ok(()) } else { Err(Failure::Reported) }
    }
}

fn parse_entry(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as seen=7")?;
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(format!("the key has {} bytes; a key must have 1 to {KEY_BYTES_MAX} bytes", key.len()));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// The result in JSON. Published events are raw JSON, so the numbers in their data keep their digits.
#[derive(Serialize)]
struct Invoked<'a> {
    function: &'a str,
    outcome: &'static str,
    message: Option<String>,
    published: Vec<Box<RawValue>>,
    state: Vec<StateChange>,
    logs: Vec<serde_json::Value>,
    duration_us: u64,
    memory_bytes: u64,
}

fn to_json(invoked: &Invocation) -> Invoked<'_> {
    let Invocation { function, attempt, logs } = invoked;
    let changes = attempt.state.keys.iter().filter_map(|touched| {
        let change = touched.change.as_ref()?;
        Some(StateChange::new(&touched.bucket, &touched.key, change.value()))
    });
    Invoked {
        function,
        outcome: attempt.outcome.kind(),
        message: attempt.outcome.message(),
        // `from_string` cannot fail here: the JSON form of an event is valid JSON.
        published: attempt.published.iter().filter_map(|event| RawValue::from_string(event.to_json()).ok()).collect(),
        state: changes.collect(),
        logs: logs.iter().map(|line| json!({ "level": line.level.name(), "text": line.text })).collect(),
        duration_us: u64::try_from(attempt.duration.as_micros()).unwrap_or(u64::MAX),
        memory_bytes: attempt.memory_bytes,
    }
}

fn render(invoked: &Invocation) -> String {
    let Invocation { function, attempt, logs } = invoked;
    let kind = attempt.outcome.kind();
    let style = colour(kind);
    let duration = format_micros(u64::try_from(attempt.duration.as_micros()).unwrap_or(u64::MAX));
    let memory = attempt.memory_bytes / 1024;
    let mut text =
        format!("{BOLD}{function}{BOLD:#} {style}{kind}{style:#} {DIM}in {duration}, {memory} KiB of memory{DIM:#}\n");
    if let Some(message) = attempt.outcome.message() {
        text += &format!("  {}\n", escape(&message));
    }
    for line in logs {
        text += &format!("{DIM}{:<5}{DIM:#} {}\n", line.level.name(), escape(&line.text));
    }
    for event in &attempt.published {
        text += &format!("{DIM}published{DIM:#} {}\n", escape(&event.to_json()));
    }
    for Touched { bucket, key, change, .. } in &attempt.state.keys {
        let now = match change {
            None => continue,
            Some(Change::Set(value)) => format!("= {}", one_line(value)),
            Some(Change::Delete) => "deleted".to_owned(),
        };
        text += &format!("{DIM}state{DIM:#} {} {} {now}\n", escape(bucket), escape(key));
    }
    text
}
