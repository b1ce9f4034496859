//! The check `file`: the presence, age, size and checksum of files.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use evoke_manifest::Place;
use evoke_manifest::parser::{Node, Reader, Table, ValueError, excerpt};
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::super::quantity::Unit;
use super::{Finding, Found, Measure, choice, disk, globs};

/// Maximum size of a file whose checksum is computed.
const CHECKSUM_BYTES_MAX: u64 = 256 << 20;

/// Reads a property of a file. A file that does not exist is critical.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "FileReading")]
pub(in super::super) struct File {
    /// Path of the file. With wildcards, such as `/var/backups/*.gz`, each file that matches is watched separately.
    #[schemars(length(min = 1))]
    path: PathBuf,
    /// The measured quantity.
    #[serde(default)]
    of: Of,
    /// For `of: checksum`: the expected SHA-256, in hexadecimal. If the file has another checksum, the state is
    /// critical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "FileOf")]
enum Of {
    /// Whether the file exists.
    #[default]
    Present,
    /// The time since the last change of the file.
    Age,
    /// The size of the file.
    Size,
    /// Whether the content of the file has the checksum `sha256`.
    Checksum,
}

pub(super) fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<File> {
    let example = "`file: { path: /var/backups/last.gz, of: age }`";
    let mut table = Table::read(reader, node, place.key_span, "FileReading", "`file`", example)?;
    let path = table.required(reader, "path", &["file", "name"], "`path: FILE`");
    let path = path.and_then(|node| disk::path_or_glob(reader, place, node));
    let of = table.optional(reader, "of");
    let words = [("present", Of::Present), ("age", Of::Age), ("size", Of::Size), ("checksum", Of::Checksum)];
    let of = choice(reader, of, "`of`", &words);
    let sha256 = table.optional(reader, "sha256").and_then(|node| reader.parse_text(node, "`sha256`", checksum));
    if of == Of::Checksum && !table.has("sha256") {
        let help = "add `sha256: HEX`, as `sha256sum FILE` prints it";
        reader.error(table.span(), "`of: checksum` needs the expected checksum", help);
    }
    if of != Of::Checksum && table.has("sha256") {
        reader.error(table.key_span("sha256"), "`sha256` has no effect without `of: checksum`", "add `of: checksum`");
    }
    table.reject_unknown_keys(reader, |key| (key == "checksum").then_some("write `of: checksum` and `sha256: HEX`"));
    Some(File { path: path?, of, sha256 })
}

fn checksum(text: &str) -> Result<String, ValueError> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    let message = format!("`{}` is not a SHA-256 checksum", excerpt(text));
    Err(ValueError::new(message, "write 64 hexadecimal digits, as `sha256sum FILE` prints them"))
}

impl File {
    pub(super) fn measure(&self) -> Measure {
        let measure = match self.of {
            Of::Present | Of::Checksum => Measure::below(&[Unit::Count]),
            Of::Age => Measure::above(&[Unit::Seconds]),
            Of::Size => Measure::above(&[Unit::Bytes]),
        };
        measure.with_own_levels()
    }

    /// Returns the only subject; `None` for a path with wildcards.
    pub(super) fn fixed(&self) -> Option<String> {
        (!globs::is_glob(&self.path.to_string_lossy())).then(|| globs::shown(&self.path))
    }

    pub(super) fn covers(&self, subject: &str) -> bool {
        self.fixed().map_or_else(|| globs::path_matches(&self.path, subject), |fixed| fixed == subject)
    }

    pub(super) fn read(&self) -> Vec<Finding> {
        if let Some(subject) = self.fixed() {
            return vec![Finding::new(subject, self.of_path(&self.path))];
        }
        let all = globs::expand(&self.path).into_iter().filter(|path| path.is_file());
        all.map(|path| Finding::new(globs::shown(&path), self.of_path(&path))).collect()
    }

    fn of_path(&self, path: &Path) -> Result<Found, String> {
        let metadata = match path.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Found::critical("the file does not exist"));
            }
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        Ok(match self.of {
            Of::Present => Found::value(1.0),
            Of::Age => {
                let modified = metadata.modified().map_err(|error| error.to_string())?;
                // If the time of modification is in the future, the age is 0.
                let age = SystemTime::now().duration_since(modified).unwrap_or_default();
                Found::value(age.as_secs_f64())
            }
            Of::Size => Found::value(metadata.len() as f64),
            Of::Checksum => {
                let found = digest(path)?;
                if self.sha256.as_ref() == Some(&found) {
                    Found::value(1.0)
                } else {
                    Found { value: Some(0.0), ..Found::critical(format!("the file has another checksum: {found}")) }
                }
            }
        })
    }
}

fn digest(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut file = evoke_fs::open_regular(path).map_err(failed)?.take(CHECKSUM_BYTES_MAX + 1);
    let (mut digest, mut buffer, mut total) = (Sha256::new(), vec![0; 64 * 1024], 0_u64);
    loop {
        let read = file.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            break;
        }
        total += read as u64;
        digest.update(buffer.get(..read).unwrap_or_default());
    }
    if total > CHECKSUM_BYTES_MAX {
        let (path, mib) = (path.display(), CHECKSUM_BYTES_MAX >> 20);
        return Err(format!("{path} is too large for a checksum: it has more than {mib} MiB"));
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use evoke_threshold::Level;

    #[test]
    fn a_file_is_read_by_presence_age_size_and_checksum() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let read = |of, sha256: Option<&str>| {
            File { path: path.clone(), of, sha256: sha256.map(str::to_owned) }.of_path(&path).unwrap()
        };
        assert_eq!(read(Of::Present, None).at_least, Level::Critical);
        std::fs::write(&path, "hello").unwrap();
        assert_eq!(read(Of::Present, None).at_least, Level::Ok);
        assert_eq!(read(Of::Size, None), Found::value(5.0));
        assert!((0.0..60.0).contains(&read(Of::Age, None).value.unwrap()));
        let right = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(read(Of::Checksum, Some(right)).at_least, Level::Ok);
        assert_eq!(read(Of::Checksum, Some(&"0".repeat(64))).at_least, Level::Critical);
    }
}
