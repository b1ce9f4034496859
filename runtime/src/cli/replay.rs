//! `replay`: stored events, offered again.

use std::io::IsTerminal;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};

use super::client::{Client, read};
use super::emit::text_of;
use super::table::table;
use super::text::{BOLD, DIM, colour, columns, count, local_time, plain, print, print_raw};
use super::{Common, Failure, With, duration};
use crate::admin::view;
use crate::clock::rfc3339;
use crate::replay::{Filter, Plan};

/// Between two looks at a replay that is followed.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(super) struct Replay {
    #[command(subcommand)]
    existing: Option<Existing>,
    #[command(flatten)]
    start: Start,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Existing {
    /// List replays, the oldest first
    #[command(after_help = "Example: evoke replay list")]
    List(Common),
    /// Show how far one is
    #[command(after_help = "Example: evoke replay show 3")]
    Show(With<One>),
    /// Offer nothing more of one for now; what was offered runs
    #[command(after_help = "Example: evoke replay pause 3")]
    Pause(With<One>),
    /// Go on with one
    #[command(after_help = "Example: evoke replay resume 3")]
    Resume(With<One>),
    /// Call one off; its deliveries that did not start are purged
    #[command(after_help = "Example: evoke replay cancel 3")]
    Cancel(With<One>),
}

#[derive(Debug, Args)]
struct One {
    /// The replay
    replay: i64,
}

/// Which events, to whom, how fast. What is given has to hold all together.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true))]
struct Start {
    /// Only to this function, app/function
    #[arg(group = "which", long)]
    function: Option<String>,
    /// Only events accepted since then: a time such as 2026-01-31T12:00:00Z, or how long ago, such as 2h
    #[arg(group = "which", long, value_name = "TIME", value_parser = time)]
    since: Option<String>,
    /// Only events accepted before then
    #[arg(group = "which", long, value_name = "TIME", value_parser = time)]
    until: Option<String>,
    /// Only events of this type; a trailing * matches any ending
    #[arg(group = "which", long = "type", value_name = "TYPE")]
    type_: Option<String>,
    /// Only events that match this event pattern, JSON or @FILE
    #[arg(group = "which", long, value_name = "JSON")]
    pattern: Option<String>,
    /// Only the event with this number
    #[arg(group = "which", long, value_name = "SEQ")]
    event: Option<i64>,
    /// Every stored event
    #[arg(group = "which", long)]
    all: bool,
    /// At most so many deliveries, such as 100/s, 30/m or 5/h
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Say what it would do, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait until it is done; on a terminal it is followed anyway
    #[arg(long, conflicts_with = "detach")]
    wait: bool,
    /// Begin it and return at once
    #[arg(long)]
    detach: bool,
}

impl Replay {
    pub(super) fn run(self, front: &Common) -> Result<(), Failure> {
        match self.existing {
            None => self.start.run(&self.common.over(front)),
            Some(Existing::List(common)) => list(&common.over(front)),
            Some(Existing::Show(With { command, common })) => command.show(&common.over(front)),
            Some(Existing::Pause(With { command, common })) => command.turn(&common.over(front), "pause"),
            Some(Existing::Resume(With { command, common })) => command.turn(&common.over(front), "resume"),
            Some(Existing::Cancel(With { command, common })) => command.turn(&common.over(front), "cancel"),
        }
    }
}

impl Start {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let pattern = match &self.pattern {
            Some(argument) => Some(
                serde_json::from_str(&text_of(argument)?)
                    .map_err(|e| Failure::Failed(format!("--pattern is not JSON: {e}")))?,
            ),
            None => None,
        };
        let Self { function, since, until, type_, event, rate, .. } = self;
        let filter = Filter { function, since, until, r#type: type_, pattern, event, rate };
        let client = Client::find(common)?;
        if self.dry_run {
            let plan = client.post("/api/v1/replays/plan", &filter)?;
            return if common.reach.json { print_raw(&plan) } else { print(&planned(&read(&plan)?)) };
        }
        let answer = client.post("/api/v1/replays", &filter)?;
        let replay: view::Replay = read(&answer)?;
        let follows = self.wait || (!self.detach && std::io::stderr().is_terminal());
        if !follows {
            let id = replay.id;
            let text = format!("replay {id} runs; `evoke replay show {id}` says how far it is");
            return if common.reach.json { print_raw(&answer) } else { print(&text) };
        }
        let last = follow(&client, replay.id)?;
        if common.reach.json { print_raw(&last) } else { print(&shown(&read(&last)?)) }
    }
}

/// Waits until a replay goes on no more; on a terminal it shows how far it is. Answers how it stands then.
fn follow(client: &Client, id: i64) -> Result<String, Failure> {
    let terminal = std::io::stderr().is_terminal();
    loop {
        let answer = client.get(&format!("/api/v1/replays/{id}"), &[])?;
        let replay: view::Replay = read(&answer)?;
        let going = matches!(replay.state.as_str(), "running" | "cancelling");
        if terminal {
            let end = if going { "  (Ctrl-C leaves it running)" } else { "\n" };
            anstream::eprint!("\r\x1b[2K{}{DIM}{end}{DIM:#}", progress(&replay));
        }
        if !going {
            return Ok(answer);
        }
        std::thread::sleep(LOOK);
    }
}

fn list(common: &Common) -> Result<(), Failure> {
    let client = Client::find(common)?;
    if common.reach.json {
        return client.lines("/api/v1/replays", &[], print_raw);
    }
    let mut rows = Vec::new();
    client.lines("/api/v1/replays", &[], |line| {
        rows.push(row(&read(line)?));
        Ok(())
    })?;
    if rows.is_empty() {
        return print("no replays");
    }
    let headings = ["replay#", "state", "events#", "pending#", "done#", "dead#", "purged#", "filter"];
    print(&table(&headings, &rows, columns()))
}

