//! `status`: shows functions with their delivery counts, and sources with their health.

use super::client::{Client, parse};
use super::table::table;
use super::text::{columns, count, escape, format_micros, format_millis, local_time, print, print_json_text, truncate};
use super::{Common, Failure};
use crate::admin::view::{Function, LastError, Listener, Refusal, Source, Status, UncleanExit};

/// Maximum number of characters of an error message; `evoke dead show` prints the full message.
const MESSAGE_MAX: usize = 160;

pub(super) fn run(common: &Common) -> Result<(), Failure> {
    let status = Client::find(common)?.get("/api/v1/status", &[])?;
    if common.client_args.json { print_json_text(&status) } else { print(&render(&parse(&status)?, columns())) }
}

fn render(status: &Status, columns: Option<usize>) -> String {
    let Status { version, uptime_ms, events, pending, scheduled, functions, sources, listeners, unclean_exit, .. } =
        status;
    let (up, events) = (format_millis(*uptime_ms), count(*events, "event"));
    let mut text = format!("evoke {version}, up for {up}: {events}, {} pending", count(*pending, "delivery"));
    if *scheduled > 0 {
        text += &format!(", {} scheduled", count(*scheduled, "event"));
    }
    if let Some(UncleanExit { deliveries, requests, loads }) = unclean_exit {
        text += "\nthe previous process of Evoke ended without a clean stop";
        let deliveries = deliveries.iter().map(|one| format!("delivery {} of {}", one.id, one.function));
        let requests = requests.iter().map(|name| format!("requests of {name}"));
        let loads = loads.iter().map(|name| format!("the compilation or load of {name}"));
        let ran: Vec<_> = deliveries.chain(requests).chain(loads).collect();
        if !ran.is_empty() {
            text += &format!("; it was running {}", escape(&ran.join(", ")));
        }
    }
    let rows: Vec<_> = functions.iter().map(function_row).collect();
    if !rows.is_empty() {
        let headings = [
            "function",
            "running#?",
            "rate#",
            "p95#?",
            "ready#",
            "oldest#",
            "retrying#?",
            "blocked#",
            "done#?",
            "dead#",
            "purged#?",
        ];
        text = text + "\n\n" + &table(&headings, &rows, columns);
    }
    for function in functions {
        let Function { name, failing, last_error, paused, paused_reason, compiling, endpoint, circuit, .. } = function;
        if *compiling {
            text += &format!("\n{} is being compiled; its events and requests wait", escape(name));
        }
        if let Some(endpoint) = endpoint {
            text += &format!("\n{} sends to {}", escape(name), escape(endpoint));
        }
        if let Some(since) = paused {
            let reason =
                paused_reason.as_ref().map(|reason| format!(", because {}", escape(reason))).unwrap_or_default();
            text += &format!("\n{} is paused since {}{reason}; `evoke resume` resumes it", escape(name), escape(since));
        }
        if let Some(circuit) = circuit {
            let (name, circuit) = (escape(name), escape(circuit));
            let reason = format!("the circuit breaker of its endpoint is open {circuit}");
            text += &format!("\ndeliveries of {name} wait, because {reason}");
        }
        if let Some(failing) = failing {
            text += &format!("\n{} is failing: {}", escape(name), escape(failing));
        } else if let Some(LastError { at, delivery, outcome, message }) = last_error {
            let message = message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
            let (name, outcome, message) = (escape(name), escape(outcome), escape(&message).into_owned());
            let message = truncate(&message, Some(MESSAGE_MAX)).into_owned();
            let at = local_time(at);
            text += &format!("\n{name} last failed at {at} with `{outcome}`{message} (delivery {delivery})");
        }
    }
    if !sources.is_empty() {
        let rows: Vec<_> = sources.iter().map(source_row).collect();
        text = text + "\n\n" + &table(&["source", "kind", "state"], &rows, columns);
    }
    for Source { uri, refused, refusals, .. } in sources.iter().filter(|source| source.refused > 0) {
        text += &format!("\n{} has refused {}", escape(uri), count(*refused, "request"));
        if let Some(Refusal { at, reason }) = refusals.first() {
            let reason = escape(reason);
            text += &format!(", the last at {} with {}", local_time(at), truncate(&reason, Some(MESSAGE_MAX)));
        }
    }
    for Listener { name, trouble, .. } in listeners {
        if let Some(trouble) = trouble {
            text += &format!("\nthe {} listener is degraded: {}", escape(name), escape(trouble));
        }
    }
    text
}

