//! `emit`: an event put in by hand.

use std::io::Read;

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use super::client::{Client, read};
use super::text::{plain, print, print_json};
use super::{Common, Failure, Reach};
use crate::admin::view::{Posted, PostedEvent};

#[derive(Debug, Args)]
pub(super) struct Emit {
    /// The event's type
    #[arg(long = "type", required_unless_present = "event", value_name = "TYPE")]
    type_: Option<String>,
    /// The data: JSON, @FILE, or @- for standard input
    #[arg(long, value_name = "JSON|@FILE")]
    data: Option<String>,
    /// The event's subject
    #[arg(long)]
    subject: Option<String>,
    /// The event's source
    #[arg(long, default_value = "/cli")]
    source: String,
    /// The event's id; the same source and id is the same event
    #[arg(long)]
    id: Option<String>,
    /// A whole CloudEvent in JSON or an array of them, @FILE, or @- for standard input, instead of the other options
    #[arg(long, value_name = "JSON|@FILE", conflicts_with_all = ["type_", "data", "subject", "id"])]
    event: Option<String>,
    #[command(flatten)]
    reach: Reach,
}

impl Emit {
    pub(super) fn run(self, front: &Common) -> Result<(), Failure> {
        let common = Common { data: front.data.clone(), reach: self.reach.clone().over(&front.reach) };
        let event = match &self.event {
            Some(event) => parse("--event", &text_of(event)?)?,
            None => self.assemble()?,
        };
        let answer = Client::find(&common)?.post("/api/v1/events", &event)?;
        let posted: Posted = read(&answer)?;
        posted.accepted.iter().try_for_each(|event| {
            if common.reach.json {
                return print_json(event);
            }
            let PostedEvent { id, seq, duplicate } = event;
            let known = if *duplicate { " (known before: not stored again)" } else { "" };
            print(&format!("event {seq} {}{known}", plain(id)))
        })
    }

    fn assemble(self) -> Result<Box<RawValue>, Failure> {
        let data = self.data.map(|data| parse("--data", &text_of(&data)?)).transpose()?;
        let Self { type_, source, id, subject, .. } = self;
        let draft = Draft { specversion: "1.0", type_, source, id, subject, data };
        serde_json::value::to_raw_value(&draft).map_err(|e| Failure::Failed(format!("this makes no event: {e}")))
    }
}

/// The event that is sent; the data is as it was written, number for number.
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

/// What an argument says: itself, or the file or standard input that it names.
pub(super) fn text_of(argument: &str) -> Result<String, Failure> {
    let read = match argument.strip_prefix('@') {
        None => return Ok(argument.to_owned()),
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
        Some(path) => std::fs::read_to_string(path),
    };
    read.map_err(|e| Failure::Failed(format!("cannot read {argument}: {e}")))
}

fn parse(option: &str, text: &str) -> Result<Box<RawValue>, Failure> {
    serde_json::from_str(text)
        .map_err(|e| Failure::Failed(format!("{option} is not JSON: {e}; a text needs quotes, as in '\"text\"'")))
}
