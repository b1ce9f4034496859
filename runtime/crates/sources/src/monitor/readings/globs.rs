//! Globs: names and paths with wildcards.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use evoke_manifest::parser::{ValueError, excerpt};
use globset::{GlobBuilder, GlobMatcher};
use serde::{Serialize, Serializer};

use crate::files::name;

/// Maximum number of paths that [`expand`] returns.
pub(super) const MATCHES_MAX: usize = 1_000;
/// Maximum number of entries that are read of one folder.
const ENTRIES_MAX: usize = 10_000;
/// Maximum number of entries that [`expand`] reads in all folders together, for each part of the path that has
/// wildcards.
const ENTRIES_TOTAL_MAX: usize = 100_000;

/// Returns true if the text has wildcards.
pub(super) fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

/// A plain name, or a glob for names.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    text: String,
    matcher: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    /// The text has no wildcards.
    Plain,
    /// The glob is `*`, which also matches slashes. It is not compiled, because a compiled glob takes some tens of
    /// kilobytes.
    All,
    Wildcards(GlobMatcher),
}

impl Glob {
    /// Parses a glob whose wildcards do not match slashes.
    pub(super) fn of_name(text: &str) -> Result<Self, ValueError> {
        Self::parse(text, GlobBuilder::new(text).literal_separator(true))
    }

    /// Parses a glob whose wildcards also match slashes.
    pub(super) fn of_text(text: &str) -> Result<Self, ValueError> {
        if text == "*" {
            return Ok(Self::default());
        }
        Self::parse(text, GlobBuilder::new(text).literal_separator(false))
    }

    /// Parses a glob for names of units. Names of units contain backslashes, therefore a backslash is not an escape.
    pub(super) fn of_unit(text: &str) -> Result<Self, ValueError> {
        Self::parse(text, GlobBuilder::new(text).backslash_escape(false))
    }

    fn parse(text: &str, builder: &GlobBuilder<'_>) -> Result<Self, ValueError> {
        let glob = builder.build().map_err(|error| {
            let message = format!("`{}` is not a valid glob: {}", excerpt(text), error.kind());
            ValueError::new(message, "write a name with `*` or `?`, such as `sd*`")
        })?;
        let matcher = if is_glob(text) { Matcher::Wildcards(glob.compile_matcher()) } else { Matcher::Plain };
        Ok(Self { text: text.to_owned(), matcher })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self.matcher, Matcher::Plain)
    }

    /// Returns true if the glob matches the whole name.
    pub(super) fn matches(&self, name: &str) -> bool {
        match &self.matcher {
            Matcher::Plain => name == self.text,
            Matcher::All => true,
            Matcher::Wildcards(matcher) => matcher.is_match(name),
        }
    }
}

/// The default is the glob `*`, which also matches names with slashes.
impl Default for Glob {
    fn default() -> Self {
        Self { text: "*".to_owned(), matcher: Matcher::All }
    }
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Serialize for Glob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

/// Checks that a path is a valid glob.
pub(super) fn check_path(text: &str) -> Result<String, ValueError> {
    Glob::of_name(text).map(|glob| glob.text)
}

/// Returns true if the glob matches a whole path. The parameter `shown` is this path in the form that [`shown()`]
/// returns.
pub(super) fn path_matches(glob: &Path, shown: &str) -> bool {
    match glob.to_str().and_then(|glob| Glob::of_name(glob).ok()) {
        Some(Glob { matcher: Matcher::Wildcards(matcher), .. }) => matcher.is_match(name::path(shown)),
        Some(glob) => glob.matches(shown),
        None => false,
    }
}

/// Returns the first [`MATCHES_MAX`] existing paths that match an absolute glob, sorted. Names that begin with a dot
/// match only patterns that begin with a dot. The number of paths in memory is limited, because other users may be able
/// to create any number of files in the folders.
pub(super) fn expand(glob: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for component in glob.components().skip(1) {
        let name = component.as_os_str();
        let Some(pattern) = name.to_str().filter(|name| is_glob(name)) else {
            found.iter_mut().for_each(|path| path.push(name));
            found.retain(|path| path.symlink_metadata().is_ok());
            continue;
        };
        let Ok(Glob { matcher: Matcher::Wildcards(matcher), .. }) = Glob::of_name(pattern) else { return Vec::new() };
        let is_shown = |name: &OsStr| pattern.starts_with('.') || !name.as_encoded_bytes().starts_with(b".");
        let (mut first, mut entries_left) = (BTreeSet::new(), ENTRIES_TOTAL_MAX);
        for folder in &found {
            let entries = std::fs::read_dir(folder).into_iter().flatten().take(ENTRIES_MAX.min(entries_left));
            for entry in entries {
                entries_left -= 1;
                let Ok(name) = entry.map(|entry| entry.file_name()) else { continue };
                if matcher.is_match(&name) && is_shown(&name) {
                    first.insert(folder.join(name));
                }
                if first.len() > MATCHES_MAX {
                    first.pop_last();
                }
            }
        }
        found = first.into_iter().collect();
    }
    found
}

/// Converts a path to a text that the attributes of an event may contain. Two different paths never have the same text.
pub(super) fn shown(path: &Path) -> String {
    name::join("", path.as_os_str().as_bytes())
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
    fn a_glob_finds_the_first_paths_of_many() {
        let folder = tempfile::tempdir().unwrap();
        for name in (0..MATCHES_MAX + 20).rev() {
            std::fs::write(folder.path().join(format!("{name:05}")), "").unwrap();
        }
        let found = expand(&folder.path().join("*"));
        assert_eq!(found.len(), MATCHES_MAX);
        assert!(found.is_sorted() && found[MATCHES_MAX - 1].ends_with(format!("{:05}", MATCHES_MAX - 1)));
    }

    #[test]
    fn each_path_has_a_text_of_its_own_that_an_attribute_can_have() {
        let names = ["a\u{fffe}", "a\u{fdd0}", "a\u{fffd}", "a\n", "a\u{85}"].map(str::as_bytes);
        let names = [&names[..], &[b"a\xff", b"a\xfe", b"a"]].concat();
        let texts: BTreeSet<String> =
            names.iter().map(|name| shown(&Path::new("/x").join(OsStr::from_bytes(name)))).collect();
        assert_eq!(texts.len(), names.len());
        for text in texts {
            assert!(!text.chars().any(evoke_model::event::is_excluded_char), "{text:?}");
            assert!(path_matches(Path::new("/x/a*"), &text) && !path_matches(Path::new("/x/b*"), &text), "{text:?}");
        }
    }

    #[test]
    fn names_match_as_a_whole() {
        let name = |glob: &str, name: &str| Glob::of_name(glob).unwrap().matches(name);
        assert!(name("sd*", "sda") && !name("sd?", "sda1") && !name("eth0", "eth01") && name("eth0", "eth0"));
        assert!(!name("a*", "a/b") && name("\\*", "*"));
        assert!(Glob::of_text("*").unwrap().matches("a/b") && !Glob::of_name("*").unwrap().matches("a/b"));
        let command = Glob::of_text("nginx: *").unwrap();
        assert!(command.matches("nginx: master process /usr/sbin/nginx"));
        assert!(path_matches(Path::new("/mnt/*"), "/mnt/a") && !path_matches(Path::new("/mnt/*"), "/mnt/a/b"));
    }
}
