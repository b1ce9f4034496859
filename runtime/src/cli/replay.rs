//! `replay`: delivers stored events again.

use std::io::IsTerminal;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};

use super::client::{Client, parse};
use super::emit::read_argument;
use super::progress::Progress;
use super::select::parse_time;
use super::table::table;
use super::text::{BOLD, DIM, colour, columns, count, escape, local_time, print, print_error, print_json_text};
use super::{Common, Failure, WithCommon};
use crate::admin::view;
use evoke_core::replay::{Filter, Plan};
use evoke_model::text::fitting;
use evoke_model::{Json, ReplayId, Seq};
use evoke_pattern::Pattern;

/// How often `replay` polls the progress of a replay that it follows.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(super) struct Replay {
    #[command(subcommand)]
    manage: Option<Manage>,
    #[command(flatten)]
    start: Start,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Manage {
    /// List replays, oldest first
    #[command(after_help = "Example: evoke replay list")]
    List(Common),
    /// Show the progress of a replay
    #[command(after_help = "Example: evoke replay show 3")]
    Show(WithCommon<ReplayNumber>),
    /// Pause a replay. Deliveries that it has already made still run
    #[command(after_help = "Example: evoke replay pause 3")]
    Pause(WithCommon<ReplayNumber>),
    /// Resume a paused replay
    #[command(after_help = "Example: evoke replay resume 3")]
    Resume(WithCommon<ReplayNumber>),
    /// Cancel a replay. Its deliveries that have not started are purged
    #[command(after_help = "Example: evoke replay cancel 3")]
    Cancel(WithCommon<ReplayNumber>),
}

#[derive(Debug, Args)]
struct ReplayNumber {
    /// Number of the replay
    replay: ReplayId,
}

/// Which events to replay, to which function and at what rate. An event must satisfy all given options.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true))]
struct Start {
    /// Deliver only to this function, app/function
    #[arg(group = "which", long)]
    function: Option<String>,
    /// Only events accepted at or after this time, such as 2026-01-31T12:00:00Z, or this long ago, such as 2h
    #[arg(group = "which", long, value_name = "TIME", value_parser = parse_time)]
    since: Option<String>,
    /// Only events accepted before this time, in the formats of --since
    #[arg(group = "which", long, value_name = "TIME", value_parser = parse_time)]
    until: Option<String>,
    /// Only events of this type; a trailing * matches any ending
    #[arg(group = "which", long = "type", value_name = "TYPE")]
    type_: Option<String>,
    /// Only events of this source, /app/source
    #[arg(group = "which", long, value_name = "SOURCE")]
    source: Option<String>,
    /// Only events that match this event pattern, JSON or @FILE
    #[arg(group = "which", long, value_name = "JSON")]
    pattern: Option<String>,
    /// Only the event with this number
    #[arg(group = "which", long, value_name = "SEQ")]
    event: Option<Seq>,
    /// All stored events
    #[arg(group = "which", long)]
    all: bool,
    /// Maximum rate of deliveries, such as 100/s, 30/m or 5/h
    #[arg(long, value_parser = parse_rate)]
    rate: Option<f64>,
    /// Deliver nothing: only show how many deliveries the replay would make
    #[arg(long)]
    dry_run: bool,
    /// Wait until the replay ends; on a terminal this is the default
    #[arg(long, conflicts_with = "detach")]
    wait: bool,
    /// Start the replay, and do not wait for its end
    #[arg(long)]
    detach: bool,
}

impl Replay {
    pub(super) fn run(self, global: &Common) -> Result<(), Failure> {
        match self.manage {
            None => self.start.run(&self.common.with_defaults(global)),
            Some(Manage::List(common)) => list(&common.with_defaults(global)),
            Some(Manage::Show(WithCommon { command, common })) => command.show(&common.with_defaults(global)),
            Some(Manage::Pause(WithCommon { command, common })) => {
                command.control(&common.with_defaults(global), "pause")
            }
            Some(Manage::Resume(WithCommon { command, common })) => {
                command.control(&common.with_defaults(global), "resume")
            }
            Some(Manage::Cancel(WithCommon { command, common })) => {
                command.control(&common.with_defaults(global), "cancel")
            }
        }
    }
}

