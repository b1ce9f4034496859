//! Makes tests from recorded attempts. The tests are formatted as the text of a test file, and this text is parsed
//! before the tests run. So a written file has exactly the tests that ran.

use std::path::{Path, PathBuf};

use anyhow::bail;

use super::attempt::Actual;
use super::compare::Difference;
use super::files::Suite;
use crate::control::AppError;
use crate::control::manifests;
use crate::recorded;
use evoke_manifest::{Checked, TestFile};
use evoke_model::event::Event;
use evoke_model::recording::{Content, Recording};

/// Maximum size of the text of a file with several tests, in bytes. A file with one test may have up to 1 MiB.
const FILE_BYTES: usize = 256 * 1024;
/// Maximum number of tests in a file.
const FILE_TESTS: usize = 200;

/// The file for the tests that are made from recorded attempts.
#[derive(Debug, Clone)]
pub enum RecordedFile {
    /// No file.
    None,
    /// Beside the manifest, as `MANIFEST.NAME.test.yaml`.
    Beside(String),
    /// This file.
    At(PathBuf),
}

/// Recorded attempts with their test files.
pub(super) struct RecordedSuites {
    pub(super) suites: Vec<Suite>,
    /// The recordings, in the order of the tests.
    pub(super) recordings: Vec<Recording>,
    /// The file to write, and its text.
    pub(super) file: Option<(PathBuf, String)>,
}

/// Makes the tests. All recordings must be of one function.
pub(super) fn suites(
    paths: &[PathBuf],
    recordings: Vec<Recording>,
    file: &RecordedFile,
) -> Result<RecordedSuites, AppError> {
    let (manifests, _) = manifests::load(&manifests::find(paths)?)?;
    let name = recordings.first().map(|recording| recording.function.clone()).unwrap_or_default();
    let checked = find(manifests, &name)?;
    let recordings: Vec<Recording> = recordings.into_iter().map(|recording| renamed(recording, &checked)).collect();
    let manifest = checked.manifest.path.clone();
    let path = match file {
        RecordedFile::None => manifest.with_file_name("recorded attempts"),
        RecordedFile::Beside(name) => {
            let stem = manifest.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            manifest.with_file_name(format!("{stem}.{name}.test.yaml"))
        }
        RecordedFile::At(path) => path.clone(),
    };
    let head = recorded::head(Some(&relative(&manifest, &path)));
    let mut texts: Vec<(String, usize)> = Vec::new();
    for recording in &recordings {
        let test = recorded::test(recording);
        match texts.last_mut() {
            Some((text, tests)) if *tests < FILE_TESTS && text.len() + test.len() <= FILE_BYTES => {
                text.push_str(&test);
                *tests += 1;
            }
            _ => texts.push((head.clone() + &test, 1)),
        }
    }
    let written = match (file, texts.as_slice()) {
        (RecordedFile::None, _) => None,
        (_, [(text, _)]) => Some((path.clone(), text.clone())),
        _ => {
            return Err(anyhow::anyhow!(
                "the tests do not fit into one file, which has at most {FILE_TESTS} tests and {} KiB; take fewer \
                 attempts with --last",
                FILE_BYTES >> 10
            )
            .into());
        }
    };
    let parse = |(text, _): &(String, usize)| TestFile::parse(text, &path);
    let files: Vec<TestFile> = texts.iter().map(parse).collect::<Result<_, _>>()?;
    for file in &files {
        file.resolve(&checked)?;
    }
    Ok(RecordedSuites { suites: vec![Suite { checked, files }], recordings, file: written })
}

fn find(manifests: Vec<Checked>, function: &str) -> anyhow::Result<Checked> {
    let (app, name) = function.split_once('/').unwrap_or_default();
    let names: Vec<String> = manifests.iter().map(|checked| checked.manifest.app.as_str().to_owned()).collect();
    let found = manifests.into_iter().find(|checked| checked.manifest.app.as_str() == app);
    match found {
        Some(checked) if present_name(&checked, name).is_some() => Ok(checked),
        Some(checked) => bail!("{} has no function {name} any more", checked.manifest.path.display()),
        None => bail!("the manifests declare the apps {}, not {app}; give the manifest of {app}", names.join(", ")),
    }
}

/// Returns the present name of a function, which the manifest may have renamed; `None` if the manifest does not have
/// the function.
fn present_name<'a>(checked: &'a Checked, name: &str) -> Option<&'a str> {
    let manifest = &checked.manifest;
    let was = |function: &&evoke_manifest::Function| function.was.iter().any(|earlier| earlier.name.as_str() == name);
    let found = manifest.function(name).or_else(|| manifest.functions.iter().find(was));
    found.map(|function| function.name.as_str())
}

/// Replaces an earlier name of the function by its present name in a recording, also in the published events.
fn renamed(recording: Recording, checked: &Checked) -> Recording {
    let Some((app, name)) = recording.function.split_once('/') else { return recording };
    let Some(present) = present_name(checked, name).filter(|present| *present != name) else { return recording };
    let (from, to) = (format!("/{app}/{name}"), format!("/{app}/{present}"));
    let published = recording.published.iter().map(|json| match Event::from_json(json.as_bytes(), |_| {}) {
        Ok(event) if event.source == from => Event { source: to.clone(), ..event }.to_json(),
        _ => json.clone(),
    });
    let published = published.collect();
    Recording { function: format!("{app}/{present}"), published, ..recording }
}

/// Returns the file name of the manifest if it is in the folder of the test file, and its full path otherwise.
fn relative(manifest: &Path, file: &Path) -> String {
    let folder = |path: &Path| path.parent().filter(|parent| !parent.as_os_str().is_empty()).map(Path::to_owned);
    let canonical = |path: Option<PathBuf>| path.unwrap_or_else(|| PathBuf::from(".")).canonicalize().ok();
    let path = if canonical(folder(manifest)) == canonical(folder(file)) {
        manifest.file_name().map_or_else(|| manifest.to_owned(), PathBuf::from)
    } else {
        manifest.canonicalize().unwrap_or_else(|_| manifest.to_owned())
    };
    path.to_string_lossy().into_owned()
}

/// Compares the published events and the changes of state of the attempt with those of the recording, byte by byte.
pub(super) fn differences(recording: &Recording, actual: &Actual) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut add = |at: String, expected: Option<&str>, actual: Option<&str>| {
        if expected != actual {
            found.push(Difference { at, expected: expected.map(Into::into), actual: actual.map(Into::into) });
        }
    };
    let (published, again) = (&recording.published, &actual.published_json);
    for index in 0..published.len().max(again.len()) {
        let (expected, actual) = (published.get(index), again.get(index));
        add(format!("published[{index}]"), expected.map(String::as_str), actual.map(String::as_str));
    }
    for (at, expected, actual) in
        [("state", &recording.state, &actual.state), ("shared_state", &recording.shared_state, &actual.shared_state)]
    {
        let keys = expected.keys().chain(actual.keys().filter(|key| !expected.contains_key(*key)));
        for key in keys {
            let expected = expected.get(key).map(|value| shown(value.as_ref().map(|Content(bytes)| bytes)));
            let actual = actual.get(key).map(|value| shown(value.as_ref()));
            add(format!("{at}.{key}"), expected.as_deref(), actual.as_deref());
        }
    }
    found
}

/// Returns a value as text. Different values have different texts, even if they are not valid UTF-8.
fn shown(value: Option<&Vec<u8>>) -> String {
    value.map_or("deleted".to_owned(), |bytes| format!("\"{}\"", bytes.escape_ascii()))
}
