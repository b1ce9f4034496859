//! `check`: conservation and integrity, from the store itself.

use super::table::{colour, table};
use super::{Common, Failure};
use crate::admin::view::Numbers;
use crate::store::{CheckReport, sqlite};

pub(super) fn run(common: &Common) -> Result<(), Failure> {
    let store = common.folder().join("evoke.db");
    if !store.exists() {
        return Err(Failure::NotFound(format!(
            "there is no store at {}; name its folder with --data",
            store.display()
        )));
    }
    let report = sqlite::check_folder(common.folder()).map_err(|e| Failure::Failed(e.to_string()))?;
    let sound = report.problems.is_empty();
    let text = if common.reach.json { json(&report) } else { human(&report) };
    super::events::print_line(&text)?;
    if sound { Ok(()) } else { Err(Failure::Reported) }
}

fn json(report: &CheckReport) -> String {
    let functions: serde_json::Map<_, _> = report
        .totals
        .functions
        .iter()
        .map(|(name, counts)| (name.clone(), serde_json::to_value(Numbers::of(counts)).unwrap_or_default()))
        .collect();
    let totals = &report.totals;
    serde_json::json!({
        "ok": report.problems.is_empty(),
        "events": totals.events,
        "owed": totals.owed,
        "functions": functions,
        "problems": report.problems,
    })
    .to_string()
}

fn human(report: &CheckReport) -> String {
    let rows: Vec<Vec<String>> = report
        .totals
        .functions
        .iter()
        .map(|(name, c)| {
            let numbers = [c.done, c.dead, c.purged, c.pending(), c.total()];
            std::iter::once(name.clone()).chain(numbers.iter().map(ToString::to_string)).collect()
        })
        .collect();
    let mut text = format!("{} events are owed {} deliveries\n", report.totals.events, report.totals.owed);
    if !rows.is_empty() {
        text.push_str(&table(&["function", "done#", "dead#", "purged#", "pending#", "sum#"], &rows));
    }
    if report.problems.is_empty() {
        let ok = colour("ok");
        text.push_str(&format!("{ok}ok{ok:#}: nothing is missing, and the store is sound"));
    } else {
        let bad = colour("dead");
        text.push_str(&format!("{bad}{} problems{bad:#}\n  {}", report.problems.len(), report.problems.join("\n  ")));
    }
    text
}