impl One {
    fn show(&self, common: &Common) -> Result<(), Failure> {
        let answer = Client::find(common)?.get(&format!("/api/v1/replays/{}", self.replay), &[])?;
        if common.reach.json { print_raw(&answer) } else { print(&shown(&read(&answer)?)) }
    }

    fn turn(&self, common: &Common, turn: &str) -> Result<(), Failure> {
        let path = format!("/api/v1/replays/{}/{turn}", self.replay);
        let answer = Client::find(common)?.post(&path, &serde_json::Map::new())?;
        if common.reach.json { print_raw(&answer) } else { print(&progress(&read(&answer)?)) }
    }
}

fn pending(replay: &view::Replay) -> u64 {
    replay.deliveries.ready + replay.deliveries.retrying + replay.deliveries.blocked
}

fn row(replay: &view::Replay) -> Vec<String> {
    let n = &replay.deliveries;
    let numbers = [replay.events, pending(replay), n.done, n.dead, n.purged].map(|number| number.to_string());
    let filter = plain(&replay.filter.to_string()).into_owned();
    [replay.id.to_string(), replay.state.clone()].into_iter().chain(numbers).chain([filter]).collect()
}

/// One line on how far it is.
fn progress(replay: &view::Replay) -> String {
    let view::Replay { id, state, position, until, events, deliveries: n, .. } = replay;
    let style = colour(state);
    let share = if *until > 0 { 100 * *position / *until } else { 100 };
    let numbers = [(n.done, "done"), (pending(replay), "pending"), (n.dead, "dead"), (n.purged, "purged")];
    let numbers: Vec<_> =
        numbers.iter().filter(|(number, _)| *number > 0).map(|(number, word)| format!("{number} {word}")).collect();
    let of = if numbers.is_empty() { String::new() } else { format!(": {}", numbers.join(", ")) };
    format!("replay {id} {style}{state}{style:#}, {share} % looked at, {} offered{of}", count(*events, "event"))
}

fn shown(replay: &view::Replay) -> String {
    let view::Replay { filter, created, .. } = replay;
    let filter = filter.to_string();
    format!("{}\n{DIM}asked for at {}, filter{DIM:#} {}", progress(replay), local_time(created), plain(&filter))
}

fn planned(plan: &Plan) -> String {
    let Plan { events, deliveries, functions, examples, complete } = plan;
    let least = if *complete { "" } else { "at least " };
    let verb = if *events == 1 { "makes" } else { "make" };
    let mut text = format!("{least}{} {verb} {}", count(*events, "event"), count(*deliveries, "delivery"));
    for (function, number) in functions {
        text += &format!("\n  {BOLD}{function}{BOLD:#} {number}");
    }
    if !examples.is_empty() {
        text += &format!("\n{DIM}such as{DIM:#}");
    }
    for example in examples {
        let (type_, source, id) = (plain(&example.r#type), plain(&example.source), plain(&example.id));
        let (seq, to) = (example.seq, example.functions.join(", "));
        text += &format!("\n  {BOLD}{type_}{BOLD:#} {DIM}event {seq} {id} from {source}{DIM:#} to {to}");
    }
    text
}

/// A time, or how long ago it was, as RFC 3339.
fn time(text: &str) -> Result<String, String> {
    if text.parse::<jiff::Timestamp>().is_ok() {
        return Ok(text.to_owned());
    }
    let ago = duration(text).map_err(|_| "write a time such as 2026-01-31T12:00:00Z, or how long ago, such as 2h")?;
    let ago_ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    Ok(rfc3339(jiff::Timestamp::now().as_millisecond().saturating_sub(ago_ms).max(0)))
}

/// Deliveries a second.
fn rate(text: &str) -> Result<f64, String> {
    let wrong = || format!("\"{text}\" is no rate; write how many in which time, such as 100/s, 30/m or 5/h");
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn strip(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn how_far_a_replay_is_stands_on_one_line() {
        let replay: view::Replay = read(
            r#"{"id":3,"state":"running","filter":{"type":"order.*"},"created":"then","position":40,"until":160,
              "events":10,"ready":2,"retrying":1,"blocked":0,"done":7,"dead":0,"purged":0}"#,
        )
        .unwrap();
        let expected = "replay 3 running, 25 % looked at, 10 events offered: 7 done, 3 pending";
        assert_eq!(strip(&progress(&replay)), expected);
        assert_eq!(row(&replay), ["3", "running", "10", "3", "7", "0", "0", r#"{"type":"order.*"}"#]);
    }

    #[test]
    fn a_plan_has_numbers_and_examples() {
        let plan: Plan = read(
            r#"{"events":2,"deliveries":3,"functions":{"shop/a":2,"shop/b":1},"complete":false,
              "examples":[{"seq":4,"type":"t","source":"/s","id":"x","functions":["shop/a","shop/b"]}]}"#,
        )
        .unwrap();
        let expected = "\
at least 2 events make 3 deliveries
  shop/a 2
  shop/b 1
such as
  t event 4 x from /s to shop/a, shop/b";
        assert_eq!(strip(&planned(&plan)), expected);
    }

    #[test]
    fn rates_and_times_are_read() {
        assert_eq!((rate("100/s"), rate("30/m"), rate("1.5/s")), (Ok(100.0), Ok(0.5), Ok(1.5)));
        for wrong in ["100", "0/s", "-1/s", "x/s", "1/d", "inf/s"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(time("2026-01-31T12:00:00Z").unwrap(), "2026-01-31T12:00:00Z");
        assert!(time("2h").unwrap().ends_with('Z'));
        assert!(time("yesterday").is_err());
    }
}