impl Start {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let pattern = self.pattern.as_deref().map(read_pattern).transpose()?;
        let Self { function, since, until, type_, source, event, rate, .. } = self;
        let filter = Filter { function, since, until, r#type: type_, source, pattern, event, rate };
        let client = Client::find(common)?;
        if self.dry_run {
            let plan = dry_run(&client, &filter)?;
            return if common.client_args.json { print_json_text(&plan) } else { print(&render_plan(&parse(&plan)?)) };
        }
        let response = client.post("/api/v1/replays", &filter)?;
        let replay: view::Replay = parse(&response)?;
        let follows = self.wait || (!self.detach && std::io::stderr().is_terminal());
        if !follows {
            let id = replay.id;
            let text = format!("replay {id} is running; `evoke replay show {id}` shows its progress");
            return if common.client_args.json { print_json_text(&response) } else { print(&text) };
        }
        let last = follow(&client, replay.id)?;
        if common.client_args.json { print_json_text(&last) } else { print(&render(&parse(&last)?)) }
    }
}

/// Reads the argument of `--pattern`. Prints a warning for each part of the pattern that matches no event, or very few.
/// Does not report errors in the pattern, because the running Evoke reports them.
pub(super) fn read_pattern(argument: &str) -> Result<Json, Failure> {
    let json: Json = serde_json::from_str(&read_argument(argument)?)
        .map_err(|e| Failure::Failed(format!("--pattern is not JSON: {e}")))?;
    if let Ok(pattern) = Pattern::parse(&json) {
        for warning in pattern.never_in_cloudevents().into_iter().chain(pattern.hints(&[])) {
            let style = colour("warn");
            print_error(&format!("{style}warning{style:#}: --pattern: {}\n", escape(&warning.to_string())));
        }
    }
    Ok(json)
}

/// Counts what a replay would deliver, and shows the progress on a terminal. Returns the plan, as JSON text.
fn dry_run(client: &Client, filter: &Filter) -> Result<String, Failure> {
    let is_terminal = std::io::stderr().is_terminal();
    let (mut last, mut progress) = (String::new(), Progress::new("event"));
    client.post_lines("/api/v1/replays/plan?progress=true", filter, |line| {
        last = line.to_owned();
        if is_terminal {
            progress.show(&format!("{}…", count(parse::<Plan>(line)?.events, "event")));
        }
        Ok(())
    })?;
    progress.clear();
    Ok(last)
}

