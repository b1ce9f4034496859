//! `emit`: an event put in by hand.

use std::io::Read;

use clap::Args;
use serde_json::{Value, json};

use super::client::Client;
use super::{Common, Failure, Reach};

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
    /// A whole CloudEvent in JSON, @FILE, or @- for standard input, instead of the other options
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
        let answer: Value = Client::find(&common)?.post("/api/v1/events", &event)?;
        if common.reach.json {
            return super::events::print_line(&answer.to_string());
        }
        let text = |name: &str| {
            answer.get(name).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).unwrap_or_default()
        };
        let known = if text("duplicate") == "true" { " (known before: not stored again)" } else { "" };
        super::events::print_line(&format!("event {} {}{known}", text("seq"), text("id")))
    }

    fn assemble(self) -> Result<Value, Failure> {
        let mut event = json!({ "specversion": "1.0", "type": self.type_, "source": self.source });
        if let Some(members) = event.as_object_mut() {
            let texts = [("id", self.id), ("subject", self.subject)];
            members.extend(texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into()))));
            if let Some(data) = &self.data {
                members.insert("data".to_owned(), parse("--data", &text_of(data)?)?);
            }
        }
        Ok(event)
    }
}

fn text_of(argument: &str) -> Result<String, Failure> {
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

fn parse(option: &str, text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text)
        .map_err(|e| Failure::Failed(format!("{option} is not JSON: {e}; a text needs quotes, as in '\"text\"'")))
}
