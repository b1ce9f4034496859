//! Shows the progress of `up`, and runs `build:` commands for `up`, `build` and `test`. All output goes to standard
//! error.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::text::{count, escape, escape_lines, format_micros, print_error, truncate};
use super::{build, log_format};
use crate::control::{Activity, AppError, Build, Changes, FAILED, Host, Progress, Successor};
use evoke_model::TakenOver;
use evoke_model::clock::rfc3339;
use evoke_model::text::fitting;

/// Maximum number of characters of an attribute of an event. Producers choose the attributes, up to 1 MiB.
const ATTRIBUTE_CHARS_MAX: usize = 256;
/// Maximum number of characters of a log line, or of the message of an attempt. `evoke logs` and `evoke trace` print
/// the whole text.
const TEXT_CHARS_MAX: usize = 2_000;
/// Maximum number of routes that are printed.
const ROUTES_SHOWN: usize = 20;

pub(super) struct Terminal;

impl Host for Terminal {
    fn report(&self, progress: Progress<'_>) {
        match progress {
            Progress::Warnings(warnings) => print_error(&warnings.styled()),
            Progress::Waiting(errors) => {
                print_error(&errors.styled());
                say("waiting", "until the manifests are corrected");
            }
            Progress::Starting { admin } => say("starting", &format!("{admin} (admin)")),
            Progress::Loading { functions } if functions.is_empty() => say("loading", "no functions"),
            Progress::Loading { functions } => say("loading", &list_names(&functions, "other function")),
            Progress::Changed(changes) => show_changes(changes),
            Progress::TakingOver { running } => {
                let (attempts, end) = (count(running, "attempt"), fitting(running, "ends", "end"));
                say("waiting", &format!("until {attempts} of renamed functions {end}"));
            }
            Progress::TakenOver { functions } => functions.iter().for_each(show_taken_over),
            Progress::Stranded { functions } => {
                for (name, pending) in functions {
                    let (waits, them) = (fitting(pending, "waits", "wait"), fitting(pending, "it", "them"));
                    let pending = count(pending, "delivery");
                    let short = name.split_once('/').map_or(&*name, |(_, short)| short);
                    say(
                        "note",
                        &format!(
                            "{pending} of {name} {waits}, but no active manifest has this function: write `was: \
                             [{short}]` in the function that replaces it, run `evoke pending move {name} FUNCTION` to \
                             move {them}, or run `evoke pending cancel --function {name}` to make {them} dead letters"
                        ),
                    );
                }
            }
            Progress::Listening { http, admin } => {
                say("listening", &format!("{http} (sources), {admin} (admin)"));
                if !http.tls && !http.address.ip().to_canonical().is_loopback() {
                    let advice = "put a proxy with TLS in front of Evoke";
                    say("note", &format!("other machines can reach the http sources without TLS; {advice}"));
                }
            }
            Progress::Compiling { functions } => {
                let names = list_names(&functions, "other function");
                let whose = fitting(functions.len(), "its", "their");
                say("compiling", &format!("{names}; {whose} events and requests wait"));
            }
            Progress::Compiled { function, took } => {
                say("compiled", &format!("{} in {:.1} s", escape(function), took.as_secs_f64()));
            }
            Progress::Ready => say("ready", "press Ctrl-C to stop"),
            Progress::CertificatesReplaced { listener, expires_ms } => {
                let until = expires_ms.map(|end| format!(", valid until {}", rfc3339(end))).unwrap_or_default();
                say("reloaded", &format!("the certificates of the {listener} listener{until}"));
            }
            Progress::Reloading { reason } => say("reloading", reason),
            Progress::Reloaded => say("reloaded", ""),
            Progress::Unchanged(AppError::Manifest(errors)) => {
                print_error(&errors.styled());
                say("unchanged", "the previous manifests stay active");
            }
            Progress::Unchanged(error) => say("unchanged", &format!("{error}; the previous manifests stay active")),
            Progress::Activity(activity) => show(&activity),
            Progress::Draining { limit } => {
                let advice = "press Ctrl-C again to end Evoke immediately";
                say("draining", &format!("running deliveries have at most {limit:?} to end; {advice}"));
            }
            Progress::Ended { deliveries } => {
                let (were, stay) = (fitting(deliveries, "was", "were"), fitting(deliveries, "stays", "stay"));
                let (they, running) = (fitting(deliveries, "it runs", "they run"), count(deliveries, "delivery"));
                let text = format!("{running} {were} running and {stay} pending: {they} again at the next start");
                say("ended", &format!("immediately; {text}"));
            }
            Progress::Interrupted { deliveries } => {
                let (were, they) = (fitting(deliveries, "was", "were"), fitting(deliveries, "it runs", "they run"));
                let running = count(deliveries, "delivery");
                say("drained", &format!("{running} {were} still running; {they} again at the next start"));
            }
        }
    }

    fn build(&self, build: Build) -> BoxFuture<'static, Result<(), String>> {
        say("building", &format!("{} ({})", build.function, build.command));
        build::run(build).map(|result| result.map_err(|error| error.to_string())).boxed()
    }
}

/// Prints a line about an event, an attempt or a log line.
fn show(activity: &Activity<'_>) {
    if let Some((verb, details)) = describe(activity) {
        say_escaped(&verb, &details);
    }
}

