//! Runs tests of functions. Each test is one attempt in the sandbox, without a server and without storing anything. The
//! requests of functions get the responses that the test declares, and never leave the process.

mod answers;
mod attempt;
mod compare;
mod expectation;
mod files;
mod from;
mod functions;
mod rewrite;
mod state;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};

use self::attempt::Actual;
pub use self::compare::Difference;
use self::files::Suite;
pub use self::from::RecordedFile;
use super::invoke::sandbox;
use crate::control::functions::full_name;
use crate::control::{AppError, Host, build};
use evoke_manifest::test_file::Test;
use evoke_manifest::{Checked, Diagnostics, Function, TestFile};
use evoke_model::recording::Recording;
use evoke_model::text::{count, fitting};
use evoke_sandbox::CompileLimits;

/// Options of [`test`].
#[derive(Debug, Clone)]
pub struct TestOptions {
    /// Test files, manifests whose tests run, and folders of tests; empty means the current folder. With `recorded`,
    /// the paths are manifests and folders of manifests, as for `evoke up`.
    pub paths: Vec<PathBuf>,
    /// Recorded attempts to run again in place of the tests in files, and the file for new tests that repeat these
    /// attempts.
    pub recorded: Option<(Vec<Recording>, RecordedFile)>,
    /// Runs only tests whose name, or `app/function`, contains this text.
    pub filter: Option<String>,
    /// True if new expectations are written for the tests that fail or have no expectation.
    pub update: bool,
    /// The data folder; only its cache of compiled components is used.
    pub data: PathBuf,
    /// Limits on compiling components.
    pub compile: CompileLimits,
}

/// Result of [`test`].
#[derive(Debug)]
pub struct TestReport {
    /// The results of the tests, in the order of the files and of the tests in each file.
    pub results: Vec<TestResult>,
    /// The files with new expectations.
    pub updated: Vec<PathBuf>,
    /// Path and text of a new test file, whose tests were made from recorded attempts. The caller writes the file.
    pub recorded: Option<(PathBuf, String)>,
    /// Total time, including builds and compilation.
    pub duration: Duration,
}

/// Result of one test.
#[derive(Debug)]
pub struct TestResult {
    pub file: PathBuf,
    /// The name of the test.
    pub name: String,
    /// `app/function`.
    pub function: String,
    /// Time of the attempt.
    pub duration: Duration,
    /// The outcome of the attempt.
    pub outcome: &'static str,
    /// The message of the outcome.
    pub message: Option<String>,
    /// Differences from the expectation; empty if the test passed. If a new expectation was written, the differences
    /// from the new one.
    pub differences: Vec<Difference>,
    /// True if a new expectation was written.
    pub is_updated: bool,
    /// The log lines of the function: `LEVEL TEXT`.
    pub logs: Vec<String>,
}

impl TestResult {
    /// Returns true if the attempt matched the expectation.
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }
}

/// A test with its function.
#[derive(Clone, Copy)]
struct Case<'a> {
    file: &'a TestFile,
    test: &'a Test,
    checked: &'a Checked,
    function: &'a Function,
}

/// Builds and loads the functions, and runs the tests in parallel. A failed test is not an error.
pub async fn test(options: TestOptions, host: &dyn Host) -> Result<TestReport, AppError> {
    let started = Instant::now();
    let (suites, recordings, recorded) = match options.recorded {
        Some((recordings, file)) => {
            let made = from::suites(&options.paths, recordings, &file)?;
            (made.suites, made.recordings, made.file)
        }
        None => (files::load(&options.paths)?, Vec::new(), None),
    };
    let cases = select(&suites, options.filter.as_deref())?;
    build_all(&cases, host).await?;
    let parallel = std::thread::available_parallelism().map_or(1, usize::from);
    let sandbox = sandbox(&options.data, options.compile, u32::try_from(parallel).unwrap_or(1))?;
    let functions = functions::load_all(&cases, &sandbox).await?;
    let attempts = cases.iter().zip(functions).map(|(case, function)| {
        let app = case.checked.manifest.app.as_str().into();
        // Some guests run on the thread that starts their attempt. So each attempt is started on a thread for guests.
        sandbox.guest_threads().spawn(attempt::run(function, app, case.test.clone()))
    });
    let actual: Vec<_> = stream::iter(attempts).buffered(parallel).collect().await;
    let actual = actual.into_iter().collect::<Result<Vec<Actual>, _>>().context("the task that ran a test panicked")?;
    let mut results: Vec<TestResult> = cases.iter().zip(&actual).map(|(case, actual)| result(case, actual)).collect();
    for ((recording, actual), result) in recordings.iter().zip(&actual).zip(&mut results) {
        if result.passed() {
            result.differences = from::differences(recording, actual);
        }
    }
    let updated = if options.update { update(&cases, &actual, &mut results)? } else { Vec::new() };
    Ok(TestReport { results, updated, recorded, duration: started.elapsed() })
}

