//! Lists and cancels scheduled events.

use super::super::client::{Client, parse};
use super::super::replay::read_pattern;
use super::super::select::ChangeOptions;
use super::super::table::table;
use super::super::text::{self, EventSummary, escape, format_millis, local_time, print, print_json, print_json_text};
use super::super::{Common, Failure};
use crate::admin::view::{CancelScheduled, CancelledScheduled, ScheduledEvent};

const PATH: &str = "/api/v1/scheduled/cancel";

pub(super) fn list(common: &Common, pattern: Option<&str>, limit: usize) -> Result<(), Failure> {
    let mut query = vec![("limit", limit.to_string())];
    if let Some(pattern) = pattern {
        query.push(("pattern", read_pattern(pattern)?.to_string()));
    }
    let client = Client::find(common)?;
    if common.client_args.json {
        return client.lines("/api/v1/scheduled", &query, print_json_text);
    }
    let mut rows = Vec::new();
    client.lines("/api/v1/scheduled", &query, |line| {
        rows.push(row(&parse(line)?));
        Ok(())
    })?;
    if rows.is_empty() {
        return print("no scheduled events");
    }
    print(&table(&["event", "due", "in#", "type", "id", "function"], &rows, text::columns()))
}

fn row(scheduled: &ScheduledEvent) -> Vec<String> {
    let ScheduledEvent { due, wait_ms, functions, event } = scheduled;
    let EventSummary { type_, id, .. } = EventSummary::parse(&event.event);
    let functions = if functions.is_empty() { "-".to_owned() } else { functions.join(", ") };
    let functions = escape(&functions).into_owned();
    vec![event.seq.to_string(), local_time(due), format_millis(*wait_ms), type_, id, functions]
}

pub(super) fn cancel(common: &Common, event: String, options: ChangeOptions) -> Result<(), Failure> {
    let which = CancelScheduled { event: Some(event), dry_run: options.dry_run, ..CancelScheduled::default() };
    let response = Client::find(common)?.post(PATH, &which)?;
    report(common, parse::<CancelledScheduled>(&response)?.count, options)
}

/// Cancels the events that match, in several requests, because one request searches a limited number of events.
pub(super) fn cancel_matching(common: &Common, pattern: &str, options: ChangeOptions) -> Result<(), Failure> {
    let client = Client::find(common)?;
    let pattern = Some(read_pattern(pattern)?);
    let mut which = CancelScheduled { pattern, dry_run: options.dry_run, ..CancelScheduled::default() };
    let mut cancelled = 0;
    loop {
        let response = client.post(PATH, &which)?;
        let CancelledScheduled { count, next } = parse(&response)?;
        cancelled += count;
        if next.is_none() {
            return report(common, cancelled, options);
        }
        which.after = next;
    }
}

fn report(common: &Common, count: u64, options: ChangeOptions) -> Result<(), Failure> {
    if common.client_args.json {
        return print_json(&CancelledScheduled { count, next: None });
    }
    let would = if options.dry_run { "would be " } else { "" };
    print(&format!("{} {would}cancelled", text::count(count, "event")))
}