/// Returns the verb and the details of the line about an activity; `None` if no line is printed. The details have a
/// bounded length, and are not escaped.
fn describe(activity: &Activity<'_>) -> Option<(String, String)> {
    let attribute = |text| truncate(text, Some(ATTRIBUTE_CHARS_MAX));
    let (verb, details) = match activity {
        Activity::Accepted { seq, event } => {
            let subject =
                event.subject.as_deref().map(|subject| format!(" {}", attribute(subject))).unwrap_or_default();
            let (type_, source) = (attribute(&event.type_), attribute(&event.source));
            ("event", format!("{seq} {type_}{subject} from {source}"))
        }
        Activity::Ended { function, delivery, attempt, is_dead } => {
            let took = format_micros(attempt.duration_us);
            let message = attempt.message.as_deref().and_then(|message| message.lines().next());
            let message = message.map(|message| truncate(message, Some(TEXT_CHARS_MAX)));
            let message = message.map(|message| format!(": {message}")).unwrap_or_default();
            let number = attempt.attempt;
            match &*attempt.outcome {
                "done" => ("done", format!("{function} in {took}, delivery {delivery}{message}")),
                outcome => {
                    let end = if *is_dead { "; now a dead letter" } else { "; will be retried" };
                    ("failed", format!("{function} delivery {delivery} attempt {number}, {outcome}{message}{end}"))
                }
            }
        }
        // The log line about a failed attempt is left out, because `Activity::Ended` already reports the failure.
        Activity::Line(line) if line.text.starts_with(FAILED) => return None,
        Activity::Line(line) => {
            let text = truncate(&line.text, Some(TEXT_CHARS_MAX));
            (&*line.level, format!("{} {text}", line.function.as_deref().unwrap_or("evoke")))
        }
        Activity::LeftOut(number) => {
            let lines = count(*number, "more line");
            ("…", format!("{lines}, too many to show; --quiet shows none of these lines"))
        }
    };
    Some((verb.to_owned(), details))
}

/// Prints a progress line. Escapes the details and their line breaks, because they come from events or functions.
fn say_escaped(verb: &str, details: &str) {
    say(verb, &escape(details));
}

fn show_taken_over(Successor { taken, is_paused }: &Successor) {
    let TakenOver { from, to, pending, dead, keys } = taken;
    let parts = [
        (*pending, count(*pending, "pending delivery")),
        (*dead, count(*dead, "dead letter")),
        (*keys, format!("{} of state", count(*keys, "key"))),
    ];
    let parts: Vec<_> = parts.into_iter().filter(|(number, _)| *number > 0).map(|(_, text)| text).collect();
    let parts = if parts.is_empty() { "no deliveries and no state".to_owned() } else { parts.join(", ") };
    let pause = if *is_paused { format!("; {to} is paused, as {from} was") } else { String::new() };
    say("renamed", &format!("{to} takes over from {from}: {parts}{pause}"));
}

fn show_changes(changes: &Changes) {
    let Changes { added, removed, changed, reordered, routes } = changes;
    for (verb, names) in [("added", added), ("removed", removed), ("changed", changed)] {
        if !names.is_empty() {
            say(verb, &list_names(names, "other"));
        }
    }
    for (name, pending) in reordered {
        let (waits, pending) = (fitting(*pending, "waits", "wait"), count(*pending, "delivery"));
        say(
            "note",
            &format!("{pending} of {name} {waits} in the order of the old `order_by`; new deliveries use the new one"),
        );
    }
    for route in routes.iter().take(ROUTES_SHOWN) {
        say_escaped("route", route);
    }
    if routes.len() > ROUTES_SHOWN {
        say("route", &format!("and {}", count(routes.len() - ROUTES_SHOWN, "other")));
    }
}

/// Lists the first few names, and the number of the other names.
fn list_names(names: &[String], others: &str) -> String {
    const SHOWN: usize = 8;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {}", count(more, others)),
    }
}

/// Prints a progress line: a verb, aligned right, and its details; as JSON if the log is JSON.
fn say(verb: &str, details: &str) {
    if log_format::is_json() {
        let text = if details.is_empty() { verb.to_owned() } else { format!("{verb} {details}") };
        print_error(&(log_format::line("info", &text, serde_json::Map::new()) + "\n"));
        return;
    }
    let style = anstyle::Style::new().bold();
    print_error(&format!("{style}{verb:>10}{style:#} {}\n", escape_lines(details)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Line;
    use evoke_model::event::Event;
    use evoke_model::{AttemptRecord, DeliveryId, Seq};

    #[test]
    fn long_texts_of_events_attempts_and_logs_are_cut() {
        let long = "x".repeat(1_000_000);
        let subject = Some(long.clone());
        let event = Event { type_: long.clone(), source: long.clone(), subject, ..Event::default() };
        let message = Some(long.clone());
        let record = AttemptRecord { attempt: 1, started_ms: 0, duration_us: 1, outcome: "retry".into(), message };
        let line = Line::notice(None, long);
        let ended = Activity::Ended { function: "a/f", delivery: DeliveryId(1), attempt: &record, is_dead: false };
        let accepted = Activity::Accepted { seq: Seq(1), event: &event };
        for activity in [accepted, ended, Activity::Line(&line)] {
            let (_, details) = describe(&activity).unwrap();
            let count = details.chars().count();
            assert!(details.contains('…') && count < TEXT_CHARS_MAX + 100, "{count} characters");
        }
    }
}
