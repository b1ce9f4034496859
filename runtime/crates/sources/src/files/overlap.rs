//! Finds out, before a source runs, whether it would watch the data folder of Evoke.

use std::path::{Path, PathBuf};

use super::config::FilesSource;
use super::scan::Filter;
use evoke_fs::FileId;

/// How the folder of a source and the data folder overlap.
#[derive(Debug, PartialEq, Eq)]
pub enum Overlap {
    /// They are the same folder: the source cannot submit any file.
    Same,
    /// The data folder is inside the folder of the source, at this relative path. The source ignores the data folder.
    Below(PathBuf),
}

impl FilesSource {
    /// Returns how the source overlaps with the data folder at the path `data`, which may not exist yet. Returns `None`
    /// if they do not overlap, or if the globs of the source exclude the data folder.
    pub fn overlap(&self, data: &Path) -> Option<Overlap> {
        let watched = FileId::of_path(&self.path).ok()?;
        let data = std::path::absolute(data).ok()?;
        let existing = data.ancestors().find(|folder| folder.exists())?;
        let missing = data.strip_prefix(existing).ok()?;
        let existing = existing.canonicalize().ok()?;
        let top = existing.ancestors().find(|folder| FileId::of_path(folder).is_ok_and(|id| id == watched))?;
        // Do not use `join`: with an empty `missing`, it appends a `/`, and globs do not match a path that ends with
        // `/`.
        let below: PathBuf = existing.strip_prefix(top).ok()?.components().chain(missing.components()).collect();
        if below.as_os_str().is_empty() {
            return Some(Overlap::Same);
        }
        let excludes = |filter: Filter| !filter.enters(&below) || !filter.includes_below(&below);
        let excluded = Filter::new(self).is_ok_and(excludes);
        (!excluded).then_some(Overlap::Below(below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evoke_manifest::ByteSize;
    use std::time::Duration;

    #[test]
    fn the_data_folder_is_found_below_the_watched_folder_however_both_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("project/inbox")).unwrap();
        std::os::unix::fs::symlink("project", at("link")).unwrap();
        let source = |watched: &str, include: &str, exclude: &[&str]| FilesSource {
            path: at(watched),
            include: vec![include.into()],
            exclude: exclude.iter().map(ToString::to_string).collect(),
            settle: Duration::ZERO,
            content: false,
            max_content: ByteSize(1),
            max_size: ByteSize(1),
            hard_links: false,
            existing: true,
        };
        let overlap = |watched: &str, exclude: &[&str], data: &str| source(watched, "**/*", exclude).overlap(&at(data));
        let below = |path: &str| Some(Overlap::Below(path.into()));
        // The data folder does not exist yet.
        assert_eq!(overlap("project", &[], "project/.evoke"), below(".evoke"));
        std::fs::create_dir(at("project/.evoke")).unwrap();
        for (watched, data) in
            [("project", "link/.evoke"), ("link", "project/.evoke"), ("project/../link", "link/.evoke")]
        {
            assert_eq!(overlap(watched, &[], data), below(".evoke"), "{watched} {data}");
        }
        assert_eq!(overlap(".", &[], "project/.evoke"), below("project/.evoke"));
        assert_eq!(overlap("project/.evoke", &[], "link/.evoke"), Some(Overlap::Same));
        assert_eq!(overlap("project/inbox", &[], "project/.evoke"), None);
        assert_eq!(overlap("missing", &[], "project/.evoke"), None);
        for exclude in [".evoke", ".evoke/**", "**/.evoke"] {
            assert_eq!(overlap("project", &[exclude], "project/.evoke"), None, "{exclude}");
        }
        for (include, found) in [("*.csv", None), ("inbox/**", None), ("*/*.db", below(".evoke"))] {
            assert_eq!(source("project", include, &[]).overlap(&at("project/.evoke")), found, "{include}");
        }
    }
}