fn select<'a>(suites: &'a [Suite], filter: Option<&str>) -> Result<Vec<Case<'a>>, AppError> {
    let mut cases = Vec::new();
    for Suite { checked, files } in suites {
        for file in files {
            let functions = file.resolve(checked)?;
            let all = file.tests.iter().zip(functions);
            cases.extend(all.map(|(test, function)| Case { file, test, checked, function }));
        }
    }
    if let Some(filter) = filter {
        let names: BTreeSet<&str> = cases.iter().map(|case| case.test.name.value.as_str()).collect();
        let (are, tests) = (fitting(names.len(), "is", "are"), count(names.len(), "test"));
        let message = format!("no test has `{filter}` in its name or in `app/function`; there {are} {tests}");
        cases.retain(|case| {
            case.test.name.value.contains(filter) || full_name(&case.checked.manifest, case.function).contains(filter)
        });
        if cases.is_empty() {
            return Err(anyhow::anyhow!(message).into());
        }
    }
    Ok(cases)
}

/// Builds the missing and outdated components of the tested functions.
async fn build_all(cases: &[Case<'_>], host: &dyn Host) -> Result<(), Diagnostics> {
    let mut failed = Diagnostics::default();
    let mut seen = BTreeSet::new();
    for case in cases {
        if seen.insert(full_name(&case.checked.manifest, case.function))
            && let Err(errors) = build::build(case.checked, case.function, false, host).await
        {
            failed.extend(errors);
        }
    }
    if failed.has_errors() { Err(failed) } else { Ok(()) }
}

fn result(case: &Case<'_>, actual: &Actual) -> TestResult {
    TestResult {
        file: case.file.source.path.clone(),
        name: case.test.name.value.clone(),
        function: full_name(&case.checked.manifest, case.function),
        duration: actual.duration,
        outcome: actual.outcome,
        message: actual.message.clone(),
        differences: compare::differences(&case.test.expect, actual),
        is_updated: false,
        logs: actual.logs.clone(),
    }
}

/// Writes new expectations for the tests that failed or have no expectation. Returns the changed files.
fn update(cases: &[Case<'_>], actual: &[Actual], results: &mut [TestResult]) -> anyhow::Result<Vec<PathBuf>> {
    let mut updated = Vec::new();
    let mut start = 0;
    for group in cases.chunk_by(|a, b| std::ptr::eq(a.file, b.file)) {
        let range = start..start + group.len();
        start = range.end;
        let (Some(actual), Some(results), Some(first)) =
            (actual.get(range.clone()), results.get_mut(range), group.first())
        else {
            continue;
        };
        let all = group.iter().zip(actual).zip(results);
        let mut changed: Vec<_> =
            all.filter(|((case, _), result)| !result.passed() || case.test.expect_spans.is_none()).collect();
        if changed.is_empty() {
            continue;
        }
        let new: Vec<_> = changed
            .iter()
            .map(|((case, actual), _)| {
                let expect = case.test.expect_spans.is_some().then_some(&case.test.expect);
                (case.test, expectation::of(expect, actual))
            })
            .collect();
        let path = &first.file.source.path;
        let written = rewrite::with_expectations(first.file, &new)
            .with_context(|| format!("cannot write new expectations into {}", path.display()))?;
        for ((case, actual), result) in &mut changed {
            let test = written.file.tests.iter().find(|test| test.name.value == case.test.name.value);
            let expect = test.map(|test| test.expect.clone()).unwrap_or_default();
            result.differences = compare::differences(&expect, actual);
            result.is_updated = true;
        }
        std::fs::write(path, &written.text).with_context(|| format!("cannot write {}", path.display()))?;
        updated.push(path.clone());
    }
    Ok(updated)
}
