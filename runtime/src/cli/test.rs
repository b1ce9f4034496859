//! `test`: runs the tests of functions, without a server.

mod from;
mod junit;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use self::from::From;
use super::compile::CompileOptions;
use super::terminal::Terminal;
use super::text::{BOLD, DIM, colour, count, escape, format_micros, print, print_error, print_json};
use super::{Common, Failure, apps};
use crate::app;
use crate::app::{Difference, TestOptions, TestReport, TestResult};

#[derive(Debug, Args)]
pub(super) struct Test {
    /// Test files, folders of tests, or manifests (all their test files run) [default: the current folder]. With
    /// --from, manifests that declare the function [default: evoke.yaml]
    #[arg(value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Make tests from recorded attempts, and run them. The attempts are all those of the delivery with this number, or
    /// the newest ones of this function, app/function
    #[arg(long, value_name = "DELIVERY|FUNCTION", conflicts_with = "filter")]
    from: Option<From>,
    /// With --from: use only the attempt with this number
    #[arg(long, value_name = "N", requires = "from")]
    attempt: Option<u32>,
    /// With --from and a function: how many of its newest attempts to use [default: 20]
    #[arg(long, value_name = "N", requires = "from")]
    last: Option<usize>,
    /// With --from: write the tests into this file, or to standard output with `-` [default: for a delivery, a new file
    /// beside the manifest; for a function, no file]
    #[arg(long, value_name = "FILE", requires = "from")]
    out: Option<PathBuf>,
    /// Run only tests whose name, or app/function, contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Write the actual results as the expectations of tests that fail or have no expectations. The rest of a file does
    /// not change. With --from, replace a file that already exists
    #[arg(long)]
    update: bool,
    /// Also write the results into this file, in the XML format of JUnit
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    compile: CompileOptions,
}

impl Test {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let Self { paths, from, attempt, last, out, filter, update, junit, compile } = self;
        let (data, compile) = (common.data_folder().to_owned(), compile.limits());
        let recorded = match &from {
            Some(from) => Some((from::fetch(common, from, attempt, last)?, from::file(from, out.as_deref()))),
            None => None,
        };
        let is_recorded = recorded.is_some();
        let options = TestOptions { paths, recorded, filter, update: update && !is_recorded, data, compile };
        let mut report = apps::run(common, app::test(options, &Terminal))?;
        let to_stdout = out.as_deref().is_some_and(from::is_stdout);
        from::write(report.recorded.take(), to_stdout, update)?;
        if let Some(path) = junit {
            std::fs::write(&path, junit::render(&report))
                .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", path.display())))?;
        }
        if common.client_args.json {
            report.results.iter().try_for_each(|result| print_json(&to_json(result)))?;
        } else if to_stdout {
            print_error(&format!("{}\n", render(&report)));
        } else {
            print(&render(&report))?;
        }
        for path in &report.updated {
            print_error(&format!("updated {}\n", path.display()));
        }
        if report.results.iter().all(TestResult::passed) { Ok(()) } else { Err(Failure::Reported) }
    }
}

/// The result of a test in JSON.
#[derive(Serialize)]
struct Json<'a> {
    file: String,
    name: &'a str,
    function: &'a str,
    passed: bool,
    updated: bool,
    outcome: &'a str,
    message: Option<&'a str>,
    duration_us: u64,
    differences: &'a [Difference],
    logs: &'a [String],
}

fn to_json(result: &TestResult) -> Json<'_> {
    Json {
        file: result.file.display().to_string(),
        name: &result.name,
        function: &result.function,
        passed: result.passed(),
        updated: result.is_updated,
        outcome: result.outcome,
        message: result.message.as_deref(),
        duration_us: micros(result),
        differences: &result.differences,
        logs: &result.logs,
    }
}

fn micros(result: &TestResult) -> u64 {
    u64::try_from(result.duration.as_micros()).unwrap_or(u64::MAX)
}

fn render(report: &TestReport) -> String {
    let mut text = String::new();
    let mut file = None;
    for result in &report.results {
        if file != Some(&result.file) {
            file = Some(&result.file);
            text += &format!("{BOLD}{}{BOLD:#}\n", escape(&result.file.display().to_string()));
        }
        let (word, style) = match (result.passed(), result.is_updated) {
            (true, true) => ("updated", colour("retry")),
            (true, false) => ("passed", colour("done")),
            (false, _) => ("failed", colour("failed")),
        };
        let (name, function) = (escape(&result.name), &result.function);
        let took = format_micros(micros(result));
        text += &format!("  {style}{word:<7}{style:#} {name} {DIM}{function}, {took}{DIM:#}\n");
        text += &details(result);
    }
    let failed = report.results.iter().filter(|result| !result.passed()).count();
    let passed = report.results.len() - failed;
    let took = report.duration.as_secs_f64();
    let style = if failed == 0 { colour("done") } else { colour("failed") };
    text += &format!("{style}{} passed, {failed} failed{style:#} in {took:.1} s", count(passed, "test"));
    text
}

/// Describes why a test failed: each difference, the outcome with its message, and the log lines of the function.
fn details(result: &TestResult) -> String {
    let mut text = String::new();
    if result.passed() {
        return text;
    }
    let shown = |value: &Option<Value>| {
        value.as_ref().map_or("nothing".to_owned(), |value| escape(&value.to_string()).into_owned())
    };
    let (minus, plus) = (colour("failed"), colour("done"));
    for Difference { at, expected, actual } in &result.differences {
        text += &format!("    {}\n", escape(at));
        text += &format!("      {plus}expected {}{plus:#}\n", shown(expected));
        text += &format!("      {minus}actual   {}{minus:#}\n", shown(actual));
    }
    if let Some(message) = &result.message {
        text += &format!("    {DIM}{}:{DIM:#} {}\n", result.outcome, escape(message));
    }
    for line in &result.logs {
        text += &format!("    {DIM}log{DIM:#} {}\n", escape(line));
    }
    text
}
