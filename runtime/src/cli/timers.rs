//! `timers`: lists timers, with the results of their last ticks and the times of their next ticks.

use clap::Args;

use super::client::{Client, parse};
use super::table::table;
use super::text::{self, escape, local_time, print, print_json_text};
use super::{Common, Failure};
use crate::admin::view::{Tick, TickDelivery, Timer};

#[derive(Debug, Args)]
pub(super) struct Timers {
    /// Only this timer, /app/name
    source: Option<String>,
    /// How many of the last ticks, and how many of the next ticks, to show for each timer
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    ticks: u32,
    /// Maximum number of timers to list
    #[arg(long, short = 'n', default_value_t = 100)]
    limit: usize,
}

impl Timers {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        if common.client_args.offline.is_some() {
            return Err(Failure::Usage("only a running Evoke has timers: leave out --offline".to_owned()));
        }
        let mut query = vec![("limit", self.limit.to_string()), ("ticks", self.ticks.to_string())];
        query.extend(self.source.map(|source| ("source", source)));
        let client = Client::find(common)?;
        if common.client_args.json {
            return client.lines("/api/v1/timers", &query, print_json_text);
        }
        let mut rows = Vec::new();
        client.lines("/api/v1/timers", &query, |line| {
            rows.extend(rows_of(&parse(line)?));
            Ok(())
        })?;
        if rows.is_empty() {
            return print("no timers");
        }
        print(&table(&["timer", "schedule", "tick", "result"], &rows, text::columns()))
    }
}

/// Returns a row for each of the last ticks, and then for each of the next ticks. Only the first row names the timer.
fn rows_of(timer: &Timer) -> Vec<Vec<String>> {
    let Timer { source, schedule, next, last, .. } = timer;
    let last = last.iter().map(|tick| (local_time(&tick.scheduled), result(tick)));
    let next = next.iter().map(|at| (local_time(at), "next".to_owned()));
    let mut ticks: Vec<_> = last.chain(next).collect();
    if ticks.is_empty() {
        ticks.push((String::new(), "has ended".to_owned()));
    }
    let mut names = vec![(escape(source).into_owned(), escape(schedule).into_owned())].into_iter();
    let rows = ticks.into_iter().map(|(at, result)| {
        let (source, schedule) = names.next().unwrap_or_default();
        vec![source, schedule, at, result]
    });
    rows.collect()
}

fn result(tick: &Tick) -> String {
    match (tick.skipped.as_deref(), tick.event) {
        (Some("overlap"), _) => return "skipped: the previous tick was still pending".to_owned(),
        (Some("late"), _) => return "skipped: its `start_deadline` had passed".to_owned(),
        (Some(other), _) => return format!("skipped: {}", escape(other)),
        (None, None) => return "the event was removed by retention".to_owned(),
        (None, Some(event)) if tick.deliveries.is_empty() => return format!("event {event}: no deliveries"),
        _ => {}
    }
    let delivery = |one: &TickDelivery| {
        let cause = one.cause.as_deref().map(|cause| format!(" ({})", escape(cause))).unwrap_or_default();
        format!("{} {}{cause}", escape(&one.function), escape(&one.state))
    };
    tick.deliveries.iter().map(delivery).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_show_the_last_ticks_with_their_results_and_the_next_ones() {
        let timer: Timer = parse(
            r#"{"source":"/shop/nightly","schedule":"every 1m","next":["soon"],"last":[
              {"scheduled":"a","skipped":"overlap","deliveries":[]},
              {"scheduled":"b","event":7,"deliveries":[
                {"delivery":9,"function":"shop/a","state":"done","attempts":1},
                {"delivery":10,"function":"shop/b","state":"dead","attempts":2,"cause":"reject: no"}]},
              {"scheduled":"c","deliveries":[]}]}"#,
        )
        .unwrap();
        let rows = rows_of(&timer);
        assert_eq!(rows[0], ["/shop/nightly", "every 1m", "a", "skipped: the previous tick was still pending"]);
        assert_eq!(rows[1], ["", "", "b", "shop/a done, shop/b dead (reject: no)"]);
        assert_eq!(rows[2], ["", "", "c", "the event was removed by retention"]);
        assert_eq!(rows[3], ["", "", "soon", "next"]);
    }
}
