//! `state`: lists, reads and changes the stored state of functions.

use std::io::IsTerminal as _;

use clap::{Args, Subcommand};

use super::client::{Client, encode_segment, parse};
use super::emit::read_argument;
use super::table::table;
use super::text::{self, escape, print, print_json_text, print_verbatim, truncate};
use super::{Common, Failure, WithCommon};
use crate::admin::view::{Count, StateBucket, StateEntry, StateValue};

#[derive(Debug, Subcommand)]
pub(super) enum State {
    /// List buckets, or the keys of one bucket
    #[command(after_help = "Example: evoke state list shop/charge --prefix customer-")]
    List(WithCommon<List>),
    /// Print a stored value unchanged
    #[command(after_help = "Example: evoke state get shop/charge seen")]
    Get(WithCommon<Key>),
    /// Set a value; running attempts that have read the old value run again
    #[command(after_help = "The value is stored as given. Functions that use the SDK store JSON, where a string has \
        quotes.\n\nExamples: evoke state set shop/charge seen 7\n          \
        evoke state set shop/charge currency '\"EUR\"'\n          evoke state set shop rates @rates.json")]
    Set(WithCommon<Set>),
    /// Delete one key, or all keys of a bucket
    #[command(after_help = "Examples: evoke state delete shop/charge seen\n          \
        evoke state delete shop/charge --all")]
    Delete(WithCommon<Delete>),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// The bucket: app/function for the state of a function, or app for the state that all functions of the app share
    bucket: Option<String>,
    /// Only keys that start with this prefix
    #[arg(long, requires = "bucket")]
    prefix: Option<String>,
    /// Maximum number of keys to list
    #[arg(long, short = 'n', requires = "bucket")]
    limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(super) struct Key {
    /// The bucket: app/function for the state of a function, or app for the state that all functions of the app share
    bucket: String,
    /// The key
    key: String,
}

#[derive(Debug, Args)]
pub(super) struct Set {
    #[command(flatten)]
    at: Key,
    /// The value: a string, @FILE, or @- for standard input
    #[arg(value_name = "VALUE|@FILE")]
    value: String,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// The bucket: app/function for the state of a function, or app for the state that all functions of the app share
    bucket: String,
    /// The key
    #[arg(required_unless_present = "all")]
    key: Option<String>,
    /// All keys of the bucket
    #[arg(long, conflicts_with = "key")]
    all: bool,
}

impl State {
    pub(super) fn run(self, global: &Common) -> Result<(), Failure> {
        match self {
            Self::List(WithCommon { command, common }) => command.run(&common.with_defaults(global)),
            Self::Get(WithCommon { command, common }) => command.get(&common.with_defaults(global)),
            Self::Set(WithCommon { command, common }) => command.run(&common.with_defaults(global)),
            Self::Delete(WithCommon { command, common }) => command.run(&common.with_defaults(global)),
        }
    }
}

impl List {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let mut query: Vec<_> = self.prefix.map(|prefix| ("prefix", prefix)).into_iter().collect();
        query.extend(self.limit.map(|limit| ("limit", limit.to_string())));
        let client = Client::find(common)?;
        let path = self.bucket.as_deref().map_or_else(|| "/api/v1/state".to_owned(), bucket_path);
        if common.client_args.json {
            return client.lines(&path, &query, print_json_text);
        }
        let (mut buckets, mut entries) = (Vec::new(), Vec::new());
        client.lines(&path, &query, |line| {
            match self.bucket {
                None => buckets.push(bucket_row(&parse(line)?)),
                Some(_) => entries.push(entry_row(&parse(line)?)),
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
        format!("{}/{}", bucket_path(&self.bucket), encode_segment(&self.key))
    }

    fn get(&self, common: &Common) -> Result<(), Failure> {
        let response = Client::find(common)?.get(&self.path(), &[])?;
        if common.client_args.json {
            return print_json_text(&response);
        }
        let StateEntry { value, bytes, .. } = parse(&response)?;
        match value {
            None => print(&format!("{} of binary data; --json prints them in base64", text::count(bytes, "byte"))),
            Some(text) if std::io::stdout().is_terminal() => print(&escape(&text)),
            Some(text) => print_verbatim(&text),
        }
    }
}

impl Set {
    fn run(&self, common: &Common) -> Result<(), Failure> {
        let value = StateValue { value: Some(read_argument(&self.value)?), value_base64: None };
        Client::find(common)?.put(&self.at.path(), &value)?;
        if common.client_args.json { print_json_text(r#"{"count":1}"#) } else { print("1 key set") }
    }
}

impl Delete {
    fn run(&self, common: &Common) -> Result<(), Failure> {
        let client = Client::find(common)?;
        let Self { bucket, key, .. } = self;
        let path = match key {
            Some(key) => format!("{}/{}", bucket_path(bucket), encode_segment(key)),
            None => bucket_path(bucket),
        };
        let response = client.delete(&path)?;
        let Count { count } = parse(&response)?;
        if let (Some(key), 0) = (key, count) {
            return Err(Failure::NotFound(format!(
                "the bucket {bucket} has no key {key}; `evoke state list {bucket}` lists all keys"
            )));
        }
        if common.client_args.json {
            print_json_text(&response)
        } else {
            print(&format!("{} deleted", text::count(count, "key")))
        }
    }
}

fn bucket_path(bucket: &str) -> String {
    format!("/api/v1/state/{}", encode_segment(bucket))
}

fn bucket_row(bucket: &StateBucket) -> Vec<String> {
    vec![escape(&bucket.bucket).into_owned(), bucket.keys.to_string(), bucket.bytes.to_string()]
}

fn entry_row(entry: &StateEntry) -> Vec<String> {
    let StateEntry { key, bytes, value, value_base64, .. } = entry;
    let value = match (value, value_base64) {
        (Some(text), _) => line(text),
        (None, Some(_)) => "(binary)".to_owned(),
        (None, None) => "(too long to list)".to_owned(),
    };
    vec![escape(key).into_owned(), bytes.to_string(), value]
}

/// Formats a value on one line.
pub(super) fn one_line(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => line(text),
        Err(_) => format!("{} of binary data", text::count(value.len() as u64, "byte")),
    }
}

fn line(text: &str) -> String {
    truncate(&escape(text), Some(LINE_CHARS_MAX)).into_owned()
}

/// Maximum length of a value in a list, in characters.
const LINE_CHARS_MAX: usize = 200;
