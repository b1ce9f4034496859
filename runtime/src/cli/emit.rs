//! `emit`: sends an event to a running Evoke.

use std::io::Read;
use std::path::Path;

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use super::client::{Client, parse};
use super::text::{escape, print, print_json};
use super::{ClientArgs, Common, Failure};
use crate::admin::view::{Delivery, Posted, PostedEvent};
use evoke_model::Seq;

/// Size limit of a file or of standard input as the value of an option, in bytes; many times the largest event.
const ARGUMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Debug, Args)]
pub(super) struct Emit {
    /// Type of the event
    #[arg(long = "type", required_unless_present = "event", value_name = "TYPE")]
    type_: Option<String>,
    /// Data of the event: JSON, @FILE, or @- for standard input
    #[arg(long, value_name = "JSON|@FILE")]
    data: Option<String>,
    /// Subject of the event
    #[arg(long)]
    subject: Option<String>,
    /// Source of the event [default: /cli]
    #[arg(long)]
    source: Option<String>,
    /// Id of the event; events with the same source and id are duplicates [default: a new id]
    #[arg(long)]
    id: Option<String>,
    /// A complete CloudEvent in JSON, or an array of them: JSON, @FILE, or @- for standard input. Replaces the other
    /// options
    #[arg(long, value_name = "JSON|@FILE", conflicts_with_all = ["type_", "data", "subject", "source", "id"])]
    event: Option<String>,
    #[command(flatten)]
    client_args: ClientArgs,
}

impl Emit {
    pub(super) fn run(self, global: &Common) -> Result<(), Failure> {
        let common = Common {
            data: global.data.clone(),
            client_args: self.client_args.clone().with_defaults(&global.client_args),
        };
        let event = match &self.event {
            Some(event) => parse_json("--event", &read_argument(event)?)?,
            None => self.build_event()?,
        };
        let client = Client::find(&common)?;
        let response = client.post("/api/v1/events", &event)?;
        let posted: Posted = parse(&response)?;
        let is_single = posted.accepted.len() == 1;
        posted.accepted.iter().try_for_each(|event| {
            if common.client_args.json {
                return print_json(event);
            }
            let PostedEvent { id, seq, duplicate } = event;
            let note = if *duplicate { " (duplicate: not stored again)" } else { "" };
            // The event is accepted, whatever this request returns.
            let takers =
                if is_single && !*duplicate { takers(&client, *seq).unwrap_or_default() } else { String::new() };
            print(&format!("event {seq} {}{note}{takers}", escape(id)))
        })
    }

    fn build_event(self) -> Result<Box<RawValue>, Failure> {
        let data = self.data.map(|data| parse_json("--data", &read_argument(&data)?)).transpose()?;
        let Self { type_, source, id, subject, .. } = self;
        let source = source.unwrap_or_else(|| "/cli".to_owned());
        let draft = Draft { specversion: "1.0", type_, source, id, subject, data };
        serde_json::value::to_raw_value(&draft)
            .map_err(|e| Failure::Failed(format!("cannot make an event of these options: {e}")))
    }
}

/// Describes which functions receive an event.
fn takers(client: &Client, seq: Seq) -> Result<String, Failure> {
    let mut names = Vec::new();
    client.lines(&format!("/api/v1/events/{seq}/deliveries"), &[], |line| {
        let Delivery { function, .. } = parse(line)?;
        names.push(escape(&function).into_owned());
        Ok(())
    })?;
    Ok(match names.is_empty() {
        true => format!(" for no function; `evoke explain {seq}` shows why"),
        false => format!(" for {}", names.join(", ")),
    })
}

/// The event to send. Raw JSON keeps the data exactly as given, including the spelling of numbers.
#[derive(Serialize)]
struct Draft {
    specversion: &'static str,
    #[serde(rename = "type")]
    type_: Option<String>,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
}

/// Returns the argument itself, or the content of the file (`@FILE`) or of standard input (`@-`) that it names.
pub(super) fn read_argument(argument: &str) -> Result<String, Failure> {
    let read = match argument.strip_prefix('@') {
        None => return Ok(argument.to_owned()),
        Some("-") => {
            let mut text = String::new();
            let read = std::io::stdin().take(ARGUMENT_BYTES_MAX + 1).read_to_string(&mut text);
            read.and_then(|length| match length as u64 > ARGUMENT_BYTES_MAX {
                true => Err(std::io::ErrorKind::FileTooLarge.into()),
                false => Ok(text),
            })
        }
        Some(path) => evoke_fs::read_text(Path::new(path), ARGUMENT_BYTES_MAX),
    };
    let text = read.map_err(|e| Failure::Failed(format!("cannot read {argument}: {e}")))?;
    // Some editors write a byte order mark, which JSON does not have.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn parse_json(option: &str, text: &str) -> Result<Box<RawValue>, Failure> {
    serde_json::from_str(text)
        .map_err(|e| Failure::Failed(format!("{option} is not JSON: {e}; a string needs quotes, as in '\"text\"'")))
}
