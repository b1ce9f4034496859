//! `check`: verifies that the store is not damaged, and that no delivery of an event is missing.

use std::path::PathBuf;

use super::client::{Client, parse};
use super::table::table;
use super::text::{colour, columns, count, escape, print, print_json};
use super::{Common, Failure};
use crate::admin::view::Status;
use evoke_model::text::fitting;
use evoke_model::{CheckReport, Counts, Totals};
use evoke_store_sqlite as sqlite;

/// Returns the folder of the store: that of `--offline`, else that of `--data`, else the data folder of the Evoke at
/// `--admin`, else the default data folder. Returns an error if the folder has no store.
pub(super) fn store_folder(common: &Common) -> Result<PathBuf, Failure> {
    let running = match (&common.data, &common.client_args.admin) {
        (None, Some(_)) => match folder_of_running(common) {
            // If Evoke is stopped, it cannot report its data folder, so the default one is used.
            Err(Failure::NotRunning(_)) => None,
            found => Some(found?),
        },
        _ => None,
    };
    let offline = common.client_args.offline.clone();
    let folder = offline.or(running).map_or_else(|| common.existing_data_folder(), Ok)?;
    let store = folder.join("evoke.db");
    if store.exists() {
        return Ok(folder);
    }
    Err(Failure::NotFound(format!("there is no store at {}; name the data folder with --data", store.display())))
}

fn folder_of_running(common: &Common) -> Result<PathBuf, Failure> {
    let status: Status = parse(&Client::find(common)?.get("/api/v1/status", &[])?)?;
    Ok(status.data.into())
}

pub(super) fn run(common: &Common) -> Result<(), Failure> {
    let report = sqlite::check_folder(&store_folder(common)?).map_err(|e| Failure::Failed(e.to_string()))?;
    if common.client_args.json {
        print_json(&report)?;
    } else {
        print(&render(&report, columns()))?;
    }
    if report.problems.is_empty() { Ok(()) } else { Err(Failure::Reported) }
}

fn render(report: &CheckReport, columns: Option<usize>) -> String {
    let CheckReport { totals: Totals { events, owed, replayed, scheduled, removed, functions }, problems } = report;
    let verb = fitting(*events, "has", "have");
    let mut text = format!("{} {verb} {}\n", count(*events, "event"), count(*owed, "delivery"));
    if *replayed > 0 {
        text += &format!("replays added {}\n", count(*replayed, "delivery"));
    }
    if removed.events > 0 {
        let (events, owed) = (count(removed.events, "event"), count(removed.owed + removed.replayed, "delivery"));
        text += &format!("of these, retention removed {events} with {owed}\n");
    }
    if *scheduled > 0 {
        let verb = fitting(*scheduled, "waits for its", "wait for their");
        text += &format!("{} {verb} `notbefore`\n", count(*scheduled, "event"));
    }
    let row = |(name, c): (&String, &Counts)| {
        let numbers = [c.done, c.dead, c.purged, c.pending(), c.total()];
        std::iter::once(escape(name).into_owned()).chain(numbers.iter().map(ToString::to_string)).collect()
    };
    let rows: Vec<Vec<String>> = functions.iter().map(row).collect();
    if !rows.is_empty() {
        let headings = ["function", "done#", "dead#", "purged#", "pending#", "sum#"];
        text = text + &table(&headings, &rows, columns) + "\n";
    }
    if problems.is_empty() {
        let ok = colour("ok");
        return text + &format!("{ok}ok{ok:#}: the store is complete and undamaged");
    }
    let bad = colour("dead");
    text + &format!(
        "{bad}{}{bad:#}\n  {}",
        count(problems.len(), "problem"),
        problems.iter().map(|problem| escape(problem)).collect::<Vec<_>>().join("\n  ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use evoke_model::{Removed, Seq};

    #[test]
    fn render_shows_counts_and_problems() {
        let counts = Counts { done: 2, dead: 1, ready: 1, ..Counts::default() };
        let removed = Removed { events: 1, owed: 2, replayed: 0, to: Seq(1) };
        let totals = Totals {
            events: 4,
            owed: 5,
            replayed: 0,
            scheduled: 1,
            removed,
            functions: [("shop/charge".to_owned(), counts)].into(),
        };
        let report = CheckReport { totals, problems: vec!["5 deliveries are owed and 4 are there".into()] };
        let expected = "\
4 events have 5 deliveries
of these, retention removed 1 event with 2 deliveries
1 event waits for its `notbefore`
function     done  dead  purged  pending  sum
shop/charge     2     1       0        1    4
1 problem
  5 deliveries are owed and 4 are there";
        assert_eq!(anstream::adapter::strip_str(&render(&report, None)).to_string(), expected);
    }
}
