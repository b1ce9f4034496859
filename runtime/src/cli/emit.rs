//! `emit`: sends events to a running Evoke: one event, or one for each line of standard input.

mod changed;
mod draft;
mod lines;
mod sender;
mod spool;
mod stream;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::value::RawValue;

use self::draft::Draft;
use self::stream::Stream;
use super::client::{Client, parse};
use super::text::{escape, local_time, print, print_json};
use super::{ClientArgs, Common, Failure, parse_duration, parse_size};
use crate::admin::view::{Delivery, Posted, PostedEvent};
use evoke_model::Seq;

/// Maximum size in bytes of a file, or of standard input, that is the value of an option. It is many times the size of
/// the largest event.
const ARGUMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true))]
pub(super) struct Emit {
    /// Read one event from each line of standard input. With --type, a line has the data of the event in JSON; without
    /// it, a complete CloudEvent in JSON
    #[arg(value_name = "-", group = "what", value_parser = ["-"], hide_possible_values = true,
        conflicts_with_all = ["data", "id", "event"])]
    input: Option<String>,
    /// Type of the event
    #[arg(long = "type", group = "what", value_name = "TYPE")]
    type_: Option<String>,
    /// Data of the event: JSON, @FILE, or @- for standard input
    #[arg(long, value_name = "JSON|@FILE", requires = "type_")]
    data: Option<String>,
    /// Subject of the event
    #[arg(long, requires = "type_")]
    subject: Option<String>,
    /// Source of the event [default: /cli]
    #[arg(long)]
    source: Option<String>,
    /// Id of the event. Of several events with the same source and id, Evoke stores only the first [default: a new id]
    #[arg(long, requires = "type_")]
    id: Option<String>,
    /// When to deliver the event: a time such as 2026-01-31T12:00:00Z, or a duration from now such as 2h. Sets the
    /// attribute notbefore of the event
    #[arg(long, value_name = "TIME", requires = "type_")]
    not_before: Option<String>,
    /// A complete CloudEvent in JSON, or a JSON array of CloudEvents: JSON, @FILE, or @- for standard input. Cannot be
    /// combined with the other options for events
    #[arg(long, value_name = "JSON|@FILE", group = "what",
        conflicts_with_all = ["type_", "data", "subject", "source", "id", "not_before", "spool", "when_changed"])]
    event: Option<String>,
    /// Keep events in this folder until Evoke has stored them, so that no event is lost while Evoke does not run. The
    /// events are sent in order, and each is stored once
    #[arg(long, group = "what", value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Maximum size of the spool folder. If it is full, the command reads no more lines, and fails
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size, requires = "spool")]
    spool_max: u64,
    /// With --spool: how long to retry after the end of the input if Evoke cannot be reached or accepts no events.
    /// The next command with this spool sends the events that remain
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration, requires = "spool")]
    wait: Duration,
    /// KEY is any name for a series of events. Send an event only if its data differs from the data of the last event
    /// that was sent with the same KEY. That data is stored in the spool folder, or without --spool in the data
    /// folder
    #[arg(long, value_name = "KEY", requires = "type_")]
    when_changed: Option<String>,
    #[command(flatten)]
    client_args: ClientArgs,
}

impl Emit {
    pub(super) fn run(mut self, global: &Common) -> Result<(), Failure> {
        let common = Common {
            data: global.data.clone(),
            client_args: self.client_args.clone().with_defaults(&global.client_args),
        };
        if let Some(event) = &self.event {
            return post(&common, &parse_json("--event", &read_argument(event)?)?);
        }
        let data = self.data.take().map(|data| parse_json("--data", &read_argument(&data)?)).transpose()?;
        let draft = Draft::new(self.type_, self.source, self.subject, self.not_before.as_deref())?;
        let draft = Arc::new(draft);
        let stream = Stream {
            common: &common,
            draft: &draft,
            spool: self.spool.as_deref().map(|folder| (folder, self.spool_max)),
            wait: self.wait,
        };
        if let Some(key) = &self.when_changed {
            let folder = match &self.spool {
                Some(spool) => spool.clone(),
                None => common.existing_data_folder()?.join("emit"),
            };
            let reading = self.input.is_none().then_some(data);
            return changed::run(&stream, &folder, key, reading);
        }
        if self.input.is_some() {
            return stream.lines();
        }
        if self.spool.is_some() {
            return match draft.has_type() {
                true => stream.one(&draft.event_json(self.id, data.as_deref())?),
                // Without an event in the arguments, the command only sends the events in the spool.
                false => stream.none(),
            };
        }
        post(&common, &parse_json("the event", &draft.event_json(self.id, data.as_deref())?)?)
    }
}

fn post(common: &Common, event: &RawValue) -> Result<(), Failure> {
    let client = Client::find(common)?;
    let response = client.post("/api/v1/events", &event)?;
    let posted: Posted = parse(&response)?;
    let is_single = posted.accepted.len() == 1;
    posted.accepted.iter().try_for_each(|event| {
        if common.client_args.json {
            return print_json(event);
        }
        let PostedEvent { id, seq, duplicate, due } = event;
        let note = match due {
            _ if *duplicate => " (duplicate: not stored again)".to_owned(),
            Some(due) => format!(" scheduled for {}", local_time(due)),
            // The event is already accepted, so a failure to read its deliveries is ignored.
            None if is_single => takers(&client, *seq).unwrap_or_default(),
            None => String::new(),
        };
        print(&format!("event {seq} {}{note}", escape(id)))
    })
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

/// Returns the argument itself, or the content of the file (`@FILE`) or of standard input (`@-`) that it names.
pub(super) fn read_argument(argument: &str) -> Result<String, Failure> {
    let read = match argument.strip_prefix('@') {
        None => return Ok(argument.to_owned()),
        Some("-") => {
            let mut text = String::new();
            let read = std::io::stdin().take(ARGUMENT_BYTES_MAX + 1).read_to_string(&mut text);
            read.and_then(|length| match length as u64 > ARGUMENT_BYTES_MAX {
                true => Err(std::io::Error::other(format!("it has more than {ARGUMENT_BYTES_MAX} bytes"))),
                false => Ok(text),
            })
        }
        Some(path) => evoke_fs::read_text(Path::new(path), ARGUMENT_BYTES_MAX),
    };
    let text = read.map_err(|e| Failure::Failed(format!("cannot read {argument}: {e}")))?;
    // Removes the byte order mark that some editors write, because it is not valid JSON.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn parse_json(option: &str, text: &str) -> Result<Box<RawValue>, Failure> {
    serde_json::from_str::<Box<RawValue>>(text)
        .map_err(|e| Failure::Failed(format!("{option} is not JSON: {e}; a string needs quotes, as in '\"text\"'")))
}
