//! `status`: functions and sources with their numbers.

use super::client::Client;
use super::events::print_line;
use super::table::table;
use super::{Common, Failure};
use crate::admin::view::{Function, Source, Status};

pub(super) fn run(common: &Common) -> Result<(), Failure> {
    let status: Status = Client::find(common)?.get("/api/v1/status", &[])?;
    if common.reach.json {
        return print_line(&serde_json::to_string(&status).unwrap_or_default());
    }
    print_line(human(&status).trim_end())
}

fn human(status: &Status) -> String {
    let Status { version, uptime_s, events, pending, functions, sources } = status;
    let mut text = format!("evoke {version}, up for {uptime_s}s: {events} events, {pending} deliveries pending\n\n");
    let rows: Vec<Vec<String>> = functions.iter().map(function_row).collect();
    text.push_str(&table(&["function", "running#", "ready#", "retrying#", "blocked#", "done#", "dead#"], &rows));
    text.push('\n');
    let rows: Vec<Vec<String>> = sources.iter().map(source_row).collect();
    text.push_str(&table(&["source", "kind", "state"], &rows));
    text
}

fn function_row(function: &Function) -> Vec<String> {
    let n = &function.numbers;
    let gone = if function.declared { "" } else { " (in no manifest)" };
    let running = format!("{}/{}", function.running, function.concurrency);
    let numbers = [n.ready, n.retrying, n.blocked, n.done, n.dead].map(|number| number.to_string());
    [format!("{}{gone}", function.name), running].into_iter().chain(numbers).collect()
}

fn source_row(source: &Source) -> Vec<String> {
    let state = match &source.trouble {
        Some(trouble) => format!("{}: {trouble}", source.state),
        None => source.state.clone(),
    };
    vec![source.uri.clone(), source.kind.clone(), state]
}