fn function_row(function: &Function) -> Vec<String> {
    let Function { name, running, concurrency, deliveries: n, .. } = function;
    let (note, running) = match concurrency {
        Some(max) => ("", format!("{running} of {max}")),
        None => (" (in no manifest)", "-".to_owned()),
    };
    let rate = if function.active { format_rate(function.rate) } else { "-".to_owned() };
    let p95 = function.p95_us.map_or_else(|| "-".to_owned(), format_micros);
    let oldest = function.pending_since.as_deref().map_or_else(|| "-".to_owned(), age);
    let [ready, retrying, blocked, done, dead, purged] =
        [n.ready, n.retrying, n.blocked, n.done, n.dead, n.purged].map(|number| number.to_string());
    let name = format!("{}{note}", escape(name));
    vec![name, running, rate, p95, ready, oldest, retrying, blocked, done, dead, purged]
}

/// Formats attempts per second.
fn format_rate(rate: f64) -> String {
    match rate {
        0.0 => "0/s".to_owned(),
        rate if rate < 10.0 => format!("{rate:.1}/s"),
        rate => format!("{rate:.0}/s"),
    }
}

/// Returns the time since an RFC 3339 time.
fn age(since: &str) -> String {
    let Ok(since) = since.parse::<jiff::Timestamp>() else { return escape(since).into_owned() };
    let elapsed_ms = jiff::Timestamp::now().as_millisecond() - since.as_millisecond();
    format_millis(u64::try_from(elapsed_ms).unwrap_or_default())
}

fn source_row(source: &Source) -> Vec<String> {
    let state = match &source.trouble {
        Some(trouble) => format!("{}: {}", source.state, escape(trouble)),
        None => source.state.clone(),
    };
    vec![escape(&source.uri).into_owned(), escape(&source.kind).into_owned(), state]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn render_prints_tables_of_functions_and_sources() {
        let status: Status = parse(
            r#"{"version":"0.1.0","uptime_ms":61000,"events":1,"pending":2,"scheduled":3,
              "functions":[
                {"name":"shop/tell","in_force":true,"running":0,"concurrency":4,"endpoint":"https://crm.example/…",
                 "circuit":"since noon: 5 requests in a row failed","paused":"2026-01-31T12:00:00Z",
                 "paused_reason":"the endpoint is gone: 410 Gone","ready":0,"retrying":0,"blocked":0,"done":0,"dead":0,"purged":0},
                {"name":"shop/charge","in_force":true,"running":1,"concurrency":8,
                 "failing":"5 attempts failed","rate":12.3,"p95_us":4200,"pending_since":"long ago","paused":"2026-01-31T12:00:00Z","ready":2,"retrying":0,"blocked":0,"done":10,"dead":1,"purged":0},
                {"name":"shop/old","in_force":false,"running":0,
                 "last_error":{"at":"soon","delivery":9,"outcome":"trap","message":"unreachable"},
                 "ready":0,"retrying":0,"blocked":0,"done":3,"dead":0,"purged":0}],
              "sources":[{"uri":"/shop/inbox","kind":"files","state":"degraded","trouble":"the folder is gone","refused":2,
                          "refusals":[{"at":"soon","reason":"413: the body is too large"}]}],
              "listeners":[
                {"name":"public","url":"https://127.0.0.1:8443","state":"degraded","trouble":"its certificate expired"},
                {"name":"admin","url":"http://127.0.0.1:8081","state":"ok"}]}"#,
        )
        .unwrap();
        let expected = "\
evoke 0.1.0, up for 1 min 1 s: 1 event, 2 deliveries pending, 3 events scheduled

function                   running  rate     p95  ready    oldest  retrying  blocked  done  dead  purged
shop/tell                   0 of 4   0/s       -      0         -         0        0     0     0       0
shop/charge                 1 of 8  12/s  4.2 ms      2  long ago         0        0    10     1       0
shop/old (in no manifest)        -     -       -      0         -         0        0     3     0       0
shop/tell sends to https://crm.example/…
shop/tell is paused since 2026-01-31T12:00:00Z, because the endpoint is gone: 410 Gone; `evoke resume` resumes it
deliveries of shop/tell wait, because the circuit breaker of its endpoint is open since noon: 5 requests in a row failed
shop/charge is paused since 2026-01-31T12:00:00Z; `evoke resume` resumes it
shop/charge is failing: 5 attempts failed
shop/old last failed at soon with `trap`: unreachable (delivery 9)

source       kind   state
/shop/inbox  files  degraded: the folder is gone
/shop/inbox has refused 2 requests, the last at soon with 413: the body is too large
the public listener is degraded: its certificate expired";
        assert_eq!(anstream::adapter::strip_str(&render(&status, None)).to_string(), expected);
    }
}
