//! The check `disk`: the space and the inodes of file systems.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use evoke_manifest::Place;
use evoke_manifest::parser::{Node, Reader, Table};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::quantity::Unit;
use super::{Finding, Found, Measure, choice, globs};

/// Reads the space of the file system at a path.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "DiskReading")]
pub(in super::super) struct Disk {
    /// A path on the file system. With wildcards, such as `/mnt/*`, each mounted file system that matches is watched
    /// separately.
    #[schemars(length(min = 1))]
    pub(in super::super) path: PathBuf,
    /// The measured quantity.
    #[serde(default)]
    of: Of,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "DiskOf")]
enum Of {
    /// The used space, as a size or in percent of the space that users can use.
    #[default]
    Used,
    /// The space that users can still use, as a size or in percent; low values are bad.
    Free,
    /// The used inodes, as a number or in percent.
    Inodes,
}

pub(super) fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Disk> {
    let mut table = Table::read(reader, node, place.key_span, "DiskReading", "`disk`", "`disk: { path: / }`")?;
    let path = table.required(reader, "path", &["mount", "device", "folder"], "`path: /`, a path on the disk");
    let path = path.and_then(|node| path_or_glob(reader, place, node));
    let of = table.optional(reader, "of");
    let of = choice(reader, of, "`of`", &[("used", Of::Used), ("free", Of::Free), ("inodes", Of::Inodes)]);
    table.reject_unknown_keys(reader, |key| match key {
        "warning" | "critical" | "clear" | "for" => Some("write the key next to `disk`, not inside `disk`"),
        "mount" | "device" | "folder" => Some("did you mean `path`?"),
        _ => None,
    });
    Some(Disk { path: path?, of })
}

/// Reads a path, which may have wildcards and may be relative to the manifest. Warns if the path does not exist, or if
/// nothing matches the wildcards.
pub(super) fn path_or_glob(reader: &mut Reader<'_>, place: &Place<'_>, node: &Node) -> Option<PathBuf> {
    let text = reader.parse_text(node, "`path`", globs::check_path)?;
    if text.starts_with('~') || text.contains('$') {
        let message = format!("`~` and variables are not expanded in the path `{text}`");
        reader.error(node.span, message, "write the full path");
        return None;
    }
    let path = std::path::absolute(place.folder.join(&text)).unwrap_or_else(|_| place.folder.join(&text));
    let is_glob = globs::is_glob(&text);
    let is_missing = if is_glob { globs::expand(&path).is_empty() } else { !path.exists() };
    if is_missing {
        let message = match is_glob {
            true => format!("no file or folder on this machine matches the path `{text}` now"),
            false => format!("the path `{text}` does not exist on this machine now"),
        };
        reader.warning(node.span, message, "check the spelling; the monitor reads the path once it exists");
    }
    Some(path)
}

impl Disk {
    pub(super) fn measure(&self) -> Measure {
        match self.of {
            Of::Used => Measure::above(&[Unit::Percent, Unit::Bytes]),
            Of::Free => Measure::below(&[Unit::Percent, Unit::Bytes]),
            Of::Inodes => Measure::above(&[Unit::Percent, Unit::Count]),
        }
    }

    /// Returns the only subject; `None` for a path with wildcards.
    pub(super) fn fixed(&self) -> Option<String> {
        (!globs::is_glob(&self.path.to_string_lossy())).then(|| globs::shown(&self.path))
    }

    pub(super) fn covers(&self, subject: &str) -> bool {
        self.fixed().map_or_else(|| globs::path_matches(&self.path, subject), |fixed| fixed == subject)
    }

    pub(super) fn read(&self, unit: Unit) -> Vec<Finding> {
        if let Some(subject) = self.fixed() {
            return vec![Finding::new(subject, self.space(&self.path, unit))];
        }
        let mounted = globs::expand(&self.path).into_iter().filter(|path| is_mount_point(path));
        mounted.map(|path| Finding::new(globs::shown(&path), self.space(&path, unit))).collect()
    }

    fn space(&self, path: &Path, unit: Unit) -> Result<Found, String> {
        let stat = rustix::fs::statvfs(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let (total, free, available) = match self.of {
            Of::Used | Of::Free => (stat.f_blocks, stat.f_bfree, stat.f_bavail),
            Of::Inodes => (stat.f_files, stat.f_ffree, stat.f_ffree),
        };
        let used = total.saturating_sub(free);
        // Computed as `df` does, without the space that is reserved for root.
        let usable = used.saturating_add(available);
        let part = if self.of == Of::Free { available } else { used };
        let block = if self.of == Of::Inodes { 1 } else { stat.f_frsize };
        Ok(Found::value(match unit {
            // Some file systems report 0 inodes or 0 blocks in total.
            Unit::Percent if usable == 0 => 0.0,
            Unit::Percent => part as f64 * 100.0 / usable as f64,
            _ => part as f64 * block as f64,
        }))
    }
}

/// Returns true if another file system begins at the path.
fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| path.metadata().ok().map(|metadata| metadata.dev());
    match (device(path), path.parent().and_then(device)) {
        (Some(own), Some(parent)) => own != parent,
        (own, None) => own.is_some(),
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(disk: &Disk, unit: Unit) -> f64 {
        disk.space(&disk.path, unit).unwrap().value.unwrap()
    }

    #[test]
    fn the_space_of_a_file_system_is_read_in_each_unit() {
        let disk = |of| Disk { path: std::env::temp_dir(), of };
        let (used, free) = (value(&disk(Of::Used), Unit::Percent), value(&disk(Of::Free), Unit::Percent));
        assert!((99.0..=101.0).contains(&(used + free)), "{used} {free}");
        assert!(value(&disk(Of::Used), Unit::Bytes) > 0.0);
        assert!((0.0..=100.0).contains(&value(&disk(Of::Inodes), Unit::Percent)));
    }

    #[test]
    fn a_path_that_does_not_exist_is_unknown_and_a_glob_finds_mounts_only() {
        let gone = Disk { path: "/nowhere/at/all".into(), of: Of::Used };
        assert!(matches!(&gone.read(Unit::Percent)[..], [Finding { outcome: super::super::Outcome::Unknown(_), .. }]));
        let all = Disk { path: "/*".into(), of: Of::Used };
        let found = all.read(Unit::Percent);
        assert!(found.iter().any(|finding| finding.subject == "/proc"), "{found:?}");
        assert!(!found.iter().any(|finding| finding.subject == "/etc"), "{found:?}");
        assert!(all.covers("/mnt") && !all.covers("/mnt/a"));
    }
}
