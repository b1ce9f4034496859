//! `dead edit`: replaces a dead letter by an event with other data.

use std::io::Write;
use std::process::Command;

use clap::Args;
use serde_json::value::RawValue;

use super::super::client::{Client, parse};
use super::super::emit::read_argument;
use super::super::json_text::{compact, pretty};
use super::super::text::{escape, print, print_json_text};
use super::super::{ClientArgs, Common, Failure};
use crate::admin::view::{DeadLetter, Edit, Edited};
use evoke_model::DeliveryId;

/// The arguments. Here, `--data` has the new data. The data folder can be given only before the command's name.
#[derive(Debug, Args)]
pub(in crate::cli) struct WithData {
    /// Number of the delivery
    delivery: DeliveryId,
    /// The new data: JSON, @FILE or @- for standard input [default: the current data is opened in the editor that
    /// VISUAL or EDITOR names]
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// Show the new data and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    client_args: ClientArgs,
}

impl WithData {
    pub(super) fn run(self, global: &Common) -> Result<(), Failure> {
        let Self { delivery, data, dry_run, client_args } = self;
        let common = Common { data: global.data.clone(), client_args: client_args.with_defaults(&global.client_args) };
        let client = Client::find(&common)?;
        let text = match data {
            Some(argument) => read_argument(&argument)?,
            None => {
                let letter: DeadLetter = parse(&client.get(&format!("/api/v1/dead/{delivery}"), &[])?)?;
                edit(&data_of(&letter)?)?
            }
        };
        let data: Box<RawValue> = serde_json::from_str(text.trim())
            .map_err(|error| Failure::Failed(format!("the new data is not JSON: {error}; nothing was changed")))?;
        if dry_run {
            return print(&pretty(data.get()).lines().map(escape).collect::<Vec<_>>().join("\n"));
        }
        // The white space of an editor's text must not make the event too large.
        let data = parse(&compact(data.get()))?;
        let response = client.post(&format!("/api/v1/dead/{delivery}/edit"), &Edit { data })?;
        if common.client_args.json {
            return print_json_text(&response);
        }
        let Edited { seq, .. } = parse(&response)?;
        let hint = format!("`evoke trace {seq}` shows its delivery");
        print(&format!("event {seq} with the new data replaces the dead letter; {hint}"))
    }
}

/// Returns the data of the event of a dead letter, formatted.
fn data_of(letter: &DeadLetter) -> Result<String, Failure> {
    #[derive(serde::Deserialize)]
    struct Data {
        #[serde(default)]
        data: Option<Box<RawValue>>,
    }
    let found: Data = parse(letter.event.event.get())?;
    Ok(found.data.map_or_else(|| "null".to_owned(), |data| pretty(data.get())))
}

/// Runs the user's editor on a text. Returns an error if the text stays the same.
fn edit(text: &str) -> Result<String, Failure> {
    let editor = std::env::var("VISUAL").or_else(|_| std::env::var("EDITOR")).ok().filter(|name| !name.is_empty());
    let Some(editor) = editor else {
        return Err(Failure::Usage("give the new data with --data, or set the environment variable EDITOR".to_owned()));
    };
    let failed = |error: std::io::Error| Failure::Failed(format!("cannot edit the data: {error}"));
    let mut file = tempfile::Builder::new().prefix("evoke-").suffix(".json").tempfile().map_err(failed)?;
    writeln!(file, "{text}").map_err(failed)?;
    // The variable may have options, as in `code --wait`.
    let script = format!("{editor} \"$1\"");
    let status = Command::new("sh").args(["-c", &script, "evoke"]).arg(file.path()).status().map_err(failed)?;
    if !status.success() {
        return Err(Failure::Failed(format!("{editor} ended with {status}; nothing was changed")));
    }
    let edited = evoke_fs::read_text(file.path(), 4 * 1024 * 1024).map_err(failed)?;
    match edited.trim() == text.trim() {
        true => Err(Failure::Failed(
            "the data was not changed; to deliver the same data again, use `evoke dead redrive`".to_owned(),
        )),
        false => Ok(edited),
    }
}
