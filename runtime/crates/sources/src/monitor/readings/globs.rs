//! Names and paths with wildcards.

use std::path::{Path, PathBuf};

use evoke_manifest::parser::{ValueError, excerpt};
use globset::{GlobBuilder, GlobMatcher};

/// The most paths that a glob finds.
pub(super) const MATCHES_MAX: usize = 1_000;
/// The most entries of one folder that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// Returns true if the text has wildcards.
pub(super) fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

/// Checks that a text is a valid glob.
pub(super) fn check(text: &str) -> Result<String, ValueError> {
    match GlobBuilder::new(text).literal_separator(true).build() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            let message = format!("`{}` is no valid glob: {}", excerpt(text), error.kind());
            Err(ValueError::new(message, "write a name with `*` or `?`, such as `sd*`"))
        }
    }
}

/// Returns true if the name matches the glob as a whole.
pub(super) fn matches(glob: &str, name: &str) -> bool {
    matcher(glob).is_some_and(|matcher| matcher.is_match(name))
}

/// Like [`matches`], for a text in which `*` also matches slashes.
pub(super) fn matches_text(glob: &str, text: &str) -> bool {
    GlobBuilder::new(glob).literal_separator(false).build().is_ok_and(|glob| glob.compile_matcher().is_match(text))
}

fn matcher(glob: &str) -> Option<GlobMatcher> {
    Some(GlobBuilder::new(glob).literal_separator(true).build().ok()?.compile_matcher())
}

/// Returns the existing paths that match an absolute glob, sorted. Names that begin with a dot match only a pattern that
/// does.
pub(super) fn expand(glob: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for component in glob.components().skip(1) {
        let name = component.as_os_str();
        let Some(pattern) = name.to_str().filter(|name| is_glob(name)) else {
            found.iter_mut().for_each(|path| path.push(name));
            found.retain(|path| path.symlink_metadata().is_ok());
            continue;
        };
        let Some(matcher) = matcher(pattern) else { return Vec::new() };
        let matching = |folder: &PathBuf| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().take(ENTRIES_MAX).flatten();
            let names = entries.map(|entry| entry.file_name());
            let names = names.filter(|name| {
                matcher.is_match(name) && (pattern.starts_with('.') || !name.as_encoded_bytes().starts_with(b"."))
            });
            names.map(|name| folder.join(name)).collect::<Vec<_>>()
        };
        found = found.iter().flat_map(matching).collect();
        found.sort();
        found.truncate(MATCHES_MAX);
    }
    found
}

/// Returns the text of a path for events: without control characters, which attributes cannot have.
pub(super) fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_finds_existing_paths_at_every_level() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a/x/1", "b/x/2", "b/y/3", ".c/x/4"] {
            std::fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        let found = |glob: &str| {
            let paths = expand(&folder.path().join(glob)).into_iter();
            let relative = paths.map(|path| path.strip_prefix(folder.path()).unwrap().to_owned());
            relative.map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found("*/x/*"), ["a/x/1", "b/x/2"]);
        assert_eq!(found("b/*"), ["b/x", "b/y"]);
        assert_eq!(found("b/none"), [""; 0]);
        assert_eq!(found(".*/x/*"), [".c/x/4"]);
    }

    #[test]
    fn names_match_as_a_whole() {
        assert!(matches("sd*", "sda") && !matches("sd?", "sda1") && !matches("eth0", "eth01"));
        assert!(matches_text("nginx: *", "nginx: master process /usr/sbin/nginx"));
    }
}
