//! `state`: what functions keep, looked at and changed by a person.

use std::io::IsTerminal as _;

use clap::{Args, Subcommand};

use super::client::{Client, read, segment};
use super::emit::text_of;
use super::table::table;
use super::text::{self, cut, plain, print, print_raw};
use super::{Common, Failure, With};
use crate::admin::view::{Count, StateBucket, StateEntry, StateValue};

#[derive(Debug, Subcommand)]
pub(super) enum State {
    /// List buckets, or the keys of one
    #[command(after_help = "Example: evoke state list shop/charge --prefix customer-")]
    List(With<List>),
    /// Print a value as it is kept
    #[command(after_help = "Example: evoke state get shop/charge seen")]
    Get(With<Key>),
    /// Set a value; what reads it meanwhile runs again
    #[command(after_help = "The value is kept as it is written. Functions written with the SDK keep JSON, in which a \
        text has quotes.\n\nExamples: evoke state set shop/charge seen 7\n          \
        evoke state set shop/charge currency '\"EUR\"'\n          evoke state set shop rates @rates.json")]
    Set(With<Set>),
    /// Delete a key, or all of a bucket
    #[command(after_help = "Examples: evoke state delete shop/charge seen\n          \
        evoke state delete shop/charge --all")]
    Delete(With<Delete>),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// The function whose state it is, app/function; or the app, for what its functions share
    bucket: Option<String>,
    /// Only keys that start so
    #[arg(long, requires = "bucket")]
    prefix: Option<String>,
    /// At most so many keys
    #[arg(long, short = 'n', requires = "bucket")]
    limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(super) struct Key {
    /// The function whose state it is, app/function; or the app, for what its functions share
    bucket: String,
    /// The key
    key: String,
}

#[derive(Debug, Args)]
pub(super) struct Set {
    #[command(flatten)]
    at: Key,
    /// The value: a text, @FILE, or @- for standard input
    #[arg(value_name = "VALUE|@FILE")]
    value: String,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// The function whose state it is, app/function; or the app, for what its functions share
    bucket: String,
    /// The key
    #[arg(required_unless_present = "all")]
    key: Option<String>,
    /// Every key
    #[arg(long, conflicts_with = "key")]
    all: bool,
}

impl State {
    pub(super) fn run(self, front: &Common) -> Result<(), Failure> {
        match self {
            Self::List(With { command, common }) => command.run(&common.over(front)),
            Self::Get(With { command, common }) => command.get(&common.over(front)),
            Self::Set(With { command, common }) => command.run(&common.over(front)),
            Self::Delete(With { command, common }) => command.run(&common.over(front)),
        }
    }
}

impl List {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let mut query: Vec<_> = self.prefix.map(|prefix| ("prefix", prefix)).into_iter().collect();
        query.extend(self.limit.map(|limit| ("limit", limit.to_string())));
        let client = Client::find(common)?;
        let path = self.bucket.as_deref().map_or_else(|| "/api/v1/state".to_owned(), bucket_path);
        if common.reach.json {
            return client.lines(&path, &query, print_raw);
        }
        let (mut buckets, mut entries) = (Vec::new(), Vec::new());
        client.lines(&path, &query, |line| {
            match self.bucket {
                None => buckets.push(bucket_row(&read(line)?)),
                Some(_) => entries.push(entry_row(&read(line)?)),
            }
            Ok(())
        })?;
        match (buckets.is_empty(), entries.is_empty()) {
            (true, true) => print("no state"),
            (false, _) => print(&table(&["bucket", "keys#", "bytes#"], &buckets, text::columns())),
            (_, false) => print(&table(&["key", "bytes#", "value"], &entries, text::columns())),
        }
    }
}

impl Key {
    fn path(&self) -> String {
        format!("{}/{}", bucket_path(&self.bucket), segment(&self.key))
    }

    fn get(&self, common: &Common) -> Result<(), Failure> {
        let answer = Client::find(common)?.get(&self.path(), &[])?;
        if common.reach.json {
            return print_raw(&answer);
        }
        let StateEntry { value, bytes, .. } = read(&answer)?;
        match value {
            None => print(&format!("{} that are no text; --json has them in base64", text::count(bytes, "byte"))),
            Some(text) if std::io::stdout().is_terminal() => print(&plain(&text)),
            Some(text) => print_raw(&text),
        }
    }
}

impl Set {
    fn run(&self, common: &Common) -> Result<(), Failure> {
        let value = StateValue { value: Some(text_of(&self.value)?), value_base64: None };
        Client::find(common)?.put(&self.at.path(), &value)?;
        if common.reach.json { print_raw(r#"{"count":1}"#) } else { print("1 key set") }
    }
}

impl Delete {
    fn run(&self, common: &Common) -> Result<(), Failure> {
        let client = Client::find(common)?;
        let Self { bucket, key, .. } = self;
        let path = match key {
            Some(key) => format!("{}/{}", bucket_path(bucket), segment(key)),
            None => bucket_path(bucket),
        };
        let answer = client.delete(&path)?;
        let Count { count } = read(&answer)?;
        if let (Some(key), 0) = (key, count) {
            return Err(Failure::NotFound(format!(
                "the state {bucket} has no key {key}; `evoke state list {bucket}` lists them"
            )));
        }
        if common.reach.json { print_raw(&answer) } else { print(&format!("{} deleted", text::count(count, "key"))) }
    }
}

fn bucket_path(bucket: &str) -> String {
    format!("/api/v1/state/{}", segment(bucket))
}

fn bucket_row(bucket: &StateBucket) -> Vec<String> {
    vec![plain(&bucket.bucket).into_owned(), bucket.keys.to_string(), bucket.bytes.to_string()]
}

fn entry_row(entry: &StateEntry) -> Vec<String> {
    let StateEntry { key, bytes, value, value_base64, .. } = entry;
    let value = match (value, value_base64) {
        (Some(text), _) => line(text),
        (None, Some(_)) => "(no text)".to_owned(),
        (None, None) => "(long)".to_owned(),
    };
    vec![plain(key).into_owned(), bytes.to_string(), value]
}

/// A value on one line.
pub(super) fn shown(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => line(text),
        Err(_) => format!("{} that are no text", text::count(value.len() as u64, "byte")),
    }
}

fn line(text: &str) -> String {
    cut(&plain(text), Some(LINE_CHARS_MAX)).into_owned()
}

/// Of a value that is shown beside others.
const LINE_CHARS_MAX: usize = 200;
