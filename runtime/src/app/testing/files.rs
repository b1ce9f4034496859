//! Finds test files, and the manifest of each.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::control::{AppError, manifests};
use evoke_manifest::test_file::Spanned;
use evoke_manifest::{Checked, Diagnostic, Diagnostics, TestFile};

/// The end of the name of a test file.
const ENDING: &str = ".test.yaml";
/// Maximum number of test files that one command runs.
const FILES_MAX: usize = 1_000;

/// A manifest with its test files.
pub(super) struct Suite {
    pub(super) checked: Checked,
    pub(super) files: Vec<TestFile>,
}

/// A test file to load. If the user named a manifest, `of` is this manifest, and the file is left out if it belongs to
/// another manifest.
struct Candidate {
    path: PathBuf,
    of: Option<PathBuf>,
}

/// Loads test files with their manifests. Returns all mistakes together.
pub(super) fn load(arguments: &[PathBuf]) -> Result<Vec<Suite>, AppError> {
    let mut found = Diagnostics::default();
    let mut loaded: Vec<(PathBuf, TestFile)> = Vec::new();
    for Candidate { path, of } in candidates(arguments)? {
        let file = match TestFile::load(&path) {
            Ok(file) => file,
            Err(errors) => {
                found.extend(errors);
                continue;
            }
        };
        match manifest_of(&file) {
            Ok(manifest) if of.as_ref().is_some_and(|of| !is_same(of, &manifest)) => {}
            Ok(manifest) => loaded.push((manifest, file)),
            Err(error) => found.push(*error),
        }
    }
    let mut suites: Vec<(PathBuf, Suite)> = Vec::new();
    let mut broken: Vec<PathBuf> = Vec::new();
    for (manifest, file) in loaded {
        if let Some((_, suite)) = suites.iter_mut().find(|(path, _)| is_same(path, &manifest)) {
            suite.files.push(file);
        } else if !broken.contains(&manifest) {
            match manifests::load(std::slice::from_ref(&manifest)) {
                Ok((mut checked, _)) => {
                    suites.extend(checked.pop().map(|checked| (manifest, Suite { checked, files: vec![file] })));
                }
                Err(errors) => {
                    found.extend(errors);
                    broken.push(manifest);
                }
            }
        }
    }
    for (_, Suite { checked, files }) in &suites {
        files.iter().filter_map(|file| file.resolve(checked).err()).for_each(|errors| found.extend(errors));
    }
    if found.has_errors() {
        return Err(found.into());
    }
    if suites.is_empty() {
        return Err(anyhow::anyhow!("the manifest has no tests: write them into NAME{ENDING} beside NAME.yaml").into());
    }
    Ok(suites.into_iter().map(|(_, suite)| suite).collect())
}

fn candidates(arguments: &[PathBuf]) -> anyhow::Result<Vec<Candidate>> {
    let current = [PathBuf::from(".")];
    let arguments = if arguments.is_empty() { &current[..] } else { arguments };
    let mut found: Vec<Candidate> = Vec::new();
    for argument in arguments {
        if argument.is_dir() {
            let files = test_files(argument)?;
            if files.is_empty() {
                bail!(
                    "there are no tests in {}: write them into NAME{ENDING} beside the manifest NAME.yaml",
                    argument.display()
                );
            }
            found.extend(files.into_iter().map(|path| Candidate { path, of: None }));
        } else if is_test_file(argument) {
            found.push(Candidate { path: argument.clone(), of: None });
        } else if !argument.exists() {
            bail!("{} does not exist; give a test file, a manifest or a folder", argument.display());
        } else {
            let folder = argument.parent().filter(|folder| !folder.as_os_str().is_empty());
            let files = test_files(folder.unwrap_or(Path::new(".")))?;
            found.extend(files.into_iter().map(|path| Candidate { path, of: Some(argument.clone()) }));
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup_by(|a, b| a.path == b.path && a.of == b.of);
    if found.len() > FILES_MAX {
        bail!("there are {} test files; the limit is {FILES_MAX}: give fewer files or folders", found.len());
    }
    Ok(found)
}

/// Returns the test files of a folder, sorted.
fn test_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_test_file(path));
    // Paths in the current folder are shown without the `./`.
    let mut paths: Vec<PathBuf> =
        paths.map(|path| path.strip_prefix(".").map_or_else(|_| path.clone(), Path::to_owned)).collect();
    paths.sort();
    Ok(paths)
}

fn is_test_file(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.ends_with(ENDING) && !name.starts_with('.')
}

/// Returns the manifest of a test file: the manifest that the file names, else `NAME.yaml` or `NAME.yml` beside
/// `NAME.test.yaml`, else `evoke.yaml`.
fn manifest_of(file: &TestFile) -> Result<PathBuf, Box<Diagnostic>> {
    let path = &file.source.path;
    if let Some(Spanned { value, span }) = &file.manifest {
        if value.is_file() {
            return Ok(value.clone());
        }
        let message = format!("the manifest `{}` does not exist", value.display());
        return Err(Box::new(file.error_at(*span, message, "the path is relative to the folder of the test file")));
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.strip_suffix(ENDING).unwrap_or(&name);
    let names = [format!("{stem}.yaml"), format!("{stem}.yml"), "evoke.yaml".to_owned()];
    names.iter().map(|name| path.with_file_name(name)).find(|path| path.is_file()).ok_or_else(|| {
        let message =
            format!("there is no manifest for these tests: neither {stem}.yaml nor evoke.yaml is beside them");
        Box::new(Diagnostic::file_error(&file.source, message).help("add `manifest: FILE.yaml` to the test file"))
    })
}

fn is_same(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}