/// Waits until the state of a replay is neither `running` nor `cancelling`, and shows its progress on a terminal.
/// Returns the last response, as JSON text.
fn follow(client: &Client, id: ReplayId) -> Result<String, Failure> {
    let terminal = std::io::stderr().is_terminal();
    loop {
        let response = client.get(&format!("/api/v1/replays/{id}"), &[])?;
        let replay: view::Replay = parse(&response)?;
        let is_running = matches!(replay.state.as_str(), "running" | "cancelling");
        if terminal {
            let end = if is_running { "  (Ctrl-C does not stop the replay)" } else { "\n" };
            print_error(&format!("\r\x1b[2K{}{DIM}{end}{DIM:#}", progress(&replay)));
        }
        if !is_running {
            return Ok(response);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn list(common: &Common) -> Result<(), Failure> {
    let client = Client::find(common)?;
    if common.client_args.json {
        return client.lines("/api/v1/replays", &[], print_json_text);
    }
    let mut rows = Vec::new();
    client.lines("/api/v1/replays", &[], |line| {
        rows.push(row(&parse(line)?));
        Ok(())
    })?;
    if rows.is_empty() {
        return print("no replays");
    }
    let headings = ["replay#", "state", "events#", "pending#", "done#", "dead#", "purged#?", "filter"];
    print(&table(&headings, &rows, columns()))
}

impl ReplayNumber {
    fn show(&self, common: &Common) -> Result<(), Failure> {
        let response = Client::find(common)?.get(&format!("/api/v1/replays/{}", self.replay), &[])?;
        if common.client_args.json { print_json_text(&response) } else { print(&render(&parse(&response)?)) }
    }

    fn control(&self, common: &Common, action: &str) -> Result<(), Failure> {
        let path = format!("/api/v1/replays/{}/{action}", self.replay);
        let response = Client::find(common)?.post(&path, &serde_json::Map::new())?;
        if common.client_args.json { print_json_text(&response) } else { print(&progress(&parse(&response)?)) }
    }
}

fn pending(replay: &view::Replay) -> u64 {
    replay.deliveries.ready + replay.deliveries.retrying + replay.deliveries.blocked
}

fn row(replay: &view::Replay) -> Vec<String> {
    let n = &replay.deliveries;
    let numbers = [replay.events, pending(replay), n.done, n.dead, n.purged].map(|number| number.to_string());
    let filter = escape(&replay.filter.to_string()).into_owned();
    [replay.id.to_string(), replay.state.clone()].into_iter().chain(numbers).chain([filter]).collect()
}

/// Formats the progress of a replay on one line.
fn progress(replay: &view::Replay) -> String {
    let view::Replay { id, state, position, until, events, deliveries: n, .. } = replay;
    let style = colour(state);
    let share = if until.0 > 0 { 100 * position.0 / until.0 } else { 100 };
    let numbers = [(n.done, "done"), (pending(replay), "pending"), (n.dead, "dead"), (n.purged, "purged")];
    let numbers: Vec<_> =
        numbers.iter().filter(|(number, _)| *number > 0).map(|(number, word)| format!("{number} {word}")).collect();
    let counts = if numbers.is_empty() { String::new() } else { format!(", deliveries: {}", numbers.join(", ")) };
    format!("replay {id} {style}{state}{style:#}, {share} % read, {} delivered again{counts}", count(*events, "event"))
}

fn render(replay: &view::Replay) -> String {
    let view::Replay { filter, created, reason, .. } = replay;
    let (filter, created) = (filter.to_string(), local_time(created));
    let reason = reason.as_deref().map(|reason| format!("\nthe stored filter is not valid: {}", escape(reason)));
    let (progress, reason) = (progress(replay), reason.unwrap_or_default());
    format!("{progress}{reason}\n{DIM}requested at {created}, filter{DIM:#} {}", escape(&filter))
}

fn render_plan(plan: &Plan) -> String {
    let Plan { events, deliveries, functions, examples, complete } = plan;
    let least = if *complete { "" } else { "at least " };
    let verb = fitting(*events, "makes", "make");
    let mut text = format!("{least}{} {verb} {}", count(*events, "event"), count(*deliveries, "delivery"));
    for (function, number) in functions {
        text += &format!("\n  {BOLD}{}{BOLD:#} {number}", escape(function));
    }
    if !examples.is_empty() {
        text += &format!("\n{DIM}for example{DIM:#}");
    }
    for example in examples {
        let (type_, source, id) = (escape(&example.r#type), escape(&example.source), escape(&example.id));
        let (seq, to) = (example.seq, escape(&example.functions.join(", ")).into_owned());
        text += &format!("\n  {BOLD}{type_}{BOLD:#} {DIM}event {seq} {id} from {source}{DIM:#} to {to}");
    }
    text
}

/// Parses a rate such as `30/m`. Returns deliveries per second.
fn parse_rate(text: &str) -> Result<f64, String> {
    let wrong =
        || format!("\"{text}\" is not a rate; write a number per second, minute or hour, such as 100/s, 30/m or 5/h");
    let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    if number > 0.0 && number.is_finite() { Ok(number / seconds) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn progress_fits_on_one_line() {
        let replay: view::Replay = parse(
            r#"{"id":3,"state":"running","filter":{"type":"order.*"},"created":"then","position":40,"until":160,
              "events":10,"ready":2,"retrying":1,"blocked":0,"done":7,"dead":0,"purged":0}"#,
        )
        .unwrap();
        let expected = "replay 3 running, 25 % read, 10 events delivered again, deliveries: 7 done, 3 pending";
        assert_eq!(strip(&progress(&replay)), expected);
        assert_eq!(row(&replay), ["3", "running", "10", "3", "7", "0", "0", r#"{"type":"order.*"}"#]);
    }

    #[test]
    fn a_plan_shows_counts_and_examples() {
        let plan: Plan = parse(
            r#"{"events":2,"deliveries":3,"functions":{"shop/a":2,"shop/b":1},"complete":false,
              "examples":[{"seq":4,"type":"t","source":"/s","id":"x","functions":["shop/a","shop/b"]}]}"#,
        )
        .unwrap();
        let expected = "\
at least 2 events make 3 deliveries
  shop/a 2
  shop/b 1
for example
  t event 4 x from /s to shop/a, shop/b";
        assert_eq!(strip(&render_plan(&plan)), expected);
    }

    #[test]
    fn rates_and_times_are_parsed() {
        assert_eq!((parse_rate("100/s"), parse_rate("30/m"), parse_rate("1.5/s")), (Ok(100.0), Ok(0.5), Ok(1.5)));
        for wrong in ["100", "0/s", "-1/s", "x/s", "1/d", "inf/s"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_time("2026-01-31T12:00:00Z").unwrap(), "2026-01-31T12:00:00Z");
        assert!(parse_time("2h").unwrap().ends_with('Z'));
        assert!(parse_time("yesterday").is_err());
    }
}
